//! [`Large`]: the margins of a day, and as much of its cube as has room.

use super::dictionary::Renumbering;
use super::encoding;
use super::key::{DIMENSIONS, KINDS, Key};
use crate::click::QUARTERS;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Combinations of a kind and six values in a day's cube. One more, and the smallest are given up.
pub(super) const CUBE_LEN_MAX: usize = 1_500;
/// As many stay then.
pub(super) const CUBE_LEN_KEPT: usize = 1_000;

/// Clicks of people and of every kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) human: u64,
    pub(crate) all: u64,
}

impl Count {
    pub(crate) fn add(&mut self, other: Count) {
        self.human = self.human.saturating_add(other.human);
        self.all = self.all.saturating_add(other.all);
    }

    pub(super) fn of(key: Key, clicks: u64) -> Self {
        Count { human: if key.is_human() { clicks } else { 0 }, all: clicks }
    }
}

/// Counts of each dimension by the numbers of values; those behind the end are zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Margins(pub(super) [Vec<Count>; DIMENSIONS]);

/// Clicks of each kind.
pub(crate) type ByKind = [u64; KINDS];

/// What is kept of a day with many clicks.
#[derive(Clone, Debug)]
pub(crate) struct Large {
    pub(crate) kinds: Box<[ByKind; QUARTERS as usize]>,
    pub(crate) day: Margins,
    /// `None` if only the summary was read.
    pub(crate) detail: Option<Box<Detail>>,
}

/// What whole days don't need.
#[derive(Clone, Debug)]
pub(crate) struct Detail {
    pub(super) quarters: Quarters,
    pub(crate) cube: Cube,
}

/// The margins of all quarters. They take much more memory than bytes, and most readers need none of them, so they stay
/// as they were stored until they are needed.
#[derive(Clone, Debug)]
pub(super) enum Quarters {
    Read(Vec<Margins>),
    /// Checked when the rollup was read.
    Stored(Box<[u8]>),
}

/// The most frequent combinations of a kind and six values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cube {
    /// By keys whose quarter is 0.
    pub(super) clicks: HashMap<Key, u64, BuildHasherDefault<KeyHasher>>,
    /// Clicks with other combinations.
    pub(crate) rest: u64,
}

impl Large {
    pub(super) fn new() -> Self {
        Large {
            kinds: Box::new([[0; KINDS]; QUARTERS as usize]),
            day: Margins::default(),
            detail: Some(Box::new(Detail::new())),
        }
    }

    /// The margins of the quarters. `None` if only the summary was read.
    pub(super) fn quarters(&self) -> Option<Cow<'_, [Margins]>> {
        match &self.detail.as_ref()?.quarters {
            Quarters::Read(quarters) => Some(Cow::Borrowed(quarters)),
            Quarters::Stored(bytes) => Some(Cow::Owned(encoding::quarters(bytes, &self.kinds))),
        }
    }

    /// Visits the counts of each quarter, in their order, with dimension and number. Nothing if only the summary was
    /// read.
    pub(crate) fn quarters_visit(&self, mut visit: impl FnMut(usize, usize, u8, Count)) {
        match self.detail.as_ref().map(|detail| &detail.quarters) {
            None => {}
            Some(Quarters::Stored(bytes)) => encoding::quarters_visit(bytes, &self.kinds, visit),
            Some(Quarters::Read(quarters)) => {
                for (quarter, margins) in quarters.iter().enumerate() {
                    for (dimension, counts) in margins.0.iter().enumerate() {
                        for (number, count) in counts.iter().enumerate() {
                            visit(quarter, dimension, number as u8, *count);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn add(&mut self, key: Key, clicks: u64) {
        let count = Count::of(key, clicks);
        if let Some(detail) = &mut self.detail {
            detail.read(&self.kinds)[key.quarter()].add(key, count);
            detail.cube.add(key.without_quarter(), clicks);
        }
        let kind = &mut self.kinds[key.quarter()][key.kind()];
        *kind = kind.saturating_add(clicks);
        self.day.add(key, count);
    }

    /// Adds `other`, whose numbers of values mean what `renumberings` says.
    pub(super) fn merge(&mut self, other: &Large, renumberings: &[Renumbering; DIMENSIONS]) {
        if let (Some(mine), Some(others)) = (&mut self.detail, other.quarters()) {
            for (mine, others) in mine.read(&self.kinds).iter_mut().zip(&*others) {
                mine.merge(others, renumberings);
            }
        }
        for (mine, others) in self.kinds.as_flattened_mut().iter_mut().zip(other.kinds.as_flattened()) {
            *mine = mine.saturating_add(*others);
        }
        self.day.merge(&other.day, renumberings);
        if let (Some(mine), Some(others)) = (&mut self.detail, &other.detail) {
            for (&key, &clicks) in &others.cube.clicks {
                mine.cube.add_unbounded(renumbered(key, renumberings), clicks);
            }
            mine.cube.rest = mine.cube.rest.saturating_add(others.cube.rest);
            mine.cube.bound();
        }
    }

    pub(super) fn renumber(&mut self, dimension: usize, renumbering: &Renumbering) {
        self.day.renumber(dimension, renumbering);
        if let Some(detail) = &mut self.detail {
            for quarter in detail.read(&self.kinds) {
                quarter.renumber(dimension, renumbering);
            }
            for (key, clicks) in std::mem::take(&mut detail.cube.clicks) {
                let key = key.with(dimension, renumbering[usize::from(key.number(dimension))]);
                detail.cube.add_unbounded(key, clicks);
            }
        }
    }
}

impl Detail {
    pub(super) fn new() -> Self {
        Detail { quarters: Quarters::Read(vec![Margins::default(); QUARTERS.into()]), cube: Cube::default() }
    }

    /// The margins of the quarters, to change them; `kinds` are as they were stored.
    fn read(&mut self, kinds: &[ByKind; QUARTERS as usize]) -> &mut [Margins] {
        if let Quarters::Stored(bytes) = &self.quarters {
            self.quarters = Quarters::Read(encoding::quarters(bytes, kinds));
        }
        match &mut self.quarters {
            Quarters::Read(quarters) => quarters,
            Quarters::Stored(_) => unreachable!("they were read above"),
        }
    }
}

impl Margins {
    /// By number, from `other` on.
    pub(crate) fn get(&self, dimension: usize) -> &[Count] {
        &self.0[dimension]
    }

    pub(super) fn at(&mut self, dimension: usize, number: u8) -> &mut Count {
        let counts = &mut self.0[dimension];
        let at = usize::from(number);
        if at >= counts.len() {
            counts.resize(at + 1, Count::default());
        }
        &mut counts[at]
    }

    fn add(&mut self, key: Key, count: Count) {
        for dimension in 0..DIMENSIONS {
            self.at(dimension, key.number(dimension)).add(count);
        }
    }

    fn merge(&mut self, other: &Margins, renumberings: &[Renumbering; DIMENSIONS]) {
        for (dimension, renumbering) in renumberings.iter().enumerate() {
            for (number, &count) in other.0[dimension].iter().enumerate().filter(|(_, count)| count.all > 0) {
                self.at(dimension, renumbering[number]).add(count);
            }
        }
    }

    fn renumber(&mut self, dimension: usize, renumbering: &Renumbering) {
        for (number, count) in std::mem::take(&mut self.0[dimension]).into_iter().enumerate() {
            if count.all > 0 {
                self.at(dimension, renumbering[number]).add(count);
            }
        }
    }
}

impl Cube {
    /// By keys whose quarter is 0, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, u64)> {
        self.clicks.iter().map(|(&key, &clicks)| (key, clicks))
    }

    pub(super) fn sorted(&self) -> Vec<(Key, u64)> {
        let mut cells: Vec<_> = self.iter().collect();
        cells.sort_unstable();
        cells
    }

    fn add(&mut self, key: Key, clicks: u64) {
        self.add_unbounded(key, clicks);
        self.bound();
    }

    fn add_unbounded(&mut self, key: Key, clicks: u64) {
        let sum = self.clicks.entry(key).or_default();
        *sum = sum.saturating_add(clicks);
    }

    fn bound(&mut self) {
        if self.clicks.len() <= CUBE_LEN_MAX {
            return;
        }
        let mut cells: Vec<_> = self.clicks.drain().collect();
        cells.select_nth_unstable_by_key(CUBE_LEN_KEPT, |&(key, clicks)| (Reverse(clicks), key));
        let given_up = cells.split_off(CUBE_LEN_KEPT);
        self.rest = given_up.iter().fold(self.rest, |rest, (_, clicks)| rest.saturating_add(*clicks));
        self.clicks.extend(cells);
    }
}

pub(super) fn renumbered(key: Key, renumberings: &[Renumbering; DIMENSIONS]) -> Key {
    (0..DIMENSIONS).fold(key, |key, at| key.with(at, renumberings[at][usize::from(key.number(at))]))
}

/// Mixes the one integer of a key. Visitors choose keys by what they send, but of the few that are kept no choice makes
/// a look-up slow.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, key: u64) {
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = (mixed ^ mixed >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are integers")
    }
}
