//! Makes a copy of a store safe to serve from.
//!
//! The original went on to give out codes after the copy was made. So a copy skips far ahead before it gives out any,
//! and takes a node id of its own.

use super::{OpenError, clicks, links, schema};
use rusqlite::Connection;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How many ids a copy skips: more than any server gives out between a backup and its restore.
const SKIPPED_IDS: u64 = 1 << 30;

/// Checks that `path` is an intact store, skips ids and takes a new node id.
pub fn make_safe(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let mut connection = open(path)?;
    schema::migrate(&mut connection, path, None)?;
    check_pages(&connection, path)?;
    super::read_instance(&connection, path)?;
    let transaction = connection.transaction().map_err(io)?;
    let mark = links::read_mark(&transaction).map_err(io)?;
    let damaged = |what: &str| OpenError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let next = mark.checked_add(SKIPPED_IDS).ok_or_else(|| damaged("its ids are used up"))?;
    links::write_mark(&transaction, next).map_err(io)?;
    schema::renew_node_id(&transaction).map_err(io)?;
    transaction.commit().map_err(io)?;
    // One file, so that it can be moved into place.
    schema::checkpoint(&connection).map_err(io)
}

/// Checks that `path` is an intact file of clicks, and makes it one file. Nothing in it needs to be changed: a journal
/// goes on above every position that is saved.
pub fn check_clicks(path: &Path) -> Result<(), OpenError> {
    let connection = open(path)?;
    if clicks::is_new(&connection, path)? {
        return Err(OpenError::NotTerse { path: path.to_owned() });
    }
    check_pages(&connection, path)?;
    schema::checkpoint(&connection).map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

fn open(path: &Path) -> Result<Connection, OpenError> {
    if !path.is_file() {
        return Err(OpenError::NotTerse { path: path.to_owned() });
    }
    check_length(path)?;
    schema::open_connection(path, 8 * 1024, false).map_err(|source| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::NotTerse { path: path.to_owned() },
        _ => OpenError::Io { path: path.to_owned(), source },
    })
}

/// Refuses an empty file, which SQLite would take for a new database, and one without a log that does not end with a
/// whole page: SQLite would take the missing bytes for zeros.
fn check_length(path: &Path) -> Result<(), OpenError> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let mut header = [0; 18];
    let read = File::open(path).and_then(|mut file| {
        file.read_exact(&mut header)?;
        Ok(file.metadata()?.len())
    });
    let Ok(length) = read else { return Err(OpenError::NotTerse { path: path.to_owned() }) };
    // 1 stands for 65,536.
    let page_len = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        len => u64::from(len.max(1)),
    };
    if header.starts_with(MAGIC) && length % page_len != 0 && !Path::new(&log).exists() {
        return Err(OpenError::Damaged { path: path.to_owned(), what: "its end is missing".to_owned() });
    }
    Ok(())
}

fn check_pages(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    if verdict == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: path.to_owned(), what: verdict }) }
}
