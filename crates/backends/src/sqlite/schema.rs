//! Tables and connections.

use super::OpenError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::path::Path;
use terse_model::code::BUILT_IN_WORDS;
use terse_model::code_space::{CodeSpace, Generator};

/// "ters" as SQLite's application id, so that `file` and terse itself know a store when they see one.
const APPLICATION_ID: i64 = 0x7465_7273;
/// The format of the tables below.
const FORMAT: i64 = 1;

/// A link's id is its row id: inserts append, a lookup by generated code is one descent in one tree.
/// `owner` is null for anonymous links; `name` is null for generated codes; `updated_at` is null until a change.
const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE links (
  id INTEGER PRIMARY KEY,
  domain INTEGER NOT NULL,
  owner INTEGER,
  flags INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER,
  expires_at INTEGER,
  target TEXT NOT NULL,
  name TEXT,
  clicks_used INTEGER NOT NULL,
  equal_hash INTEGER,
  manage_token BLOB,
  extra TEXT
);
CREATE INDEX links_by_owner ON links (owner, id);
CREATE INDEX links_by_expiry ON links (expires_at) WHERE expires_at IS NOT NULL AND flags & 128 = 0;
CREATE INDEX links_by_equal ON links (equal_hash) WHERE equal_hash IS NOT NULL;

CREATE TABLE names (domain INTEGER NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (domain, name))
  WITHOUT ROWID;

-- One row: every id below `next` is leased.
CREATE TABLE lease (only INTEGER PRIMARY KEY CHECK (only = 0), next INTEGER NOT NULL);
-- Ids whose generated code a name spells; whoever leases them steps over them.
CREATE TABLE reserved_ids (id INTEGER PRIMARY KEY);

CREATE TABLE answers (
  scope BLOB NOT NULL, part INTEGER NOT NULL, fingerprint BLOB NOT NULL, at INTEGER NOT NULL, answer BLOB NOT NULL,
  PRIMARY KEY (scope, part)
) WITHOUT ROWID;
CREATE INDEX answers_by_time ON answers (at);

CREATE TABLE users (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL, tier TEXT NOT NULL,
  created_at INTEGER NOT NULL
);
-- A key's id is drawn by chance: it tells nobody how many there are, and can't be hit by counting.
CREATE TABLE keys (
  id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, user INTEGER NOT NULL REFERENCES users (id),
  name TEXT NOT NULL, scopes INTEGER NOT NULL, creates_per_hour INTEGER, created_at INTEGER NOT NULL,
  expires_at INTEGER, last_used_at INTEGER
);
CREATE INDEX keys_by_user ON keys (user);
-- The default domain is not in here: its id is 0 and its name is configuration.
CREATE TABLE domains (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL);
";

/// A connection with the settings of its kind.
pub(super) fn open_connection(path: &Path, cache_kib: u32, read_only: bool) -> rusqlite::Result<Connection> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    // One plan for a statement whatever is bound to it; otherwise some are parsed anew for each row.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    if !read_only {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // In WAL mode, FULL is what makes every commit an fsync of the log.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    }
    Ok(connection)
}

/// Initialises a new file, accepts a known one, refuses any other.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    generator: Option<Generator>,
) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    if is_new(connection, path, APPLICATION_ID, FORMAT)? {
        initialise(connection, generator.unwrap_or(Generator::DEFAULT)).map_err(io)?;
    }
    Ok(())
}

/// Whether nothing is in the file yet. Refuses one of another application or of a later format.
pub(super) fn is_new(
    connection: &Connection,
    path: &Path,
    application_id: i64,
    format_known: i64,
) -> Result<bool, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let application: i64 = pragma(connection, "application_id").map_err(io)?;
    let format: i64 = pragma(connection, "user_version").map_err(io)?;
    if application == 0 && format == 0 && is_empty(connection).map_err(io)? {
        return Ok(true);
    }
    if application != application_id {
        return Err(OpenError::NotTerse { path: path.to_owned() });
    }
    if format > format_known {
        return Err(OpenError::TooNew { path: path.to_owned(), found: format, known: format_known });
    }
    Ok(false)
}

/// Folds the write-ahead log into the file, so that the store is one file.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// The value of a key in the meta table.
pub(super) fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

/// Sets the value of a key in the meta table.
pub(super) fn set_meta(connection: &Connection, key: &str, value: &[u8]) -> rusqlite::Result<()> {
    connection
        .execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![key, value])
        .map(drop)
}

/// A new random node id.
pub(super) fn renew_node_id(connection: &Connection) -> rusqlite::Result<()> {
    set_meta(connection, "node_id", &random::<8>())
}

fn initialise(connection: &mut Connection, generator: Generator) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    let key = random::<16>();
    set_meta(&transaction, "generator", generator.to_string().as_bytes())?;
    set_meta(&transaction, "code_key", &key)?;
    set_meta(&transaction, "secret", &random::<32>())?;
    renew_node_id(&transaction)?;
    let codes = CodeSpace::new(generator, &key);
    transaction.execute("INSERT INTO lease (only, next) VALUES (0, ?1)", [codes.first_id().0 as i64])?;
    for id in BUILT_IN_WORDS.iter().filter_map(|word| codes.decode(word)) {
        transaction.execute("INSERT OR IGNORE INTO reserved_ids (id) VALUES (?1)", [id.0 as i64])?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}
