//! Asks for statistics as the API does, and says how long that takes and how much disk the answers lie on.

use super::fill::HOT;
use super::{END, Result, open, say};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Advice, fadvise};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use terse::clicks::Clicks;
use terse::clock::Clock;
use terse::config::{Config, Raw};
use terse_backends::sqlite::clicks::SqliteClickStore;
use terse_model::click::{Click, Day, Dimension, Kind, Subject};
use terse_model::click_store::{Cancelled, ClickScan, ClickStore};
use terse_model::stats::{Filter, Granularity, GroupBy, KindFilter, StatsQuery, TimeZone};
use terse_model::time::Timestamp;
use tokio::runtime::Runtime;

/// Values in each list, as the API has it by default.
const LIMIT: usize = 10;

/// What is asked, with its line in the table.
#[derive(Debug)]
pub struct Question {
    pub name: String,
    query: StatsQuery,
}

/// What is measured, over the whole year and over the days of raw events.
pub fn questions(year: &Range<Day>, month: &Range<Day>) -> Vec<Question> {
    use Granularity::{Day, Hour, Month};
    let all = || StatsQuery {
        from: year.start.start(),
        to: year.end.start(),
        timezone: TimeZone::UTC,
        granularity: Day,
        group_by: None,
        filter: Filter::default(),
        limit: LIMIT,
    };
    let of_month = || StatsQuery { from: month.start.start(), to: month.end.start(), ..all() };
    let filter = |kind, values: &[(Dimension, &str)]| Filter {
        kind,
        values: values.iter().map(|(dimension, value)| (*dimension, (*value).to_owned())).collect(),
    };
    let people = KindFilter::Human;
    let german = || filter(people, &[(Dimension::Country, "DE")]);
    let german_phone = || filter(people, &[(Dimension::Country, "DE"), (Dimension::Device, "mobile")]);
    let bots = || filter(KindFilter::One(Kind::Bot), &[]);
    let by_country = Some(GroupBy::Dimension(Dimension::Country));
    let days = month.end.0 - month.start.0;
    let asked = [
        ("a year by day, UTC".to_owned(), all()),
        ("a year by month, UTC".to_owned(), StatsQuery { granularity: Month, ..all() }),
        ("a year by day, Europe/Zurich".to_owned(), in_zone(all(), "Europe/Zurich")),
        ("a year by day, Asia/Kathmandu".to_owned(), in_zone(all(), "Asia/Kathmandu")),
        (format!("{days} days by hour, UTC"), StatsQuery { granularity: Hour, ..of_month() }),
        (
            format!("{days} days by day, grouped by country"),
            StatsQuery { group_by: by_country, ..of_month() },
        ),
        ("a year, country=DE".to_owned(), StatsQuery { filter: german(), ..all() }),
        ("a year, country=DE & device=mobile".to_owned(), StatsQuery { filter: german_phone(), ..all() }),
        ("a year, kind=bot".to_owned(), StatsQuery { filter: bots(), ..all() }),
        (format!("{days} days, country=DE"), StatsQuery { filter: german(), ..of_month() }),
        (
            format!("{days} days, country=DE & device=mobile"),
            StatsQuery { filter: german_phone(), ..of_month() },
        ),
        (format!("{days} days, kind=bot"), StatsQuery { filter: bots(), ..of_month() }),
    ];
    asked.into_iter().map(|(name, query)| Question { name, query }).collect()
}

/// The same dates in another time zone: the range is moved by its offset.
fn in_zone(query: StatsQuery, name: &str) -> StatsQuery {
    let timezone = TimeZone::parse(name).expect("a time zone of the database");
    let [from, to] = [query.from, query.to].map(|at| {
        // At noon, no zone of the table has another date.
        let noon = at.plus_seconds(12 * 3600);
        timezone.start_of_day(noon)
    });
    StatsQuery { from, to, timezone, ..query }
}

/// Prints a table of how long answers take.
pub fn answers<'a>(
    runtime: &Runtime,
    path: &Path,
    questions: impl Iterator<Item = &'a Question>,
    runs: u32,
) -> Result<()> {
    println!("\n| question | cold ms | median ms | slowest ms | clicks | notes |");
    println!("|---|--:|--:|--:|--:|--:|");
    let subject = Subject::Link(HOT);
    let mut explained = String::new();
    for Question { name, query } in questions {
        let notes = measure(name, path, runs, |clicks| {
            let stats = runtime.block_on(clicks.stats(&subject, query.clone()))?;
            Ok((stats.clicks, stats.notes))
        })?;
        notes.iter().for_each(|note| explained += &format!("- {name}: {note}\n"));
    }
    measure("totals", path, runs, |clicks| {
        let totals = runtime.block_on(clicks.totals(vec![subject.clone()]))?;
        Ok((totals[0].human, Vec::new()))
    })?;
    println!(
        "\nMedians of {runs} runs; the cold one came before, with the file out of the system's memory.\n"
    );
    if !explained.is_empty() {
        println!("{explained}");
    }
    Ok(())
}

/// Prints a line. `ask` tells the answer's clicks and notes, of which the latter are returned.
fn measure(
    name: &str,
    path: &Path,
    runs: u32,
    ask: impl Fn(&Clicks) -> Result<(u64, Vec<String>)>,
) -> Result<Vec<String>> {
    say(name);
    forget(path)?;
    let clicks = clicks(Arc::new(open(path)?))?;
    let timed = || {
        let began = Instant::now();
        let answer = ask(&clicks)?;
        Ok::<_, Box<dyn std::error::Error>>((began.elapsed().as_secs_f64() * 1e3, answer))
    };
    let (cold, (counted, notes)) = timed()?;
    let mut times = Vec::new();
    for _ in 0..runs {
        times.push(timed()?.0);
    }
    times.sort_unstable_by(f64::total_cmp);
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let (counted, len) = (grouped(counted), notes.len());
    println!("| {name} | {cold:.1} | {median:.2} | {slowest:.2} | {counted} | {len} |");
    Ok(notes)
}

fn clicks(store: Arc<SqliteClickStore>) -> Result<Clicks> {
    let config = Config::check(&Raw::default())?;
    Ok(Clicks::new(&config.clicks, store, Clock::manual(Timestamp::parse(END)?)))
}

/// Drops a file that nobody has open from the system's memory.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// Prints what a file holds, and what that costs.
pub fn describe(path: &Path, what: &str) -> Result<()> {
    // Opening and closing it folds the log into the file.
    drop(open(path)?);
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0));
    let counted = number("SELECT every FROM totals ORDER BY every DESC LIMIT 1")?;
    let events = number("SELECT coalesce(sum(events), 0) FROM blocks")?;
    let of = |tables: &str| {
        let sql = format!(
            "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE aggregate = TRUE AND name IN ({tables})"
        );
        number(&sql)
    };
    let small = of("'days', 'totals'")?;
    let large = of("'large', 'subjects', 'sqlite_autoindex_subjects_1'")?;
    let blocks = of("'blocks', 'blocks_by_hour', 'blocks_loose'")?;
    let encoded = number("SELECT coalesce(sum(length(summary) + length(detail)), 0) FROM large")?;
    let summaries = number("SELECT coalesce(sum(length(summary)), 0) FROM large")?;
    let rows = |table: &str| number(&format!("SELECT count(*) FROM {table}"));
    let (days, larges, parts) = (rows("days")?, rows("large")?, rows("blocks")?);
    println!("\n### A file of {what}\n");
    println!("| | rows | bytes | bytes per click |\n|---|--:|--:|--:|");
    let line = |name: &str, rows: i64, bytes: i64, clicks: i64| {
        let (rows, text) = (grouped(rows as u64), grouped(bytes as u64));
        println!("| {name} | {rows} | {text} | {:.2} |", bytes as f64 / clicks.max(1) as f64);
    };
    line("rollups of days, and totals", days, small, counted);
    line("large rollups", larges, large, counted);
    line("of it encoded", larges, encoded, counted);
    line("of it summaries", larges, summaries, counted);
    line("raw events, in blocks", parts, blocks, events);
    println!(
        "\n{} clicks, {} raw events, the file has {} bytes.",
        grouped(counted as u64),
        grouped(events as u64),
        grouped(std::fs::metadata(path)?.len())
    );
    Ok(())
}

/// Checks that rollups and raw events agree: by hour, by country, and by kind.
pub async fn check(path: &Path, days: &Range<Day>) -> Result<()> {
    let store = Arc::new(open(path)?);
    let range = days.start.start()..days.end.start();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (own, start) = (seen.clone(), range.start.as_millis());
    let visit = move |click: &Click<'_>| {
        let mut seen = own.lock().expect("no code panics under this lock");
        *seen.hours.entry((click.at.as_millis() - start) / 3_600_000).or_default() += 1;
        *seen.countries.entry(click.facts.country.to_owned()).or_default() += 1;
        *seen.kinds.entry(click.facts.kind).or_default() += 1;
        ControlFlow::Continue(())
    };
    let scan = ClickScan {
        subject: Subject::Link(HOT),
        range: range.clone(),
        after: None,
        cancelled: Cancelled::default(),
    };
    store.clicks_scan(scan, Box::new(visit)).await?;
    let query = StatsQuery {
        from: range.start,
        to: range.end,
        timezone: TimeZone::UTC,
        granularity: Granularity::Hour,
        group_by: None,
        filter: Filter { kind: KindFilter::All, values: Vec::new() },
        limit: usize::MAX,
    };
    let stats = clicks(store)?.stats(&Subject::Link(HOT), query).await?;
    let seen = seen.lock().expect("no code panics under this lock");
    let hours: BTreeMap<i64, u64> =
        (0..).zip(stats.over_time.iter().flatten()).map(|(hour, bucket)| (hour, bucket.clicks)).collect();
    let nonzero = |count: &(i64, u64)| count.1 > 0;
    assert_eq!(hours.into_iter().filter(nonzero).collect::<BTreeMap<_, _>>(), seen.hours);
    let countries = stats.values.iter().find(|(dimension, _)| *dimension == Dimension::Country);
    let countries = countries.into_iter().flat_map(|(_, values)| values);
    let countries: BTreeMap<_, _> = countries.map(|count| (count.value.clone(), count.clicks)).collect();
    assert_eq!(countries, seen.countries);
    let kinds = stats.by_kind.iter().copied().filter(|(_, clicks)| *clicks > 0);
    assert_eq!(kinds.collect::<BTreeMap<_, _>>(), seen.kinds);
    println!(
        "Rollups and raw events of {} days agree, by hour, by country and by kind.",
        days.end.0 - days.start.0
    );
    Ok(())
}

/// Raw events by what is compared.
#[derive(Debug, Default)]
struct Seen {
    hours: BTreeMap<i64, u64>,
    countries: BTreeMap<String, u64>,
    kinds: BTreeMap<Kind, u64>,
}

/// 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
