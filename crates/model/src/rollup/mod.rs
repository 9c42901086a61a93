//! [`Rollup`]: what is counted of one subject's clicks on one UTC day.
//!
//! A rollup has one of two forms. Nearly all days of nearly all links have few clicks: they are kept as a list of
//! cells, one for each quarter of an hour, kind and combination of six values, which answers any question exactly.
//! Past [`CELLS_LEN_MAX`] cells, the margins are kept instead: counts by value, for the day and for each quarter of an
//! hour, and a cube of the most frequent combinations without the time.
//!
//! Both forms number the values of each dimension by a dictionary of at most [`VALUES_LEN_MAX`]. What doesn't fit is
//! counted as `other`, so that clicks made up by an attacker can't grow a rollup past a fixed size:
//! [`ENCODED_BYTES_MAX`].

mod dictionary;
mod encoding;
mod key;
mod large;
mod small;
#[cfg(test)]
mod tests;
mod visitors;

use crate::click::{Dimension, Facts, Kind, QUARTERS, VisitorHash};
use crate::sketch::{self, Sketch};
use compact_str::CompactString;
use dictionary::{Dictionary, OTHER, Renumbering};
use std::fmt;
use std::ops::Range;
use visitors::Visitors;

pub use dictionary::{VALUE_BYTES_MAX, VALUES_LEN_MAX};
pub(crate) use dictionary::{cut, is_other};
pub(crate) use key::{DIMENSIONS, KINDS, Key};
pub(crate) use large::{ByKind, Count, Large, Margins};
pub use small::CELLS_LEN_MAX;
pub(crate) use small::Small;

/// Bytes of an encoded rollup, summary and detail together, whatever is counted: at most 150 kB of values, 100 kB of
/// their counts in the day and in the cube, 55 kB of sketches, and the counts of 1,206 values in 96 quarters, of which
/// each takes 2 bytes in most cases, and 11 with thousands of millions of clicks.
pub const ENCODED_BYTES_MAX: usize = 1_600_000;

/// Counts of a day. Additive and never closed.
///
/// Two rollups are equal if they tell the same, in whatever order clicks were added.
#[derive(Clone, Default)]
pub struct Rollup {
    dictionaries: [Dictionary; DIMENSIONS],
    kinds: ByKind,
    form: Form,
    visitors: Uniques,
}

/// What is counted.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Small(Small),
    Large(Box<Large>),
}

impl Default for Form {
    fn default() -> Self {
        Form::Small(Small::default())
    }
}

#[derive(Clone, Debug)]
enum Uniques {
    Kept(Visitors),
    /// As the summary tells them, when only that was read.
    Told {
        visitors: u64,
        is_exact: bool,
    },
}

impl Default for Uniques {
    fn default() -> Self {
        Uniques::Kept(Visitors::default())
    }
}

/// A stored rollup that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged rollup")]
pub struct DamagedRollup;

/// A rollup as it is stored: the summary alone answers for whole days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRollup {
    /// Counts by value, and counts of each kind by quarter.
    pub summary: Vec<u8>,
    /// Everything else; empty when the summary holds all.
    pub detail: Vec<u8>,
}

impl Rollup {
    /// Adds clicks in a quarter of an hour of the day, 0 to 95.
    pub fn add(&mut self, quarter: u8, facts: &Facts<'_>, clicks: u64) {
        debug_assert!(quarter < QUARTERS && self.is_whole());
        if clicks == 0 {
            return;
        }
        let mut key = Key::new(quarter.min(QUARTERS - 1), facts.kind);
        for (at, (dimension, _)) in Dimension::ALL.iter().enumerate() {
            key = key.with(at, self.number(at, cut(facts.get(*dimension))));
        }
        self.add_cell(key, clicks);
    }

    /// Notes who a human click in a quarter came from.
    pub fn add_visitor(&mut self, quarter: u8, visitor: VisitorHash) {
        debug_assert!(quarter < QUARTERS && self.is_whole());
        if let Uniques::Kept(visitors) = &mut self.visitors {
            visitors.insert(quarter.min(QUARTERS - 1), visitor);
        }
    }

    /// Adds all that `other` holds.
    pub fn merge(&mut self, other: &Rollup) {
        debug_assert!(self.is_whole() && other.is_whole());
        let renumberings: [Renumbering; DIMENSIONS] = std::array::from_fn(|at| self.unify(at, other));
        match &other.form {
            Form::Small(small) => {
                for &(key, clicks) in small.cells() {
                    self.add_cell(large::renumbered(key, &renumberings), clicks);
                }
            }
            Form::Large(theirs) => {
                self.grow().merge(theirs, &renumberings);
                for (mine, others) in self.kinds.iter_mut().zip(other.kinds) {
                    *mine = mine.saturating_add(others);
                }
            }
        }
        if let (Uniques::Kept(mine), Uniques::Kept(others)) = (&mut self.visitors, &other.visitors) {
            mine.merge(others);
        }
    }

    /// Clicks of people.
    pub fn human(&self) -> u64 {
        self.kinds[Kind::Human as usize]
    }

    /// Clicks of every kind.
    pub fn all(&self) -> u64 {
        self.kinds.iter().fold(0, |sum, clicks| sum.saturating_add(*clicks))
    }

    /// Distinct visitors of human clicks, estimated.
    pub fn unique(&self) -> u64 {
        match &self.visitors {
            Uniques::Kept(visitors) => visitors.day.estimate(),
            Uniques::Told { visitors, .. } => *visitors,
        }
    }

    /// The standard error of [`Rollup::unique`] as a fraction; 0 when that is exact.
    pub fn unique_error(&self) -> f64 {
        match &self.visitors {
            Uniques::Kept(visitors) => visitors.day.error(),
            Uniques::Told { is_exact: true, .. } => 0.0,
            Uniques::Told { is_exact: false, .. } => sketch::error(sketch::DAY_PRECISION),
        }
    }

    /// For a store. It must be whole: [`Rollup::is_whole`].
    ///
    /// # Panics
    /// When only its summary was read, because storing it would lose the rest.
    pub fn encode(&self) -> EncodedRollup {
        debug_assert!(self.is_whole());
        encoding::encode(self)
    }

    /// From a store. Without its detail it answers for whole days only, and must not be added to.
    pub fn decode(summary: &[u8], detail: Option<&[u8]>) -> Result<Self, DamagedRollup> {
        encoding::decode(summary, detail).ok_or(DamagedRollup)
    }

    /// Whether it was made in memory, or read with its detail.
    pub fn is_whole(&self) -> bool {
        let has_cells = match &self.form {
            Form::Small(_) => true,
            Form::Large(large) => large.detail.is_some(),
        };
        has_cells && matches!(self.visitors, Uniques::Kept(_))
    }

    /// What is counted, by numbers of values.
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// The values of a dimension that are told apart, from number 1 on; number 0 is `other`.
    pub(crate) fn values(&self, dimension: usize) -> &[CompactString] {
        self.dictionaries[dimension].values()
    }

    /// The visitors of some quarters. `None` if only the summary was read.
    pub(crate) fn visitors_of(&self, quarters: Range<usize>) -> Option<Sketch> {
        let Uniques::Kept(visitors) = &self.visitors else { return None };
        let inside = visitors.quarters.iter().filter(|(one, _)| quarters.contains(&usize::from(*one)));
        Some(Sketch::union(sketch::DAY_PRECISION, inside.map(|(_, sketch)| sketch)))
    }

    /// The number of a value that is cut already. Makes room for a new one if there is none.
    fn number(&mut self, dimension: usize, value: &str) -> u8 {
        if let Some(number) = self.dictionaries[dimension].get(value) {
            return number;
        }
        if is_other(value) {
            return OTHER;
        }
        if self.dictionaries[dimension].is_full() {
            let weights = self.weights(dimension);
            let values = self.dictionaries[dimension].values();
            let stays = dictionary::heaviest(
                values.iter().zip(&weights[1..]).map(|(value, weight)| (value.as_str(), *weight)),
            );
            self.retain(dimension, &stays);
        }
        self.dictionaries[dimension].push(value)
    }

    fn add_cell(&mut self, key: Key, clicks: u64) {
        let kind = &mut self.kinds[key.kind()];
        *kind = kind.saturating_add(clicks);
        match &mut self.form {
            Form::Small(small) => {
                small.add(key, clicks);
                if small.is_too_large() {
                    self.grow();
                }
            }
            Form::Large(large) => large.add(key, clicks),
        }
    }

    /// Keeps margins from now on.
    fn grow(&mut self) -> &mut Large {
        if let Form::Small(small) = &self.form {
            let mut large = Large::new();
            for &(key, clicks) in small.cells() {
                large.add(key, clicks);
            }
            self.form = Form::Large(Box::new(large));
        }
        match &mut self.form {
            Form::Large(large) => large,
            Form::Small(_) => unreachable!("it has grown above"),
        }
    }

    /// Takes `other`'s values of a dimension into its own dictionary, as far as there is room for both, and tells what
    /// other's numbers become.
    fn unify(&mut self, dimension: usize, other: &Rollup) -> Renumbering {
        let mine = &self.dictionaries[dimension];
        let theirs = other.dictionaries[dimension].values();
        let new: Vec<usize> = (0..theirs.len()).filter(|&at| mine.get(&theirs[at]).is_none()).collect();
        let mut enters = vec![true; new.len()];
        if mine.len() + new.len() > VALUES_LEN_MAX {
            let (mut weights, others) = (self.weights(dimension), other.weights(dimension));
            for (value, weight) in theirs.iter().zip(&others[1..]) {
                if let Some(number) = mine.get(value) {
                    let sum = &mut weights[usize::from(number)];
                    *sum = sum.saturating_add(*weight);
                }
            }
            let known =
                mine.values().iter().zip(&weights[1..]).map(|(value, weight)| (value.as_str(), *weight));
            let added = new.iter().map(|&at| (theirs[at].as_str(), others[at + 1]));
            let mut stays = dictionary::heaviest(known.chain(added));
            enters = stays.split_off(mine.len());
            self.retain(dimension, &stays);
        }
        let mine = &mut self.dictionaries[dimension];
        let mut renumbering = [OTHER; VALUES_LEN_MAX + 1];
        for (at, value) in theirs.iter().enumerate() {
            renumbering[at + 1] = mine.get(value).unwrap_or(OTHER);
        }
        for (&at, _) in new.iter().zip(enters).filter(|(_, enters)| *enters) {
            renumbering[at + 1] = mine.push(&theirs[at]);
        }
        renumbering
    }

    /// Turns the values of a dimension that don't stay into `other`.
    fn retain(&mut self, dimension: usize, stays: &[bool]) {
        let renumbering = self.dictionaries[dimension].retain(|at| stays[at]);
        match &mut self.form {
            Form::Small(small) => small.renumber(dimension, &renumbering),
            Form::Large(large) => large.renumber(dimension, &renumbering),
        }
    }

    /// Clicks of every kind by number.
    fn weights(&self, dimension: usize) -> Vec<u64> {
        let len = self.dictionaries[dimension].len() + 1;
        match &self.form {
            Form::Small(small) => small.weights(dimension, len),
            Form::Large(large) => {
                let mut weights: Vec<u64> = large.day.get(dimension).iter().map(|count| count.all).collect();
                weights.resize(len, 0);
                weights
            }
        }
    }
}

impl fmt::Debug for Rollup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollup")
            .field("kinds", &self.kinds)
            .field("unique", &self.unique())
            .field("form", &self.by_value())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Rollup {
    fn eq(&self, other: &Rollup) -> bool {
        let same_visitors = match (&self.visitors, &other.visitors) {
            (Uniques::Kept(mine), Uniques::Kept(others)) => mine == others,
            _ => self.unique() == other.unique() && self.is_whole() == other.is_whole(),
        };
        same_visitors && self.kinds == other.kinds && self.by_value() == other.by_value()
    }
}

/// Counts by values rather than by their numbers, which depend on the order of clicks.
#[derive(Debug, PartialEq)]
enum ByValue<'a> {
    Small(Vec<(CellByValue<'a>, u64)>),
    Large {
        kinds: &'a [ByKind],
        day: Vec<CountByValue<'a>>,
        quarters: Option<Vec<Vec<CountByValue<'a>>>>,
        cube: Option<(Vec<(CellByValue<'a>, u64)>, u64)>,
    },
}

/// Quarter, kind and values; `None` is `other`.
type CellByValue<'a> = (usize, usize, [Option<&'a str>; DIMENSIONS]);
/// Dimension, value, clicks.
type CountByValue<'a> = (usize, Option<&'a str>, Count);

impl Rollup {
    /// For comparison.
    fn by_value(&self) -> ByValue<'_> {
        match &self.form {
            Form::Small(small) => ByValue::Small(self.cells_by_value(small.cells().iter().copied())),
            Form::Large(large) => ByValue::Large {
                kinds: &large.kinds[..],
                day: self.margins_by_value(&large.day),
                quarters: large
                    .quarters()
                    .map(|quarters| quarters.iter().map(|quarter| self.margins_by_value(quarter)).collect()),
                cube: large
                    .detail
                    .as_ref()
                    .map(|detail| (self.cells_by_value(detail.cube.iter()), detail.cube.rest)),
            },
        }
    }

    fn cells_by_value(&self, cells: impl Iterator<Item = (Key, u64)>) -> Vec<(CellByValue<'_>, u64)> {
        let values = |key: Key| std::array::from_fn(|at| self.dictionaries[at].value(key.number(at)));
        let mut cells: Vec<_> =
            cells.map(|(key, clicks)| ((key.quarter(), key.kind(), values(key)), clicks)).collect();
        cells.sort_unstable();
        cells
    }

    fn margins_by_value(&self, margins: &Margins) -> Vec<CountByValue<'_>> {
        let mut counts = Vec::new();
        for (at, dictionary) in self.dictionaries.iter().enumerate() {
            for (number, &count) in margins.get(at).iter().enumerate().filter(|(_, count)| count.all > 0) {
                counts.push((at, dictionary.value(number as u8), count));
            }
        }
        counts.sort_unstable_by_key(|(at, value, _)| (*at, *value));
        counts
    }
}
