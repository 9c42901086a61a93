//! The data folder: one server at a time, and a way for the command line to find it.
//!
//! A server holds a lock on the folder, and listens on a Unix socket in a run folder of its own with mode 0700. A
//! socket's path is short by nature (108 bytes) and a data folder's may not be, so the data folder only names it.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LOCK: &str = "lock";
const RUN: &str = "run";
const STORE: &str = "terse.db";
const CLICKS: &str = "clicks.db";
const JOURNAL: &str = "journal";
const SALT: &str = "visitor-salt";
const SOCKET: &str = "terse.sock";
/// Longest path of a Unix socket on Linux, with its end mark.
const SOCKET_PATH_LEN_MAX: usize = 108;

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It can't be made, read or written.
    #[error("cannot use the data folder {path:?}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another terse uses it.
    #[error("the data folder {path:?} is in use by another terse")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// A data folder that nobody else uses.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    run: Option<TempDir>,
    // Held as long as the folder is in use; closing it releases the lock, also when the process dies.
    _lock: File,
}

impl DataDir {
    /// Makes the folder if it is absent, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        }
        let lock = private_file().truncate(false).open(path.join(LOCK)).map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataDirError::InUse { path: path.to_owned() }),
            Err(error) => return Err(io(error.into())),
        }
        // Left over from a server that was killed, or copied with the folder: nobody serves from it now.
        match fs::remove_file(path.join(RUN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        // SQLite gives its other files the mode of this one.
        for database in [STORE, CLICKS] {
            private_file().truncate(false).open(path.join(database)).map_err(io)?;
        }
        Ok(DataDir { path: path.to_owned(), run: None, _lock: lock })
    }

    /// The embedded store's file.
    pub fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// The file of statistics.
    pub fn clicks_path(&self) -> PathBuf {
        self.path.join(CLICKS)
    }

    /// The folder of the journal of clicks.
    pub fn journal_path(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// The file of the day's salt for visitor hashes.
    pub fn salt_path(&self) -> PathBuf {
        self.path.join(SALT)
    }

    /// Listens on a new socket in a new run folder, and notes it for the command line.
    pub fn listen(&mut self) -> io::Result<UnixListener> {
        let run = run_folder()?;
        let listener = UnixListener::bind(run.path().join(SOCKET))?;
        listener.set_nonblocking(true)?;
        let mut note = tempfile::Builder::new().prefix("run-").tempfile_in(&self.path)?;
        note.write_all(run.path().as_os_str().as_encoded_bytes())?;
        note.persist(self.path.join(RUN))?;
        self.run = Some(run);
        Ok(listener)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.run.is_some() {
            let _ = fs::remove_file(self.path.join(RUN));
        }
    }
}

/// The socket of the server that uses the data folder, if its run folder is one that only we could have made.
pub fn socket_of(data_dir: &Path) -> io::Result<Option<PathBuf>> {
    let note = match fs::read(data_dir.join(RUN)) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(text) = String::from_utf8(note) else { return Ok(None) };
    let run = PathBuf::from(text);
    let Ok(metadata) = fs::symlink_metadata(&run) else { return Ok(None) };
    let owner = fs::metadata(data_dir)?.uid();
    let is_ours = metadata.is_dir() && metadata.mode() & 0o077 == 0 && metadata.uid() == owner;
    Ok(is_ours.then(|| run.join(SOCKET)))
}

/// Whether the folder is absent or empty.
pub fn is_vacant(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The store's file in a data folder.
pub fn store_path(data_dir: &Path) -> PathBuf {
    data_dir.join(STORE)
}

/// A file that only its owner may read and write.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn run_folder() -> io::Result<TempDir> {
    let candidates =
        ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let candidates = candidates.chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
    let mut last = io::Error::other("no folder for the local socket");
    for parent in candidates.filter(|parent| parent.is_dir()) {
        let made = tempfile::Builder::new()
            .prefix("terse-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent);
        match made {
            Ok(run) if run.path().join(SOCKET).as_os_str().len() < SOCKET_PATH_LEN_MAX => return Ok(run),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}
