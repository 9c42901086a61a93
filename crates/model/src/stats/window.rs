//! [`Window`]: the part of a UTC day that a range covers.

use super::buckets::Buckets;
use crate::click::{DAY_MILLIS, Day, QUARTER_MILLIS, QUARTERS};
use crate::rollup::ByKind;
use std::ops::Range;

const QUARTERS_LEN: usize = QUARTERS as usize;

/// The part of a UTC day that a range covers.
pub(super) struct Window {
    /// Those that it touches.
    pub(super) quarters: Range<usize>,
    /// Those of them that it covers in part.
    cut: [Option<usize>; 2],
    /// The bucket of each quarter; of those outside, the nearest one's.
    pub(super) buckets: [usize; QUARTERS_LEN],
}

impl Window {
    /// `None` if it covers nothing of the day.
    pub(super) fn of(day: Day, range: &Range<i64>, buckets: &Buckets) -> Option<Self> {
        let start = i64::from(day.0) * DAY_MILLIS;
        let (from, to) = (range.start - start, range.end - start);
        let first = from.div_euclid(QUARTER_MILLIS).clamp(0, QUARTERS.into());
        let end = (to + QUARTER_MILLIS - 1).div_euclid(QUARTER_MILLIS).clamp(0, QUARTERS.into());
        if first >= end || range.is_empty() {
            return None;
        }
        let instant = |quarter: i64| (start + quarter * QUARTER_MILLIS).clamp(range.start, range.end - 1);
        let (first_bucket, last_bucket) = (buckets.at(instant(first)), buckets.at(instant(end - 1)));
        let mut table = [first_bucket; QUARTERS_LEN];
        if first_bucket != last_bucket {
            table = std::array::from_fn(|quarter| buckets.at(instant(quarter as i64)));
        }
        Some(Window {
            quarters: first as usize..end as usize,
            cut: [
                (from > first * QUARTER_MILLIS).then_some(first as usize),
                (to < end * QUARTER_MILLIS).then_some(end as usize - 1),
            ],
            buckets: table,
        })
    }

    /// All of a day.
    pub(super) fn whole() -> Self {
        Window { quarters: 0..QUARTERS_LEN, cut: [None; 2], buckets: [0; QUARTERS_LEN] }
    }

    /// Whether it covers a quarter in part.
    pub(super) fn is_cut(&self, quarter: usize) -> bool {
        self.cut.contains(&Some(quarter))
    }

    /// Whether there are clicks in a quarter that it covers in part.
    pub(super) fn has_cut(&self, kinds: &[ByKind; QUARTERS_LEN]) -> bool {
        self.cut.iter().flatten().any(|quarter| has_clicks(&kinds[*quarter]))
    }

    /// Whether there are clicks in any quarter that it touches.
    pub(super) fn has_any(&self, kinds: &[ByKind; QUARTERS_LEN]) -> bool {
        kinds[self.quarters.clone()].iter().any(has_clicks)
    }

    /// Whether all clicks of the day are in quarters that it touches.
    pub(super) fn has_all(&self, kinds: &[ByKind; QUARTERS_LEN]) -> bool {
        (0..QUARTERS_LEN).all(|quarter| self.quarters.contains(&quarter) || !has_clicks(&kinds[quarter]))
    }

    /// The bucket of the first quarter with clicks.
    pub(super) fn first_bucket(&self, kinds: &[ByKind; QUARTERS_LEN]) -> usize {
        let first = self.quarters.clone().find(|quarter| has_clicks(&kinds[*quarter]));
        self.buckets[first.unwrap_or(self.quarters.start)]
    }

    /// Whether all clicks that it touches are in one bucket.
    pub(super) fn is_one_bucket(&self, kinds: &[ByKind; QUARTERS_LEN]) -> bool {
        let first = self.first_bucket(kinds);
        self.quarters.clone().all(|quarter| self.buckets[quarter] == first || !has_clicks(&kinds[quarter]))
    }
}

fn has_clicks(by_kind: &ByKind) -> bool {
    by_kind.iter().any(|clicks| *clicks > 0)
}
