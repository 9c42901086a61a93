//! One step of a redirect each, apart from everything around it. See bench/README.md.

use aes::Aes128;
use criterion::{Criterion, criterion_group, criterion_main};
use fpe::ff1::{FF1, FlexibleNumeralString};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};
use terse::clicks::agent::classify;
use terse::clicks::batch::Batch;
use terse::clicks::country::Countries;
use terse::clicks::journal::{Event, Journal, JournalConfig, KeeperHandle, Reader};
use terse::clicks::pipeline::Shapes;
use terse::config::CacheConfig;
use terse::redirect::cache::{Begun, Cache, Known};
use terse_model::click::{Country, Purpose, VisitorHash};
use terse_model::click_block::ClickBlock;
use terse_model::code_space::{CodeSpace, Generator, LinkId};
use terse_model::domain::DomainId;
use terse_model::link::{Link, LinkKey, LinkRecord, LinkSettings, Revision};
use terse_model::redirect::{Visitor, decide};
use terse_model::target::TargetUrl;
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;

const KEY: [u8; 16] = *b"a key for bench!";
const LINKS: u64 = 100_000;
const AGENT: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                     Version/18.6 Mobile/15E148 Safari/604.1";
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(85, 1, 2, 3));

criterion_group!(steps, codes, cache, decisions, journal, enrichment);
criterion_main!(steps);

fn codes(c: &mut Criterion) {
    let space = CodeSpace::new(Generator::DEFAULT, &KEY);
    let mut ids = (0..LINKS).cycle();
    c.bench_function("code of an id (permute)", |b| b.iter(|| space.encode(LinkId(ids.next().unwrap_or(0)))));
    let codes: Vec<_> = (0..1000).map(|id| space.encode(LinkId(id))).collect();
    let mut asked = codes.iter().cycle();
    c.bench_function("id of a code (decode)", |b| {
        b.iter(|| asked.next().map(|code| space.decode(code.as_str())));
    });
    let general = FF1::<Aes128>::new(&KEY, 62).expect("62 is a radix");
    c.bench_function("code of an id by the general crate fpe", |b| {
        b.iter(|| {
            let id = ids.next().unwrap_or(0);
            let digits: Vec<u16> = (0..7).rev().map(|place| (id / 62u64.pow(place) % 62) as u16).collect();
            general.encrypt(&[], &FlexibleNumeralString::from(digits))
        });
    });
}

/// Hits in an order that the processor's caches can't foresee, and one code again and again.
fn cache(c: &mut Criterion) {
    let space = CodeSpace::new(Generator::DEFAULT, &KEY);
    let config = CacheConfig {
        bytes_max: 64 << 20,
        missing_len_max: 1000,
        ttl: Duration::from_secs(30),
        missing_ttl: Duration::from_secs(5),
        loads_len_max: 16,
    };
    let cache = Cache::new(&config, true);
    let keys: Vec<LinkKey> = (0..LINKS).map(|id| link(&space, id)).map(|link| fill(&cache, link)).collect();
    let mut at = 0;
    c.bench_function("cache hit, 100,000 links", |b| {
        b.iter(|| {
            at = (at + 61_803) % keys.len();
            cache.get(&keys[at], now()).is_some()
        });
    });
    c.bench_function("cache hit, one hot code", |b| {
        b.iter(|| cache.get(black_box(&keys[0]), now()).is_some());
    });
}

fn fill(cache: &Cache, link: Link) -> LinkKey {
    let key = link.key.clone();
    if let Begun::Lead(load) = cache.begin_load(&key) {
        load.finish(cache, Ok(Known::of(Some(LinkRecord::Present(link)))), now());
    }
    key
}

fn decisions(c: &mut Criterion) {
    let space = CodeSpace::new(Generator::DEFAULT, &KEY);
    let plain = LinkRecord::Present(link(&space, 1));
    let mut ruled = link(&space, 2);
    ruled.settings.expires_at = Some(now().plus_seconds(3600));
    ruled.settings.starts_at = Some(now().plus_seconds(-3600));
    ruled.settings.forward_query = true;
    let ruled = LinkRecord::Present(ruled);
    let visitor = Visitor { query: Some("utm_source=mail"), ..Visitor::default() };
    for (name, record) in [("decide, plain link", plain), ("decide, dates and a forwarded query", ruled)] {
        c.bench_function(name, |b| {
            b.iter(|| black_box(decide(Some(black_box(&record)), &visitor, now(), 30)));
        });
    }
}

/// Events that are appended before the journal lets go of them: fewer than a segment holds.
const EVENTS: u64 = 10_000;

fn journal(c: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder can be written");
    let (journal, mut reader, keeper) = open_journal(folder.path());
    c.bench_function("journal append", |b| {
        b.iter_custom(|count| {
            in_turns(count, |events| {
                let spent = append(&journal, events);
                while reader.read(EVENTS as usize, |_, _| {}) > 0 {}
                journal.release(&reader.positions());
                spent
            })
        });
    });
    drop(keeper);
}

/// What the pipeline finds out about a click, before it counts it.
fn enrichment(c: &mut Criterion) {
    c.bench_function("agent, seen for the first time", |b| b.iter(|| classify(black_box(AGENT))));
    let countries = Countries::built_in();
    c.bench_function("country of an address", |b| b.iter(|| countries.of(black_box(ADDRESS))));

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder can be written");
    let (journal, mut reader, keeper) = open_journal(folder.path());
    let (mut shapes, mut batch, mut block) = (Shapes::default(), Batch::default(), ClickBlock::default());
    c.bench_function("click read from the journal, agent and the like seen before", |b| {
        b.iter_custom(|count| {
            in_turns(count, |events| {
                append(&journal, events);
                let began = Instant::now();
                while reader.read(EVENTS as usize, |id, found| {
                    black_box(shapes.of(id, found, (1, &mut batch), (1, &mut block)));
                }) > 0
                {}
                let spent = began.elapsed();
                journal.release(&reader.positions());
                spent
            })
        });
    });
    drop(keeper);
}

fn open_journal(folder: &Path) -> (Journal, Reader, KeeperHandle) {
    let config = JournalConfig {
        folder: folder.to_owned(),
        node: 1,
        lanes: 1,
        above: 0,
        segment_len: 4 << 20,
        bytes_max: 1 << 30,
        flush_interval: Duration::from_secs(1),
    };
    let opened = Journal::open(&config, &[]).expect("the folder is new");
    opened.0.enter(0);
    opened
}

/// Lets `turn` do at most [`EVENTS`] at a time, and adds up what it took.
fn in_turns(count: u64, mut turn: impl FnMut(u64) -> Duration) -> Duration {
    let mut left = count;
    let mut spent = Duration::ZERO;
    while left > 0 {
        let events = left.min(EVENTS);
        spent += turn(events);
        left -= events;
    }
    spent
}

fn append(journal: &Journal, events: u64) -> Duration {
    let mut spent = Duration::ZERO;
    let mut began = Instant::now();
    for number in 0..events {
        while journal.append(&event(number)).is_err() {
            // A loop that does nothing else fills segments faster than the keeper makes them. Waiting for one is off
            // the clock: in a server, there is a redirect between two appends.
            spent += began.elapsed();
            std::thread::sleep(Duration::from_millis(1));
            began = Instant::now();
        }
    }
    spent + began.elapsed()
}

fn link(space: &CodeSpace, id: u64) -> Link {
    let target =
        format!("https://www.example.com/articles/of/ordinary/length/number-{id:08}?from=bench&lang=en");
    Link {
        id: LinkId(id),
        key: LinkKey { domain: DomainId::DEFAULT, code: space.encode(LinkId(id)) },
        named: false,
        owner: Some(UserId(1)),
        manage_token: None,
        created_at: now(),
        updated_at: now(),
        revision: Revision::FIRST,
        clicks_used: 0,
        settings: LinkSettings::plain(TargetUrl::parse(&target).expect("it is an address")),
    }
}

fn event(number: u64) -> Event<'static> {
    Event {
        at: now(),
        link: LinkId(number % LINKS),
        domain: DomainId::DEFAULT,
        owner: Some(UserId(1)),
        tags: "",
        visitor: VisitorHash(number),
        country: Country::parse("CH"),
        is_head: false,
        purpose: Purpose::Visit,
        language: "en",
        user_agent: AGENT,
        referrer: "",
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000)
}
