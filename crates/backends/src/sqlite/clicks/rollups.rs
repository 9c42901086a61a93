//! Rollups and totals.

use super::execute;
use crate::sqlite::store_error;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use std::ops::Range;
use terse_model::click::{Day, Subject, Totals};
use terse_model::click_store::{RollupChanges, RollupPart};
use terse_model::code_space::LinkId;
use terse_model::rollup::{EncodedRollup, Rollup};
use terse_model::store::{Result, StoreError};

/// A longer rollup goes into the table of large ones: a row must fit in a page beside its neighbours (with pages of
/// 4 KiB, rows above 1,002 bytes overflow), and inner pages of the tree hold rows, too.
const INLINE_LEN_MAX: usize = 512;

/// A whole rollup, or where it is.
const SMALL: &str = "SELECT summary, detail, large FROM days WHERE day = ?1 AND subject = ?2";
/// A whole rollup that is large.
const LARGE: &str = "SELECT summary, detail FROM large WHERE id = ?1";

/// Adds a batch.
pub(super) fn add(connection: &Connection, changes: &dyn RollupChanges) -> Result<()> {
    let mut rows = Rows::new(connection)?;
    for (index, (day, subject)) in changes.keys().iter().enumerate() {
        let subject = subject_intern(connection, subject)?;
        let stored = match rows.get(*day, subject) {
            // One row that can't be read must not stop all others for ever. Counting the day anew mends it.
            Err(StoreError::Corrupt(what)) => {
                tracing::error!("Counts a day's clicks from zero: {what}");
                None
            }
            other => other?,
        };
        let Stored { mut rollup, large } = stored.unwrap_or_default();
        let before = Counts::of(&rollup);
        changes.apply(index, &mut rollup);
        let after = Counts::of(&rollup);
        if after.every > 0 {
            rows.put(*day, subject, large, &rollup.encode())?;
            rows.totals_add(*day, subject, before, after)?;
        }
    }
    Ok(())
}

/// A subject's rollups in ascending order of their days.
pub(super) fn get(
    connection: &Connection,
    subject: &Subject,
    days: Range<Day>,
    part: RollupPart,
) -> Result<Vec<(Day, Rollup)>> {
    let Some(subject) = subject_find(connection, subject)? else { return Ok(Vec::new()) };
    // A young or quiet link asked for ten years costs the days that it has.
    let Some(span) = span(connection, subject)? else { return Ok(Vec::new()) };
    let (from, to) = (days.start.max(span.0), days.end.min(span.1.next()));
    let [small, large] = match part {
        RollupPart::Summary => [
            "SELECT summary, NULL, large FROM days WHERE day = ?1 AND subject = ?2",
            "SELECT summary, NULL FROM large WHERE id = ?1",
        ],
        RollupPart::Full => [SMALL, LARGE],
    };
    let mut small = connection.prepare_cached(small).map_err(store_error)?;
    let mut large = connection.prepare_cached(large).map_err(store_error)?;
    let mut found = Vec::new();
    for day in (from.0..to.0).map(Day) {
        if let Some(stored) = read(connection, &mut small, &mut large, day, subject)? {
            found.push((day, stored.rollup));
        }
    }
    Ok(found)
}

/// The totals of subjects, in their order.
pub(super) fn totals(connection: &Connection, subjects: &[Subject]) -> Result<Vec<Totals>> {
    let mut statement = connection
        .prepare_cached("SELECT human, every, visitors, first_day FROM totals WHERE subject = ?1")
        .map_err(store_error)?;
    let mut found = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let Some(subject) = subject_find(connection, subject)? else {
            found.push(Totals::default());
            continue;
        };
        let row = statement.query_row([subject], |row| {
            Ok(Totals {
                human: row.get::<_, i64>(0)? as u64,
                all: row.get::<_, i64>(1)? as u64,
                unique: row.get::<_, i64>(2)? as u64,
                first_day: Some(Day(row.get(3)?)),
            })
        });
        found.push(row.optional().map_err(store_error)?.unwrap_or_default());
    }
    Ok(found)
}

/// Removes the rollups and the totals of a link.
pub(super) fn erase(connection: &Connection, link: LinkId) -> Result<()> {
    let subject = link_number(link)?;
    let Some(span) = span(connection, subject)? else { return Ok(()) };
    let mut rows = Rows::new(connection)?;
    let mut next = days_from(connection, span.0)?;
    while let Some(day) = next.filter(|day| *day <= span.1) {
        rows.delete(day, subject)?;
        next = days_from(connection, day.next())?;
    }
    execute(connection, "DELETE FROM totals WHERE subject = ?1", params![subject])
}

/// What is counted of a rollup in totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) human: u64,
    pub(super) every: u64,
    visitors: u64,
}

impl Counts {
    pub(super) fn of(rollup: &Rollup) -> Self {
        Counts { human: rollup.human(), every: rollup.all(), visitors: rollup.unique() }
    }
}

/// A rollup, and its number among the large ones if it is one.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) rollup: Rollup,
    pub(super) large: Option<i64>,
}

/// Reads and writes whole rollups.
pub(super) struct Rows<'c> {
    connection: &'c Connection,
    small: CachedStatement<'c>,
    large: CachedStatement<'c>,
    put: CachedStatement<'c>,
    total: CachedStatement<'c>,
}

impl<'c> Rows<'c> {
    pub(super) fn new(connection: &'c Connection) -> Result<Self> {
        let prepare = |sql| connection.prepare_cached(sql).map_err(store_error);
        Ok(Rows {
            connection,
            small: prepare(SMALL)?,
            large: prepare(LARGE)?,
            put: prepare(
                "INSERT OR REPLACE INTO days (day, subject, summary, detail, large) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            total: prepare(
                "INSERT INTO totals (subject, human, every, visitors, first_day, last_day)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)
                 ON CONFLICT (subject) DO UPDATE SET
                   human = human + excluded.human,
                   every = every + excluded.every,
                   visitors = visitors + excluded.visitors,
                   first_day = min(first_day, excluded.first_day),
                   last_day = max(last_day, excluded.last_day)",
            )?,
        })
    }

    pub(super) fn get(&mut self, day: Day, subject: i64) -> Result<Option<Stored>> {
        read(self.connection, &mut self.small, &mut self.large, day, subject)
    }

    /// Writes a rollup; `large` is its number if it is among the large ones by now.
    pub(super) fn put(
        &mut self,
        day: Day,
        subject: i64,
        large: Option<i64>,
        encoded: &EncodedRollup,
    ) -> Result<()> {
        let EncodedRollup { summary, detail } = encoded;
        let connection = self.connection;
        let is_small = summary.len() + detail.len() <= INLINE_LEN_MAX;
        match large {
            Some(id) if !is_small => {
                let update = "UPDATE large SET summary = ?2, detail = ?3 WHERE id = ?1";
                return execute(connection, update, params![id, summary, detail]);
            }
            Some(id) => execute(connection, "DELETE FROM large WHERE id = ?1", params![id])?,
            None => {}
        }
        if is_small {
            let values = params![day.0, subject, summary, detail, None::<i64>];
            return self.put.execute(values).map(drop).map_err(store_error);
        }
        let insert = "INSERT INTO large (summary, detail) VALUES (?1, ?2)";
        execute(connection, insert, params![summary, detail])?;
        let id = connection.last_insert_rowid();
        let values = params![day.0, subject, None::<&[u8]>, None::<&[u8]>, id];
        self.put.execute(values).map(drop).map_err(store_error)
    }

    pub(super) fn delete(&mut self, day: Day, subject: i64) -> Result<()> {
        let of_key = "DELETE FROM large WHERE id = (SELECT large FROM days WHERE day = ?1 AND subject = ?2)";
        execute(self.connection, of_key, params![day.0, subject])?;
        let key = "DELETE FROM days WHERE day = ?1 AND subject = ?2";
        execute(self.connection, key, params![day.0, subject])
    }

    /// Adds the difference that a day makes.
    pub(super) fn totals_add(&mut self, day: Day, subject: i64, before: Counts, after: Counts) -> Result<()> {
        let difference = |before: u64, after: u64| after.wrapping_sub(before) as i64;
        let human = difference(before.human, after.human);
        let every = difference(before.every, after.every);
        // An estimate may also fall.
        let visitors = difference(before.visitors, after.visitors);
        self.total.execute(params![subject, human, every, visitors, day.0]).map(drop).map_err(store_error)
    }
}

/// Finds the first and the last day of a subject anew after one of its days is gone; without any, its totals go too.
pub(super) fn span_renew(connection: &Connection, subject: i64) -> Result<()> {
    let Some(span) = span(connection, subject)? else { return Ok(()) };
    let mut exists = connection
        .prepare_cached("SELECT 1 FROM days WHERE day = ?1 AND subject = ?2")
        .map_err(store_error)?;
    let mut renewed: Option<(Day, Day)> = None;
    let mut next = days_from(connection, span.0)?;
    while let Some(day) = next.filter(|day| *day <= span.1) {
        if exists.exists(params![day.0, subject]).map_err(store_error)? {
            renewed = Some((renewed.map_or(day, |span| span.0), day));
        }
        next = days_from(connection, day.next())?;
    }
    match renewed {
        Some((first, last)) => {
            let update = "UPDATE totals SET first_day = ?2, last_day = ?3 WHERE subject = ?1";
            execute(connection, update, params![subject, first.0, last.0])
        }
        None => execute(connection, "DELETE FROM totals WHERE subject = ?1", params![subject]),
    }
}

/// The first and the last day of a subject.
fn span(connection: &Connection, subject: i64) -> Result<Option<(Day, Day)>> {
    let mut statement = connection
        .prepare_cached("SELECT first_day, last_day FROM totals WHERE subject = ?1")
        .map_err(store_error)?;
    let span = statement.query_row([subject], |row| Ok((Day(row.get(0)?), Day(row.get(1)?))));
    span.optional().map_err(store_error)
}

/// The first day at or after this one on which anything was counted.
fn days_from(connection: &Connection, day: Day) -> Result<Option<Day>> {
    let mut statement = connection
        .prepare_cached("SELECT day FROM days WHERE day >= ?1 ORDER BY day LIMIT 1")
        .map_err(store_error)?;
    statement.query_row([day.0], |row| row.get(0).map(Day)).optional().map_err(store_error)
}

fn read(
    connection: &Connection,
    small: &mut CachedStatement<'_>,
    large: &mut CachedStatement<'_>,
    day: Day,
    subject: i64,
) -> Result<Option<Stored>> {
    let id = {
        let mut rows = small.query(params![day.0, subject]).map_err(store_error)?;
        let Some(row) = rows.next().map_err(store_error)? else { return Ok(None) };
        match row.get(2).map_err(store_error)? {
            Some(id) => id,
            None => {
                let rollup = decode(row).ok_or_else(|| damaged(connection, day, subject))?;
                return Ok(Some(Stored { rollup, large: None }));
            }
        }
    };
    let mut rows = large.query([id]).map_err(store_error)?;
    let row = rows.next().map_err(store_error)?;
    let rollup = row.and_then(decode).ok_or_else(|| damaged(connection, day, subject))?;
    Ok(Some(Stored { rollup, large: Some(id) }))
}

/// A rollup of a row that begins with its summary and its detail.
fn decode(row: &Row<'_>) -> Option<Rollup> {
    let summary = row.get_ref(0).ok()?.as_blob().ok()?;
    let detail = row.get_ref(1).ok()?.as_blob_or_null().ok()?;
    Rollup::decode(summary, detail).ok()
}

fn damaged(connection: &Connection, day: Day, subject: i64) -> StoreError {
    let name = match subject {
        0.. => format!("link {subject}"),
        _ => connection
            .query_row("SELECT name FROM subjects WHERE id = ?1", [subject], |row| row.get(0))
            .unwrap_or_else(|_| format!("subject {subject}")),
    };
    let date = day.start().to_string();
    let date = date.split('T').next().unwrap_or_default();
    StoreError::Corrupt(format!("the rollup of {name} on {date} can't be read"))
}

/// The number of a subject that has one.
fn subject_find(connection: &Connection, subject: &Subject) -> Result<Option<i64>> {
    if let Subject::Link(link) = subject {
        return link_number(*link).map(Some);
    }
    let sql = "SELECT id FROM subjects WHERE name = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    statement.query_row([subject_name(subject)], |row| row.get(0)).optional().map_err(store_error)
}

/// The number of a subject, which may be a new one.
pub(super) fn subject_intern(connection: &Connection, subject: &Subject) -> Result<i64> {
    if let Some(known) = subject_find(connection, subject)? {
        return Ok(known);
    }
    let sql =
        "INSERT INTO subjects (id, name) SELECT coalesce(min(id), 0) - 1, ?1 FROM subjects RETURNING id";
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    statement.query_row([subject_name(subject)], |row| row.get(0)).map_err(store_error)
}

/// What a subject is called in its table.
fn subject_name(subject: &Subject) -> String {
    match subject {
        Subject::Link(link) => format!("link {}", link.0),
        Subject::Owner(user) => format!("owner {}", user.0),
        Subject::OwnerDomain(user, domain) => format!("owner {} domain {}", user.0, domain.0),
        Subject::OwnerTag(user, tag) => format!("owner {} tag {tag}", user.0),
        Subject::Domain(domain) => format!("domain {}", domain.0),
        Subject::Everything => "everything".to_owned(),
    }
}

fn link_number(link: LinkId) -> Result<i64> {
    i64::try_from(link.0).map_err(|_| StoreError::Internal(format!("{link:?} is no link's id").into()))
}
