//! Tables of the file of clicks, and from when on it holds all raw events.

use super::SqliteClickOptions;
use crate::sqlite::{OpenError, schema, store_error};
use rusqlite::{Connection, ErrorCode};
use std::path::Path;
use terse_model::click::Day;
use terse_model::store::{Result, StoreError};

/// "terc" as SQLite's application id.
pub(super) const APPLICATION_ID: i64 = 0x7465_7263;
/// The format of the tables below.
pub(super) const FORMAT: i64 = 1;

/// A subject is a number: a link's id, or a negative one from `subjects`.
///
/// `days` has the day first, so that the writes of a day stay in one region of the tree, in the order of a batch. To
/// compare keys in a tree without row ids, SQLite reads the whole row, its overflow pages too. So a rollup that does
/// not fit in a page beside its neighbours is in `large`, whose tree compares row ids only, and where a summary is
/// read without the detail behind it.
///
/// `blocks` holds raw events by the hour of their own time: hours are what scans, recounts and retention go by. A
/// block is packed when it is one of a run that shares out the hour by links.
const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE positions (
  reader INTEGER NOT NULL, lane INTEGER NOT NULL, segment INTEGER NOT NULL, byte INTEGER NOT NULL,
  PRIMARY KEY (reader, lane)
) WITHOUT ROWID;

CREATE TABLE subjects (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE days (
  day INTEGER NOT NULL, subject INTEGER NOT NULL, summary BLOB, detail BLOB, large INTEGER,
  PRIMARY KEY (day, subject)
) WITHOUT ROWID;
CREATE TABLE large (id INTEGER PRIMARY KEY, summary BLOB NOT NULL, detail BLOB NOT NULL);
CREATE TABLE totals (
  subject INTEGER PRIMARY KEY, human INTEGER NOT NULL, every INTEGER NOT NULL, visitors INTEGER NOT NULL,
  first_day INTEGER NOT NULL, last_day INTEGER NOT NULL
);

CREATE TABLE blocks (
  id INTEGER PRIMARY KEY, hour INTEGER NOT NULL, link_min INTEGER NOT NULL, link_max INTEGER NOT NULL,
  time_min INTEGER NOT NULL, time_max INTEGER NOT NULL, events INTEGER NOT NULL, packed INTEGER NOT NULL,
  data BLOB NOT NULL
);
CREATE INDEX blocks_by_hour ON blocks (hour, link_min, link_max, time_min, time_max, events, packed);
CREATE INDEX blocks_loose ON blocks (hour, events) WHERE packed = 0;
";

/// A batch of rollups touches pages all over the file; those that it shares with the next batches are folded into the
/// file once. 64 MiB, as much as is kept of the log.
const CHECKPOINT_PAGES: i64 = 16_000;

/// From this day on, all raw events are kept; four bytes.
const RAW_FROM: &str = "raw_from";
/// Whether the last run kept raw events; one byte.
const RAW_KEPT: &str = "raw_kept";
/// The number of the last batch of rollups; eight bytes.
const BATCH: &str = "batch";

/// Opens the file for writing; a new one gets its tables.
pub(super) fn open(path: &Path, options: &SqliteClickOptions) -> std::result::Result<Connection, OpenError> {
    let io = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotTerse { path: path.to_owned() },
        _ => OpenError::Io { path: path.to_owned(), source },
    };
    let mut connection = schema::open_connection(path, options.cache_kib, false).map_err(io)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(io)?;
    let is_new = super::is_new(&connection, path)?;
    let transaction = connection.transaction().map_err(io)?;
    if is_new {
        transaction.execute_batch(TABLES).map_err(io)?;
        schema::set_meta(&transaction, BATCH, &0_u64.to_be_bytes()).map_err(io)?;
        // There were no clicks before.
        schema::set_meta(&transaction, RAW_FROM, &i32::MIN.to_be_bytes()).map_err(io)?;
        schema::set_meta(&transaction, RAW_KEPT, &[u8::from(options.keeps_raw)]).map_err(io)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(io)?;
        transaction.pragma_update(None, "user_version", FORMAT).map_err(io)?;
    } else {
        note_raw(&transaction, options).map_err(|error| match error {
            StoreError::Corrupt(what) => OpenError::Damaged { path: path.to_owned(), what },
            error => OpenError::Damaged { path: path.to_owned(), what: error.to_string() },
        })?;
    }
    transaction.commit().map_err(io)?;
    Ok(connection)
}

/// A day on which keeping raw events was off for a while is not covered, nor is any before it.
fn note_raw(connection: &Connection, options: &SqliteClickOptions) -> Result<()> {
    let [was_kept] = number(connection, RAW_KEPT)?;
    if options.keeps_raw && was_kept == 0 {
        raise_raw_from(connection, Day::of(options.now).next())?;
    }
    schema::set_meta(connection, RAW_KEPT, &[u8::from(options.keeps_raw)]).map_err(store_error)
}

/// From which day on all raw events are kept, provided that they are kept now.
pub(super) fn raw_from(connection: &Connection) -> Result<Day> {
    number(connection, RAW_FROM).map(i32::from_be_bytes).map(Day)
}

/// Notes that raw events of days before this one are not complete.
pub(super) fn raise_raw_from(connection: &Connection, day: Day) -> Result<()> {
    if day <= raw_from(connection)? {
        return Ok(());
    }
    schema::set_meta(connection, RAW_FROM, &day.0.to_be_bytes()).map_err(store_error)
}

/// The number of the last batch of rollups.
pub(super) fn batch(connection: &Connection) -> Result<u64> {
    number(connection, BATCH).map(u64::from_be_bytes)
}

/// Sets the number of the last batch of rollups.
pub(super) fn set_batch(connection: &Connection, batch: u64) -> Result<()> {
    schema::set_meta(connection, BATCH, &batch.to_be_bytes()).map_err(store_error)
}

fn number<const N: usize>(connection: &Connection, key: &str) -> Result<[u8; N]> {
    let value = schema::meta(connection, key).map_err(store_error)?;
    value
        .and_then(|value| value.try_into().ok())
        .ok_or_else(|| StoreError::Corrupt(format!("the file of clicks has no `{key}`")))
}
