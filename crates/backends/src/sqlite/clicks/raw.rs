//! Raw events in blocks by the hour of their time.

use super::{execute, numbers};
use crate::sqlite::store_error;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use terse_model::click::{Click, ClickId, Day};
use terse_model::click_block::ClickBlock;
use terse_model::code_space::LinkId;
use terse_model::store::{Result, StoreError};
use terse_model::time::Timestamp;

/// Events of a block at most: enough to compress well, few enough to read one link's without much of the others'.
pub(super) const BLOCK_LEN_MAX: usize = 4096;
/// Events of one hour that come at once and are as good as packed: merging them with more gains little.
const RUN_LEN_MIN: usize = 8 * BLOCK_LEN_MAX;

const HOUR_MILLIS: i64 = 3_600_000;
const DAY_HOURS: i64 = 24;

/// The hour that `at` lies in, counted from 1970-01-01.
pub(super) fn hour_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(HOUR_MILLIS)
}

/// The day of an hour.
pub(super) fn day_of(hour: i64) -> Day {
    Day(hour.div_euclid(DAY_HOURS) as i32)
}

/// The first hour of a day.
pub(super) fn first_hour(day: Day) -> i64 {
    i64::from(day.0) * DAY_HOURS
}

/// Keeps events.
pub(super) fn add(connection: &Connection, clicks: &ClickBlock) -> Result<()> {
    let mut hours: BTreeMap<i64, Vec<u128>> = BTreeMap::new();
    for index in 0..clicks.len() {
        let (link, at, _) = clicks.place(index);
        hours.entry(hour_of(at)).or_default().push(u128::from(link.0) << 32 | index as u128);
    }
    for (hour, mut order) in hours {
        // Plain numbers sort fastest. Events of one link then stand as they came, which mostly is the order of time.
        order.sort_unstable();
        let mut indices: Vec<u32> = order.into_iter().map(|place| place as u32).collect();
        for one_link in
            indices.chunk_by_mut(|a, b| clicks.place(*a as usize).0 == clicks.place(*b as usize).0)
        {
            one_link.sort_by_key(|index| clicks.place(*index as usize));
        }
        insert(connection, hour, clicks, &indices, indices.len() >= RUN_LEN_MIN)?;
    }
    Ok(())
}

/// Keeps events of one hour that are in order already.
pub(super) fn insert(
    connection: &Connection,
    hour: i64,
    clicks: &ClickBlock,
    indices: &[u32],
    is_packed: bool,
) -> Result<()> {
    let insert = "INSERT INTO blocks (hour, link_min, link_max, time_min, time_max, events, packed, data)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    for indices in indices.chunks(BLOCK_LEN_MAX) {
        let Extent { links, times } = Extent::of(clicks, indices);
        let data = clicks.encode(indices);
        let values = params![hour, links.0, links.1, times.0, times.1, indices.len() as i64, is_packed, data];
        execute(connection, insert, values)?;
    }
    Ok(())
}

/// Where an event is in an hour.
pub(super) fn place_of(click: &Click<'_>) -> (LinkId, Timestamp, ClickId) {
    (click.link, click.at, click.id)
}

/// The block of that number.
pub(super) fn load(connection: &Connection, id: i64) -> Result<ClickBlock> {
    let mut statement =
        connection.prepare_cached("SELECT data FROM blocks WHERE id = ?1").map_err(store_error)?;
    let mut rows = statement.query([id]).map_err(store_error)?;
    let row = rows.next().map_err(store_error)?;
    let data = row.and_then(|row| row.get_ref(0).ok()?.as_blob().ok());
    let damaged = || StoreError::Corrupt(format!("block {id} of clicks can't be read"));
    ClickBlock::decode(data.ok_or_else(damaged)?).map_err(|_| damaged())
}

/// Puts `clicks` in the place of a block of the same hour; none at all remove it.
pub(super) fn replace(connection: &Connection, id: i64, clicks: &ClickBlock) -> Result<()> {
    if clicks.is_empty() {
        return execute(connection, "DELETE FROM blocks WHERE id = ?1", [id]);
    }
    let indices: Vec<u32> = (0..clicks.len() as u32).collect();
    let Extent { links, times } = Extent::of(clicks, &indices);
    let update = "UPDATE blocks SET link_min = ?2, link_max = ?3, time_min = ?4, time_max = ?5, events = ?6,
                  data = ?7 WHERE id = ?1";
    let data = clicks.encode(&indices);
    execute(connection, update, params![id, links.0, links.1, times.0, times.1, clicks.len() as i64, data])
}

/// Removes the events that `is_theirs` takes from these blocks; returns how many there were.
pub(super) fn erase(
    connection: &Connection,
    blocks: &[i64],
    is_theirs: impl Fn(&Click<'_>) -> bool,
) -> Result<u64> {
    let mut erased = 0;
    for id in blocks {
        let block = load(connection, *id)?;
        let mut kept = ClickBlock::default();
        block.iter().filter(|click| !is_theirs(click)).for_each(|click| kept.push(&click));
        if kept.len() < block.len() {
            erased += (block.len() - kept.len()) as u64;
            replace(connection, *id, &kept)?;
        }
    }
    Ok(erased)
}

/// The blocks that may hold events of a link.
pub(super) fn blocks_with(connection: &Connection, link: LinkId) -> Result<Vec<i64>> {
    let sql = "SELECT id FROM blocks INDEXED BY blocks_by_hour WHERE link_min <= ?1 AND link_max >= ?1";
    numbers(connection, sql, [column(link)])
}

/// The blocks of an hour.
pub(super) fn blocks_of_hour(connection: &Connection, hour: i64) -> Result<Vec<i64>> {
    numbers(connection, "SELECT id FROM blocks INDEXED BY blocks_by_hour WHERE hour = ?1", [hour])
}

/// The next hour from `from` to `last` that has events.
pub(super) fn next_hour(connection: &Connection, from: i64, last: i64) -> Result<Option<i64>> {
    let sql = "SELECT hour FROM blocks WHERE hour >= ?1 AND hour <= ?2 ORDER BY hour LIMIT 1";
    Ok(numbers(connection, sql, [from, last])?.first().copied())
}

/// The hours that hold an event that `is_theirs` takes, in ascending order.
pub(super) fn hours_with(
    connection: &mut Connection,
    is_theirs: impl Fn(&Click<'_>) -> bool,
) -> Result<Vec<i64>> {
    let mut hours = Vec::new();
    let mut from = i64::MIN;
    while let Some(hour) = next_hour(connection, from, i64::MAX)? {
        // A snapshot for each hour: a long one would keep the log from being folded into the file.
        let snapshot = connection.transaction().map_err(store_error)?;
        for id in blocks_of_hour(&snapshot, hour)? {
            if load(&snapshot, id)?.iter().any(|click| is_theirs(&click)) {
                hours.push(hour);
                break;
            }
        }
        from = hour + 1;
    }
    Ok(hours)
}

/// A link's id as blocks are told apart by it; ids end below the highest.
pub(super) fn column(link: LinkId) -> i64 {
    i64::try_from(link.0).unwrap_or(i64::MAX)
}

/// The lowest and the highest of a block.
struct Extent {
    links: (i64, i64),
    times: (i64, i64),
}

impl Extent {
    fn of(clicks: &ClickBlock, indices: &[u32]) -> Self {
        let mut extent = Extent { links: (i64::MAX, 0), times: (i64::MAX, i64::MIN) };
        for index in indices {
            let (link, at, _) = clicks.place(*index as usize);
            let (link, at) = (column(link), at.as_millis());
            extent.links = (extent.links.0.min(link), extent.links.1.max(link));
            extent.times = (extent.times.0.min(at), extent.times.1.max(at));
        }
        extent
    }
}
