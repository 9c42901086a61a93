//! Merging small blocks, and dropping those of old days.

use super::raw::{self, BLOCK_LEN_MAX};
use super::{execute, schema};
use crate::sqlite::store_error;
use rusqlite::{Connection, OptionalExtension, params};
use terse_model::click::Day;
use terse_model::click_block::{ClickBlock, KnownTexts};
use terse_model::store::Result;
use terse_model::time::Timestamp;

/// Events that one step merges.
const STEP_EVENTS_MAX: usize = 16 * BLOCK_LEN_MAX;
/// Blocks that one step drops.
const STEP_BLOCKS_MAX: i64 = 256;
/// A packed block with fewer events than this is merged with what comes late.
const FULL_LEN_MIN: usize = BLOCK_LEN_MAX / 2;
/// How long after an hour its last events come, as a rule.
const GRACE_SECONDS: i64 = 120;

/// A step; whether it found anything to do, so that there may be more.
pub(super) fn step(connection: &Connection, raw_from: Option<Day>, now: Timestamp) -> Result<bool> {
    if let Some(day) = raw_from
        && drop_old(connection, day)?
    {
        return Ok(true);
    }
    merge(connection, now)
}

/// Drops blocks of the oldest day before `raw_from`, which says at once that this day is no longer complete.
fn drop_old(connection: &Connection, raw_from: Day) -> Result<bool> {
    let Some(hour) = raw::next_hour(connection, i64::MIN, raw::first_hour(raw_from) - 1)? else {
        schema::raise_raw_from(connection, raw_from)?;
        return Ok(false);
    };
    let delete = "DELETE FROM blocks WHERE id IN (SELECT id FROM blocks WHERE hour = ?1 LIMIT ?2)";
    execute(connection, delete, [hour, STEP_BLOCKS_MAX])?;
    schema::raise_raw_from(connection, raw::day_of(hour).next())?;
    Ok(true)
}

/// Merges loose blocks of an hour that has ended, or of one that has enough of them for a step.
fn merge(connection: &Connection, now: Timestamp) -> Result<bool> {
    let ended = raw::hour_of(now.plus_seconds(-GRACE_SECONDS));
    let sql = "SELECT hour FROM blocks INDEXED BY blocks_loose WHERE packed = 0
               GROUP BY hour HAVING hour < ?1 OR sum(events) >= ?2 ORDER BY hour LIMIT 1";
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    let hour = statement.query_row(params![ended, STEP_EVENTS_MAX as i64], |row| row.get(0));
    let Some(hour) = hour.optional().map_err(store_error)? else { return Ok(false) };
    let chosen = choose(connection, hour)?;
    if let [alone] = chosen.as_slice() {
        execute(connection, "UPDATE blocks SET packed = 1 WHERE id = ?1", [alone])?;
        return Ok(true);
    }
    let mut merged = ClickBlock::default();
    for id in &chosen {
        let (block, mut known) = (raw::load(connection, *id)?, KnownTexts::default());
        (0..block.len()).for_each(|index| merged.push_from(&block, index, &mut known));
        execute(connection, "DELETE FROM blocks WHERE id = ?1", [id])?;
    }
    let mut order: Vec<_> =
        merged.iter().zip(0..).map(|(click, index): (_, u32)| (raw::place_of(&click), index)).collect();
    order.sort_unstable();
    let indices: Vec<u32> = order.into_iter().map(|(_, index)| index).collect();
    raw::insert(connection, hour, &merged, &indices, true)?;
    Ok(true)
}

/// One loose block at least, so that steps come to an end, and packed ones that are not full, so that what comes late
/// does not leave ever more of them.
fn choose(connection: &Connection, hour: i64) -> Result<Vec<i64>> {
    let sql = "SELECT id, events FROM blocks INDEXED BY blocks_by_hour
               WHERE hour = ?1 AND (packed = 0 OR events < ?2) ORDER BY packed, id";
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    let mut rows = statement.query(params![hour, FULL_LEN_MIN as i64]).map_err(store_error)?;
    let mut chosen = Vec::new();
    let mut events = 0;
    while let Some(row) = rows.next().map_err(store_error)? {
        events += row.get::<_, i64>(1).map_err(store_error)? as usize;
        if events > STEP_EVENTS_MAX && !chosen.is_empty() {
            break;
        }
        chosen.push(row.get(0).map_err(store_error)?);
    }
    Ok(chosen)
}
