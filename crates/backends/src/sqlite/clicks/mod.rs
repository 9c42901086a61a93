//! Clicks in a SQLite file of their own: rollups and raw events, each exactly once with the journal.
//!
//! One thread writes. Reads of rollups have threads of their own, and so have scans of raw events, since those run at
//! the speed of whoever takes the events.
//!
//! - `schema` holds the tables.
//! - `rollups` adds batches to rollups and totals, and reads them.
//! - `raw` keeps raw events in blocks, and erases them; `scan` reads them in the order of time.
//! - `recount` makes a day's rollups anew from its raw events.
//! - `upkeep` merges small blocks and drops old ones.

mod raw;
mod recount;
mod rollups;
mod scan;
mod schema;
#[cfg(test)]
mod tests;
mod upkeep;

use super::threads::{Readers, Writer};
use super::{OpenError, store_error};
use crate::priority::give_way;
use async_trait::async_trait;
use rusqlite::{Connection, Params, params};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use terse_model::click::{Click, Day, Subject, Totals, VisitorHash};
use terse_model::click_block::ClickBlock;
use terse_model::click_store::{
    ClickScan, ClickStore, ClickVisitor, DayDifference, Position, Positions, Reclassify, RollupBatch,
    RollupPart, RollupsFound,
};
use terse_model::code_space::LinkId;
use terse_model::store::{Result, StoreError};
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;

/// How to open the file of clicks.
#[derive(Clone, Debug)]
pub struct SqliteClickOptions {
    /// Whether this run keeps raw events. A day in which one did not is never covered by them.
    pub keeps_raw: bool,
    /// When it is opened.
    pub now: Timestamp,
    /// Page cache of each connection, in KiB.
    pub cache_kib: u32,
    /// Jobs that may wait for the readers, for scans or for the writer; more are refused as unavailable.
    pub queue_len_max: usize,
}

impl SqliteClickOptions {
    /// The usual ones, as of now.
    pub fn new(now: Timestamp) -> Self {
        SqliteClickOptions { keeps_raw: true, now, cache_kib: 8 * 1024, queue_len_max: 1024 }
    }
}

/// Threads that read rollups.
const READERS: usize = 2;
/// Threads that scan. More than there may be slow exports, so that statistics don't wait for those.
const SCANNERS: usize = 4;

/// The embedded store of clicks. Cheap calls only: everything that touches the disk runs on its own threads.
#[derive(Debug)]
pub struct SqliteClickStore {
    path: PathBuf,
    cache_kib: u32,
    keeps_raw: bool,
    queries: Readers,
    scans: Readers,
    writer: Writer,
}

/// Who follows the journal, as in the table of positions.
#[derive(Clone, Copy)]
enum Reader {
    Rollups = 0,
    Raw = 1,
}

/// Whether a file holds nothing yet; what is no file of clicks is an error.
pub(super) fn is_new(connection: &Connection, path: &Path) -> std::result::Result<bool, OpenError> {
    super::schema::is_new(connection, path, schema::APPLICATION_ID, schema::FORMAT)
}

impl SqliteClickStore {
    /// Opens the file `path`, and makes it when it is not there.
    pub fn open(path: &Path, options: &SqliteClickOptions) -> std::result::Result<Self, OpenError> {
        let writer = schema::open(path, options)?;
        let connections = |count: usize| {
            let open = |_| super::schema::open_connection(path, options.cache_kib, true);
            let opened = (0..count).map(open).collect::<rusqlite::Result<Vec<Connection>>>();
            opened.map_err(|source| OpenError::Io { path: path.to_owned(), source })
        };
        Ok(SqliteClickStore {
            path: path.to_owned(),
            cache_kib: options.cache_kib,
            keeps_raw: options.keeps_raw,
            queries: Readers::start(connections(READERS)?, options.queue_len_max),
            scans: Readers::start(connections(SCANNERS)?, options.queue_len_max),
            writer: Writer::start(writer, options.queue_len_max, give_way),
        })
    }

    /// Writes a consistent copy of the file as of now into the new file `path`, while clicks are added.
    pub async fn backup(&self, path: &Path) -> Result<()> {
        super::backup(&self.path, path, self.cache_kib).await
    }

    /// Runs `read` on a snapshot.
    async fn query<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.queries
            .run(|connection| {
                let snapshot = connection.transaction().map_err(store_error)?;
                read(&snapshot)
            })
            .await
    }
}

#[async_trait]
impl ClickStore for SqliteClickStore {
    async fn positions(&self) -> Result<Positions> {
        let read = |connection: &Connection| {
            Ok(Positions {
                rollups: positions_get(connection, Reader::Rollups)?,
                raw: positions_get(connection, Reader::Raw)?,
                batch: schema::batch(connection)?,
            })
        };
        self.query(read).await
    }

    async fn rollups_add(&self, batch: RollupBatch) -> Result<()> {
        let add = move |connection: &Connection| {
            let last = schema::batch(connection)?;
            if last.checked_add(1) != Some(batch.number) {
                let what = format!("batch {} of rollups does not follow batch {last}", batch.number);
                return Err(StoreError::Internal(what.into()));
            }
            rollups::add(connection, &*batch.changes)?;
            positions_set(connection, Reader::Rollups, &batch.positions)?;
            schema::set_batch(connection, batch.number)
        };
        self.writer.run(add).await
    }

    async fn clicks_add(&self, clicks: Arc<ClickBlock>, positions: Vec<Position>) -> Result<()> {
        let add = move |connection: &Connection| {
            raw::add(connection, &clicks)?;
            positions_set(connection, Reader::Raw, &positions)
        };
        self.writer.run(add).await
    }

    async fn rollups_get(
        &self,
        subject: &Subject,
        days: Range<Day>,
        part: RollupPart,
    ) -> Result<RollupsFound> {
        let subject = subject.clone();
        let keeps_raw = self.keeps_raw;
        let read = move |connection: &Connection| {
            let raw_from = if keeps_raw { Some(schema::raw_from(connection)?) } else { None };
            let days = rollups::get(connection, &subject, days, part)?;
            Ok(RollupsFound { batch: schema::batch(connection)?, days, raw_from })
        };
        self.query(read).await
    }

    async fn totals_get(&self, subjects: Vec<Subject>) -> Result<(u64, Vec<Totals>)> {
        let read = move |connection: &Connection| {
            Ok((schema::batch(connection)?, rollups::totals(connection, &subjects)?))
        };
        self.query(read).await
    }

    async fn clicks_scan(&self, scan: ClickScan, mut visit: ClickVisitor) -> Result<()> {
        self.scans.run(move |connection| scan::run(connection, &scan, &mut *visit)).await
    }

    async fn day_recount(&self, day: Day, reclassify: Reclassify) -> Result<Option<DayDifference>> {
        if !self.keeps_raw {
            return Ok(None);
        }
        let recount = move |connection: &Connection| {
            if day < schema::raw_from(connection)? {
                return Ok(None);
            }
            recount::run(connection, day, Some(&reclassify)).map(Some)
        };
        self.writer.run(recount).await
    }

    async fn link_erase(&self, link: LinkId) -> Result<u64> {
        let erase = move |connection: &Connection| {
            rollups::erase(connection, link)?;
            let blocks = raw::blocks_with(connection, link)?;
            raw::erase(connection, &blocks, |click| click.link == link)
        };
        self.writer.run(erase).await
    }

    async fn visitor_erase(&self, visitor: VisitorHash, owner: Option<UserId>) -> Result<u64> {
        let is_theirs = move |click: &Click<'_>| {
            click.visitor == visitor && owner.is_none_or(|owner| click.owner == Some(owner))
        };
        // Looking through everything takes long, and must not keep the writer.
        let hours = self.scans.run(move |connection| raw::hours_with(connection, is_theirs)).await?;
        let keeps_raw = self.keeps_raw;
        let erase = move |connection: &Connection| {
            let mut erased = 0;
            for hour in &hours {
                let blocks = raw::blocks_of_hour(connection, *hour)?;
                erased += raw::erase(connection, &blocks, is_theirs)?;
            }
            let mut days: Vec<Day> = hours.iter().map(|hour| raw::day_of(*hour)).collect();
            days.dedup();
            let raw_from = schema::raw_from(connection)?;
            for day in days.into_iter().filter(|day| keeps_raw && *day >= raw_from) {
                recount::run(connection, day, None)?;
            }
            Ok(erased)
        };
        self.writer.run(erase).await
    }

    async fn upkeep(&self, raw_from: Option<Day>, now: Timestamp) -> Result<bool> {
        self.writer.run(move |connection| upkeep::step(connection, raw_from, now)).await
    }

    async fn ping(&self) -> Result<()> {
        self.query(|connection| schema::batch(connection).map(drop)).await?;
        // An empty transaction: the writer is alive and may take the lock.
        self.writer.run(|_| Ok(())).await
    }
}

fn positions_get(connection: &Connection, reader: Reader) -> Result<Vec<Position>> {
    let mut statement = connection
        .prepare_cached("SELECT lane, segment, byte FROM positions WHERE reader = ?1 ORDER BY lane")
        .map_err(store_error)?;
    let positions = statement.query_map([reader as i64], |row| {
        Ok(Position { lane: row.get(0)?, segment: row.get::<_, i64>(1)? as u64, offset: row.get(2)? })
    });
    positions.and_then(Iterator::collect).map_err(store_error)
}

fn positions_set(connection: &Connection, reader: Reader, positions: &[Position]) -> Result<()> {
    let mut statement = connection
        .prepare_cached(
            "INSERT OR REPLACE INTO positions (reader, lane, segment, byte) VALUES (?1, ?2, ?3, ?4)",
        )
        .map_err(store_error)?;
    for Position { lane, segment, offset } in positions {
        statement.execute(params![reader as i64, lane, *segment as i64, offset]).map_err(store_error)?;
    }
    Ok(())
}

/// A query's first column.
fn numbers(connection: &Connection, sql: &str, values: impl Params) -> Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    let numbers = statement.query_map(values, |row| row.get(0));
    numbers.and_then(Iterator::collect).map_err(store_error)
}

/// Runs a statement that answers nothing.
fn execute(connection: &Connection, sql: &str, values: impl Params) -> Result<()> {
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    statement.execute(values).map(drop).map_err(store_error)
}
