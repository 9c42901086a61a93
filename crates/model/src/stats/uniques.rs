//! [`Uniques`]: distinct visitors of an answer, summed over UTC days.

use super::Unique;
use crate::click::{Day, VisitorHash};
use crate::sketch::{DAY_PRECISION, Sketch};
use std::collections::{BTreeMap, HashSet};

/// Visitors of raw events that are held one by one, of all days together; with more, each day has a sketch.
const VISITORS_LEN_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Uniques {
    /// Of days that rollups tell.
    told: u64,
    /// The largest standard error that took part.
    error: f64,
    exact: HashSet<(Day, VisitorHash)>,
    /// Instead of `exact`, when there are many.
    sketches: BTreeMap<Day, Sketch>,
    unknown: Option<&'static str>,
}

impl Uniques {
    /// Adds a day's number with its standard error.
    pub(super) fn add(&mut self, visitors: u64, error: f64) {
        self.told = self.told.saturating_add(visitors);
        self.error = self.error.max(error);
    }

    /// Adds the visitor of a raw event.
    pub(super) fn insert(&mut self, day: Day, visitor: VisitorHash) {
        if self.sketches.is_empty() {
            self.exact.insert((day, visitor));
            if self.exact.len() > VISITORS_LEN_MAX {
                for (day, visitor) in std::mem::take(&mut self.exact) {
                    self.sketch(day).insert(visitor);
                }
            }
        } else {
            self.sketch(day).insert(visitor);
        }
    }

    /// The number can't be told.
    pub(super) fn give_up(&mut self, reason: &'static str) {
        self.unknown = Some(reason);
    }

    pub(super) fn finish(self) -> Unique {
        if let Some(reason) = self.unknown {
            return Unique::Unknown(reason);
        }
        let sketched = self.sketches.values().map(Sketch::estimate).fold(0, u64::saturating_add);
        let visitors = self.told.saturating_add(sketched).saturating_add(self.exact.len() as u64);
        Unique::Known {
            visitors,
            error: self.sketches.values().map(Sketch::error).fold(self.error, f64::max),
        }
    }

    fn sketch(&mut self, day: Day) -> &mut Sketch {
        self.sketches.entry(day).or_insert_with(|| Sketch::new(DAY_PRECISION))
    }
}
