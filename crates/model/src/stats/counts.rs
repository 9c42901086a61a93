//! [`Counts`]: the sums that an answer is made of.

use super::buckets::Buckets;
use super::{Group, ValueCount};
use crate::click::Dimension;
use crate::rollup::{DIMENSIONS, KINDS, is_other};
use compact_str::CompactString;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// The name of all values that are not told apart, or not listed.
pub(super) const OTHER: &str = "other";

/// Different values of a dimension, and groups, that are counted one by one. Raw events may hold any number of them.
const VALUES_COUNTED_MAX: usize = 100_000;
/// As many stay then, so that the work is done seldom.
const VALUES_COUNTED_KEPT: usize = 50_000;

/// A value as answers name it.
pub(super) fn answered(dimension: usize, value: &str) -> &str {
    match value {
        "" if Dimension::ALL[dimension].0 == Dimension::Referrer => "direct",
        "" => "unknown",
        value if is_other(value) => OTHER,
        value => value,
    }
}

/// Clicks by what answers tell apart. Values are those of answers.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Those that fit the filter of dimensions, by kind.
    pub(super) by_kind: [u64; KINDS],
    /// Those that fit the whole filter, by bucket.
    pub(super) series: Vec<u64>,
    /// These by value.
    values: [HashMap<CompactString, u64>; DIMENSIONS],
    /// These by group and bucket.
    groups: HashMap<CompactString, BTreeMap<u32, u64>>,
    /// Whether values beyond the bound became `other`.
    pub(super) is_cut: bool,
}

impl Counts {
    pub(super) fn new(buckets_len: usize) -> Self {
        Counts { series: vec![0; buckets_len], ..Counts::default() }
    }

    pub(super) fn add_value(&mut self, dimension: usize, value: &str, clicks: u64) {
        if clicks == 0 {
            return;
        }
        let values = &mut self.values[dimension];
        add(values, value, |sum| *sum = sum.saturating_add(clicks));
        if values.len() > VALUES_COUNTED_MAX {
            self.is_cut = true;
            let rest = cut(values, |clicks| *clicks);
            add(values, OTHER, |sum| *sum = rest.into_iter().fold(*sum, u64::saturating_add));
        }
    }

    pub(super) fn add_to_series(&mut self, bucket: usize, clicks: u64) {
        if let Some(sum) = self.series.get_mut(bucket) {
            *sum = sum.saturating_add(clicks);
        }
    }

    pub(super) fn add_group(&mut self, value: &str, bucket: usize, clicks: u64) {
        if clicks == 0 {
            return;
        }
        add(&mut self.groups, value, |series| add_to_bucket(series, bucket as u32, clicks));
        if self.groups.len() > VALUES_COUNTED_MAX {
            self.is_cut = true;
            let rest = cut(&mut self.groups, sum_of);
            add(&mut self.groups, OTHER, |series| rest.iter().for_each(|one| merge(series, one)));
        }
    }

    /// Each dimension's values by falling count; the rest is one more.
    pub(super) fn lists(&mut self, limit: usize) -> Vec<(Dimension, Vec<ValueCount>)> {
        let dimensions = Dimension::ALL.iter().map(|(dimension, _)| *dimension);
        let lists = std::mem::take(&mut self.values).map(|values| list(values, limit));
        dimensions.zip(lists).collect()
    }

    /// The groups by falling count; the rest is one more.
    pub(super) fn groups(&mut self, limit: usize, buckets: &Buckets, has_series: bool) -> Vec<Group> {
        let mut groups = std::mem::take(&mut self.groups);
        let mut rest = groups.remove(OTHER).unwrap_or_default();
        let mut groups: Vec<_> =
            groups.into_iter().map(|(value, series)| (sum_of(&series), value, series)).collect();
        groups.sort_unstable_by(|a, b| (Reverse(a.0), &a.1).cmp(&(Reverse(b.0), &b.1)));
        for (_, _, series) in groups.drain(limit.min(groups.len())..) {
            merge(&mut rest, &series);
        }
        if !rest.is_empty() {
            groups.push((sum_of(&rest), OTHER.into(), rest));
        }
        let group = |(clicks, value, series): (u64, CompactString, BTreeMap<u32, u64>)| Group {
            value: value.into(),
            clicks,
            over_time: has_series
                .then(|| buckets.series(|at| series.get(&(at as u32)).copied().unwrap_or_default())),
        };
        groups.into_iter().map(group).collect()
    }
}

fn list(mut values: HashMap<CompactString, u64>, limit: usize) -> Vec<ValueCount> {
    let mut rest = values.remove(OTHER).unwrap_or_default();
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    rest =
        values.drain(limit.min(values.len())..).fold(rest, |rest, (_, clicks)| rest.saturating_add(clicks));
    let rest = (rest > 0).then(|| (CompactString::new(OTHER), rest));
    let count = |(value, clicks): (CompactString, u64)| ValueCount { value: value.into(), clicks };
    values.into_iter().chain(rest).map(count).collect()
}

/// Changes what a value has; allocates only for a new one.
fn add<T: Default>(values: &mut HashMap<CompactString, T>, value: &str, change: impl FnOnce(&mut T)) {
    match values.get_mut(value) {
        Some(known) => change(known),
        None => change(values.entry(value.into()).or_default()),
    }
}

/// Leaves the values of the greatest weight, and returns what the others have.
fn cut<T>(values: &mut HashMap<CompactString, T>, weight: impl Fn(&T) -> u64) -> Vec<T> {
    let mut order: Vec<_> = values.drain().collect();
    order.sort_unstable_by(|a, b| (Reverse(weight(&a.1)), &a.0).cmp(&(Reverse(weight(&b.1)), &b.0)));
    let rest = order.split_off(VALUES_COUNTED_KEPT).into_iter().map(|(_, counted)| counted).collect();
    values.extend(order);
    rest
}

fn add_to_bucket(series: &mut BTreeMap<u32, u64>, bucket: u32, clicks: u64) {
    let sum = series.entry(bucket).or_default();
    *sum = sum.saturating_add(clicks);
}

fn merge(series: &mut BTreeMap<u32, u64>, other: &BTreeMap<u32, u64>) {
    other.iter().for_each(|(bucket, clicks)| add_to_bucket(series, *bucket, *clicks));
}

/// Clicks, of which more than can be counted stay the most.
pub(super) fn sum(clicks: impl IntoIterator<Item = u64>) -> u64 {
    clicks.into_iter().fold(0, u64::saturating_add)
}

fn sum_of(series: &BTreeMap<u32, u64>) -> u64 {
    sum(series.values().copied())
}
