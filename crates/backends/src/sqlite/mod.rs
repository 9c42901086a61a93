//! The embedded store: one SQLite file, one writer thread, a few reader threads.
//!
//! All writes go through one thread, which commits whatever has gathered while the last commit was on its way to the
//! disk: concurrent requests share one fsync (`threads`). Reads run on threads of their own, each with a connection,
//! and see every commit that was answered before they began.
//!
//! - `schema` holds the tables, `links` and `accounts` the statements, one file for each trait of the boundary.
//! - [`clicks`] keeps clicks in a file of their own, so that neither's writes wait for the other's.
//! - [`restore`] makes a copy safe to serve from.

mod accounts;
pub mod clicks;
mod links;
pub mod restore;
mod schema;
mod threads;

use rusqlite::Connection;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use terse_model::code_space::{CodeSpace, Generator, InvalidGenerator};
use terse_model::store::{Instance, StoreError};
use threads::{Readers, Writer};

/// How to open the store.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Initialises a new store with this generator; refuses an existing one that has another. `None` takes what is
    /// recorded, and [`Generator::DEFAULT`] for a new store.
    pub generator: Option<Generator>,
    /// Threads that look up single rows; one more reads lists.
    pub readers: usize,
    /// Page cache of each connection, in KiB.
    pub cache_kib: u32,
    /// Jobs that may wait for a reader or for the writer; more are refused as unavailable.
    pub queue_len_max: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions { generator: None, readers: 2, cache_kib: 8 * 1024, queue_len_max: 16 * 1024 }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file can't be opened, read or written.
    #[error("cannot open the store {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is a database of something else.
    #[error("{path:?} is not a terse store")]
    NotTerse {
        /// The file.
        path: PathBuf,
    },
    /// The store was written by a later version.
    #[error(
        "the store {path:?} has format {found}, and this terse knows formats up to {known}; use a newer terse"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The store was initialised with another generator.
    #[error(
        "the store was initialised with the code generator `{recorded}`, but `{configured}` is configured; \
         a store keeps its generator for ever, because another one would give codes a second time. \
         Remove the setting, or copy the links into a new store (terse export, terse import)"
    )]
    OtherGenerator {
        /// That of the store.
        recorded: Generator,
        /// That of the configuration.
        configured: Generator,
    },
    /// A record that every store has is missing or damaged.
    #[error("the store {path:?} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The embedded store. Cheap calls only: everything that touches the disk runs on its own threads.
#[derive(Debug)]
pub struct SqliteStore {
    instance: Instance,
    path: PathBuf,
    cache_kib: u32,
    /// Reads of one row, which redirects and keys wait for.
    lookups: Readers,
    /// Reads of many, which must not keep those waiting.
    queries: Readers,
    writer: Writer,
    known: Arc<Known>,
}

/// What one process knows of the code space without asking its file: which codes can't be in use.
#[derive(Debug)]
struct Known {
    /// Every id below this one is leased. Raised after the lease is committed and before anybody learns of it.
    mark: AtomicU64,
    /// Ids at or above the mark that a name spells.
    reserved: RwLock<Reserved>,
}

/// Lookups that share a transaction: enough to share its cost, few enough to leave some for the other reader.
const LOOKUPS_LEN: usize = 16;

/// Lists and the like that may wait; each reads some thousand rows at most.
const QUERIES_LEN_MAX: usize = 256;

/// Above this many reserved ids, memory is worth more than the shortcut.
const RESERVED_LEN_MAX: usize = 1_000_000;

#[derive(Debug)]
enum Reserved {
    Known(HashSet<u64>),
    TooMany,
}

impl SqliteStore {
    /// Opens the store in the file `path`, and makes and initialises it when it is not there.
    pub fn open(path: &Path, options: &SqliteOptions) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let mut writer = schema::open_connection(path, options.cache_kib, false).map_err(io)?;
        schema::migrate(&mut writer, path, options.generator)?;
        let instance = read_instance(&writer, path)?;
        let recorded = instance.codes.generator();
        if let Some(configured) = options.generator.filter(|configured| *configured != recorded) {
            return Err(OpenError::OtherGenerator { recorded, configured });
        }
        let mark = links::read_mark(&writer).map_err(io)?;
        let reserved = links::read_reserved_from(&writer, mark, RESERVED_LEN_MAX).map_err(io)?;
        let connections = |count: usize| {
            let open = |_| schema::open_connection(path, options.cache_kib, true);
            (0..count).map(open).collect::<Result<Vec<Connection>, _>>().map_err(io)
        };
        Ok(SqliteStore {
            instance,
            path: path.to_owned(),
            cache_kib: options.cache_kib,
            lookups: Readers::start_sharing(
                connections(options.readers.max(1))?,
                options.queue_len_max,
                LOOKUPS_LEN,
            ),
            queries: Readers::start(connections(1)?, QUERIES_LEN_MAX),
            writer: Writer::start(writer, options.queue_len_max, || ()),
            known: Arc::new(Known {
                mark: AtomicU64::new(mark),
                reserved: RwLock::new(reserved.map_or(Reserved::TooMany, Reserved::Known)),
            }),
        })
    }

    /// What this store was initialised with.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Writes a consistent copy of the store as of now into the new file `path`, while serving goes on.
    pub async fn backup(&self, path: &Path) -> Result<(), StoreError> {
        backup(&self.path, path, self.cache_kib).await
    }
}

impl Known {
    fn raise_mark(&self, mark: u64) {
        self.mark.fetch_max(mark, Ordering::AcqRel);
    }

    fn is_unused(&self, id: u64) -> bool {
        id >= self.mark.load(Ordering::Acquire)
            && match &*self.reserved.read().expect("no code panics under this lock") {
                Reserved::Known(ids) => !ids.contains(&id),
                Reserved::TooMany => false,
            }
    }

    fn note_reserved(&self, new: &[u64]) {
        let mut reserved = self.reserved.write().expect("no code panics under this lock");
        if let Reserved::Known(ids) = &mut *reserved {
            ids.extend(new);
            if ids.len() > RESERVED_LEN_MAX {
                *reserved = Reserved::TooMany;
            }
        }
    }
}

/// Copies the database `from` as of now into the new file `to`, on a thread and a connection of its own: it may take
/// minutes.
async fn backup(from: &Path, to: &Path, cache_kib: u32) -> Result<(), StoreError> {
    let to = to.to_owned();
    let connection = schema::open_connection(from, cache_kib, true).map_err(store_error)?;
    Readers::start(vec![connection], 1)
        .run(move |connection| {
            let text = to
                .to_str()
                .ok_or_else(|| StoreError::Internal(format!("the path {to:?} is not UTF-8").into()))?;
            connection.execute("VACUUM INTO ?1", [text]).map(drop).map_err(store_error)
        })
        .await
}

fn read_instance(connection: &Connection, path: &Path) -> Result<Instance, OpenError> {
    let damaged = |what: &str| OpenError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let blob = |key: &str| -> Result<Vec<u8>, OpenError> {
        schema::meta(connection, key)
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?
            .ok_or_else(|| damaged(&format!("it has no `{key}`")))
    };
    let generator = String::from_utf8(blob("generator")?)
        .map_err(|_| InvalidGenerator)
        .and_then(|text| text.parse())
        .map_err(|_: InvalidGenerator| damaged("its generator is unknown"))?;
    let key: [u8; 16] =
        blob("code_key")?.try_into().map_err(|_| damaged("its code key has a wrong length"))?;
    let node: [u8; 8] = blob("node_id")?.try_into().map_err(|_| damaged("its node id has a wrong length"))?;
    let secret: [u8; 32] =
        blob("secret")?.try_into().map_err(|_| damaged("its secret has a wrong length"))?;
    Ok(Instance { node_id: u64::from_be_bytes(node), codes: CodeSpace::new(generator, &key), secret })
}

/// Tells apart what may pass (full, busy, I/O) from what will not.
fn store_error(error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::DatabaseCorrupt | Code::NotADatabase) => StoreError::Corrupt(error.to_string()),
        Some(
            Code::DiskFull
            | Code::SystemIoFailure
            | Code::DatabaseBusy
            | Code::DatabaseLocked
            | Code::CannotOpen
            | Code::OutOfMemory
            | Code::ReadOnly
            | Code::PermissionDenied,
        ) => StoreError::Unavailable(Box::new(error)),
        _ => StoreError::Internal(Box::new(error)),
    }
}
