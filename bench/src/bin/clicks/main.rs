//! Statistics of one link with a hundred million clicks, and of a million links with one click each: how long answers
//! take, and how much disk they need. See bench/README.md.

mod fill;
mod measure;
mod traffic;

use clap::Parser;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use terse_backends::sqlite::clicks::{SqliteClickOptions, SqliteClickStore};
use terse_model::click::Day;
use terse_model::time::Timestamp;
use tokio::runtime::{Builder, Runtime};
use traffic::Traffic;

/// Days with clicks, and the first day without, so that any two runs make the same clicks.
const DAYS: i32 = 365;
const END: &str = "2026-07-01";

/// Days in which cold links are clicked.
const COLD_DAYS: i32 = 30;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Fills a file of clicks with one link's year, and measures statistics of it.
///
/// Tables go to stdout, progress to stderr.
#[derive(Debug, Parser)]
#[command(name = "clicks")]
struct Options {
    /// Clicks of the one link in a year.
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    clicks: u64,
    /// Last days of that year of which raw events are kept, too.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(i32).range(0..=i64::from(DAYS)))]
    raw_days: i32,
    /// Also fill a second file with so many links that are clicked once, and say how much disk they need.
    #[arg(long, value_name = "N", default_value_t = 0)]
    cold_links: u64,
    /// The folder that gets the files, about 230 MB by default; it is made if need be. They stay there.
    #[arg(long, value_name = "DIR", default_value = "target/bench-clicks")]
    dir: PathBuf,
    /// Measure the file that an earlier run with the same options has left, and fill none.
    #[arg(long)]
    reuse: bool,
    /// Runs of each question after the first one.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Threads that make clicks up; as many as there are processors by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Begins the random numbers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Ask only questions whose name has this in it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let end = Day::of(Timestamp::parse(END)?);
    let days = Day(end.0 - DAYS)..end;
    let raw_days = Day(end.0 - options.raw_days)..end;
    let path = options.dir.join("clicks.db");
    if !options.reuse {
        let traffic = Traffic::new(options.seed, options.clicks, days.clone());
        fill::hot(&runtime, &open_new(&path)?, &traffic, &raw_days, threads(options))?;
    }
    measure::describe(&path, "one link")?;
    let questions = measure::questions(&days, &raw_days);
    let asked = questions.iter().filter(|question| question.name.contains(&options.only));
    measure::answers(&runtime, &path, asked, options.runs)?;
    if options.only.is_empty() && !raw_days.is_empty() {
        runtime.block_on(measure::check(&path, &raw_days))?;
    }
    if options.cold_links > 0 {
        cold(options, &runtime, end)?;
    }
    Ok(())
}

/// Links that are clicked once in the last days.
fn cold(options: &Options, runtime: &Runtime, end: Day) -> Result<()> {
    let path = options.dir.join("cold.db");
    if !options.reuse {
        let traffic = Traffic::new(options.seed, options.cold_links, Day(end.0 - COLD_DAYS)..end);
        runtime.block_on(fill::cold(&open_new(&path)?, &traffic, options.cold_links))?;
    }
    measure::describe(&path, "links that are clicked once")
}

fn threads(options: &Options) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    options.threads.unwrap_or(processors).max(1)
}

/// Opens a file that is not there yet.
fn open_new(path: &Path) -> Result<SqliteClickStore> {
    if path.exists() {
        return Err(
            format!("{} is there already; remove it, or measure it with --reuse", path.display()).into()
        );
    }
    open(path)
}

fn open(path: &Path) -> Result<SqliteClickStore> {
    Ok(SqliteClickStore::open(path, &SqliteClickOptions::new(Timestamp::parse(END)?))?)
}

/// Progress.
fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}
