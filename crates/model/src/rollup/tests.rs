use super::*;
use crate::click::Device;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One addition, with texts of its own.
#[derive(Clone, Debug)]
struct Addition {
    quarter: u8,
    kind: Kind,
    texts: [String; 5],
    device: Device,
    clicks: u64,
    visitor: u64,
}

impl Addition {
    fn facts(&self) -> Facts<'_> {
        let [referrer, country, browser, os, language] = &self.texts;
        Facts { kind: self.kind, referrer, country, device: self.device, browser, os, language }
    }
}

fn rollup<'a>(additions: impl IntoIterator<Item = &'a Addition>) -> Rollup {
    let mut rollup = Rollup::default();
    for addition in additions {
        rollup.add(addition.quarter, &addition.facts(), addition.clicks);
        if addition.kind == Kind::Human {
            rollup.add_visitor(addition.quarter, VisitorHash(addition.visitor));
        }
    }
    rollup
}

fn merged(parts: &[Rollup]) -> Rollup {
    let mut sum = Rollup::default();
    parts.iter().for_each(|part| sum.merge(part));
    sum
}

/// Encodes and decodes.
#[track_caller]
fn stored(rollup: &Rollup) -> Rollup {
    let EncodedRollup { summary, detail } = rollup.encode();
    Rollup::decode(&summary, Some(&detail)).expect("what was encoded reads back")
}

/// What must be true of every rollup.
#[track_caller]
fn check_sums(rollup: &Rollup, additions: &[Addition]) {
    let sum = |kind: Option<Kind>| -> u64 {
        let fits = |addition: &&Addition| kind.is_none_or(|kind| addition.kind == kind);
        additions.iter().filter(fits).map(|addition| addition.clicks).sum()
    };
    assert_eq!(rollup.all(), sum(None));
    assert_eq!(rollup.human(), sum(Some(Kind::Human)));
    for (kind, _) in Kind::ALL {
        assert_eq!(rollup.kinds[*kind as usize], sum(Some(*kind)));
    }
    let Form::Large(large) = &rollup.form else { return };
    let check_margins = |margins: &Margins, by_kind: &ByKind| {
        for at in 0..DIMENSIONS {
            let counts = margins.get(at);
            assert_eq!(counts.iter().map(|count| count.human).sum::<u64>(), by_kind[0]);
            assert_eq!(counts.iter().map(|count| count.all).sum::<u64>(), by_kind.iter().sum::<u64>());
        }
    };
    check_margins(&large.day, &rollup.kinds);
    for kind in 0..KINDS {
        assert_eq!(large.kinds.iter().map(|by_kind| by_kind[kind]).sum::<u64>(), rollup.kinds[kind]);
    }
    if let Some(detail) = &large.detail {
        for (margins, by_kind) in large.quarters().unwrap().iter().zip(large.kinds.iter()) {
            check_margins(margins, by_kind);
        }
        assert!(detail.cube.iter().count() <= large::CUBE_LEN_MAX);
        assert_eq!(detail.cube.iter().map(|cell| cell.1).sum::<u64>() + detail.cube.rest, rollup.all());
    }
}

/// As long as nothing overflows, a rollup tells what a count of all clicks tells.
#[track_caller]
fn check_exact(rollup: &Rollup, additions: &[Addition]) {
    let mut cells: BTreeMap<_, u64> = BTreeMap::new();
    let mut margins: BTreeMap<_, Count> = BTreeMap::new();
    let mut cube: BTreeMap<_, u64> = BTreeMap::new();
    for addition in additions {
        let facts = addition.facts();
        let values: [Option<&str>; 6] = std::array::from_fn(|at| Some(cut(facts.get(Dimension::ALL[at].0))));
        let (quarter, kind) = (usize::from(addition.quarter), addition.kind as usize);
        *cells.entry((quarter, kind, values)).or_default() += addition.clicks;
        *cube.entry((0, kind, values)).or_default() += addition.clicks;
        for (at, value) in values.into_iter().enumerate() {
            let count = Count {
                human: if addition.kind == Kind::Human { addition.clicks } else { 0 },
                all: addition.clicks,
            };
            margins.entry((Some(quarter), at, value)).or_default().add(count);
            margins.entry((None, at, value)).or_default().add(count);
        }
    }
    match rollup.by_value() {
        ByValue::Small(found) => assert_eq!(found, cells.into_iter().collect::<Vec<_>>()),
        ByValue::Large { day, quarters, cube: found, .. } => {
            let margin = |quarter: Option<usize>| -> Vec<_> {
                let of_quarter = margins.iter().filter(|((one, ..), _)| *one == quarter);
                of_quarter.map(|((_, at, value), count)| (*at, *value, *count)).collect()
            };
            assert_eq!(day, margin(None));
            for (quarter, found) in quarters.unwrap().into_iter().enumerate() {
                assert_eq!(found, margin(Some(quarter)));
            }
            let (found, rest) = found.unwrap();
            if rest == 0 {
                assert_eq!(found, cube.into_iter().collect::<Vec<_>>());
            }
        }
    }
    let visitors: BTreeSet<u64> = additions
        .iter()
        .filter(|addition| addition.kind == Kind::Human)
        .map(|addition| addition.visitor)
        .collect();
    if visitors.len() <= 768 {
        assert_eq!(rollup.unique(), visitors.len() as u64);
    }
}

prop_compose! {
    /// Values from a small or a large vocabulary.
    fn addition(vocabulary: u16)(
        quarter in 0..96u8,
        kind in 0..5usize,
        numbers in prop::array::uniform5(0..vocabulary),
        device in 0..6usize,
        clicks in 1..4u64,
        visitor in 0..300u64,
    ) -> Addition {
        let texts = numbers.map(|number| match number {
            0 => String::new(),
            1 => "ä".repeat(100),
            _ => format!("value {number}"),
        });
        Addition { quarter, kind: Kind::ALL[kind].0, texts, device: Device::ALL[device].0, clicks, visitor }
    }
}

fn additions(vocabulary: u16, len: usize) -> impl Strategy<Value = Vec<Addition>> {
    prop::collection::vec(addition(vocabulary), 0..len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn without_overflow_all_is_exact(additions in prop_oneof![additions(4, 30), additions(100, 2_500)]) {
        let rollup = rollup(&additions);
        check_sums(&rollup, &additions);
        check_exact(&rollup, &additions);
        prop_assert_eq!(stored(&rollup), rollup);
    }

    #[test]
    fn parts_merge_to_the_whole(
        additions in prop_oneof![additions(4, 100), additions(30, 1_800)],
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        from_the_back: bool,
    ) {
        let whole = rollup(&additions);
        cuts.sort_by_key(|cut| cut.index(additions.len() + 1));
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().map(|cut| cut.index(additions.len() + 1)).chain([additions.len()]) {
            parts.push(rollup(&additions[from..cut]));
            from = cut;
        }
        if from_the_back {
            parts.reverse();
        }
        let merged = merged(&parts);
        check_sums(&merged, &additions);
        check_exact(&merged, &additions);
        if matches!(&whole.form, Form::Large(large) if large.detail.as_ref().unwrap().cube.rest == 0) {
            prop_assert_eq!(&merged, &whole);
        }
    }

    #[test]
    fn sums_hold_when_values_overflow(
        additions in additions(600, 1_500),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = rollup(&additions);
        check_sums(&all, &additions);
        prop_assert_eq!(stored(&all), all);
        let cut = cut.index(additions.len() + 1);
        let merged = merged(&[rollup(&additions[cut..]), rollup(&additions[..cut])]);
        check_sums(&merged, &additions);
        check_sums(&stored(&merged), &additions);
        prop_assert_eq!(stored(&merged), merged);
    }

    #[test]
    fn the_summary_tells_the_days_counts(additions in prop_oneof![additions(4, 300), additions(300, 1_500)]) {
        let rollup = rollup(&additions);
        let summary = Rollup::decode(&rollup.encode().summary, None).unwrap();
        check_sums(&summary, &additions);
        prop_assert_eq!(summary.unique(), rollup.unique());
    }

    #[test]
    fn damaged_bytes_never_panic(
        additions in prop_oneof![additions(4, 20), additions(30, 1_800)],
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
        in_detail: bool,
    ) {
        let EncodedRollup { mut summary, mut detail } = rollup(&additions).encode();
        let damaged = if in_detail && !detail.is_empty() { &mut detail } else { &mut summary };
        let at = at.index(damaged.len());
        damaged[at] = byte;
        read_and_use(&summary, Some(&detail));
        read_and_use(&summary, None);
        summary.truncate(cut.index(summary.len()));
        prop_assert!(Rollup::decode(&summary, Some(&detail)).is_err());
        prop_assert!(Rollup::decode(&summary, None).is_err());
    }

    #[test]
    fn random_bytes_never_panic(
        mut summary in prop::collection::vec(any::<u8>(), 0..300),
        detail in prop::collection::vec(any::<u8>(), 0..300),
        flags in 0..8u8,
    ) {
        read_and_use(&summary, Some(&detail));
        if let [version, second, ..] = &mut summary[..] {
            (*version, *second) = (1, flags);
        }
        read_and_use(&summary, Some(&detail));
        read_and_use(&summary, None);
    }
}

fn read_and_use(summary: &[u8], detail: Option<&[u8]>) {
    let Ok(mut rollup) = Rollup::decode(summary, detail) else { return };
    let _ = (rollup.human(), rollup.all(), rollup.unique());
    if rollup.is_whole() {
        rollup.merge(&rollup.clone());
        let EncodedRollup { summary, detail } = rollup.encode();
        let _ = Rollup::decode(&summary, Some(&detail));
    }
}

fn phone() -> Addition {
    let texts = ["www.example.com", "CH", "Chrome Mobile", "Android", "de-ch"].map(String::from);
    Addition { quarter: 50, kind: Kind::Human, texts, device: Device::Mobile, clicks: 1, visitor: 1 }
}

#[test]
fn one_click_takes_few_bytes_and_no_detail() {
    let EncodedRollup { summary, detail } = rollup(&[phone()]).encode();
    assert!(summary.len() <= 80, "{} bytes", summary.len());
    assert!(detail.is_empty());
    assert_eq!(Rollup::decode(&summary, None), Ok(rollup(&[phone()])));
}

/// No day has sketches like these, but damaged bytes may.
#[test]
fn sketches_that_are_full_to_the_brim_are_no_harm() {
    let mut day = vec![1, 2 | 4, 0, 0, 0, 0, 0, 0, 0, 2];
    for quarter in 0..2 {
        // The highest rank in every register.
        day.extend([quarter, 23 << 1 | 1]);
        day.resize(day.len() + 512, 0);
    }
    day.push(21 << 1 | 1);
    day.resize(day.len() + 2_048, 0);
    let rollup = Rollup::decode(&day, None).unwrap();
    assert!(rollup.unique() > 1_000_000_000);
    assert_eq!(stored(&rollup), rollup);
}

#[test]
fn adding_no_clicks_changes_nothing() {
    assert_eq!(rollup(&[Addition { clicks: 0, kind: Kind::Bot, ..phone() }]), Rollup::default());
}

#[test]
fn a_long_value_is_cut_at_a_character() {
    let long = |repeats| {
        let mut addition = phone();
        addition.texts[0] = "x".to_owned() + &"ä".repeat(repeats);
        addition
    };
    assert_eq!(rollup(&[long(100)]), rollup(&[long(63)]));
    assert_ne!(rollup(&[long(63)]), rollup(&[long(62)]));
}

#[test]
fn more_clicks_than_can_be_counted_stay_the_most() {
    let mut rollup = rollup(&[Addition { clicks: u64::MAX, ..phone() }, phone()]);
    rollup.merge(&rollup.clone());
    assert_eq!((rollup.human(), rollup.all()), (u64::MAX, u64::MAX));
    assert_eq!(stored(&rollup), rollup);
}

/// Clicks of which every value is new, between clicks of a few real values.
#[test]
fn a_flood_of_values_is_bounded_and_leaves_the_real_ones() {
    const CLICKS: u64 = if cfg!(debug_assertions) { 60_000 } else { 1_000_000 };
    let mut organic = Rollup::default();
    for n in 0..2_000u64 {
        let texts = std::array::from_fn(|at| format!("value {}", n % (at as u64 + 2)));
        let addition = Addition { texts, ..phone() };
        organic.add((n / 60) as u8, &addition.facts(), 1);
    }
    assert!(matches!(organic.form, Form::Large(_)));
    for before in [Rollup::default(), organic] {
        let (mut whole, mut batched, mut batch) = (before.clone(), before.clone(), Rollup::default());
        let mut real = 0;
        for n in 0..CLICKS {
            let quarter = (n * 96 / CLICKS) as u8;
            let mut addition = phone();
            if n % 20 == 7 {
                real += 1;
            } else {
                let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                addition.texts = std::array::from_fn(|at| format!("{random:016x}{at}{:a<111}", ""));
                addition.kind = Kind::ALL[n as usize % 5].0;
            }
            for rollup in [&mut whole, &mut batch] {
                rollup.add(quarter, &addition.facts(), 1);
                rollup.add_visitor(quarter, VisitorHash(n));
            }
            if n % 20_000 == 19_999 {
                batched.merge(&std::mem::take(&mut batch));
            }
        }
        for rollup in [whole, batched] {
            check_flooded(&rollup, before.all() + CLICKS, real);
        }
    }
}

#[track_caller]
fn check_flooded(rollup: &Rollup, all: u64, real: u64) {
    assert_eq!(rollup.all(), all);
    let EncodedRollup { summary, detail } = rollup.encode();
    println!("{all} clicks, most of them hostile: {} + {} bytes", summary.len(), detail.len());
    assert!(summary.len() + detail.len() <= 640_000 && 640_000 <= ENCODED_BYTES_MAX);
    assert_eq!(&stored(rollup), rollup);
    for at in 0..DIMENSIONS {
        let number = rollup.dictionaries[at].get(phone().facts().get(Dimension::ALL[at].0));
        let kept = rollup.weights(at)[usize::from(number.expect("it is still told apart"))];
        assert!(kept >= real - 10, "{kept} of {real}");
    }
    if let Form::Large(large) = &rollup.form {
        let most = large.detail.as_ref().unwrap().cube.iter().map(|cell| cell.1).max().unwrap();
        assert!(most >= real - real / 50, "{most} of {real}");
    }
}
