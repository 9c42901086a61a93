use super::*;
use crate::click::{Click, ClickId, Day, Device, Facts, Purpose, VisitorHash, quarter_of};
use crate::click_store::RollupPart;
use crate::code_space::LinkId;
use crate::domain::DomainId;
use crate::rollup::Rollup;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

/// A click with texts of its own.
#[derive(Clone, Debug)]
struct Owned {
    millis: i64,
    kind: Kind,
    visitor: u64,
    device: Device,
    texts: [String; 5],
}

impl Owned {
    fn click(&self) -> Click<'_> {
        let [referrer, country, browser, os, language] = &self.texts;
        Click {
            id: ClickId { node: 1, lane: 0, segment: 0, offset: 0 },
            at: Timestamp::from_millis(self.millis),
            link: LinkId(1),
            domain: DomainId(1),
            owner: None,
            tags: "",
            visitor: VisitorHash(self.visitor),
            is_head: false,
            purpose: Purpose::Visit,
            referrer: "",
            user_agent: "",
            facts: Facts { kind: self.kind, referrer, country, device: self.device, browser, os, language },
        }
    }

    fn answered(&self, dimension: Dimension) -> String {
        counts::answered(dimension as usize, self.click().facts.get(dimension)).to_owned()
    }
}

fn rollups(clicks: &[Owned]) -> BTreeMap<Day, Rollup> {
    let mut days: BTreeMap<Day, Rollup> = BTreeMap::new();
    for click in clicks.iter().map(Owned::click) {
        let rollup = days.entry(Day::of(click.at)).or_default();
        rollup.add(quarter_of(click.at), &click.facts, 1);
        if click.facts.kind == Kind::Human {
            rollup.add_visitor(quarter_of(click.at), click.visitor);
        }
    }
    days
}

/// How days are read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Rollups,
    Raw,
    RollupsElseRaw,
}

fn answer(query: &StatsQuery, clicks: &[Owned], source: Source) -> Stats {
    let mut builder = StatsBuilder::new(query.clone()).unwrap();
    let days = builder.days();
    for (day, rollup) in rollups(clicks).range(days) {
        let encoded = rollup.encode();
        let detail = (builder.part_of(*day) == RollupPart::Full).then_some(&encoded.detail[..]);
        let read = Rollup::decode(&encoded.summary, detail).unwrap();
        if source == Source::Raw || !builder.add_rollup(*day, &read, source == Source::RollupsElseRaw) {
            assert_ne!(source, Source::Rollups, "without raw events, every rollup is taken");
            clicks
                .iter()
                .rev()
                .filter(|click| Day::of(click.click().at) == *day)
                .for_each(|click| builder.add_click(&click.click()));
        }
    }
    builder.finish()
}

/// The answer by the book: all clicks at hand, nothing clever.
fn naive(query: &StatsQuery, clicks: &[Owned]) -> Stats {
    let fits_values = |click: &&Owned| {
        query
            .filter
            .values
            .iter()
            .all(|(dimension, wanted)| click.answered(*dimension).eq_ignore_ascii_case(wanted))
    };
    let range = query.from.as_millis()..query.to.as_millis();
    let found: Vec<&Owned> =
        clicks.iter().filter(|click| range.contains(&click.millis)).filter(fits_values).collect();
    let fitting: Vec<&Owned> = found
        .iter()
        .copied()
        .filter(|click| match query.filter.kind {
            KindFilter::Human => click.kind == Kind::Human,
            KindFilter::All => true,
            KindFilter::One(kind) => click.kind == kind,
        })
        .collect();
    let of_kind = |kind: Kind| found.iter().filter(|click| click.kind == kind).count() as u64;
    let people = found.iter().filter(|click| click.kind == Kind::Human);
    let visitors: HashSet<_> = people.map(|click| (Day::of(click.click().at), click.visitor)).collect();
    let starts: Vec<(i64, String)> = bucket_starts(query);
    let series = |clicks: &[&Owned]| -> Vec<TimeBucket> {
        let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
        for click in clicks {
            let start = starts.iter().rev().find(|(start, _)| *start <= click.millis).unwrap();
            *sums.entry(start.0).or_default() += 1;
        }
        let clicks = |start: &i64| sums.get(start).copied().unwrap_or_default();
        starts.iter().map(|(start, text)| TimeBucket { start: text.clone(), clicks: clicks(start) }).collect()
    };
    let by_value = |name: &dyn Fn(&Owned) -> String| -> Vec<(String, Vec<&Owned>)> {
        let mut values: BTreeMap<String, Vec<&Owned>> = BTreeMap::new();
        fitting.iter().for_each(|click| values.entry(name(click)).or_default().push(click));
        let mut rest = values.remove("other").unwrap_or_default();
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by_key(|(_, clicks)| std::cmp::Reverse(clicks.len()));
        for (_, clicks) in values.split_off(query.limit.min(values.len())) {
            rest.extend(clicks);
        }
        if !rest.is_empty() {
            values.push(("other".to_owned(), rest));
        }
        values
    };
    let list = |dimension: Dimension| {
        let values = by_value(&|click| click.answered(dimension)).into_iter();
        values.map(|(value, clicks)| ValueCount { value, clicks: clicks.len() as u64 }).collect()
    };
    let groups = query.group_by.map(|group_by| {
        let groups = by_value(&|click| match group_by {
            GroupBy::Kind => click.kind.as_str().to_owned(),
            GroupBy::Dimension(dimension) => click.answered(dimension),
        });
        let group = |(value, clicks): (String, Vec<&Owned>)| Group {
            value,
            clicks: clicks.len() as u64,
            over_time: Some(series(&clicks)),
        };
        groups.into_iter().map(group).collect()
    });
    Stats {
        human: of_kind(Kind::Human),
        all: found.len() as u64,
        by_kind: Kind::ALL.iter().map(|(kind, _)| (*kind, of_kind(*kind))).collect(),
        clicks: fitting.len() as u64,
        unique: Unique::Known { visitors: visitors.len() as u64, error: 0.0 },
        over_time: Some(series(&fitting)),
        values: Dimension::ALL.iter().map(|(dimension, _)| (*dimension, list(*dimension))).collect(),
        groups,
        notes: Vec::new(),
        final_before: None,
    }
}

/// Minute by minute: a bucket begins where the local hour or date is another one than before.
fn bucket_starts(query: &StatsQuery) -> Vec<(i64, String)> {
    const MINUTE: i64 = 60_000;
    let zone = &query.timezone.0;
    let instant = |millis| jiff::Timestamp::from_millisecond(millis).unwrap();
    let label = |millis: i64| {
        let local = zone.to_datetime(instant(millis));
        let date = local.date();
        let monday = date.weekday().to_monday_zero_offset();
        match query.granularity {
            // The offset tells an hour from its repetition.
            Granularity::Hour => (date, local.hour(), zone.to_offset(instant(millis)).seconds()),
            Granularity::Day => (date, 0, 0),
            Granularity::Week => (date.checked_sub(jiff::Span::new().days(monday)).unwrap(), 0, 0),
            Granularity::Month => (date.first_of_month(), 0, 0),
        }
    };
    let text = |millis| instant(millis).display_with_offset(zone.to_offset(instant(millis))).to_string();
    let (from, to) = (query.from.as_millis(), query.to.as_millis());
    if from >= to {
        return Vec::new();
    }
    let mut at = from.div_euclid(MINUTE) * MINUTE;
    while label(at - MINUTE) == label(at) {
        at -= MINUTE;
    }
    let mut starts = vec![(at, text(at))];
    while at + MINUTE < to {
        at += MINUTE;
        if label(at) != label(at - MINUTE) {
            starts.push((at, text(at)));
        }
    }
    starts
}

/// Every list, series and set of groups sums up to `clicks`.
#[track_caller]
fn check_sums(stats: &Stats) {
    assert_eq!(stats.by_kind.iter().map(|(_, clicks)| clicks).sum::<u64>(), stats.all);
    for (_, values) in &stats.values {
        assert_eq!(values.iter().map(|value| value.clicks).sum::<u64>(), stats.clicks, "{stats:#?}");
    }
    let sum = |series: &[TimeBucket]| series.iter().map(|bucket| bucket.clicks).sum::<u64>();
    assert!(stats.over_time.as_deref().is_none_or(|series| sum(series) == stats.clicks), "{stats:#?}");
    if let Some(groups) = &stats.groups {
        assert_eq!(groups.iter().map(|group| group.clicks).sum::<u64>(), stats.clicks, "{stats:#?}");
        for group in groups {
            assert!(
                group.over_time.as_deref().is_none_or(|series| sum(series) == group.clicks),
                "{stats:#?}"
            );
        }
    }
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Zurich",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "America/New_York",
    "Pacific/Apia",
    "+05:30",
];

/// Days around which clocks are moved: New York's, Zurich's, Lord Howe's, and Apia's day that was skipped.
const MOVES: [&str; 6] = ["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2011-12-30"];

prop_compose! {
    fn owned(vocabulary: u8)(
        minute in 0..4 * 24 * 60i64,
        kind in prop_oneof![4 => Just(0usize), 1 => 0..5usize],
        visitor in 0..40u64,
        device in 0..6usize,
        numbers in prop::array::uniform5(0..vocabulary),
    ) -> Owned {
        let texts = numbers.map(|number| match number {
            0 => String::new(),
            1 => "Other".to_owned(),
            _ => format!("V{number}"),
        });
        Owned { millis: minute * 60_000, kind: Kind::ALL[kind].0, visitor, device: Device::ALL[device].0, texts }
    }
}

prop_compose! {
    fn clicks(vocabulary: u8, len: usize)(
        clicks in prop::collection::vec(owned(vocabulary), 0..len),
    ) -> Vec<Owned> {
        clicks
    }
}

prop_compose! {
    /// Around a move of clocks; `step` minutes is the grain of the range's ends.
    fn query(step: i64)(
        from in 0..4 * 24 * 60i64,
        len in prop_oneof![0..5 * 24 * 60i64, Just(24 * 60)],
        zone in prop::sample::select(&ZONES[..]),
        granularity in prop::sample::select(vec![Granularity::Hour, Granularity::Day, Granularity::Week, Granularity::Month]),
        group_by in prop::option::of(prop_oneof![Just(GroupBy::Kind), (0..6usize).prop_map(|at| GroupBy::Dimension(Dimension::ALL[at].0))]),
        kind in prop_oneof![Just(KindFilter::Human), Just(KindFilter::All), (0..5usize).prop_map(|at| KindFilter::One(Kind::ALL[at].0))],
        values in prop::collection::vec((0..6usize, prop::sample::select(vec!["unknown", "direct", "v2", "V3", "mobile", "desktop"])), 0..3),
        limit in 0..8usize,
    ) -> StatsQuery {
        let at = |minute: i64| Timestamp::from_millis(minute / step * step * 60_000);
        let values = values.into_iter().map(|(at, value)| (Dimension::ALL[at].0, value.to_owned())).collect();
        StatsQuery {
            from: at(from),
            to: at(from + len),
            timezone: TimeZone::parse(zone).unwrap(),
            granularity,
            group_by,
            filter: Filter { kind, values },
            limit,
        }
    }
}

/// Moves a query and clicks from the epoch to four days around a date.
fn moved(date: &str, query: &mut StatsQuery, clicks: &mut [Owned]) {
    let start = Timestamp::parse(date).unwrap().plus_seconds(-2 * 86_400);
    let later = |at: Timestamp| Timestamp::from_millis(at.as_millis() + start.as_millis());
    (query.from, query.to) = (later(query.from), later(query.to));
    clicks.iter_mut().for_each(|click| click.millis += start.as_millis());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 100 } else { 3_000 }))]

    #[test]
    fn raw_events_answer_exactly(
        mut clicks in clicks(6, 200),
        mut query in query(1),
        date in prop::sample::select(&MOVES[..]),
    ) {
        moved(date, &mut query, &mut clicks);
        let stats = answer(&query, &clicks, Source::Raw);
        check_sums(&stats);
        prop_assert_eq!(stats, naive(&query, &clicks));
    }

    #[test]
    fn small_days_answer_exactly(
        mut clicks in clicks(4, 200),
        mut query in query(15),
        date in prop::sample::select(&MOVES[..]),
    ) {
        clicks.iter_mut().for_each(|click| click.texts.iter_mut().filter(|text| *text == "Other").for_each(String::clear));
        moved(date, &mut query, &mut clicks);
        let mut stats = answer(&query, &clicks, Source::Rollups);
        check_sums(&stats);
        let expected = naive(&query, &clicks);
        if let Unique::Unknown(_) = stats.unique {
            prop_assert!(!query.filter.values.is_empty());
            stats.unique = expected.unique.clone();
        }
        prop_assert_eq!(stats, expected);
    }

    #[test]
    fn rollups_with_raw_events_behind_them_answer_exactly(
        mut clicks in prop_oneof![clicks(4, 300), clicks(12, 6_000)],
        mut query in query(1),
        date in prop::sample::select(&MOVES[..]),
    ) {
        moved(date, &mut query, &mut clicks);
        let stats = answer(&query, &clicks, Source::RollupsElseRaw);
        check_sums(&stats);
        prop_assert_eq!(stats, naive(&query, &clicks));
    }

    #[test]
    fn sums_agree_whatever_is_missing(
        mut clicks in prop_oneof![clicks(4, 300), clicks(250, 6_000)],
        mut query in query(1),
        date in prop::sample::select(&MOVES[..]),
    ) {
        moved(date, &mut query, &mut clicks);
        let stats = answer(&query, &clicks, Source::Rollups);
        check_sums(&stats);
        let expected = naive(&query, &clicks);
        if stats.notes.is_empty() {
            prop_assert_eq!(stats.by_kind, expected.by_kind);
            prop_assert_eq!(stats.over_time, expected.over_time);
        }
        check_sums(&answer(&query, &clicks, Source::RollupsElseRaw));
    }
}

/// Four days of 1,500 clicks with few combinations of values: large rollups whose cubes are complete.
fn busy(seed: u64) -> Vec<Owned> {
    let mut state = seed | 1;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut clicks = Vec::new();
    for _ in 0..6_000 {
        clicks.push(Owned {
            millis: below(4 * 24 * 60) as i64 * 60_000,
            kind: Kind::ALL[below(7) as usize % 5].0,
            visitor: below(500),
            device: Device::ALL[below(2) as usize].0,
            texts: std::array::from_fn(|_| ["", "V2", "V3"][below(3) as usize].to_owned()),
        });
    }
    clicks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 1_000 }))]

    #[test]
    fn large_days_answer_exactly_or_say_what_is_missing(
        seed: u64,
        mut query in prop_oneof![query(1), query(15), query(24 * 60)],
        date in prop::sample::select(&MOVES[..]),
    ) {
        let mut clicks = busy(seed);
        moved(date, &mut query, &mut clicks);
        prop_assert!(rollups(&clicks).values().all(|rollup| !rollup.encode().detail.is_empty()));
        let expected = naive(&query, &clicks);
        let mut stats = answer(&query, &clicks, Source::Rollups);
        check_sums(&stats);
        let is_filtered = !query.filter.values.is_empty();
        let is_plain = !is_filtered && !matches!(query.filter.kind, KindFilter::One(_));
        let is_cut = [query.from, query.to].iter().any(|at| at.as_millis() % crate::click::QUARTER_MILLIS != 0);
        if is_plain && !is_cut {
            prop_assert!(stats.notes.is_empty(), "{:?}", stats.notes);
        }
        if stats.notes.is_empty() {
            if let Unique::Unknown(_) = stats.unique {
                prop_assert!(is_filtered);
                stats.unique = expected.unique.clone();
            }
            prop_assert_eq!(&stats, &expected);
        }
        prop_assert_eq!(answer(&query, &clicks, Source::RollupsElseRaw), expected);
    }
}

/// Two days of 3,000 clicks with more combinations of values than a cube has room for, but no more values than are told
/// apart.
fn diverse(seed: u64, has_only_bots: bool) -> Vec<Owned> {
    let mut clicks = busy(seed);
    for (n, click) in clicks.iter_mut().enumerate() {
        click.millis = click.millis % (2 * 86_400_000) + 86_400_000;
        // Some browsers are frequent: the cube holds a part of the clicks.
        click.texts[2] = format!("browser {}", if n % 2 == 0 { n % 150 } else { n % 7 });
        if n % 3 > 0 {
            click.kind = Kind::Human;
        }
        if has_only_bots && click.kind != Kind::Human {
            click.kind = Kind::Bot;
        }
    }
    clicks
}

/// Whether the cube alone answered for some day.
fn is_by_cube(stats: &Stats) -> bool {
    let begins =
        |note: &String| note.starts_with("Filtered counts") || note.starts_with("The range has a part");
    stats.notes.iter().any(begins) || stats.over_time.is_none()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 1_000 }))]

    #[test]
    fn filters_of_one_dimension_are_answered_by_margins(
        seed: u64,
        has_only_bots: bool,
        is_diverse in prop::bool::weighted(0.8),
        mut query in prop_oneof![query(15), query(24 * 60)],
        is_human: bool,
        value in (0..6usize, prop::sample::select(vec!["unknown", "direct", "v2", "V3", "Browser 3", "browser 8"])),
        date in prop::sample::select(&MOVES[..]),
    ) {
        query.filter = filter(
            if is_human { KindFilter::Human } else { KindFilter::All },
            &[(Dimension::ALL[value.0].0, value.1)],
        );
        // Above all values, and below what hourly groups of five days have room for.
        query.limit = 500;
        let mut clicks = if is_diverse { diverse(seed, has_only_bots) } else { busy(seed) };
        moved(date, &mut query, &mut clicks);
        let expected = naive(&query, &clicks);
        let stats = answer(&query, &clicks, Source::Rollups);
        check_sums(&stats);
        prop_assert_eq!(&answer(&query, &clicks, Source::RollupsElseRaw), &expected);
        if is_by_cube(&stats) {
            prop_assert!(!(is_human || is_diverse && has_only_bots), "{:?}", stats.notes);
            return Ok(());
        }
        prop_assert_eq!(stats.human, expected.human);
        prop_assert_eq!(stats.clicks, expected.clicks);
        prop_assert_eq!(&stats.over_time, &expected.over_time);
        prop_assert!(stats.by_kind.iter().zip(&expected.by_kind).all(|(found, all)| found.1 <= all.1), "{stats:#?}");
        if is_diverse && has_only_bots || !is_human {
            prop_assert_eq!(&stats.by_kind, &expected.by_kind);
        }
        prop_assert_eq!(&stats.values[value.0], &expected.values[value.0]);
        for ((_, found), (_, all)) in stats.values.iter().zip(&expected.values) {
            let at_most = |one: &ValueCount| all.iter().any(|all| all.value == one.value && one.clicks <= all.clicks);
            prop_assert!(found.iter().filter(|one| one.value != "other").all(at_most), "{stats:#?}");
        }
        let told = [GroupBy::Dimension(Dimension::ALL[value.0].0), GroupBy::Kind];
        if query.group_by.is_some_and(|by| told[..1 + usize::from(is_human)].contains(&by)) {
            prop_assert_eq!(&stats.groups, &expected.groups);
        }
        if let Unique::Unknown(_) = stats.unique {
            let everyone = StatsQuery { filter: Filter::default(), ..query };
            prop_assert!(stats.human < naive(&everyone, &clicks).human);
        }
    }
}

fn february(timezone: &str, filter: Filter) -> StatsQuery {
    StatsQuery {
        from: Timestamp::parse("2026-02-01").unwrap(),
        to: Timestamp::parse("2026-02-05").unwrap(),
        timezone: TimeZone::parse(timezone).unwrap(),
        granularity: Granularity::Day,
        group_by: None,
        filter,
        limit: 3,
    }
}

fn clicks_of_february(mut clicks: Vec<Owned>) -> Vec<Owned> {
    let start = Timestamp::parse("2026-02-01").unwrap().as_millis();
    clicks.iter_mut().for_each(|click| click.millis += start);
    clicks
}

fn filter(kind: KindFilter, values: &[(Dimension, &str)]) -> Filter {
    Filter {
        kind,
        values: values.iter().map(|(dimension, value)| (*dimension, (*value).to_owned())).collect(),
    }
}

#[track_caller]
fn check_notes(query: &StatsQuery, clicks: &[Owned], expected: &[&str]) -> Stats {
    let stats = answer(query, clicks, Source::Rollups);
    check_sums(&stats);
    assert_eq!(stats.notes, expected);
    stats
}

#[test]
fn a_large_day_answers_filters_by_utc_day() {
    let clicks = clicks_of_february(busy(1));
    let filter = filter(KindFilter::All, &[(Dimension::Country, "v2"), (Dimension::Referrer, "DIRECT")]);
    let stats = check_notes(&february("UTC", filter.clone()), &clicks, &[]);
    assert!(stats.clicks > 500);
    assert!(matches!(stats.unique, Unique::Unknown(_)));

    let stats = check_notes(
        &february("Europe/Zurich", filter.clone()),
        &clicks,
        &["There is no series, because combinations of values of 4 days are kept only by UTC day."],
    );
    assert_eq!(stats.over_time, None);

    let from = Timestamp::parse("2026-02-01T12:00:00Z").unwrap();
    check_notes(
        &StatsQuery { from, ..february("UTC", filter) },
        &clicks,
        &[
            "The range has a part of 1 day, which is counted in full, because single clicks are no longer kept, and \
             combinations of values only by UTC day.",
        ],
    );
}

#[test]
fn a_cut_quarter_is_counted_in_full_without_raw_events() {
    let clicks = clicks_of_february(busy(1));
    let from = Timestamp::parse("2026-02-01T12:01:00Z").unwrap();
    check_notes(
        &StatsQuery { from, ..february("UTC", Filter::default()) },
        &clicks,
        &[
            "The range begins or ends inside a quarter of an hour of which single clicks are no longer kept; that \
           quarter is counted in full.",
        ],
    );
}

#[test]
fn combinations_that_were_given_up_are_told() {
    let mut clicks = busy(1);
    for (n, click) in clicks.iter_mut().enumerate() {
        click.millis %= 86_400_000;
        click.texts[2] = format!("browser {}", n % 150);
    }
    let clicks = clicks_of_february(clicks);
    let by_cube = "Filtered counts of 1 day leave out up to 76 % of the clicks that fit: their combination of values is \
                   not kept.";
    let query = |kind, values: &[(Dimension, &str)]| february("UTC", filter(kind, values));
    let country = (Dimension::Country, "V2");
    check_notes(&query(KindFilter::One(Kind::Human), &[country]), &clicks, &[by_cube]);
    let stats = check_notes(&query(KindFilter::All, &[country]), &clicks, &[by_cube]);
    let fitting = clicks.iter().filter(|click| click.texts[1] == "V2").count() as u64;
    assert_eq!(((fitting - stats.all) * 100).div_ceil(fitting), 76);
    check_notes(&february("UTC", filter(KindFilter::Human, &[(Dimension::Country, "ZZ")])), &clicks, &[]);
    check_notes(
        &february("UTC", filter(KindFilter::One(Kind::Bot), &[])),
        &clicks,
        &[
            "Clicks of 1 day are counted as `other` where their combination of kind, time and values is not kept.",
        ],
    );
}

#[test]
fn combinations_that_were_given_up_are_other_beside_one_filtered_dimension() {
    let clicks = clicks_of_february(diverse(1, false));
    let by_country = Some(GroupBy::Dimension(Dimension::Country));
    let by_browser = Some(GroupBy::Dimension(Dimension::Browser));
    let query = |zone, group_by| StatsQuery {
        group_by,
        limit: 200,
        ..february(zone, filter(KindFilter::Human, &[(Dimension::Country, "V2")]))
    };
    let lists = |percent| {
        format!(
            "Lists of the other dimensions than the filtered one put up to {percent} % of the clicks of 2 days into \
             `other`: their combination of values and time is not kept."
        )
    };
    let kinds = |stats: &Stats, expected: &Stats| {
        format!(
            "Counts by kind and of all kinds leave out {} clicks of 2 days that fit and are not people's: which kind \
             they are of is not kept.",
            expected.all - stats.all
        )
    };
    let both = |query: &StatsQuery| {
        let stats = answer(query, &clicks, Source::Rollups);
        check_sums(&stats);
        (stats, naive(query, &clicks))
    };

    let (stats, expected) = both(&query("UTC", by_browser));
    assert_eq!(stats.notes, [lists(42), kinds(&stats, &expected)]);
    let others = stats.values.iter().flat_map(|(_, values)| values).filter(|value| value.value == "other");
    let others = others.map(|value| value.clicks).max().unwrap();
    assert_eq!((others * 100 + stats.clicks / 2) / stats.clicks, 42);
    assert_eq!((stats.human, stats.clicks), (expected.human, expected.clicks));
    assert_eq!(stats.over_time, expected.over_time);
    assert!(stats.all < expected.all);
    let groups = stats.groups.unwrap();
    assert!(groups.len() > 7 && groups.last().unwrap().value == "other");
    assert!(groups.iter().all(|group| group.over_time.is_some()));

    // Quarters of an hour tell what days of another time zone have.
    let (stats, expected) = both(&query("Europe/Zurich", by_country));
    assert_eq!(stats.notes, [lists(42), kinds(&stats, &expected)]);
    assert_eq!((stats.over_time, stats.groups), (expected.over_time, expected.groups));
    let (stats, expected) = both(&query("Europe/Zurich", by_browser));
    let no_series =
        "Groups have no series, because combinations of values of 2 days are kept only by UTC day.";
    assert_eq!(stats.notes, [lists(42), kinds(&stats, &expected), no_series.to_owned()]);

    // And what a part of a day has.
    let from = Timestamp::parse("2026-02-02T03:15:00Z").unwrap();
    let (stats, expected) = both(&StatsQuery { from, ..query("UTC", None) });
    assert_eq!((stats.human, stats.clicks), (expected.human, expected.clicks));
    assert_eq!(stats.over_time, expected.over_time);
    assert_eq!(stats.values[1], expected.values[1]);

    // If all clicks that are not people's are bots', these are told exactly, too.
    let clicks = clicks_of_february(diverse(1, true));
    let query =
        StatsQuery { filter: filter(KindFilter::All, &[(Dimension::Country, "V2")]), ..query("UTC", None) };
    let stats = check_notes(&query, &clicks, &[&lists(47)]);
    let expected = naive(&query, &clicks);
    assert_eq!((stats.by_kind, stats.over_time), (expected.by_kind, expected.over_time));
}

#[test]
fn values_that_are_not_told_apart_are_other() {
    let mut clicks = busy(1);
    for (n, click) in clicks.iter_mut().enumerate() {
        click.millis %= 86_400_000;
        click.texts[0] = if n % 2 == 0 { "often".to_owned() } else { format!("site {n}") };
    }
    let clicks = clicks_of_february(clicks);
    let query = |value: &str| february("UTC", filter(KindFilter::All, &[(Dimension::Referrer, value)]));
    let all = check_notes(&february("UTC", filter(KindFilter::All, &[])), &clicks, &[]);
    let (_, referrers) = &all.values[0];
    assert_eq!(referrers[0], ValueCount { value: "often".to_owned(), clicks: 3_000 });
    assert_eq!(referrers.last().unwrap().value, "other");
    // Raw events can't tell what `other` was.
    let other = answer(&query("other"), &clicks, Source::RollupsElseRaw);
    assert!(other.clicks > 1_000 && other.clicks < 3_000, "{other:?}");
    // They can tell the rest.
    assert_eq!(answer(&query("site 1"), &clicks, Source::RollupsElseRaw), naive(&query("site 1"), &clicks));
    let stats = answer(&query("site 1"), &clicks, Source::Rollups);
    assert!(stats.notes.iter().any(|note| note.starts_with("Up to ")), "{:?}", stats.notes);
}

/// The least that every day's rollup must be read with.
fn part_of_all(builder: &StatsBuilder) -> RollupPart {
    let days = builder.days();
    let needs_full = (days.start.0..days.end.0).any(|day| builder.part_of(Day(day)) == RollupPart::Full);
    if needs_full { RollupPart::Full } else { RollupPart::Summary }
}

#[test]
fn only_what_needs_it_is_read_in_full() {
    let part = |query: &StatsQuery| part_of_all(&StatsBuilder::new(query.clone()).unwrap());
    let plain = february("UTC", Filter::default());
    let by_referrer = Some(GroupBy::Dimension(Dimension::Referrer));
    assert_eq!(part(&plain), RollupPart::Summary);
    assert_eq!(part(&StatsQuery { group_by: by_referrer, ..plain.clone() }), RollupPart::Summary);
    assert_eq!(part(&StatsQuery { granularity: Granularity::Hour, ..plain.clone() }), RollupPart::Summary);
    assert_eq!(part(&february("Europe/Zurich", Filter::default())), RollupPart::Summary);
    assert_eq!(
        part(&StatsQuery { group_by: by_referrer, ..february("Europe/Zurich", Filter::default()) }),
        RollupPart::Full
    );
    assert_eq!(part(&february("UTC", filter(KindFilter::One(Kind::Bot), &[]))), RollupPart::Full);
    assert_eq!(
        part(&february("UTC", filter(KindFilter::All, &[(Dimension::Os, "unknown")]))),
        RollupPart::Full
    );
    let cut = StatsQuery { to: plain.to.plus_seconds(-1), ..plain };
    assert_eq!(part(&cut), RollupPart::Full);
    let builder = StatsBuilder::new(cut).unwrap();
    let days: Vec<_> =
        (builder.days().start.0..builder.days().end.0).map(|day| builder.part_of(Day(day))).collect();
    assert_eq!(days, [RollupPart::Summary, RollupPart::Summary, RollupPart::Summary, RollupPart::Full]);
}

#[test]
fn an_empty_range_has_no_days() {
    let query = february("UTC", Filter::default());
    let builder = StatsBuilder::new(StatsQuery { to: query.from, ..query }).unwrap();
    assert!(builder.days().is_empty());
    assert_eq!(part_of_all(&builder), RollupPart::Summary);
    let stats = builder.finish();
    assert_eq!((stats.clicks, stats.over_time), (0, Some(Vec::new())));
}

#[test]
fn many_visitors_of_raw_events_are_estimated() {
    let mut builder = StatsBuilder::new(february("UTC", Filter::default())).unwrap();
    let mut click = clicks_of_february(busy(1)).remove(0);
    click.kind = Kind::Human;
    for visitor in 0..120_000 {
        builder.add_click(&Owned { visitor, ..click.clone() }.click());
    }
    let Unique::Known { visitors, error } = builder.finish().unique else { panic!("it is known") };
    assert!((visitors as f64 / 120_000.0 - 1.0).abs() < 4.0 * error && error < 0.017);
}
