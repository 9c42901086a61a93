//! A rollup as bytes. Integers are varints unless said otherwise; `[…]*` is a number and then as many things.
//!
//! ```text
//! summary, small: VERSION flags [unique] dictionary×6 [cell]* [visitors]
//! summary, large: VERSION flags unique kinds margin×6
//! detail, small:  VERSION visitors, or nothing if they are in the summary
//! detail, large:  VERSION cube visitors (quarter×6)×quarters
//!
//! dictionary: [value]*                   value: [byte]*
//! cell, cube: difference of rank to the one before, clicks
//! kinds:      [quarter byte, a byte with a bit for each kind that has clicks, clicks of each of these]*
//! margin:     clicks of `other`, [value, clicks]*
//! quarter:    [difference of number to the one before, clicks]*
//! cube:       clicks that are in no cell, [cell]*
//! clicks, in margins: human clicks × 2 + 1 if there are others, and then these
//! ```
//!
//! `unique` is left out where the visitors follow. Sums that must be equal are checked, so that what reads is sound.

use super::dictionary::{Dictionary, VALUE_BYTES_MAX, VALUES_LEN_MAX};
use super::key::{DIMENSIONS, KINDS, Key, Ranks};
use super::large::{ByKind, CUBE_LEN_MAX, Count, Cube, Detail, Large, Margins, Quarters};
use super::small::{CELLS_LEN_MAX, Small};
use super::visitors::Visitors;
use super::{EncodedRollup, Form, Rollup, Uniques};
use crate::click::{Kind, QUARTERS};
use crate::varint::{self, Reader};

/// The first byte of a summary and of a detail.
const VERSION: u8 = 1;

/// Flag: margins rather than cells.
const LARGE: u8 = 1;
/// Flag: the visitors are in the summary.
const VISITORS: u8 = 2;
/// Flag: the number of visitors is exact.
const EXACT: u8 = 4;

/// With at most so many visitors in quarters, these are in the summary, so that a cold day needs no detail.
const SUMMARY_VISITORS_MAX: u64 = 32;

pub(super) fn encode(rollup: &Rollup) -> EncodedRollup {
    let mut summary = Vec::with_capacity(160);
    let mut detail = Vec::new();
    let Uniques::Kept(visitors) = &rollup.visitors else {
        unreachable!("a rollup of which only the summary was read is not written");
    };
    let exact = if visitors.day.is_exact() { EXACT } else { 0 };
    match &rollup.form {
        Form::Small(small) => {
            let has_few_visitors = visitors.len_in_quarters() <= SUMMARY_VISITORS_MAX;
            let with_visitors = if has_few_visitors { VISITORS } else { 0 };
            summary.extend([VERSION, with_visitors | exact]);
            if !has_few_visitors {
                varint::put(&mut summary, visitors.day.estimate());
            }
            for dictionary in &rollup.dictionaries {
                varint::put(&mut summary, dictionary.len() as u64);
                dictionary.values().iter().for_each(|value| put_value(&mut summary, value));
            }
            put_cells(&mut summary, &rollup.ranks(), small.cells());
            if has_few_visitors {
                visitors.encode(&mut summary);
            } else {
                detail.push(VERSION);
                visitors.encode(&mut detail);
            }
        }
        Form::Large(large) => {
            summary.extend([VERSION, LARGE | exact]);
            varint::put(&mut summary, visitors.day.estimate());
            put_kinds(&mut summary, &large.kinds);
            for (at, dictionary) in rollup.dictionaries.iter().enumerate() {
                put_margin(&mut summary, dictionary, large.day.get(at));
            }
            let Some(parts) = &large.detail else {
                unreachable!("a rollup of which only the summary was read is not written");
            };
            detail.reserve(16_384);
            detail.push(VERSION);
            varint::put(&mut detail, parts.cube.rest);
            put_cells(&mut detail, &rollup.ranks(), &parts.cube.sorted());
            visitors.encode(&mut detail);
            match &parts.quarters {
                Quarters::Read(quarters) => {
                    for quarter in quarters.iter().filter(|quarter| !quarter.get(0).is_empty()) {
                        (0..DIMENSIONS).for_each(|at| put_quarter(&mut detail, quarter.get(at)));
                    }
                }
                Quarters::Stored(bytes) => detail.extend_from_slice(bytes),
            }
        }
    }
    EncodedRollup { summary, detail }
}

/// `None` for damaged bytes.
pub(super) fn decode(summary: &[u8], detail: Option<&[u8]>) -> Option<Rollup> {
    let mut summary = versioned(summary)?;
    let flags = summary.byte()?;
    let rollup = if flags & LARGE == 0 {
        small(flags, &mut summary, detail)
    } else {
        large(flags, &mut summary, detail)
    }?;
    summary.is_empty().then_some(rollup)
}

fn small(flags: u8, summary: &mut Reader<'_>, detail: Option<&[u8]>) -> Option<Rollup> {
    let is_inline = flags & VISITORS != 0;
    let unique = if is_inline { 0 } else { summary.varint()? };
    let mut dictionaries: [Dictionary; DIMENSIONS] = Default::default();
    for dictionary in &mut dictionaries {
        let len = summary.len(VALUES_LEN_MAX)?;
        *dictionary = Dictionary::with_capacity(len);
        for _ in 0..len {
            dictionary.push_new(value(summary)?)?;
        }
    }
    let cells = cells(summary, &ranks(&dictionaries), CELLS_LEN_MAX)?;
    let mut kinds = [0u64; KINDS];
    for (key, clicks) in &cells {
        kinds[key.kind()] = kinds[key.kind()].checked_add(*clicks)?;
    }
    let visitors = if is_inline {
        if detail.is_some_and(|detail| !detail.is_empty()) {
            return None;
        }
        Uniques::Kept(Visitors::decode(summary)?)
    } else {
        match detail {
            None => told(flags, unique),
            Some(detail) => kept(&mut versioned(detail)?)?,
        }
    };
    Some(Rollup { dictionaries, kinds, form: Form::Small(Small::from_sorted(cells)), visitors })
}

fn large(flags: u8, summary: &mut Reader<'_>, detail: Option<&[u8]>) -> Option<Rollup> {
    let unique = summary.varint()?;
    let mut large = Large { kinds: kinds(summary)?, day: Margins::default(), detail: None };
    let mut kinds = [0u64; KINDS];
    for quarter in large.kinds.iter() {
        for (sum, clicks) in kinds.iter_mut().zip(quarter) {
            *sum = sum.checked_add(*clicks)?;
        }
    }
    let total = count(&kinds)?;
    let mut dictionaries: [Dictionary; DIMENSIONS] = Default::default();
    for (dictionary, counts) in dictionaries.iter_mut().zip(&mut large.day.0) {
        let other = clicks(summary)?;
        let len = summary.len(VALUES_LEN_MAX)?;
        *dictionary = Dictionary::with_capacity(len);
        counts.reserve_exact(len + 1);
        counts.push(other);
        for _ in 0..len {
            dictionary.push_new(value(summary)?)?;
            counts.push(clicks(summary)?);
        }
        (sum(counts)? == total).then_some(())?;
    }
    let visitors = match detail {
        None => told(flags, unique),
        Some(detail) => {
            let mut bytes = versioned(detail)?;
            let cube = cube(&mut bytes, &ranks(&dictionaries), total)?;
            let visitors = Visitors::decode(&mut bytes)?;
            let stored = bytes.rest();
            quarters_check(
                stored,
                &large.kinds,
                &dictionaries.each_ref().map(Dictionary::len),
                |_, _, _, _| {},
            )?;
            large.detail = Some(Box::new(Detail { quarters: Quarters::Stored(stored.into()), cube }));
            Uniques::Kept(visitors)
        }
    };
    Some(Rollup { dictionaries, kinds, form: Form::Large(Box::new(large)), visitors })
}

/// The margins of quarters, whose bytes were checked when the rollup was read.
pub(super) fn quarters(bytes: &[u8], kinds: &[ByKind; QUARTERS as usize]) -> Vec<Margins> {
    let mut quarters = vec![Margins::default(); QUARTERS.into()];
    quarters_visit(bytes, kinds, |quarter, dimension, number, count| {
        *quarters[quarter].at(dimension, number) = count;
    });
    quarters
}

/// Visits each count of quarters whose bytes were checked.
pub(super) fn quarters_visit(
    bytes: &[u8],
    kinds: &[ByKind; QUARTERS as usize],
    visit: impl FnMut(usize, usize, u8, Count),
) {
    let checked = quarters_check(bytes, kinds, &[VALUES_LEN_MAX; DIMENSIONS], visit);
    debug_assert!(checked.is_some());
}

/// Visits each count of a quarter and dimension. `None` for damaged bytes.
fn quarters_check(
    bytes: &[u8],
    kinds: &[ByKind; QUARTERS as usize],
    lens: &[usize; DIMENSIONS],
    mut visit: impl FnMut(usize, usize, u8, Count),
) -> Option<()> {
    let mut bytes = Reader::new(bytes);
    for (quarter, kinds) in kinds.iter().enumerate() {
        let expected = count(kinds)?;
        if expected.all == 0 {
            continue;
        }
        for (dimension, &number_max) in lens.iter().enumerate() {
            let mut sum = Count::default();
            let mut number = 0;
            for at in 0..bytes.len(number_max + 1)? {
                let step = bytes.varint()? as usize;
                number = step
                    .checked_add(number)
                    .filter(|number| *number <= number_max && (step > 0 || at == 0))?;
                let count = clicks(&mut bytes)?;
                sum = plus(sum, count)?;
                visit(quarter, dimension, number as u8, count);
            }
            (sum == expected).then_some(())?;
        }
    }
    bytes.is_empty().then_some(())
}

fn cube(bytes: &mut Reader<'_>, ranks: &Ranks, total: Count) -> Option<Cube> {
    let rest = bytes.varint()?;
    let cells = cells(bytes, ranks, CUBE_LEN_MAX)?;
    let sum = cells.iter().try_fold(rest, |sum, (_, clicks)| sum.checked_add(*clicks))?;
    let has_time = cells.last().is_some_and(|(key, _)| key.quarter() > 0);
    (sum == total.all && !has_time).then_some(Cube { clicks: cells.into_iter().collect(), rest })
}

fn versioned(bytes: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader::new(bytes);
    (reader.byte()? == VERSION).then_some(reader)
}

fn told(flags: u8, visitors: u64) -> Uniques {
    Uniques::Told { visitors, is_exact: flags & EXACT != 0 }
}

/// The visitors, which end a detail.
fn kept(detail: &mut Reader<'_>) -> Option<Uniques> {
    let visitors = Visitors::decode(detail)?;
    detail.is_empty().then_some(Uniques::Kept(visitors))
}

fn ranks(dictionaries: &[Dictionary; DIMENSIONS]) -> Ranks {
    Ranks::new(std::array::from_fn(|at| dictionaries[at].len()))
}

impl Rollup {
    fn ranks(&self) -> Ranks {
        ranks(&self.dictionaries)
    }
}

impl Dictionary {
    /// `None` if it is there already.
    fn push_new(&mut self, value: &str) -> Option<()> {
        self.get(value).is_none().then(|| self.push(value))?;
        Some(())
    }
}

fn put_value(out: &mut Vec<u8>, value: &str) {
    varint::put(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

fn value<'a>(bytes: &mut Reader<'a>) -> Option<&'a str> {
    let len = bytes.len(VALUE_BYTES_MAX)?;
    std::str::from_utf8(bytes.bytes(len)?).ok()
}

fn put_cells(out: &mut Vec<u8>, ranks: &Ranks, cells: &[(Key, u64)]) {
    varint::put(out, cells.len() as u64);
    let mut last = 0;
    for &(key, clicks) in cells {
        let rank = ranks.rank(key);
        varint::put(out, rank - last);
        varint::put(out, clicks);
        last = rank;
    }
}

fn cells(bytes: &mut Reader<'_>, ranks: &Ranks, len_max: usize) -> Option<Vec<(Key, u64)>> {
    let len = bytes.len(len_max)?;
    let mut cells = Vec::with_capacity(len);
    let mut rank = 0u64;
    for at in 0..len {
        let step = bytes.varint()?;
        rank = rank.checked_add(step).filter(|_| step > 0 || at == 0)?;
        let clicks = bytes.varint().filter(|clicks| *clicks > 0)?;
        cells.push((ranks.key(rank)?, clicks));
    }
    Some(cells)
}

fn put_kinds(out: &mut Vec<u8>, kinds: &[ByKind; QUARTERS as usize]) {
    let quarters =
        || kinds.iter().enumerate().filter(|(_, by_kind)| by_kind.iter().any(|clicks| *clicks > 0));
    varint::put(out, quarters().count() as u64);
    for (quarter, by_kind) in quarters() {
        let mask = (0..KINDS).filter(|&kind| by_kind[kind] > 0).fold(0, |mask, kind| mask | 1 << kind);
        out.extend([quarter as u8, mask]);
        by_kind.iter().filter(|clicks| **clicks > 0).for_each(|clicks| varint::put(out, *clicks));
    }
}

fn kinds(bytes: &mut Reader<'_>) -> Option<Box<[ByKind; QUARTERS as usize]>> {
    let mut kinds = Box::new([[0; KINDS]; QUARTERS as usize]);
    for _ in 0..bytes.len(QUARTERS.into())? {
        let by_kind = kinds.get_mut(usize::from(bytes.byte()?))?;
        let mask = bytes.byte()?;
        for (kind, clicks) in by_kind.iter_mut().enumerate() {
            if mask & 1 << kind != 0 {
                *clicks = bytes.varint()?;
            }
        }
    }
    Some(kinds)
}

fn put_margin(out: &mut Vec<u8>, dictionary: &Dictionary, counts: &[Count]) {
    let count = |number: usize| counts.get(number).copied().unwrap_or_default();
    put_clicks(out, count(0));
    varint::put(out, dictionary.len() as u64);
    for (at, value) in dictionary.values().iter().enumerate() {
        put_value(out, value);
        put_clicks(out, count(at + 1));
    }
}

fn put_quarter(out: &mut Vec<u8>, counts: &[Count]) {
    let counts = || counts.iter().enumerate().filter(|(_, count)| count.all > 0);
    varint::put(out, counts().count() as u64);
    let mut last = 0;
    for (number, count) in counts() {
        varint::put(out, (number - last) as u64);
        put_clicks(out, *count);
        last = number;
    }
}

fn put_clicks(out: &mut Vec<u8>, count: Count) {
    let others = count.all - count.human;
    // Counts that are beyond 63 bits stand for "too many" as well.
    varint::put(out, count.human.min(u64::MAX >> 1) << 1 | u64::from(others > 0));
    if others > 0 {
        varint::put(out, others);
    }
}

fn clicks(bytes: &mut Reader<'_>) -> Option<Count> {
    let head = bytes.varint()?;
    let human = head >> 1;
    let others = if head & 1 == 0 { 0 } else { bytes.varint()? };
    Some(Count { human, all: human.checked_add(others)? })
}

/// Clicks of people and of every kind.
fn count(kinds: &ByKind) -> Option<Count> {
    let all = kinds.iter().try_fold(0u64, |sum, clicks| sum.checked_add(*clicks))?;
    Some(Count { human: kinds[Kind::Human as usize], all })
}

fn sum(counts: &[Count]) -> Option<Count> {
    counts.iter().try_fold(Count::default(), |sum, count| plus(sum, *count))
}

fn plus(a: Count, b: Count) -> Option<Count> {
    Some(Count { human: a.human.checked_add(b.human)?, all: a.all.checked_add(b.all)? })
}
