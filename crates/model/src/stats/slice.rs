//! [`Slice`]: what a large day's margins and cube tell of the clicks with one value of one dimension.

use super::KindFilter;
use super::builder::{HUMAN, clicks_of};
use super::counts::sum;
use super::filter::{Fit, NumberFilter};
use super::window::Window;
use crate::rollup::{ByKind, Count, DIMENSIONS, KINDS, Large, VALUES_LEN_MAX};

/// Clicks by the numbers of values.
type ByNumber<T> = [T; VALUES_LEN_MAX + 1];

/// The clicks of a part of a day that fit a filter of one dimension.
///
/// Margins count them exactly, in all and of people, by day and by quarter of an hour. How they spread over the other
/// dimensions and over kinds that are not people, only the cube knows, which lacks rare combinations and the time. So
/// each of those counts is the least that is sure, and what is left is told as a number of its own.
pub(super) struct Slice {
    /// Bucket, number of the value, clicks: exact.
    pub(super) margin: Vec<(usize, u8, Count)>,
    /// The sum of `margin`.
    pub(super) count: Count,
    /// Of people exact; of each other kind the least that is sure.
    pub(super) by_kind: ByKind,
    /// Clicks that are in none of `by_kind`.
    pub(super) unknown_kind: u64,
    /// Clicks of the kinds that are asked for: in the filtered dimension exact, in the others the least that is sure.
    pub(super) values: [ByNumber<u64>; DIMENSIONS],
    /// Such clicks that are in none of a dimension's `values`.
    pub(super) unlisted: [u64; DIMENSIONS],
    /// Clicks that may have the value, but are counted as `other`.
    pub(super) maybe: u64,
}

impl Slice {
    /// `kind` is people or all. `None` if what this takes was not read.
    pub(super) fn new(
        large: &Large,
        window: &Window,
        filter: &NumberFilter,
        kind: KindFilter,
    ) -> Option<Self> {
        let is_by_day = window.has_all(&large.kinds) && window.is_one_bucket(&large.kinds);
        if !is_by_day && large.detail.is_none() {
            return None;
        }
        let mut inside: [ByNumber<Count>; DIMENSIONS] = [[Count::default(); VALUES_LEN_MAX + 1]; DIMENSIONS];
        let mut margin = Vec::new();
        let mut visit = |bucket: usize, dimension: usize, number: u8, count: Count| {
            inside[dimension][usize::from(number)].add(count);
            if dimension == filter.dimension && filter.fits[usize::from(number)] && count.all > 0 {
                margin.push((bucket, number, count));
            }
        };
        if is_by_day {
            let bucket = window.first_bucket(&large.kinds);
            for dimension in 0..DIMENSIONS {
                for (number, count) in large.day.get(dimension).iter().enumerate() {
                    visit(bucket, dimension, number as u8, *count);
                }
            }
        } else {
            large.quarters_visit(|quarter, dimension, number, count| {
                if window.quarters.contains(&quarter) {
                    visit(window.buckets[quarter], dimension, number, count);
                }
            });
        }

        let mut count = Count::default();
        margin.iter().for_each(|(_, _, one)| count.add(*one));
        let mut day = Count::default();
        let of_day = large.day.get(filter.dimension).iter().zip(&filter.fits);
        of_day.filter(|(_, fits)| **fits).for_each(|(one, _)| day.add(*one));
        let outside = minus(day, count);

        let mut slice = Slice {
            margin,
            count,
            by_kind: [0; KINDS],
            unknown_kind: 0,
            values: [[0; VALUES_LEN_MAX + 1]; DIMENSIONS],
            unlisted: [0; DIMENSIONS],
            maybe: if filter.is_other { 0 } else { inside[filter.dimension][0].all },
        };
        let (mut kept, mut kept_fitting): (ByKind, ByKind) = ([0; KINDS], [0; KINDS]);
        for (key, clicks) in large.detail.iter().flat_map(|detail| detail.cube.iter()) {
            add(&mut kept[key.kind()], clicks);
            if filter.fit(key) != Fit::Yes {
                continue;
            }
            add(&mut kept_fitting[key.kind()], clicks);
            if kind == KindFilter::All || key.is_human() {
                for (dimension, values) in slice.values.iter_mut().enumerate() {
                    add(&mut values[usize::from(key.number(dimension))], clicks);
                }
            }
        }
        slice.bound_kinds(large, window, &kept, &kept_fitting, outside);
        slice.bound_values(large, filter, kind, &inside, clicks_of(kind, outside));
        Some(slice)
    }

    /// `kept` is what the cube holds of the day, `fitting` what it holds with the value, `outside` are the clicks with
    /// the value in other parts of the day.
    ///
    /// A kind has at least the clicks of the cube that can't all be outside, and those that can't be of any other kind.
    fn bound_kinds(
        &mut self,
        large: &Large,
        window: &Window,
        kept: &ByKind,
        fitting: &ByKind,
        outside: Count,
    ) {
        let others = self.count.all.saturating_sub(self.count.human);
        let others_outside = outside.all.saturating_sub(outside.human);
        let mut most = [0; KINDS];
        for kind in (0..KINDS).filter(|kind| *kind != HUMAN) {
            let day = sum(large.kinds.iter().map(|by_kind| by_kind[kind]));
            let inside = sum(large.kinds[window.quarters.clone()].iter().map(|by_kind| by_kind[kind]));
            self.by_kind[kind] = fitting[kind].saturating_sub(others_outside.min(day.saturating_sub(inside)));
            most[kind] = fitting[kind].saturating_add(day.saturating_sub(kept[kind])).min(inside).min(others);
        }
        for kind in (0..KINDS).filter(|kind| *kind != HUMAN) {
            let of_others = sum((0..KINDS).filter(|other| *other != kind).map(|other| most[other]));
            self.by_kind[kind] = self.by_kind[kind].max(others.saturating_sub(of_others));
        }
        self.unknown_kind = others.saturating_sub(sum(self.by_kind));
        self.by_kind[HUMAN] = self.count.human;
    }

    /// A value has at least the clicks of the cube that can't all be outside.
    fn bound_values(
        &mut self,
        large: &Large,
        filter: &NumberFilter,
        kind: KindFilter,
        inside: &[ByNumber<Count>; DIMENSIONS],
        outside: u64,
    ) {
        let clicks = clicks_of(kind, self.count);
        for (dimension, values) in self.values.iter_mut().enumerate() {
            if dimension == filter.dimension {
                for ((value, count), fits) in values.iter_mut().zip(&inside[dimension]).zip(&filter.fits) {
                    *value = if *fits { clicks_of(kind, *count) } else { 0 };
                }
                continue;
            }
            let counts = large.day.get(dimension).iter().zip(&inside[dimension]);
            for (value, (day, inside)) in values.iter_mut().zip(counts) {
                *value = value.saturating_sub(outside.min(clicks_of(kind, minus(*day, *inside))));
            }
            self.unlisted[dimension] = clicks.saturating_sub(sum(*values));
        }
    }

    /// The most clicks that any dimension lacks.
    pub(super) fn unlisted_max(&self) -> u64 {
        self.unlisted.into_iter().max().unwrap_or_default()
    }

    /// The bucket of the first click; `None` without clicks.
    pub(super) fn first_bucket(&self) -> Option<usize> {
        self.margin.first().map(|(bucket, ..)| *bucket)
    }

    /// Whether all clicks are in one bucket.
    pub(super) fn is_one_bucket(&self) -> bool {
        self.margin.iter().all(|(bucket, ..)| Some(*bucket) == self.first_bucket())
    }
}

fn add(sum: &mut u64, clicks: u64) {
    *sum = sum.saturating_add(clicks);
}

fn minus(all: Count, part: Count) -> Count {
    Count { human: all.human.saturating_sub(part.human), all: all.all.saturating_sub(part.all) }
}
