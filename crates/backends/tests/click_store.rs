//! The embedded store of clicks passes the suite of the model, and under random use does what plain lists do.

use proptest::prelude::*;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use terse_backends::sqlite::clicks::{SqliteClickOptions, SqliteClickStore};
use terse_backends::sqlite::{OpenError, SqliteOptions, SqliteStore};
use terse_model::click::{Click, Day, Kind, Subject, Totals, VisitorHash};
use terse_model::click_block::ClickBlock;
use terse_model::click_store::{
    ClickScan, ClickStore, Position, Reclassify, RollupBatch, RollupPart, RollupsFound,
};
use terse_model::code_space::LinkId;
use terse_model::domain::DomainId;
use terse_model::store::StoreError;
use terse_model::tenant::UserId;
use terse_model::testsuite::{ClickCounts, SampleClick, click_store_suite};
use terse_model::time::Timestamp;

/// 2030-01-01.
const DAY: Day = Day(21_915);
const EVER: Range<Day> = Day(-100_000)..Day(100_000);

#[tokio::test]
async fn sqlite_keeps_clicks() {
    let root = TempDir::new().unwrap();
    click_store_suite(async || {
        let dir = TempDir::new_in(root.path()).unwrap().keep();
        Arc::new(open(&dir.join("clicks.db"))) as Arc<dyn ClickStore>
    })
    .await;
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let (_dir, path) = new_file();
    let clicks = [SampleClick::new(1, at(1), 1), SampleClick::new(2, at(2), 2)];
    let position = Position { lane: 4, segment: 5, offset: 6 };
    {
        let store = open(&path);
        add(&store, &clicks).await;
        let changes = Arc::new(ClickCounts::of([]));
        store.rollups_add(RollupBatch { number: 2, changes, positions: vec![position] }).await.unwrap();
    }
    let store = open(&path);
    let positions = store.positions().await.unwrap();
    assert_eq!((positions.batch, positions.rollups, positions.raw), (2, vec![position], vec![]));
    assert_eq!(scan(&store).await, clicks);
    assert_eq!(rollups(&store, &Subject::Everything).await.days[0].1.all(), 2);
    assert_eq!(store.totals_get(vec![Subject::Link(LinkId(1))]).await.unwrap().1[0].all, 1);
}

#[tokio::test]
async fn a_backup_is_the_same_store() {
    let (dir, path) = new_file();
    let store = open(&path);
    let clicks = [SampleClick::new(1, at(1), 1)];
    add(&store, &clicks).await;
    let copy = dir.path().join("copy.db");
    store.backup(&copy).await.unwrap();
    add(&store, &[SampleClick::new(2, at(2), 1)]).await;
    assert_eq!(scan(&open(&copy)).await, clicks);
}

#[test]
fn a_foreign_file_is_refused() {
    let (dir, path) = new_file();
    SqliteStore::open(&path, &SqliteOptions::default()).unwrap();
    assert!(matches!(try_open(&path, true), Err(OpenError::NotTerse { .. })), "links are no clicks");
    let text = dir.path().join("text");
    std::fs::write(&text, "no database, but long enough to have a header of one".repeat(99)).unwrap();
    assert!(matches!(try_open(&text, true), Err(OpenError::NotTerse { .. })));
    let clicks = dir.path().join("clicks2.db");
    drop(open(&clicks));
    let links = SqliteStore::open(&clicks, &SqliteOptions::default());
    assert!(matches!(links, Err(OpenError::NotTerse { .. })), "clicks are no links");
    Connection::open(&clicks).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(try_open(&clicks, true), Err(OpenError::TooNew { found: 99, .. })));
}

#[tokio::test]
async fn days_without_raw_events_are_not_covered() {
    let (_dir, path) = new_file();
    let raw_from = async |keeps_raw: bool, day: i32| {
        let options = SqliteClickOptions {
            keeps_raw,
            ..SqliteClickOptions::new(Day(DAY.0 + day).start().plus_seconds(7))
        };
        let store = SqliteClickStore::open(&path, &options).unwrap();
        rollups(&store, &Subject::Everything).await.raw_from
    };
    assert!(raw_from(true, 0).await < Some(DAY), "a new file misses nothing");
    assert!(raw_from(true, 1).await < Some(DAY));
    assert_eq!(raw_from(false, 2).await, None);
    assert_eq!(raw_from(false, 3).await, None);
    assert_eq!(raw_from(true, 4).await, Some(Day(DAY.0 + 5)), "the day of the change is not whole");
    assert_eq!(raw_from(true, 6).await, Some(Day(DAY.0 + 5)));
}

#[tokio::test]
async fn a_day_is_not_recounted_while_raw_events_are_off() {
    let (_dir, path) = new_file();
    let store = try_open(&path, false).unwrap();
    assert_eq!(store.day_recount(DAY, Arc::new(|click| click.facts.kind)).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_rollup_is_named() {
    let (_dir, path) = new_file();
    add(&open(&path), &[SampleClick::new(1, at(1), 77)]).await;
    for damage in ["x'00ff00ff'", "NULL", "'text'"] {
        let sql = format!("UPDATE days SET summary = {damage}");
        Connection::open(&path).unwrap().execute(&sql, []).unwrap();
        let store = open(&path);
        for (subject, name) in
            [(Subject::Link(LinkId(77)), "link 77"), (Subject::Owner(UserId(1)), "owner 1")]
        {
            match store.rollups_get(&subject, EVER, RollupPart::Full).await {
                Err(StoreError::Corrupt(what)) => {
                    assert!(what.contains(name) && what.contains("2030-01-01"), "{what}");
                }
                other => panic!("{damage}: {other:?}"),
            }
        }
    }
    // It must not stop what follows: the day goes on from zero, and counting it anew mends it.
    let store = open(&path);
    let changes = Arc::new(ClickCounts::of([SampleClick::new(2, at(1), 77).click()]));
    store.rollups_add(RollupBatch { number: 2, changes, positions: Vec::new() }).await.unwrap();
    let human = async || {
        let found = store.rollups_get(&Subject::Link(LinkId(77)), EVER, RollupPart::Full).await.unwrap();
        found.days[0].1.human()
    };
    assert_eq!(human().await, 1);
    store.day_recount(DAY, Arc::new(|click| click.facts.kind)).await.unwrap().unwrap();
    assert_eq!(human().await, 1, "the one that raw events know");
}

#[tokio::test]
async fn a_damaged_block_is_told() {
    let (_dir, path) = new_file();
    add(&open(&path), &[SampleClick::new(1, at(1), 77)]).await;
    let damage = "UPDATE blocks SET data = substr(data, 1, length(data) - 3)";
    Connection::open(&path).unwrap().execute(damage, []).unwrap();
    let store = open(&path);
    let everything = ClickScan {
        subject: Subject::Everything,
        range: at(0)..at(9),
        after: None,
        cancelled: Default::default(),
    };
    let told = store.clicks_scan(everything, Box::new(|_| ControlFlow::Continue(()))).await;
    assert!(matches!(told, Err(StoreError::Corrupt(_))), "{told:?}");
    let told = store.day_recount(DAY, Arc::new(|click| click.facts.kind)).await;
    assert!(matches!(told, Err(StoreError::Corrupt(_))), "{told:?}");
}

#[tokio::test]
async fn a_slow_reader_of_a_scan_holds_nothing_up() {
    let (_dir, path) = new_file();
    let store = open(&path);
    let clicks: Vec<_> = (0..10).map(|number| SampleClick::new(number, at(i64::from(number)), 1)).collect();
    add(&store, &clicks).await;
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (told, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let everything = ClickScan {
        subject: Subject::Everything,
        range: at(0)..at(9999),
        after: None,
        cancelled: Default::default(),
    };
    let visit = Box::new(move |_: &Click<'_>| {
        told.send(()).unwrap();
        wait.recv().unwrap();
        ControlFlow::Continue(())
    });
    let scan = store.clicks_scan(everything, visit);
    let meanwhile = async {
        begun.recv().await.unwrap();
        add(&store, &[SampleClick::new(99, at(4000), 1)]).await;
        while store.upkeep(None, at(86_400)).await.unwrap() {}
        let connection = Connection::open(&path).unwrap();
        let busy: i64 =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0, "no snapshot is held");
        assert_eq!(rollups(&store, &Subject::Everything).await.days[0].1.all(), 11);
        (0..11).for_each(|_| go_on.send(()).unwrap());
    };
    tokio::join!(async { scan.await.unwrap() }, meanwhile);
    assert!(begun.len() >= 9, "each event came");
}

/// Something that a server does with clicks.
#[derive(Clone, Debug)]
enum Operation {
    Add(Vec<SampleClick>),
    /// Some that are there, once more.
    Repeat(Vec<prop::sample::Index>),
    Recount(i32, Option<u8>),
    EraseLink(u64),
    EraseVisitor(u64, Option<u32>),
    Upkeep(u8),
    Drop(i32),
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let owner = prop::option::of(0..2u32);
    prop_oneof![
        6 => prop::collection::vec(click(), 0..30).prop_map(Operation::Add),
        1 => prop::collection::vec(any::<prop::sample::Index>(), 1..5).prop_map(Operation::Repeat),
        3 => (0..3, prop::option::of(0..3u8)).prop_map(|(day, bot)| Operation::Recount(day, bot)),
        1 => (0..5u64).prop_map(Operation::EraseLink),
        1 => (0..4u64, owner).prop_map(|(visitor, owner)| Operation::EraseVisitor(visitor, owner)),
        3 => (1..4u8).prop_map(Operation::Upkeep),
        1 => (0..3).prop_map(Operation::Drop),
        1 => Just(Operation::Reopen),
    ]
}

fn click() -> impl Strategy<Value = SampleClick> {
    (0..3i64, prop_oneof![Just(0), 0..24i64], 0..4000i64, 0..5u64, 0..4u64, 0..3u8).prop_map(
        |(day, hour, second, link, visitor, agent)| SampleClick {
            owner: (link > 0).then_some(UserId(link as u32 % 2)),
            domain: DomainId(link as u32 % 3),
            tags: if link == 3 { "one\ntwo\n".to_owned() } else { String::new() },
            visitor: VisitorHash(visitor),
            user_agent: format!("agent {agent}"),
            ..SampleClick::new(0, at(day * 86_400 + hour * 3600 + second), link)
        },
    )
}

/// What the store should hold.
#[derive(Default)]
struct Expected {
    raw: Vec<SampleClick>,
    days: BTreeMap<(Day, Subject), (u64, u64)>,
    subjects: BTreeSet<Subject>,
    raw_from: Option<Day>,
    offset: u32,
}

impl Expected {
    fn count(&mut self, clicks: &[SampleClick]) {
        for click in clicks {
            for subject in Subject::of(click.link, click.domain, click.owner, &click.tags) {
                self.subjects.insert(subject.clone());
                let (human, all) = self.days.entry((Day::of(click.at), subject)).or_default();
                *human += u64::from(click.kind == Kind::Human);
                *all += 1;
            }
        }
    }

    fn is_covered(&self, day: Day) -> bool {
        self.raw_from.is_none_or(|from| day >= from)
    }

    fn recount(&mut self, day: Day, bot: Option<u8>) {
        let mut seen = BTreeSet::new();
        self.raw.retain(|click| Day::of(click.at) != day || seen.insert(click.id));
        let of_day = |click: &&mut SampleClick| Day::of(click.at) == day;
        for click in self.raw.iter_mut().filter(of_day) {
            if let Some(bot) = bot {
                click.kind = kind_of(&click.user_agent, bot);
            }
        }
        self.days.retain(|(one, _), _| *one != day);
        let of_day: Vec<_> = self.raw.iter().filter(|click| Day::of(click.at) == day).cloned().collect();
        self.count(&of_day);
    }
}

fn kind_of(agent: &str, bot: u8) -> Kind {
    if agent == format!("agent {bot}") { Kind::Bot } else { Kind::Human }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn sqlite_does_what_lists_do(operations in prop::collection::vec(operation(), 1..25)) {
        let (_dir, path) = new_file();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut store = open(&path);
            let mut expected = Expected::default();
            for operation in operations {
                if matches!(operation, Operation::Reopen) {
                    drop(store);
                    store = open(&path);
                } else {
                    apply(&store, &mut expected, operation).await?;
                }
                check(&store, &expected).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}

async fn apply(
    store: &SqliteClickStore,
    expected: &mut Expected,
    operation: Operation,
) -> Result<(), TestCaseError> {
    let late = at(86_400 * 9);
    match operation {
        Operation::Add(mut clicks) => {
            for click in &mut clicks {
                expected.offset += 1;
                click.id.offset = expected.offset;
            }
            add(store, &clicks).await;
            expected.count(&clicks);
            expected.raw.extend(clicks);
        }
        Operation::Repeat(picks) if !expected.raw.is_empty() => {
            let clicks: Vec<_> = picks.iter().map(|pick| pick.get(&expected.raw).clone()).collect();
            add(store, &clicks).await;
            expected.count(&clicks);
            expected.raw.extend(clicks);
        }
        Operation::Repeat(_) | Operation::Reopen => {}
        Operation::Recount(day, bot) => {
            let day = Day(DAY.0 + day);
            let reclassify: Reclassify = match bot {
                Some(bot) => Arc::new(move |click| kind_of(click.user_agent, bot)),
                None => Arc::new(|click| click.facts.kind),
            };
            let counts = |expected: &Expected| {
                expected.days.get(&(day, Subject::Everything)).copied().unwrap_or_default()
            };
            let difference = store.day_recount(day, reclassify).await.unwrap();
            prop_assert_eq!(difference.is_some(), expected.is_covered(day));
            if let Some(difference) = difference {
                let before = counts(expected);
                expected.recount(day, bot);
                let after = counts(expected);
                prop_assert_eq!(difference.human, (before.0, after.0));
                prop_assert_eq!(difference.all, (before.1, after.1));
                prop_assert_eq!(before.1, after.1 + difference.repeats + difference.erased);
            }
        }
        Operation::EraseLink(link) => {
            let before = expected.raw.len();
            expected.raw.retain(|click| click.link != LinkId(link));
            expected.days.retain(|(_, subject), _| *subject != Subject::Link(LinkId(link)));
            let erased = store.link_erase(LinkId(link)).await.unwrap();
            prop_assert_eq!(erased, (before - expected.raw.len()) as u64);
        }
        Operation::EraseVisitor(visitor, owner) => {
            let (visitor, owner) = (VisitorHash(visitor), owner.map(UserId));
            let is_theirs = |click: &SampleClick| {
                click.visitor == visitor && owner.is_none_or(|owner| click.owner == Some(owner))
            };
            let gone: Vec<_> = expected.raw.iter().filter(|click| is_theirs(click)).cloned().collect();
            expected.raw.retain(|click| !is_theirs(click));
            let days: BTreeSet<Day> = gone.iter().map(|click| Day::of(click.at)).collect();
            for day in days.into_iter().filter(|day| expected.is_covered(*day)).collect::<Vec<_>>() {
                expected.recount(day, None);
            }
            prop_assert_eq!(store.visitor_erase(visitor, owner).await.unwrap(), gone.len() as u64);
        }
        Operation::Upkeep(steps) => {
            for _ in 0..steps {
                store.upkeep(None, late).await.unwrap();
            }
        }
        Operation::Drop(day) => {
            let from = Day(DAY.0 + day);
            while store.upkeep(Some(from), late).await.unwrap() {}
            expected.raw.retain(|click| Day::of(click.at) >= from);
            expected.raw_from = expected.raw_from.max(Some(from));
        }
    }
    Ok(())
}

async fn check(store: &SqliteClickStore, expected: &Expected) -> Result<(), TestCaseError> {
    let mut raw = expected.raw.clone();
    raw.sort_by_key(|click| (click.at, click.id));
    raw.dedup();
    prop_assert_eq!(scan(store).await, raw);
    for subject in &expected.subjects {
        let found = rollups(store, subject).await;
        let days: BTreeMap<_, _> = found
            .days
            .iter()
            .map(|(day, rollup)| ((*day, subject.clone()), (rollup.human(), rollup.all())))
            .collect();
        let of_subject = expected.days.iter().filter(|((_, of), _)| of == subject);
        let kept: BTreeMap<_, _> = of_subject.map(|(key, counts)| (key.clone(), *counts)).collect();
        prop_assert_eq!(&days, &kept);
        let mut sums = Totals { first_day: found.days.first().map(|(day, _)| *day), ..Totals::default() };
        for (_, rollup) in &found.days {
            sums.human += rollup.human();
            sums.all += rollup.all();
            sums.unique += rollup.unique();
        }
        let totals = store.totals_get(vec![subject.clone()]).await.unwrap().1[0];
        prop_assert_eq!(totals, sums, "{:?}", subject);
    }
    Ok(())
}

fn at(second: i64) -> Timestamp {
    DAY.start().plus_seconds(second)
}

fn new_file() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("clicks.db");
    (dir, path)
}

fn try_open(path: &Path, keeps_raw: bool) -> Result<SqliteClickStore, OpenError> {
    SqliteClickStore::open(path, &SqliteClickOptions { keeps_raw, ..SqliteClickOptions::new(at(0)) })
}

fn open(path: &Path) -> SqliteClickStore {
    try_open(path, true).unwrap()
}

async fn add(store: &SqliteClickStore, clicks: &[SampleClick]) {
    let number = store.positions().await.unwrap().batch + 1;
    let changes = Arc::new(ClickCounts::of(clicks.iter().map(SampleClick::click)));
    store.rollups_add(RollupBatch { number, changes, positions: Vec::new() }).await.unwrap();
    let mut block = ClickBlock::default();
    clicks.iter().for_each(|click| block.push(&click.click()));
    store.clicks_add(Arc::new(block), Vec::new()).await.unwrap();
}

async fn rollups(store: &SqliteClickStore, subject: &Subject) -> RollupsFound {
    store.rollups_get(subject, EVER, RollupPart::Full).await.unwrap()
}

async fn scan(store: &SqliteClickStore) -> Vec<SampleClick> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let sink = found.clone();
    let range = at(-86_400 * 9)..at(86_400 * 9);
    let visit = Box::new(move |click: &Click<'_>| {
        sink.lock().unwrap().push(SampleClick::from(click));
        ControlFlow::Continue(())
    });
    store
        .clicks_scan(
            ClickScan { subject: Subject::Everything, range, after: None, cancelled: Default::default() },
            visit,
        )
        .await
        .unwrap();
    std::mem::take(&mut *found.lock().unwrap())
}
