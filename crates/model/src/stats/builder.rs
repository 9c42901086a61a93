//! [`StatsBuilder`]: adds up days, each from its rollup or from its raw events.

use super::buckets::Buckets;
use super::counts::{Counts, OTHER, answered, sum};
use super::filter::{Fit, NumberFilter, fit, missing};
use super::notes::Notes;
use super::slice::Slice;
use super::uniques::Uniques;
use super::window::Window;
use super::{GroupBy, KindFilter, Stats, StatsQuery, TooManyBuckets};
use crate::click::{Click, DAY_MILLIS, Day, Dimension, Kind};
use crate::click_store::RollupPart;
use crate::rollup::{ByKind, Count, DIMENSIONS, Form, KINDS, Key, Large, Rollup, Small, VALUES_LEN_MAX, cut};
use std::ops::Range;

pub(super) const HUMAN: usize = Kind::Human as usize;

const NEEDS_RAW: &str =
    "visitors of a filtered part of the clicks are counted from single clicks only, which are no longer kept";

/// Makes an answer.
///
/// Days may be added in any order, each once: as a rollup or, if that was not taken, as raw events.
#[derive(Debug)]
pub struct StatsBuilder {
    query: StatsQuery,
    /// In milliseconds.
    range: Range<i64>,
    buckets: Buckets,
    counts: Counts,
    uniques: Uniques,
    notes: Notes,
    /// A group's buckets need to know when in a day its clicks came.
    needs_quarters: bool,
}

/// Buckets that the groups of an answer have together.
const GROUP_BUCKETS_MAX: usize = 100_000;

impl StatsBuilder {
    /// Begins an answer. A range of more than 20,000 buckets is refused.
    pub fn new(query: StatsQuery) -> Result<Self, TooManyBuckets> {
        let range = query.from.as_millis()..query.to.as_millis();
        let buckets = Buckets::new(range.clone(), query.timezone.clone(), query.granularity)?;
        if query.group_by.is_some() && (query.limit + 1) * buckets.len() > GROUP_BUCKETS_MAX {
            return Err(TooManyBuckets);
        }
        let counts = Counts::new(buckets.len());
        let (uniques, notes) = (Uniques::default(), Notes::default());
        let needs_quarters = matches!(query.group_by, Some(GroupBy::Dimension(_))) && buckets.cut_days();
        Ok(StatsBuilder { query, range, buckets, counts, uniques, notes, needs_quarters })
    }

    /// The UTC days that the range touches.
    pub fn days(&self) -> Range<Day> {
        let first = Day::of(self.query.from);
        if self.range.is_empty() {
            return first..first;
        }
        first..Day((self.range.end - 1).div_euclid(DAY_MILLIS) as i32).next()
    }

    /// The least that one day's rollup must be read with: of a long range, at most the first and the last day may need
    /// more than the others.
    pub fn part_of(&self, day: Day) -> RollupPart {
        let start = i64::from(day.0) * DAY_MILLIS;
        let is_whole = self.range.start <= start && start + DAY_MILLIS <= self.range.end;
        if self.needs_cells() || self.needs_quarters || !is_whole {
            RollupPart::Full
        } else {
            RollupPart::Summary
        }
    }

    /// Adds a day's rollup if that answers exactly, or if there are no raw events of the day. `false`: it was not
    /// added, read the day's raw events instead.
    ///
    /// Raw events know nothing of `other`, the values of a day that were too many, so a filter of it is always answered
    /// by rollups.
    pub fn add_rollup(&mut self, day: Day, rollup: &Rollup, has_raw: bool) -> bool {
        let Some(window) = Window::of(day, &self.range, &self.buckets) else { return true };
        let filters = self.filters(rollup);
        let has_raw = has_raw && !filters.iter().any(|filter| filter.is_other);
        match rollup.form() {
            Form::Small(small) => self.add_small(rollup, small, &window, &filters, has_raw),
            Form::Large(large) if !window.has_any(&large.kinds) => true,
            Form::Large(large) if self.needs_cells() => match self.slice(large, &window, &filters) {
                Some(slice) => self.add_slice(rollup, large, &window, &filters[0], &slice, has_raw),
                None => self.add_cube(rollup, large, &window, &filters, has_raw),
            },
            Form::Large(large) => self.add_margins(rollup, large, &window, has_raw),
        }
    }

    /// Adds one event of a day that was not added as a rollup.
    pub fn add_click(&mut self, click: &Click<'_>) {
        let at = click.at.as_millis();
        if !self.range.contains(&at) {
            return;
        }
        let values: [&str; DIMENSIONS] =
            std::array::from_fn(|at| answered(at, cut(click.facts.get(Dimension::ALL[at].0))));
        let fits = |(dimension, wanted): &(Dimension, String)| {
            values[*dimension as usize].eq_ignore_ascii_case(wanted)
        };
        if !self.query.filter.values.iter().all(fits) {
            return;
        }
        let kind = click.facts.kind;
        self.add_kind(kind as usize, 1);
        if kind == Kind::Human {
            self.uniques.insert(Day::of(click.at), click.visitor);
        }
        if !self.fits_kind(kind as usize) {
            return;
        }
        let bucket = self.buckets.at(at);
        self.counts.add_to_series(bucket, 1);
        for (dimension, value) in values.into_iter().enumerate() {
            self.counts.add_value(dimension, value, 1);
        }
        match self.query.group_by {
            Some(GroupBy::Kind) => self.counts.add_group(kind.as_str(), bucket, 1),
            Some(GroupBy::Dimension(dimension)) => {
                self.counts.add_group(values[dimension as usize], bucket, 1);
            }
            None => {}
        }
    }

    /// The answer. When its figures are final, only whoever knows the raw events can say.
    pub fn finish(mut self) -> Stats {
        let by_kind = self.counts.by_kind;
        let limit = self.query.limit;
        let has_series = self.notes.no_series == 0;
        let has_group_series = has_series && self.notes.no_group_series == 0;
        let clicks = (0..KINDS).filter(|&kind| self.fits_kind(kind)).map(|kind| by_kind[kind]);
        Stats {
            human: by_kind[HUMAN],
            all: sum(by_kind),
            by_kind: Kind::ALL.iter().map(|(kind, _)| (*kind, by_kind[*kind as usize])).collect(),
            clicks: sum(clicks),
            unique: self.uniques.finish(),
            over_time: has_series.then(|| self.buckets.series(|at| self.counts.series[at])),
            values: self.counts.lists(limit),
            groups: self.query.group_by.map(|_| self.counts.groups(limit, &self.buckets, has_group_series)),
            notes: self.notes.sentences(self.counts.is_cut),
            final_before: None,
        }
    }

    /// A day of which every cell is kept.
    fn add_small(
        &mut self,
        rollup: &Rollup,
        small: &Small,
        window: &Window,
        filters: &[NumberFilter],
        has_raw: bool,
    ) -> bool {
        let (mut is_cut, mut maybe) = (false, 0);
        let mut people = People { all: rollup.human(), inside: 0, fit: 0 };
        for &(key, clicks) in small.cells() {
            if !window.quarters.contains(&key.quarter()) {
                continue;
            }
            is_cut |= window.is_cut(key.quarter());
            let human = if key.is_human() { clicks } else { 0 };
            people.inside = people.inside.saturating_add(human);
            match fit(filters, key) {
                Fit::Yes => people.fit = people.fit.saturating_add(human),
                Fit::Maybe => maybe = clicks.saturating_add(maybe),
                Fit::No => {}
            }
        }
        let visitors = people.visitors(rollup, window);
        if has_raw && (is_cut || maybe > 0 || visitors.is_err()) {
            return false;
        }
        self.notes.cut_quarters += u32::from(is_cut);
        self.notes.maybe = self.notes.maybe.saturating_add(maybe);
        self.add_visitors(visitors);

        let mut weights: [[u64; VALUES_LEN_MAX + 1]; DIMENSIONS] = [[0; VALUES_LEN_MAX + 1]; DIMENSIONS];
        for &(key, clicks) in small.cells() {
            if !window.quarters.contains(&key.quarter()) || fit(filters, key) != Fit::Yes {
                continue;
            }
            self.add_kind(key.kind(), clicks);
            if !self.fits_kind(key.kind()) {
                continue;
            }
            let bucket = window.buckets[key.quarter()];
            self.counts.add_to_series(bucket, clicks);
            self.add_cell_to_group(rollup, key, bucket, clicks);
            for (dimension, weights) in weights.iter_mut().enumerate() {
                let sum = &mut weights[usize::from(key.number(dimension))];
                *sum = sum.saturating_add(clicks);
            }
        }
        for (dimension, weights) in weights.iter().enumerate() {
            add_values(&mut self.counts, rollup, dimension, weights.iter().copied());
        }
        true
    }

    /// A day of which margins are kept, and no filter is asked for that they can't answer.
    fn add_margins(&mut self, rollup: &Rollup, large: &Large, window: &Window, has_raw: bool) -> bool {
        let is_cut = window.has_cut(&large.kinds);
        let is_whole = window.has_all(&large.kinds);
        let is_one_bucket = window.is_one_bucket(&large.kinds);
        let grouped = match self.query.group_by {
            Some(GroupBy::Dimension(dimension)) => Some(dimension as usize),
            _ => None,
        };
        let is_unread = large.detail.is_none() && (!is_whole || grouped.is_some() && !is_one_bucket);
        let inside = sum(large.kinds[window.quarters.clone()].iter().map(|by_kind| by_kind[HUMAN]));
        let visitors = People { all: rollup.human(), inside, fit: inside }.visitors(rollup, window);
        if has_raw && (is_cut || is_unread || visitors.is_err()) {
            return false;
        }
        self.notes.cut_quarters += u32::from(is_cut);
        self.notes.unlisted_days += u32::from(is_unread);
        self.add_visitors(visitors);

        for quarter in window.quarters.clone() {
            self.add_kinds(&large.kinds[quarter], window.buckets[quarter]);
        }
        let kind = self.query.filter.kind;
        if is_whole {
            for dimension in 0..DIMENSIONS {
                let clicks = large.day.get(dimension).iter().map(|count| clicks_of(kind, *count));
                add_values(&mut self.counts, rollup, dimension, clicks);
            }
        } else if large.detail.is_some() {
            self.add_quarters(rollup, large, window);
        } else {
            let clicks =
                sum(large.kinds[window.quarters.clone()].iter().map(|by_kind| self.fitting(by_kind)));
            (0..DIMENSIONS).for_each(|dimension| self.counts.add_value(dimension, OTHER, clicks));
        }
        let Some(dimension) = grouped else { return true };
        if is_whole && is_one_bucket {
            let bucket = window.first_bucket(&large.kinds);
            let clicks = large.day.get(dimension).iter().map(|count| clicks_of(kind, *count));
            add_groups(&mut self.counts, rollup, dimension, bucket, clicks);
        } else if large.detail.is_some() {
            self.add_group_quarters(rollup, large, window, dimension);
        } else {
            for quarter in window.quarters.clone() {
                let clicks = self.fitting(&large.kinds[quarter]);
                self.counts.add_group(OTHER, window.buckets[quarter], clicks);
            }
        }
        true
    }

    /// Adds the values of a part of a day.
    fn add_quarters(&mut self, rollup: &Rollup, large: &Large, window: &Window) {
        let kind = self.query.filter.kind;
        let mut sums = [[0u64; VALUES_LEN_MAX + 1]; DIMENSIONS];
        large.quarters_visit(|quarter, dimension, number, count| {
            if window.quarters.contains(&quarter) {
                let sum = &mut sums[dimension][usize::from(number)];
                *sum = sum.saturating_add(clicks_of(kind, count));
            }
        });
        for (dimension, sums) in sums.into_iter().enumerate() {
            add_values(&mut self.counts, rollup, dimension, sums);
        }
    }

    /// Adds the groups of a day that is in several buckets.
    fn add_group_quarters(&mut self, rollup: &Rollup, large: &Large, window: &Window, grouped: usize) {
        let kind = self.query.filter.kind;
        let mut sums = [0u64; VALUES_LEN_MAX + 1];
        let mut bucket = window.buckets[window.quarters.start];
        let counts = &mut self.counts;
        large.quarters_visit(|quarter, dimension, number, count| {
            if dimension != grouped || !window.quarters.contains(&quarter) {
                return;
            }
            if window.buckets[quarter] != bucket {
                let done = std::mem::replace(&mut sums, [0; VALUES_LEN_MAX + 1]);
                add_groups(counts, rollup, grouped, bucket, done);
                bucket = window.buckets[quarter];
            }
            let sum = &mut sums[usize::from(number)];
            *sum = sum.saturating_add(clicks_of(kind, count));
        });
        add_groups(counts, rollup, grouped, bucket, sums);
    }

    /// What margins tell of a day if values of one dimension are asked for.
    ///
    /// `None` if the cube alone must answer: for several dimensions, for one kind, and for all kinds if some clicks are
    /// of an unknown one, because the counts by kind sum up to those of all kinds.
    fn slice(&self, large: &Large, window: &Window, filters: &[NumberFilter]) -> Option<Slice> {
        let kind = self.query.filter.kind;
        let ([filter], KindFilter::Human | KindFilter::All) = (filters, kind) else { return None };
        let slice = Slice::new(large, window, filter, kind)?;
        (kind == KindFilter::Human || slice.unknown_kind == 0).then_some(slice)
    }

    /// A day of which margins are kept, and values of one dimension are asked for: they are counted exactly, and the
    /// other dimensions' values as far as the cube tells them, the rest as `other`.
    fn add_slice(
        &mut self,
        rollup: &Rollup,
        large: &Large,
        window: &Window,
        filter: &NumberFilter,
        slice: &Slice,
        has_raw: bool,
    ) -> bool {
        let kind = self.query.filter.kind;
        let is_possible = slice.count.all > 0 || slice.maybe > 0;
        let is_cut = is_possible && window.has_cut(&large.kinds);
        let unlisted = slice.unlisted_max();
        let is_group_told = match self.query.group_by {
            Some(GroupBy::Kind) => kind == KindFilter::Human,
            Some(GroupBy::Dimension(dimension)) => dimension as usize == filter.dimension,
            None => true,
        };
        let lacks_group_series = !is_group_told && !slice.is_one_bucket();
        let inside = sum(large.kinds[window.quarters.clone()].iter().map(|by_kind| by_kind[HUMAN]));
        let people = People { all: rollup.human(), inside, fit: slice.count.human };
        let visitors = people.visitors(rollup, window);
        let is_inexact = is_cut
            || unlisted > 0
            || slice.unknown_kind > 0
            || slice.maybe > 0
            || lacks_group_series
            || visitors.is_err();
        if has_raw && is_inexact {
            return false;
        }
        self.notes.add_slice(slice, clicks_of(kind, slice.count));
        self.notes.cut_quarters += u32::from(is_cut);
        self.notes.no_group_series += u32::from(lacks_group_series);
        self.add_visitors(visitors);

        for (kind, clicks) in slice.by_kind.into_iter().enumerate() {
            self.add_kind(kind, clicks);
        }
        for &(bucket, number, count) in &slice.margin {
            let clicks = clicks_of(kind, count);
            self.counts.add_to_series(bucket, clicks);
            match self.query.group_by {
                Some(GroupBy::Kind) if is_group_told => {
                    self.counts.add_group(Kind::Human.as_str(), bucket, clicks);
                }
                Some(GroupBy::Dimension(dimension)) if is_group_told => {
                    self.counts.add_group(value_of(rollup, dimension as usize, number), bucket, clicks);
                }
                _ => {}
            }
        }
        for (dimension, values) in slice.values.iter().enumerate() {
            add_values(&mut self.counts, rollup, dimension, values.iter().copied());
            self.counts.add_value(dimension, OTHER, slice.unlisted[dimension]);
        }
        let Some(first) = slice.first_bucket().filter(|_| !is_group_told) else { return true };
        match self.query.group_by {
            Some(GroupBy::Kind) => {
                for (kind, clicks) in slice.by_kind.into_iter().enumerate() {
                    self.counts.add_group(Kind::ALL[kind].1, first, clicks);
                }
            }
            Some(GroupBy::Dimension(dimension)) => {
                let values = slice.values[dimension as usize];
                add_groups(&mut self.counts, rollup, dimension as usize, first, values);
                self.counts.add_group(OTHER, first, slice.unlisted[dimension as usize]);
            }
            None => {}
        }
        true
    }

    /// A day of which margins are kept, and combinations are asked for.
    fn add_cube(
        &mut self,
        rollup: &Rollup,
        large: &Large,
        window: &Window,
        filters: &[NumberFilter],
        has_raw: bool,
    ) -> bool {
        let is_filtered = !filters.is_empty();
        let cells: Vec<(Key, u64)> = match &large.detail {
            Some(detail) => detail.cube.iter().collect(),
            None => Vec::new(),
        };
        let fitting = || cells.iter().filter(|(key, _)| fit(filters, *key) == Fit::Yes);
        let (left_out, maybe) = missing(large, filters, &cells);
        let is_whole = window.has_all(&large.kinds) && !window.has_cut(&large.kinds);
        let is_one_bucket = window.is_one_bucket(&large.kinds);
        let has_any = fitting().next().is_some();
        // Without a filter of dimensions, kinds are known by quarter.
        let lacks_series = is_filtered && has_any && !is_one_bucket;
        let lacks_group_series =
            has_any && !is_one_bucket && self.query.group_by.is_some() && self.lacks_group(is_filtered);
        let unlisted = if is_filtered { 0 } else { self.unlisted(&rollup_kinds(large), &cells) };
        let people = People {
            all: rollup.human(),
            inside: rollup.human(),
            fit: if is_filtered {
                sum(fitting().filter(|(key, _)| key.is_human()).map(|cell| cell.1))
            } else {
                rollup.human()
            },
        };
        let visitors = if left_out > 0 { Err(NEEDS_RAW) } else { people.visitors(rollup, &Window::whole()) };
        let is_possible = left_out > 0 || has_any || maybe > 0 || !is_filtered;
        let is_inexact = left_out > 0
            || maybe > 0
            || unlisted > 0
            || lacks_series
            || lacks_group_series
            || (is_possible && !is_whole)
            || visitors.is_err();
        if has_raw && is_inexact {
            return false;
        }
        self.notes.whole_days += u32::from(is_possible && !is_whole);
        self.notes.no_series += u32::from(lacks_series);
        self.notes.no_group_series += u32::from(lacks_group_series);
        self.notes.unlisted_days += u32::from(unlisted > 0);
        self.notes.maybe = self.notes.maybe.saturating_add(maybe);
        if left_out > 0 {
            self.notes.partial_days += 1;
            let kept = sum(fitting().map(|cell| cell.1));
            self.notes.fitting = self.notes.fitting.saturating_add(kept).saturating_add(left_out);
            self.notes.left_out = self.notes.left_out.saturating_add(left_out);
        }
        self.add_visitors(visitors);

        let first = window.first_bucket(&large.kinds);
        if !is_filtered {
            for (quarter, by_kind) in large.kinds.iter().enumerate() {
                self.add_kinds(by_kind, window.buckets[quarter]);
            }
        }
        let grouped_by_kind = self.query.group_by == Some(GroupBy::Kind);
        for &(key, clicks) in fitting() {
            if is_filtered {
                self.add_kind(key.kind(), clicks);
            }
            if !self.fits_kind(key.kind()) {
                continue;
            }
            if is_filtered {
                self.counts.add_to_series(first, clicks);
            }
            if is_filtered || !grouped_by_kind {
                self.add_cell_to_group(rollup, key, first, clicks);
            }
            for dimension in 0..DIMENSIONS {
                self.counts.add_value(dimension, value_of(rollup, dimension, key.number(dimension)), clicks);
            }
        }
        (0..DIMENSIONS).for_each(|dimension| self.counts.add_value(dimension, OTHER, unlisted));
        if !grouped_by_kind && self.query.group_by.is_some() {
            self.counts.add_group(OTHER, first, unlisted);
        }
        true
    }

    /// Whether groups can't be spread over time by what is known of a day's combinations.
    fn lacks_group(&self, is_filtered: bool) -> bool {
        is_filtered || self.query.group_by != Some(GroupBy::Kind)
    }

    /// Clicks that fit the filter of kinds, and are in no cell.
    fn unlisted(&self, by_kind: &ByKind, cells: &[(Key, u64)]) -> u64 {
        let listed = sum(cells.iter().filter(|(key, _)| self.fits_kind(key.kind())).map(|cell| cell.1));
        self.fitting(by_kind).saturating_sub(listed)
    }

    /// Adds clicks of a bucket by kind, where no dimension is filtered.
    fn add_kinds(&mut self, by_kind: &ByKind, bucket: usize) {
        for (at, &clicks) in by_kind.iter().enumerate() {
            self.add_kind(at, clicks);
            if self.fits_kind(at) && clicks > 0 {
                self.counts.add_to_series(bucket, clicks);
                if self.query.group_by == Some(GroupBy::Kind) {
                    self.counts.add_group(Kind::ALL[at].1, bucket, clicks);
                }
            }
        }
    }

    fn add_kind(&mut self, kind: usize, clicks: u64) {
        let sum = &mut self.counts.by_kind[kind];
        *sum = sum.saturating_add(clicks);
    }

    fn add_cell_to_group(&mut self, rollup: &Rollup, key: Key, bucket: usize, clicks: u64) {
        match self.query.group_by {
            Some(GroupBy::Kind) => self.counts.add_group(Kind::ALL[key.kind()].1, bucket, clicks),
            Some(GroupBy::Dimension(dimension)) => {
                let number = key.number(dimension as usize);
                self.counts.add_group(value_of(rollup, dimension as usize, number), bucket, clicks);
            }
            None => {}
        }
    }

    fn add_visitors(&mut self, visitors: Result<(u64, f64), &'static str>) {
        match visitors {
            Ok((visitors, error)) => self.uniques.add(visitors, error),
            Err(reason) => self.uniques.give_up(reason),
        }
    }

    /// Whether margins don't answer.
    fn needs_cells(&self) -> bool {
        !self.query.filter.values.is_empty() || matches!(self.query.filter.kind, KindFilter::One(_))
    }

    fn fits_kind(&self, kind: usize) -> bool {
        match self.query.filter.kind {
            KindFilter::Human => kind == HUMAN,
            KindFilter::All => true,
            KindFilter::One(one) => kind == one as usize,
        }
    }

    /// Clicks of the kinds that are asked for.
    fn fitting(&self, by_kind: &ByKind) -> u64 {
        sum((0..KINDS).filter(|&kind| self.fits_kind(kind)).map(|kind| by_kind[kind]))
    }

    fn filters(&self, rollup: &Rollup) -> Vec<NumberFilter> {
        let filter =
            |(dimension, wanted): &(Dimension, String)| NumberFilter::new(rollup, *dimension, wanted);
        self.query.filter.values.iter().map(filter).collect()
    }
}

/// Human clicks of a day.
struct People {
    all: u64,
    /// Of the range.
    inside: u64,
    /// Of these, the ones that fit the filter of dimensions.
    fit: u64,
}

impl People {
    /// Distinct visitors of those that fit, with the standard error; or why that can't be told.
    fn visitors(&self, rollup: &Rollup, window: &Window) -> Result<(u64, f64), &'static str> {
        match self.fit {
            0 => Ok((0, 0.0)),
            1 => Ok((1, 0.0)),
            fit if fit < self.inside => Err(NEEDS_RAW),
            _ if self.inside == self.all => Ok((rollup.unique(), rollup.unique_error())),
            _ => {
                let visitors = rollup
                    .visitors_of(window.quarters.clone())
                    .ok_or("visitors of a part of a day are counted from its details, which were not read")?;
                Ok((visitors.estimate(), visitors.error()))
            }
        }
    }
}

fn rollup_kinds(large: &Large) -> ByKind {
    std::array::from_fn(|kind| sum(large.kinds.iter().map(|by_kind| by_kind[kind])))
}

/// Clicks of people or of all kinds, whichever are asked for.
pub(super) fn clicks_of(kind: KindFilter, count: Count) -> u64 {
    if kind == KindFilter::Human { count.human } else { count.all }
}

/// Adds clicks by number, from `other` on.
fn add_values(counts: &mut Counts, rollup: &Rollup, dimension: usize, clicks: impl IntoIterator<Item = u64>) {
    for (number, clicks) in clicks.into_iter().enumerate().filter(|(_, clicks)| *clicks > 0) {
        counts.add_value(dimension, value_of(rollup, dimension, number as u8), clicks);
    }
}

/// The same for groups.
fn add_groups(
    counts: &mut Counts,
    rollup: &Rollup,
    dimension: usize,
    bucket: usize,
    clicks: impl IntoIterator<Item = u64>,
) {
    for (number, clicks) in clicks.into_iter().enumerate().filter(|(_, clicks)| *clicks > 0) {
        counts.add_group(value_of(rollup, dimension, number as u8), bucket, clicks);
    }
}

/// The value of a number as answers name it.
fn value_of(rollup: &Rollup, dimension: usize, number: u8) -> &str {
    match usize::from(number) {
        0 => OTHER,
        number => answered(dimension, &rollup.values(dimension)[number - 1]),
    }
}
