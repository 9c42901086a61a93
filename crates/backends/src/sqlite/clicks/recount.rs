//! A day counted anew from its raw events.

use super::rollups::{self, Counts, Rows};
use super::{numbers, raw};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use terse_model::click::{Click, ClickId, Day, Kind, Subject, VisitorHash, quarter_of};
use terse_model::click_block::ClickBlock;
use terse_model::click_store::{DayDifference, Reclassify};
use terse_model::code_space::LinkId;
use terse_model::rollup::Rollup;
use terse_model::store::Result;
use terse_model::time::Timestamp;

/// Clicks of one visitor on one link within a minute that a person may make.
const CLICKS_PER_MINUTE_MAX: usize = 60;
const MINUTE_MILLIS: i64 = 60_000;

/// Swaps the rollups of a day for new ones, and rewrites the blocks whose events are repeats or of another kind by
/// now. Without `reclassify`, kinds stay. Memory is in proportion to the subjects of the day and the events of an hour.
pub(super) fn run(
    connection: &Connection,
    day: Day,
    reclassify: Option<&Reclassify>,
) -> Result<DayDifference> {
    let too_often = match reclassify {
        Some(_) => visitors_too_often(connection, day)?,
        None => HashSet::new(),
    };
    let mut difference = DayDifference::default();
    let mut rollups: HashMap<Subject, Rollup> = HashMap::new();
    for hour in hours(day) {
        // A repeat has the time of its first occurrence, so it is in the same hour.
        let mut seen: HashSet<ClickId> = HashSet::new();
        for id in raw::blocks_of_hour(connection, hour)? {
            let block = raw::load(connection, id)?;
            let mut renewed = ClickBlock::default();
            let mut is_changed = false;
            for mut click in block.iter() {
                if !seen.insert(click.id) {
                    difference.repeats += 1;
                    is_changed = true;
                    continue;
                }
                let kept = click.facts.kind;
                let renewed_kind = reclassify.map_or(kept, |reclassify| reclassify(&click));
                // What nobody takes for a person has its reason already.
                let is_too_often =
                    renewed_kind == Kind::Human && too_often.contains(&(click.link, click.visitor));
                click.facts.kind = if is_too_often { Kind::Bot } else { renewed_kind };
                if click.facts.kind != kept {
                    is_changed = true;
                    let reason =
                        if is_too_often { &mut difference.by_rate } else { &mut difference.by_agent };
                    *reason += 1;
                }
                count(&mut rollups, &click);
                renewed.push(&click);
            }
            if is_changed {
                raw::replace(connection, id, &renewed)?;
            }
        }
    }
    swap(connection, day, rollups, &mut difference)?;
    let (before, after) = difference.all;
    difference.erased = before.saturating_sub(after).saturating_sub(difference.repeats);
    Ok(difference)
}

fn hours(day: Day) -> std::ops::Range<i64> {
    raw::first_hour(day)..raw::first_hour(day.next())
}

fn count(rollups: &mut HashMap<Subject, Rollup>, click: &Click<'_>) {
    let quarter = quarter_of(click.at);
    for subject in Subject::of(click.link, click.domain, click.owner, click.tags) {
        let rollup = rollups.entry(subject).or_default();
        rollup.add(quarter, &click.facts, 1);
        if click.facts.kind == Kind::Human {
            rollup.add_visitor(quarter, click.visitor);
        }
    }
}

/// Who followed which link too often within one minute of the day. All kinds of clicks count.
fn visitors_too_often(connection: &Connection, day: Day) -> Result<HashSet<(LinkId, VisitorHash)>> {
    // A minute lies in two hours at most, and one of them has half of its clicks. So counting hour by hour leaves few
    // to look at closely.
    let mut suspects: HashMap<(LinkId, VisitorHash), Vec<(Timestamp, ClickId)>> = HashMap::new();
    for hour in hours(day) {
        let mut clicks: HashMap<(LinkId, VisitorHash), usize> = HashMap::new();
        for id in raw::blocks_of_hour(connection, hour)? {
            for click in raw::load(connection, id)?.iter() {
                *clicks.entry((click.link, click.visitor)).or_default() += 1;
            }
        }
        clicks.retain(|_, count| *count > CLICKS_PER_MINUTE_MAX / 2);
        suspects.extend(clicks.into_keys().map(|who| (who, Vec::new())));
    }
    if suspects.is_empty() {
        return Ok(HashSet::new());
    }
    for hour in hours(day) {
        for id in raw::blocks_of_hour(connection, hour)? {
            for click in raw::load(connection, id)?.iter() {
                if let Some(times) = suspects.get_mut(&(click.link, click.visitor)) {
                    times.push((click.at, click.id));
                }
            }
        }
    }
    suspects.retain(|_, times| {
        times.sort_unstable();
        times.dedup();
        times.windows(CLICKS_PER_MINUTE_MAX + 1).any(|window| {
            let [(first, _), .., (last, _)] = window else { return false };
            last.as_millis() - first.as_millis() < MINUTE_MILLIS
        })
    });
    Ok(suspects.into_keys().collect())
}

/// Writes the new rollups over the old ones, and adds what that changes to the totals.
fn swap(
    connection: &Connection,
    day: Day,
    rollups: HashMap<Subject, Rollup>,
    difference: &mut DayDifference,
) -> Result<()> {
    let everything = rollups::subject_intern(connection, &Subject::Everything)?;
    let mut new = HashMap::with_capacity(rollups.len());
    for (subject, rollup) in rollups {
        new.insert(rollups::subject_intern(connection, &subject)?, rollup);
    }
    // In the order of the tree.
    let mut subjects = numbers(connection, "SELECT subject FROM days WHERE day = ?1", [day.0])?;
    subjects.extend(new.keys());
    subjects.sort_unstable();
    subjects.dedup();
    let mut rows = Rows::new(connection)?;
    for subject in subjects {
        let stored = rows.get(day, subject)?;
        let rollup = new.remove(&subject);
        let counts = |rollup: Option<&Rollup>| rollup.map_or_else(Counts::default, Counts::of);
        let before = counts(stored.as_ref().map(|stored| &stored.rollup));
        let after = counts(rollup.as_ref());
        if subject == everything {
            difference.all = (before.every, after.every);
            difference.human = (before.human, after.human);
        }
        match (stored, rollup) {
            (Some(stored), Some(rollup)) if stored.rollup == rollup => {}
            (stored, Some(rollup)) => {
                let large = stored.and_then(|stored| stored.large);
                rows.put(day, subject, large, &rollup.encode())?;
                rows.totals_add(day, subject, before, after)?;
            }
            (Some(_), None) => {
                rows.delete(day, subject)?;
                rows.totals_add(day, subject, before, after)?;
                rollups::span_renew(connection, subject)?;
            }
            (None, None) => {}
        }
    }
    Ok(())
}
