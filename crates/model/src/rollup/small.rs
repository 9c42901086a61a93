//! [`Small`]: every cell of a day, so that any question can be answered exactly.

use super::dictionary::Renumbering;
use super::key::Key;

/// Cells of a rollup that is kept whole; one more, and it is kept by its margins.
pub const CELLS_LEN_MAX: usize = 1_000;

/// Clicks by quarter, kind and values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Small {
    /// In ascending order of keys, none of which is there twice.
    cells: Vec<(Key, u64)>,
}

impl Small {
    /// From cells in ascending order.
    pub(super) fn from_sorted(cells: Vec<(Key, u64)>) -> Self {
        debug_assert!(cells.is_sorted_by(|a, b| a.0 < b.0));
        Small { cells }
    }

    pub(crate) fn cells(&self) -> &[(Key, u64)] {
        &self.cells
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.cells.len() > CELLS_LEN_MAX
    }

    pub(super) fn add(&mut self, key: Key, clicks: u64) {
        // Clicks come about in the order of time.
        let at = match self.cells.last() {
            Some((last, _)) if *last < key => Err(self.cells.len()),
            _ => self.cells.binary_search_by_key(&key, |cell| cell.0),
        };
        match at {
            Ok(at) => self.cells[at].1 = self.cells[at].1.saturating_add(clicks),
            Err(at) => self.cells.insert(at, (key, clicks)),
        }
    }

    /// Clicks of every kind by a dimension's values; `len` is the number of values including `other`.
    pub(super) fn weights(&self, dimension: usize, len: usize) -> Vec<u64> {
        let mut weights = vec![0u64; len];
        for (key, clicks) in &self.cells {
            let weight = &mut weights[usize::from(key.number(dimension))];
            *weight = weight.saturating_add(*clicks);
        }
        weights
    }

    pub(super) fn renumber(&mut self, dimension: usize, renumbering: &Renumbering) {
        for (key, _) in &mut self.cells {
            *key = key.with(dimension, renumbering[usize::from(key.number(dimension))]);
        }
        self.cells.sort_unstable_by_key(|cell| cell.0);
        self.cells.dedup_by(|cell, kept| {
            let is_same = cell.0 == kept.0;
            if is_same {
                kept.1 = kept.1.saturating_add(cell.1);
            }
            is_same
        });
    }
}
