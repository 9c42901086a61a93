//! What [`ClickStore`] promises.

use crate::click::{
    Click, ClickId, Day, Device, Facts, Kind, Purpose, Subject, Totals, VisitorHash, quarter_of,
};
use crate::click_block::ClickBlock;
use crate::click_store::{
    ClickScan, ClickStore, DayDifference, Position, Positions, Reclassify, RollupBatch, RollupChanges,
    RollupPart,
};
use crate::code_space::LinkId;
use crate::domain::DomainId;
use crate::rollup::Rollup;
use crate::store::{Result, StoreError};
use crate::tenant::UserId;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

/// Runs every case of [`ClickStore`], each on a store of its own.
///
/// `open` makes a new, empty store that keeps raw events.
pub async fn click_store_suite(open: impl AsyncFn() -> Arc<dyn ClickStore>) {
    macro_rules! run {
        ($($case:ident)+) => {
            $(
                eprintln!("{}", stringify!($case));
                $case(&Clicks { store: open().await }).await;
            )+
        };
    }
    run! {
        the_store_answers_a_ping
        a_new_store_stands_nowhere
        each_reader_has_its_positions
        a_batch_is_counted_once
        a_rollup_is_found_by_subject_and_day
        a_summary_answers_for_whole_days
        many_keys_fit_in_a_batch
        a_large_rollup_is_kept
        totals_come_in_the_order_asked_for
        a_late_event_is_counted_in_its_day
        a_batch_that_panics_changes_nothing
        a_click_is_kept_as_it_is
        a_scan_goes_by_time_and_identity
        a_scan_keeps_to_its_range
        a_scan_keeps_to_its_subject
        pages_make_up_the_scan
        a_repeat_is_scanned_once
        a_recount_of_the_same_changes_nothing
        a_recount_knows_bots_of_today
        a_recount_knows_a_bot_by_its_rate
        a_recount_removes_repeats
        a_recount_says_what_was_erased
        a_recount_needs_all_raw_events
        an_erased_link_is_gone
        an_erased_visitor_is_gone
        a_visitor_is_erased_for_one_owner
        upkeep_keeps_every_event
        upkeep_leaves_the_hour_that_runs
        upkeep_drops_whole_days
    }
}

/// A click that owns its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleClick {
    /// Its identity.
    pub id: ClickId,
    /// When.
    pub at: Timestamp,
    /// Which link.
    pub link: LinkId,
    /// On which domain.
    pub domain: DomainId,
    /// Whose link.
    pub owner: Option<UserId>,
    /// The link's tags, each followed by a line feed.
    pub tags: String,
    /// Who.
    pub visitor: VisitorHash,
    /// HEAD rather than GET.
    pub is_head: bool,
    /// By its headers.
    pub purpose: Purpose,
    /// The page that linked here.
    pub referrer: String,
    /// The user agent.
    pub user_agent: String,
    /// Who or what.
    pub kind: Kind,
    /// The device.
    pub device: Device,
    /// The host of the referrer, then country, browser, operating system and language.
    pub facts: [String; 5],
}

impl SampleClick {
    /// A person's click on a link of the first user. The number is its offset in the journal.
    pub fn new(offset: u32, at: Timestamp, link: u64) -> Self {
        SampleClick {
            id: ClickId { node: 7, lane: 1, segment: 3, offset },
            at,
            link: LinkId(link),
            domain: DomainId::DEFAULT,
            owner: Some(UserId(1)),
            tags: String::new(),
            visitor: VisitorHash(u64::from(offset)),
            is_head: false,
            purpose: Purpose::Visit,
            referrer: "https://news.example/today".to_owned(),
            user_agent: "Mozilla/5.0 (Macintosh)".to_owned(),
            kind: Kind::Human,
            device: Device::Desktop,
            facts: ["news.example", "CH", "Firefox", "macOS", "de-ch"].map(str::to_owned),
        }
    }

    /// The click.
    pub fn click(&self) -> Click<'_> {
        let [referrer, country, browser, os, language] = self.facts.each_ref().map(String::as_str);
        Click {
            id: self.id,
            at: self.at,
            link: self.link,
            domain: self.domain,
            owner: self.owner,
            tags: &self.tags,
            visitor: self.visitor,
            is_head: self.is_head,
            purpose: self.purpose,
            referrer: &self.referrer,
            user_agent: &self.user_agent,
            facts: Facts { kind: self.kind, referrer, country, device: self.device, browser, os, language },
        }
    }
}

impl From<&Click<'_>> for SampleClick {
    fn from(click: &Click<'_>) -> Self {
        let Facts { kind, referrer, country, device, browser, os, language } = click.facts;
        SampleClick {
            id: click.id,
            at: click.at,
            link: click.link,
            domain: click.domain,
            owner: click.owner,
            tags: click.tags.to_owned(),
            visitor: click.visitor,
            is_head: click.is_head,
            purpose: click.purpose,
            referrer: click.referrer.to_owned(),
            user_agent: click.user_agent.to_owned(),
            kind,
            device,
            facts: [referrer, country, browser, os, language].map(str::to_owned),
        }
    }
}

/// What clicks add to rollups, counted one by one.
#[derive(Debug)]
pub struct ClickCounts {
    keys: Vec<(Day, Subject)>,
    rollups: Vec<Rollup>,
}

impl ClickCounts {
    /// Counts clicks.
    pub fn of<'a>(clicks: impl IntoIterator<Item = Click<'a>>) -> Self {
        let mut rollups: BTreeMap<(Day, Subject), Rollup> = BTreeMap::new();
        for click in clicks {
            let quarter = quarter_of(click.at);
            for subject in Subject::of(click.link, click.domain, click.owner, click.tags) {
                let rollup = rollups.entry((Day::of(click.at), subject)).or_default();
                rollup.add(quarter, &click.facts, 1);
                if click.facts.kind == Kind::Human {
                    rollup.add_visitor(quarter, click.visitor);
                }
            }
        }
        let (keys, rollups) = rollups.into_iter().unzip();
        ClickCounts { keys, rollups }
    }
}

impl RollupChanges for ClickCounts {
    fn keys(&self) -> &[(Day, Subject)] {
        &self.keys
    }

    fn apply(&self, index: usize, rollup: &mut Rollup) {
        rollup.merge(&self.rollups[index]);
    }
}

/// A store of clicks under test, and what the cases ask of it.
struct Clicks {
    store: Arc<dyn ClickStore>,
}

const ANN: UserId = UserId(1);
const BOB: UserId = UserId(2);
const EVER: Range<Day> = Day(-100_000)..Day(100_000);
/// 2030-01-01.
const DAY: Day = Day(21_915);

/// So many seconds after the beginning of the day.
fn at(second: i64) -> Timestamp {
    DAY.start().plus_seconds(second)
}

fn keep_kinds() -> Reclassify {
    Arc::new(|click| click.facts.kind)
}

fn later_days() -> Timestamp {
    at(10 * 86_400)
}

impl Clicks {
    /// Both readers read these clicks.
    async fn add(&self, clicks: &[SampleClick]) {
        self.add_rollups(clicks).await.expect("rollups_add succeeds");
        self.add_raw(clicks).await;
    }

    async fn add_rollups(&self, clicks: &[SampleClick]) -> Result<()> {
        let number = self.positions().await.batch + 1;
        let changes = Arc::new(ClickCounts::of(clicks.iter().map(SampleClick::click)));
        self.store.rollups_add(RollupBatch { number, changes, positions: Vec::new() }).await
    }

    async fn add_raw(&self, clicks: &[SampleClick]) {
        let mut block = ClickBlock::default();
        clicks.iter().for_each(|click| block.push(&click.click()));
        self.store.clicks_add(Arc::new(block), Vec::new()).await.expect("clicks_add succeeds");
    }

    async fn positions(&self) -> Positions {
        self.store.positions().await.expect("positions answers")
    }

    /// Human clicks, all clicks and visitors of each day.
    async fn days(&self, subject: &Subject) -> Vec<(Day, u64, u64, u64)> {
        let found = self.store.rollups_get(subject, EVER, RollupPart::Full).await.expect("rollups_get");
        let counts = |(day, rollup): (Day, Rollup)| (day, rollup.human(), rollup.all(), rollup.unique());
        found.days.into_iter().map(counts).collect()
    }

    async fn raw_from(&self) -> Option<Day> {
        let found = self.store.rollups_get(&Subject::Everything, EVER, RollupPart::Summary).await;
        found.expect("rollups_get").raw_from
    }

    async fn total(&self, subject: Subject) -> Totals {
        self.store.totals_get(vec![subject]).await.expect("totals_get answers").1[0]
    }

    /// Checks that totals are the sums of days.
    async fn check_totals(&self, subject: Subject) {
        let days = self.days(&subject).await;
        let sums = days.iter().fold(Totals::default(), |sum, (day, human, all, unique)| Totals {
            human: sum.human + human,
            all: sum.all + all,
            unique: sum.unique + unique,
            first_day: sum.first_day.or(Some(*day)),
        });
        assert_eq!(self.total(subject.clone()).await, sums, "totals of {subject:?} are the sums of its days");
    }

    /// A scan of at most `limit` events.
    async fn scan_page(&self, scan: ClickScan, limit: usize) -> Vec<SampleClick> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let sink = found.clone();
        let visit = Box::new(move |click: &Click<'_>| {
            let mut found = sink.lock().expect("nobody panics");
            found.push(SampleClick::from(click));
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        self.store.clicks_scan(scan, visit).await.expect("clicks_scan succeeds");
        std::mem::take(&mut *found.lock().expect("nobody panics"))
    }

    async fn scan(&self, subject: Subject, range: Range<Timestamp>) -> Vec<SampleClick> {
        self.scan_page(ClickScan { subject, range, after: None, cancelled: Default::default() }, usize::MAX)
            .await
    }

    async fn all(&self) -> Vec<SampleClick> {
        self.scan(Subject::Everything, at(-86_400 * 30)..at(86_400 * 30)).await
    }

    async fn recount(&self, day: Day, reclassify: Reclassify) -> DayDifference {
        let difference = self.store.day_recount(day, reclassify).await.expect("day_recount succeeds");
        difference.expect("raw events cover the day")
    }

    async fn upkeep(&self, raw_from: Option<Day>, now: Timestamp) {
        for _ in 0..1000 {
            if !self.store.upkeep(raw_from, now).await.expect("upkeep succeeds") {
                return;
            }
        }
        panic!("upkeep comes to an end");
    }
}

/// Clicks on some links over some hours, in no order.
fn mixed(count: u32) -> Vec<SampleClick> {
    let sample = |number: u32| {
        let second = i64::from(number) * 7919 % 20_000;
        let mut click = SampleClick::new(number * 100, at(second), u64::from(number) % 7);
        click.owner = Some(if click.link.0 < 4 { ANN } else { BOB });
        click.domain = DomainId(number % 7 % 2);
        click.tags = if number % 7 == 2 { "spring\nsale\n".to_owned() } else { String::new() };
        click.visitor = VisitorHash(u64::from(number) % 11);
        click.user_agent = format!("agent {}", number % 5);
        click
    };
    (0..count).map(sample).collect()
}

fn sorted(mut clicks: Vec<SampleClick>) -> Vec<SampleClick> {
    clicks.sort_by_key(|click| (click.at, click.id));
    clicks
}

async fn the_store_answers_a_ping(it: &Clicks) {
    it.store.ping().await.expect("ping answers");
}

async fn a_new_store_stands_nowhere(it: &Clicks) {
    assert_eq!(it.positions().await, Positions::default());
    assert_eq!(it.days(&Subject::Everything).await, []);
    assert_eq!(it.total(Subject::Link(LinkId(1))).await, Totals::default());
    assert_eq!(it.all().await, []);
    assert!(it.raw_from().await.is_some_and(|day| day <= DAY), "a new store misses nothing");
}

async fn each_reader_has_its_positions(it: &Clicks) {
    let position = |lane, segment, offset| Position { lane, segment, offset };
    let changes = Arc::new(ClickCounts::of([]));
    let positions = vec![position(0, 5, 700), position(9, u64::MAX, u32::MAX)];
    it.store.rollups_add(RollupBatch { number: 1, changes: changes.clone(), positions }).await.unwrap();
    it.store.clicks_add(Arc::default(), vec![position(3, 1, 2)]).await.unwrap();
    let positions = vec![position(0, 6, 0)];
    it.store.rollups_add(RollupBatch { number: 2, changes, positions }).await.unwrap();
    let expected = Positions {
        rollups: vec![position(0, 6, 0), position(9, u64::MAX, u32::MAX)],
        raw: vec![position(3, 1, 2)],
        batch: 2,
    };
    assert_eq!(it.positions().await, expected);
}

async fn a_batch_is_counted_once(it: &Clicks) {
    let changes = Arc::new(ClickCounts::of([SampleClick::new(1, at(1), 1).click()]));
    let batch = |number, segment| RollupBatch {
        number,
        changes: changes.clone(),
        positions: vec![Position { lane: 0, segment, offset: 0 }],
    };
    it.store.rollups_add(batch(1, 1)).await.unwrap();
    for number in [0, 1, 3, u64::MAX] {
        let refused = it.store.rollups_add(batch(number, 9)).await;
        assert!(matches!(refused, Err(StoreError::Internal(_))), "batch {number} does not follow 1");
    }
    assert_eq!(it.positions().await.rollups[0].segment, 1, "a refused batch moves no position");
    assert_eq!(it.total(Subject::Everything).await.all, 1, "a refused batch counts nothing");
    it.store.rollups_add(batch(2, 2)).await.unwrap();
    assert_eq!(it.total(Subject::Everything).await.all, 2);
}

async fn a_rollup_is_found_by_subject_and_day(it: &Clicks) {
    let mut click = SampleClick::new(1, at(0), 1);
    click.tags = "spring\n".to_owned();
    let mut bot = SampleClick { kind: Kind::Bot, ..SampleClick::new(2, at(86_400), 2) };
    bot.owner = Some(BOB);
    it.add(&[click, bot]).await;
    let (first, second) = ((DAY, 1, 1, 1), (DAY.next(), 0, 1, 0));
    let tag = |user, tag: &str| Subject::OwnerTag(user, tag.into());
    for (subject, expected) in [
        (Subject::Link(LinkId(1)), vec![first]),
        (Subject::Link(LinkId(2)), vec![second]),
        (Subject::Link(LinkId(3)), vec![]),
        (Subject::Owner(ANN), vec![first]),
        (Subject::Owner(BOB), vec![second]),
        (Subject::OwnerDomain(ANN, DomainId::DEFAULT), vec![first]),
        (Subject::OwnerDomain(ANN, DomainId(1)), vec![]),
        (tag(ANN, "spring"), vec![first]),
        (tag(BOB, "spring"), vec![]),
        (Subject::Domain(DomainId::DEFAULT), vec![first, second]),
        (Subject::Everything, vec![first, second]),
    ] {
        assert_eq!(it.days(&subject).await, expected, "{subject:?}");
        it.check_totals(subject).await;
    }
    let only = it.store.rollups_get(&Subject::Everything, DAY..DAY.next(), RollupPart::Full).await.unwrap();
    assert_eq!((only.days.len(), only.batch), (1, 1), "a range of days ends before its end");
}

async fn a_summary_answers_for_whole_days(it: &Clicks) {
    it.add(&mixed(500)).await;
    let found = it.store.rollups_get(&Subject::Everything, EVER, RollupPart::Summary).await.unwrap();
    let [(day, rollup)] = found.days.as_slice() else { panic!("one day has clicks") };
    assert_eq!((*day, rollup.human(), rollup.all()), (DAY, 500, 500));
}

async fn many_keys_fit_in_a_batch(it: &Clicks) {
    let clicks: Vec<SampleClick> =
        (0..5000).map(|number| SampleClick::new(number, at(5), u64::from(number))).collect();
    it.add_rollups(&clicks).await.unwrap();
    it.add_rollups(&clicks).await.unwrap();
    assert_eq!(it.days(&Subject::Link(LinkId(4999))).await, [(DAY, 2, 2, 1)]);
    assert_eq!(it.total(Subject::Everything).await.all, 10_000);
}

async fn a_large_rollup_is_kept(it: &Clicks) {
    let various = |from: u32| -> Vec<SampleClick> {
        let various = |number: u32| {
            let mut click = SampleClick::new(number, at(i64::from(number) * 60 % 86_400), 1);
            click.facts = ["host", "C", "browser", "os", "l"].map(|name| format!("{name}{}", number % 150));
            click.visitor = VisitorHash(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            click
        };
        (from..from + 1000).map(various).collect()
    };
    it.add_rollups(&various(0)[..1]).await.unwrap();
    for round in 0..3 {
        it.add_rollups(&various(round * 1000)).await.unwrap();
    }
    let days = it.days(&Subject::Link(LinkId(1))).await;
    assert_eq!((days[0].1, days[0].2), (3001, 3001));
    it.check_totals(Subject::Link(LinkId(1))).await;
    it.store.link_erase(LinkId(1)).await.unwrap();
    assert_eq!(it.days(&Subject::Link(LinkId(1))).await, []);
    it.add_rollups(&various(0)[..1]).await.unwrap();
    assert_eq!(it.days(&Subject::Link(LinkId(1))).await, [(DAY, 1, 1, 1)]);
}

async fn totals_come_in_the_order_asked_for(it: &Clicks) {
    it.add(&[SampleClick::new(1, at(1), 1), SampleClick::new(2, at(2), 2), SampleClick::new(3, at(3), 2)])
        .await;
    let links = [2, 99, 1, 2].map(|link| Subject::Link(LinkId(link)));
    let (batch, totals) = it.store.totals_get(links.to_vec()).await.unwrap();
    assert_eq!(totals.iter().map(|total| total.all).collect::<Vec<_>>(), [2, 0, 1, 2]);
    assert_eq!(batch, 1);
}

async fn a_late_event_is_counted_in_its_day(it: &Clicks) {
    let link = Subject::Link(LinkId(1));
    it.add(&[SampleClick::new(1, at(86_400), 1)]).await;
    it.add(&[SampleClick::new(2, at(-86_400 * 9), 1), SampleClick::new(3, at(0), 1)]).await;
    let days = [(Day(DAY.0 - 9), 1, 1, 1), (DAY, 1, 1, 1), (DAY.next(), 1, 1, 1)];
    assert_eq!(it.days(&link).await, days);
    assert_eq!(it.total(link).await.first_day, Some(Day(DAY.0 - 9)));
}

async fn a_batch_that_panics_changes_nothing(it: &Clicks) {
    #[derive(Debug)]
    struct Panics(ClickCounts);
    impl RollupChanges for Panics {
        fn keys(&self) -> &[(Day, Subject)] {
            self.0.keys()
        }
        fn apply(&self, index: usize, rollup: &mut Rollup) {
            assert!(index < 2, "a change that fails, for a test");
            self.0.apply(index, rollup);
        }
    }
    let changes = Arc::new(Panics(ClickCounts::of([SampleClick::new(1, at(1), 1).click()])));
    let positions = vec![Position { lane: 0, segment: 1, offset: 1 }];
    let failed = it.store.rollups_add(RollupBatch { number: 1, changes, positions }).await;
    assert!(failed.is_err());
    assert_eq!(it.positions().await, Positions::default());
    assert_eq!(it.total(Subject::Link(LinkId(1))).await, Totals::default());
    assert_eq!(it.days(&Subject::Everything).await, []);
    it.add(&[SampleClick::new(1, at(1), 1)]).await;
    assert_eq!(it.total(Subject::Everything).await.all, 1, "the store goes on");
}

async fn a_click_is_kept_as_it_is(it: &Clicks) {
    let full = SampleClick {
        id: ClickId { node: u64::MAX, lane: u16::MAX, segment: u64::MAX, offset: u32::MAX },
        domain: DomainId(u32::MAX),
        owner: Some(UserId(u32::MAX)),
        tags: "spring\nsale\n".to_owned(),
        visitor: VisitorHash(u64::MAX),
        is_head: true,
        purpose: Purpose::Preview,
        kind: Kind::Head,
        device: Device::Console,
        ..SampleClick::new(1, at(1), i64::MAX as u64)
    };
    let bare = SampleClick {
        owner: None,
        referrer: String::new(),
        user_agent: String::new(),
        facts: Default::default(),
        ..SampleClick::new(0, at(0), 0)
    };
    it.add(&[full.clone(), bare.clone()]).await;
    assert_eq!(it.all().await, [bare, full]);
}

async fn a_scan_goes_by_time_and_identity(it: &Clicks) {
    let clicks = mixed(3000);
    for part in clicks.chunks(700) {
        it.add_raw(part).await;
    }
    assert_eq!(it.all().await, sorted(clicks));
}

async fn a_scan_keeps_to_its_range(it: &Clicks) {
    let clicks = sorted(mixed(500));
    it.add_raw(&clicks).await;
    for (from, to) in [(0, 3600), (3599, 3601), (5000, 5000), (9000, 100), (19_000, 90_000)] {
        let range = at(from)..at(to);
        let expected: Vec<_> = clicks.iter().filter(|click| range.contains(&click.at)).cloned().collect();
        assert_eq!(it.scan(Subject::Everything, range).await, expected, "{from} to {to}");
    }
}

async fn a_scan_keeps_to_its_subject(it: &Clicks) {
    let clicks = sorted(mixed(500));
    it.add_raw(&clicks).await;
    for subject in [
        Subject::Link(LinkId(2)),
        Subject::Link(LinkId(77)),
        Subject::Owner(BOB),
        Subject::OwnerDomain(ANN, DomainId(1)),
        Subject::OwnerTag(ANN, "sale".into()),
        Subject::Domain(DomainId(1)),
    ] {
        let covered = |click: &&SampleClick| subject.covers(&click.click());
        let expected: Vec<_> = clicks.iter().filter(covered).cloned().collect();
        assert_eq!(it.scan(subject.clone(), at(0)..at(86_400)).await, expected, "{subject:?}");
    }
}

async fn pages_make_up_the_scan(it: &Clicks) {
    let mut clicks = mixed(400);
    // Many at one instant.
    clicks.iter_mut().take(60).for_each(|click| click.at = at(4000));
    it.add_raw(&clicks).await;
    for subject in [Subject::Everything, Subject::Link(LinkId(3))] {
        let whole = it.scan(subject.clone(), at(0)..at(86_400)).await;
        let mut pages = Vec::new();
        let mut after = None;
        loop {
            let scan = ClickScan {
                subject: subject.clone(),
                range: at(0)..at(86_400),
                after,
                cancelled: Default::default(),
            };
            let page = it.scan_page(scan, 13).await;
            let Some(last) = page.last() else { break };
            after = Some((last.at, last.id));
            pages.extend(page);
        }
        assert_eq!(pages, whole);
    }
}

async fn a_repeat_is_scanned_once(it: &Clicks) {
    let clicks = mixed(50);
    it.add_raw(&clicks).await;
    it.add_raw(&clicks[10..20]).await;
    assert_eq!(it.all().await, sorted(clicks));
}

async fn a_recount_of_the_same_changes_nothing(it: &Clicks) {
    let clicks = mixed(800);
    it.add(&clicks).await;
    let everything = it.days(&Subject::Everything).await;
    let difference = it.recount(DAY, keep_kinds()).await;
    assert_eq!(difference, DayDifference { all: (800, 800), human: (800, 800), ..Default::default() });
    assert_eq!(it.days(&Subject::Everything).await, everything);
    assert_eq!(it.all().await, sorted(clicks));
    assert_eq!(it.recount(Day(DAY.0 + 5), keep_kinds()).await, DayDifference::default(), "an empty day");
}

async fn a_recount_knows_bots_of_today(it: &Clicks) {
    let clicks = mixed(500);
    it.add(&clicks).await;
    let reclassify: Reclassify = Arc::new(|click| match click.user_agent {
        "agent 3" => Kind::Bot,
        _ => click.facts.kind,
    });
    let expected = DayDifference { all: (500, 500), human: (500, 400), by_agent: 100, ..Default::default() };
    assert_eq!(it.recount(DAY, reclassify.clone()).await, expected);
    let renewed = it.all().await;
    assert!(renewed.iter().all(|click| (click.kind == Kind::Bot) == (click.user_agent == "agent 3")));
    for subject in [Subject::Everything, Subject::Owner(BOB), Subject::Link(LinkId(3))] {
        it.check_totals(subject).await;
    }
    let expected = DayDifference { all: (500, 500), human: (400, 400), ..Default::default() };
    assert_eq!(it.recount(DAY, reclassify).await, expected, "the second time nothing is new");
    // A person after all.
    let expected = DayDifference { all: (500, 500), human: (400, 500), by_agent: 100, ..Default::default() };
    assert_eq!(it.recount(DAY, Arc::new(|_| Kind::Human)).await, expected);
}

async fn a_recount_knows_a_bot_by_its_rate(it: &Clicks) {
    let mut offset = 0;
    let mut clicks = Vec::new();
    let mut follow = |link: u64, visitor: u64, times: &mut dyn Iterator<Item = i64>| {
        for millis in times {
            offset += 100;
            let at = Timestamp::from_millis(at(0).as_millis() + millis);
            clicks.push(SampleClick { visitor: VisitorHash(visitor), ..SampleClick::new(offset, at, link) });
        }
    };
    // 61 within less than a minute, over the end of an hour; and one click more, hours later.
    follow(1, 1, &mut (0..61).map(|number| 3_570_000 + number * 999));
    follow(1, 1, &mut [50_000_000].into_iter());
    // 61 within a minute and a little.
    follow(1, 2, &mut (0..61).map(|number| number * 1000));
    // 61 on two links.
    follow(2, 3, &mut (0..31).map(|number| number * 10));
    follow(3, 3, &mut (0..30).map(|number| number * 10));
    // The same visitor on another link.
    follow(4, 1, &mut [3_580_000].into_iter());
    it.add(&clicks).await;
    let count = clicks.len() as u64;
    let expected =
        DayDifference { all: (count, count), human: (count, count - 62), by_rate: 62, ..Default::default() };
    assert_eq!(it.recount(DAY, keep_kinds()).await, expected);
    assert_eq!(it.days(&Subject::Link(LinkId(1))).await, [(DAY, 61, 123, 1)]);
    assert_eq!(it.days(&Subject::Link(LinkId(4))).await, [(DAY, 1, 1, 1)]);
    it.check_totals(Subject::Link(LinkId(1))).await;
    let again = it.recount(DAY, Arc::new(|_| Kind::Human)).await;
    assert_eq!((again.by_rate, again.by_agent), (0, 0), "what was found is not found again");
}

async fn a_recount_removes_repeats(it: &Clicks) {
    let clicks = mixed(300);
    it.add(&clicks).await;
    it.add(&clicks[..40]).await;
    let expected = DayDifference { all: (340, 300), human: (340, 300), repeats: 40, ..Default::default() };
    assert_eq!(it.recount(DAY, keep_kinds()).await, expected);
    assert_eq!(it.total(Subject::Everything).await.all, 300);
    let again = it.recount(DAY, keep_kinds()).await;
    assert_eq!((again.repeats, again.all), (0, (300, 300)), "repeats are gone");
    assert_eq!(it.all().await, sorted(clicks));
}

async fn a_recount_says_what_was_erased(it: &Clicks) {
    let clicks = mixed(700);
    it.add(&clicks).await;
    assert_eq!(it.store.link_erase(LinkId(5)).await.unwrap(), 100);
    let difference = it.recount(DAY, keep_kinds()).await;
    assert_eq!((difference.all, difference.erased), ((700, 600), 100));
    assert_eq!(it.days(&Subject::Link(LinkId(5))).await, []);
}

async fn a_recount_needs_all_raw_events(it: &Clicks) {
    it.add(&mixed(100)).await;
    it.upkeep(Some(DAY.next()), later_days()).await;
    assert_eq!(it.store.day_recount(DAY, keep_kinds()).await.unwrap(), None);
    assert_eq!(it.total(Subject::Everything).await.all, 100, "nothing is done");
}

async fn an_erased_link_is_gone(it: &Clicks) {
    let mut clicks = mixed(700);
    clicks.push(SampleClick::new(1, at(86_400 * 3), 5));
    it.add(&clicks).await;
    assert_eq!(it.store.link_erase(LinkId(5)).await.unwrap(), 101);
    assert_eq!(it.days(&Subject::Link(LinkId(5))).await, []);
    assert_eq!(it.total(Subject::Link(LinkId(5))).await, Totals::default());
    assert_eq!(it.days(&Subject::Link(LinkId(4))).await[0].2, 100, "other links stay");
    clicks.retain(|click| click.link != LinkId(5));
    assert_eq!(it.all().await, sorted(clicks));
    assert_eq!(it.store.link_erase(LinkId(5)).await.unwrap(), 0);
}

async fn an_erased_visitor_is_gone(it: &Clicks) {
    let mut clicks = mixed(770);
    clicks.push(SampleClick { visitor: VisitorHash(3), ..SampleClick::new(1, at(86_400 * 3), 6) });
    it.add(&clicks).await;
    assert_eq!(it.store.visitor_erase(VisitorHash(3), None).await.unwrap(), 71);
    assert_eq!(it.days(&Subject::Everything).await, [(DAY, 700, 700, 10)], "a day without clicks is gone");
    for subject in [Subject::Everything, Subject::Link(LinkId(6)), Subject::Owner(ANN)] {
        it.check_totals(subject).await;
    }
    clicks.retain(|click| click.visitor != VisitorHash(3));
    assert_eq!(it.all().await, sorted(clicks));
    assert_eq!(it.store.visitor_erase(VisitorHash(3), None).await.unwrap(), 0);
}

async fn a_visitor_is_erased_for_one_owner(it: &Clicks) {
    let mut clicks = mixed(770);
    it.add(&clicks).await;
    let is_theirs = |click: &SampleClick| click.visitor == VisitorHash(3) && click.owner == Some(BOB);
    let count = clicks.iter().filter(|click| is_theirs(click)).count() as u64;
    assert_eq!(it.store.visitor_erase(VisitorHash(3), Some(BOB)).await.unwrap(), count);
    assert_eq!(it.total(Subject::Everything).await.all, 770 - count);
    assert_eq!(it.total(Subject::Owner(ANN)).await.all, 440);
    clicks.retain(|click| !is_theirs(click));
    assert_eq!(it.all().await, sorted(clicks));
}

async fn upkeep_keeps_every_event(it: &Clicks) {
    let clicks = mixed(20_000);
    for part in clicks.chunks(90) {
        it.add_raw(part).await;
    }
    let expected = sorted(clicks);
    assert_eq!(it.all().await, expected);
    it.upkeep(None, later_days()).await;
    assert_eq!(it.all().await, expected);
    // What comes later is merged, too.
    let late = SampleClick::new(1, at(5), 3);
    it.add_raw(std::slice::from_ref(&late)).await;
    it.upkeep(None, later_days()).await;
    let mut all = expected;
    all.push(late);
    let all = sorted(all);
    assert_eq!(it.all().await, all);
    let link = |clicks: &[SampleClick]| -> Vec<SampleClick> {
        clicks.iter().filter(|click| click.link == LinkId(3)).cloned().collect()
    };
    assert_eq!(it.scan(Subject::Link(LinkId(3)), at(0)..at(86_400)).await, link(&all));
}

async fn upkeep_leaves_the_hour_that_runs(it: &Clicks) {
    for number in 0..5 {
        it.add_raw(&[SampleClick::new(number, at(10), 1)]).await;
    }
    assert!(!it.store.upkeep(None, at(60)).await.unwrap(), "its events are still to come");
    assert!(it.store.upkeep(None, at(86_400)).await.unwrap());
    it.upkeep(None, at(86_400)).await;
    assert_eq!(it.all().await.len(), 5);
}

async fn upkeep_drops_whole_days(it: &Clicks) {
    let clicks: Vec<SampleClick> =
        (0..60).map(|number| SampleClick::new(number, at(i64::from(number) * 7000), 1)).collect();
    it.add(&clicks).await;
    let kept = |from: Day| -> Vec<SampleClick> {
        clicks.iter().filter(|click| Day::of(click.at) >= from).cloned().collect()
    };
    let from = Day(DAY.0 + 3);
    loop {
        let is_more = it.store.upkeep(Some(from), later_days()).await.unwrap();
        let covered = it.raw_from().await.expect("raw events are kept");
        let all = it.all().await;
        let complete: Vec<_> = all.into_iter().filter(|click| Day::of(click.at) >= covered).collect();
        assert_eq!(complete, kept(covered), "days that are said to be complete are");
        if !is_more {
            break;
        }
    }
    assert_eq!(it.all().await, kept(from), "what is younger stays");
    assert_eq!(it.raw_from().await, Some(from));
    assert_eq!(it.total(Subject::Everything).await.all, 60, "rollups stay");
    it.upkeep(Some(DAY), later_days()).await;
    assert_eq!(it.raw_from().await, Some(from), "what was dropped does not come back");
}
