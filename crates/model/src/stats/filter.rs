//! [`NumberFilter`]: a filter of a dimension, by a rollup's numbers of values.

use super::counts::{OTHER, answered, sum};
use crate::click::Dimension;
use crate::rollup::{Key, Large, Rollup, VALUES_LEN_MAX};

/// Which numbers of a rollup's values fit a filter.
pub(super) struct NumberFilter {
    pub(super) dimension: usize,
    pub(super) fits: [bool; VALUES_LEN_MAX + 1],
    /// Whether `other` is what is asked for.
    pub(super) is_other: bool,
}

/// Whether clicks with a combination of values fit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    /// One of the values that are not told apart may be the one that is asked for.
    Maybe,
    No,
}

impl NumberFilter {
    /// A filter of a dimension, by the text that is asked for.
    pub(super) fn new(rollup: &Rollup, dimension: Dimension, wanted: &str) -> Self {
        let dimension = dimension as usize;
        let is_other = wanted.eq_ignore_ascii_case(OTHER);
        let mut fits = [false; VALUES_LEN_MAX + 1];
        fits[0] = is_other;
        for (value, fits) in rollup.values(dimension).iter().zip(&mut fits[1..]) {
            *fits = answered(dimension, value).eq_ignore_ascii_case(wanted);
        }
        NumberFilter { dimension, fits, is_other }
    }

    pub(super) fn fit(&self, key: Key) -> Fit {
        match usize::from(key.number(self.dimension)) {
            number if self.fits[number] => Fit::Yes,
            0 => Fit::Maybe,
            _ => Fit::No,
        }
    }
}

/// Whether a combination passes all filters.
pub(super) fn fit(filters: &[NumberFilter], key: Key) -> Fit {
    let mut all = Fit::Yes;
    for filter in filters {
        match filter.fit(key) {
            Fit::Yes => {}
            Fit::Maybe => all = Fit::Maybe,
            Fit::No => return Fit::No,
        }
    }
    all
}

/// How many clicks at most fit the filters and are in no cell, and how many at most have `other` where a filter asks
/// for a value.
///
/// The margin of each filtered value tells how many clicks there are; what the cells don't hold of them is missing. Of
/// several filters, the smallest number holds.
pub(super) fn missing(large: &Large, filters: &[NumberFilter], cells: &[(Key, u64)]) -> (u64, u64) {
    let (mut left_out, mut maybe, mut possible) = (u64::MAX, 0u64, u64::MAX);
    for filter in filters {
        let counts = large.day.get(filter.dimension);
        let fitting = counts.iter().zip(&filter.fits).filter(|(_, fits)| **fits);
        let margin = sum(fitting.map(|(count, _)| count.all));
        let held = sum(cells.iter().filter(|(key, _)| filter.fit(*key) == Fit::Yes).map(|cell| cell.1));
        let others = if filter.is_other { 0 } else { counts.first().map_or(0, |count| count.all) };
        left_out = left_out.min(margin.saturating_sub(held));
        maybe = maybe.saturating_add(others);
        possible = possible.min(margin.saturating_add(others));
    }
    if filters.is_empty() { (0, 0) } else { (left_out, maybe.min(possible)) }
}
