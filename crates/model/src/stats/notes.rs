//! [`Notes`]: what keeps an answer from being exact.

use super::slice::Slice;

/// Collected while days are added.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Days of which a cut quarter of an hour was counted in full.
    pub(super) cut_quarters: u32,
    /// Days that were counted in full although the range has a part of them.
    pub(super) whole_days: u32,
    /// Days of which not all combinations are kept.
    pub(super) partial_days: u32,
    /// Their clicks that may fit the filter, and those of them whose combination is not kept.
    pub(super) fitting: u64,
    pub(super) left_out: u64,
    /// Days of which a filter of one dimension is counted by margins, but not all clicks by the other dimensions' values.
    pub(super) pooled_days: u32,
    /// Their clicks that fit, and those of them that are `other` for it, in the dimension with the most.
    pub(super) pooled_of: u64,
    pub(super) pooled: u64,
    /// Days of which clicks fit that are not people's, but of no known kind; and these clicks.
    pub(super) unknown_kind_days: u32,
    pub(super) unknown_kind: u64,
    /// Clicks that may have a value of the filter, and are counted as `other`.
    pub(super) maybe: u64,
    /// Days whose clicks can't be spread over buckets: of the series, and of groups.
    pub(super) no_series: u32,
    pub(super) no_group_series: u32,
    /// Days of which lists don't have all values.
    pub(super) unlisted_days: u32,
}

impl Notes {
    /// What a day's answer by margins lacks; `clicks` of it are of the kinds that are asked for.
    pub(super) fn add_slice(&mut self, slice: &Slice, clicks: u64) {
        let pooled = slice.unlisted_max();
        if pooled > 0 {
            self.pooled_days += 1;
            self.pooled = self.pooled.saturating_add(pooled);
            self.pooled_of = self.pooled_of.saturating_add(clicks);
        }
        self.unknown_kind_days += u32::from(slice.unknown_kind > 0);
        self.unknown_kind = self.unknown_kind.saturating_add(slice.unknown_kind);
        self.maybe = self.maybe.saturating_add(slice.maybe);
    }

    /// Sentences for people.
    pub(super) fn sentences(&self, is_cut: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if self.cut_quarters > 0 {
            notes.push(
                "The range begins or ends inside a quarter of an hour of which single clicks are no longer kept; \
                 that quarter is counted in full."
                    .to_owned(),
            );
        }
        if self.whole_days > 0 {
            notes.push(format!(
                "The range has a part of {}, which {} counted in full, because single clicks are no longer kept, and \
                 combinations of values only by UTC day.",
                days(self.whole_days),
                if self.whole_days == 1 { "is" } else { "are" }
            ));
        }
        if self.left_out > 0 {
            notes.push(format!(
                "Filtered counts of {} leave out up to {} of the clicks that fit: their combination of values is \
                 not kept.",
                days(self.partial_days),
                percent(self.left_out, self.fitting)
            ));
        }
        if self.pooled > 0 {
            notes.push(format!(
                "Lists of the other dimensions than the filtered one put up to {} of the clicks of {} into `other`: \
                 their combination of values and time is not kept.",
                percent(self.pooled, self.pooled_of),
                days(self.pooled_days)
            ));
        }
        if self.unknown_kind > 0 {
            notes.push(format!(
                "Counts by kind and of all kinds leave out {} clicks of {} that fit and are not people's: which kind \
                 they are of is not kept.",
                self.unknown_kind,
                days(self.unknown_kind_days)
            ));
        }
        if self.maybe > 0 {
            notes.push(format!(
                "Up to {} clicks may fit the filter and are not counted: their value is one of the rarer ones of their \
                 day, which are kept together as `other`.",
                self.maybe
            ));
        }
        if self.unlisted_days > 0 {
            notes.push(format!(
                "Clicks of {} are counted as `other` where their combination of kind, time and values is not kept.",
                days(self.unlisted_days)
            ));
        }
        if self.no_series > 0 {
            notes.push(format!(
                "There is no series, because combinations of values of {} are kept only by UTC day.",
                days(self.no_series)
            ));
        }
        if self.no_group_series > 0 {
            notes.push(format!(
                "Groups have no series, because combinations of values of {} are kept only by UTC day.",
                days(self.no_group_series)
            ));
        }
        if is_cut {
            notes.push(
                "There are more than 100,000 values of a dimension; the rarest are counted as `other`."
                    .to_owned(),
            );
        }
        notes
    }
}

fn days(count: u32) -> String {
    if count == 1 { "1 day".to_owned() } else { format!("{count} days") }
}

fn percent(part: u64, whole: u64) -> String {
    let percent = part as f64 / whole.max(1) as f64 * 100.0;
    if percent < 1.0 { "1 %".to_owned() } else { format!("{percent:.0} %") }
}
