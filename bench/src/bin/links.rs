//! Fills a data folder with links through the store's own trait, to measure terse with more than one would send over
//! HTTP. See bench/README.md.

use clap::Parser;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use terse::data_dir::DataDir;
use terse_backends::sqlite::{SqliteOptions, SqliteStore};
use terse_model::code_space::LinkId;
use terse_model::domain::DomainId;
use terse_model::link::{Link, LinkKey, LinkSettings, Revision};
use terse_model::store::{AccountStore, LinkStore, LinkWrite, LinkWritten, NewLink, UserSave};
use terse_model::target::TargetUrl;
use terse_model::tenant::{UserId, UserName};
use terse_model::time::Timestamp;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Links in one transaction.
const BATCH_LEN: u64 = 20_000;
/// Bytes of every target.
const TARGET_LEN: usize = 98;

/// Adds links to the data folder of a terse that isn't running.
///
/// What it took goes to stdout as JSON, progress to stderr.
#[derive(Debug, Parser)]
#[command(name = "links")]
struct Options {
    /// The data folder; it is made if need be.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Links to add.
    #[arg(long, value_name = "N")]
    add: u64,
    /// Whose they are; made if there is none of that name.
    #[arg(long, value_name = "NAME", default_value = "bench")]
    owner: String,
    /// Write codes of links, taken at random from all in the folder and each once, to this file.
    #[arg(long, value_name = "FILE")]
    codes: Option<PathBuf>,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 150_000)]
    codes_len: u64,
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
    let folder = DataDir::open(&options.data_dir)?;
    let store = SqliteStore::open(&folder.store_path(), &SqliteOptions::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    runtime.block_on(add(&store, &UserName::parse(&options.owner)?, options.add))?;
    let seconds = began.elapsed().as_secs_f64();
    if let Some(path) = &options.codes {
        runtime.block_on(write_codes(&store, path, options.codes_len))?;
    }
    println!("{{\"links\": {}, \"seconds\": {seconds:.3}}}", options.add);
    Ok(())
}

async fn add(store: &SqliteStore, owner: &UserName, count: u64) -> Result<()> {
    let save = UserSave { name: owner.clone(), role: None, tier: None, now: now() };
    let owner = store.user_save(save, None).await?.id;
    let mut left = count;
    while left > 0 {
        let lease = store.ids_lease(left.min(BATCH_LEN)).await?;
        let now = now();
        let ids = lease.ids.filter(|id| !lease.reserved.contains(id));
        let writes = ids.map(|id| insert(store, LinkId(id), owner, now)).collect::<Result<Vec<_>>>()?;
        left = left.saturating_sub(writes.len() as u64);
        let written = store.links_write(writes, None).await?;
        if let Some(other) = written.iter().find(|written| **written != LinkWritten::Inserted) {
            return Err(format!("a link was not inserted: {other:?}").into());
        }
        if (count - left).is_multiple_of(50 * BATCH_LEN) {
            eprintln!("{} of {count} links", count - left);
        }
    }
    Ok(())
}

fn insert(store: &SqliteStore, id: LinkId, owner: UserId, now: Timestamp) -> Result<LinkWrite> {
    let head =
        format!("https://www.example.com/articles/of/ordinary/length/number-{:012}?from=bench&text=", id.0);
    let target = TargetUrl::parse(&format!("{head:x<TARGET_LEN$}"))?;
    let link = Link {
        id,
        key: key(store, id),
        named: false,
        owner: Some(owner),
        manage_token: None,
        created_at: now,
        updated_at: now,
        revision: Revision::FIRST,
        clicks_used: 0,
        settings: LinkSettings::plain(target),
    };
    Ok(LinkWrite::Insert(Box::new(NewLink { link: Arc::new(link), reuse_equal: false })))
}

/// Steps through all ids with a stride that shares no factor with their number, so that none comes twice.
async fn write_codes(store: &SqliteStore, path: &Path, count: u64) -> Result<()> {
    let first = store.instance().codes.first_id().0;
    let all = store.ids_lease(1).await?.ids.start - first;
    let mut stride = (all as f64 * 0.618_033_988_75) as u64 | 1;
    while common_factor(stride, all) != 1 {
        stride += 2;
    }
    let mut file = BufWriter::new(File::create(path)?);
    for number in 1..=count.min(all) {
        let at = u128::from(number) * u128::from(stride) % u128::from(all);
        let key = key(store, LinkId(first + at as u64));
        // Leased ids that no link got are left out: names spell them, or a server did not use up its lease.
        if store.link_get(&key).await?.is_some() {
            writeln!(file, "{}", key.code.as_str())?;
        }
    }
    Ok(file.flush()?)
}

fn common_factor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_factor(b, a % b) }
}

fn key(store: &SqliteStore, id: LinkId) -> LinkKey {
    LinkKey { domain: DomainId::DEFAULT, code: store.instance().codes.encode(id) }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(since.as_millis() as i64)
}
