//! Reading raw events in the order of time and identity, in bounded memory.

use super::{numbers, raw};
use crate::sqlite::store_error;
use rusqlite::{Connection, params};
use std::ops::ControlFlow;
use terse_model::click::{Click, ClickId, Subject};
use terse_model::click_block::{ClickBlock, KnownTexts};
use terse_model::click_store::ClickScan;
use terse_model::code_space::LinkId;
use terse_model::store::Result;
use terse_model::time::Timestamp;

/// Events that are put in order at once. An hour that has more is read once for each so many, and at most twice as
/// many are held.
pub(super) const PART_LEN: usize = 1 << 18;

/// Runs a scan. No snapshot is held while an event is visited: whoever takes them may be slow, and a long snapshot
/// would keep the log from being folded into the file. Between two snapshots, merging changes blocks, but never which
/// events there are, and each snapshot is read from behind the last event visited.
pub(super) fn run(
    connection: &mut Connection,
    scan: &ClickScan,
    visit: &mut dyn FnMut(&Click<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let mut after = scan.after;
    let start = after.map_or(scan.range.start, |(at, _)| at.max(scan.range.start));
    if start >= scan.range.end {
        return Ok(());
    }
    let last = raw::hour_of(Timestamp::from_millis(scan.range.end.as_millis() - 1));
    let mut from = raw::hour_of(start);
    while let Some(hour) = raw::next_hour(connection, from, last)? {
        loop {
            let part = read_part(connection, hour, scan, after)?;
            for (at, id, index) in &part.order {
                // What was kept twice is one event.
                if after.is_some_and(|after| (*at, *id) <= after) {
                    continue;
                }
                after = Some((*at, *id));
                if scan.cancelled.is_set() || visit(&part.clicks.get(*index as usize)).is_break() {
                    return Ok(());
                }
            }
            if part.end.is_none() || scan.cancelled.is_set() {
                break;
            }
        }
        if scan.cancelled.is_set() {
            return Ok(());
        }
        from = hour + 1;
    }
    Ok(())
}

/// The first events of an hour behind `after`, in order.
fn read_part(
    connection: &mut Connection,
    hour: i64,
    scan: &ClickScan,
    after: Option<(Timestamp, ClickId)>,
) -> Result<Part> {
    let links = match &scan.subject {
        Subject::Link(link) => *link..=*link,
        _ => LinkId(0)..=LinkId(u64::MAX),
    };
    let snapshot = connection.transaction().map_err(store_error)?;
    let start = after.map_or(scan.range.start, |(at, _)| at.max(scan.range.start));
    let sql = "SELECT id FROM blocks INDEXED BY blocks_by_hour
               WHERE hour = ?1 AND link_max >= ?2 AND link_min <= ?3 AND time_max >= ?4 AND time_min < ?5";
    let (links, times) = ((raw::column(*links.start()), raw::column(*links.end())), (start, scan.range.end));
    let values = params![hour, links.0, links.1, times.0.as_millis(), times.1.as_millis()];
    let mut part = Part::default();
    for id in numbers(&snapshot, sql, values)? {
        if scan.cancelled.is_set() {
            break;
        }
        part.extend(&raw::load(&snapshot, id)?, |click| {
            scan.range.contains(&click.at)
                && after.is_none_or(|after| (click.at, click.id) > after)
                && scan.subject.covers(click)
        });
    }
    part.order.sort_unstable();
    Ok(part)
}

/// The first events of those that were pushed.
#[derive(Default)]
struct Part {
    clicks: ClickBlock,
    order: Vec<(Timestamp, ClickId, u32)>,
    /// Events behind this one were left out.
    end: Option<(Timestamp, ClickId)>,
}

impl Part {
    fn extend(&mut self, block: &ClickBlock, is_wanted: impl Fn(&Click<'_>) -> bool) {
        let mut known = KnownTexts::default();
        for (index, click) in block.iter().enumerate() {
            if !is_wanted(&click) || self.end.is_some_and(|end| (click.at, click.id) > end) {
                continue;
            }
            self.order.push((click.at, click.id, self.clicks.len() as u32));
            self.clicks.push_from(block, index, &mut known);
            if self.order.len() == 2 * PART_LEN {
                self.shrink();
                // Which began a new block.
                known = KnownTexts::default();
            }
        }
    }

    fn shrink(&mut self) {
        let (_, (at, id, _), _) = self.order.select_nth_unstable(PART_LEN - 1);
        self.end = Some((*at, *id));
        self.order.truncate(PART_LEN);
        let (mut kept, mut known) = (ClickBlock::default(), KnownTexts::default());
        for (index, (_, _, place)) in (0..).zip(&mut self.order) {
            kept.push_from(&self.clicks, *place as usize, &mut known);
            *place = index;
        }
        self.clicks = kept;
    }
}
