//! Statistics: what is asked, what is answered, and how rollups and raw events make the answer. Pure.

mod buckets;
mod builder;
mod counts;
mod filter;
mod notes;
mod slice;
#[cfg(test)]
mod tests;
mod timezone;
mod uniques;
mod window;

use crate::click::{Day, Dimension, Kind};
use crate::time::Timestamp;

pub use builder::StatsBuilder;
pub use timezone::TimeZone;

/// The width of the buckets of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Hours of the time zone.
    Hour,
    /// Days of the time zone.
    Day,
    /// Weeks, from Monday (ISO 8601).
    Week,
    /// Months.
    Month,
}

/// What groups are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The kind of click.
    Kind,
    /// A dimension.
    Dimension(Dimension),
}

/// Which kinds the lists and the series count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KindFilter {
    /// People.
    #[default]
    Human,
    /// Every kind.
    All,
    /// One kind.
    One(Kind),
}

/// Which clicks are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of which kind.
    pub kind: KindFilter,
    /// With which values; each dimension at most once. The texts are those of answers: `unknown`, `direct` (referrer)
    /// and `other` have their meaning there.
    pub values: Vec<(Dimension, String)>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct StatsQuery {
    /// From this instant on.
    pub from: Timestamp,
    /// Until before this one.
    pub to: Timestamp,
    /// Whose days.
    pub timezone: TimeZone,
    /// The series' grain.
    pub granularity: Granularity,
    /// A series for each of these, too.
    pub group_by: Option<GroupBy>,
    /// Which clicks.
    pub filter: Filter,
    /// Values in each list; the rest is one more entry, `other`.
    pub limit: usize,
}

/// One value of a dimension with its clicks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueCount {
    /// The value; `unknown`, for a referrer `direct`; `other` for all that are not listed.
    pub value: String,
    /// Its clicks.
    pub clicks: u64,
}

/// One bucket of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeBucket {
    /// Its first instant, as RFC 3339 with the time zone's offset.
    pub start: String,
    /// Its clicks.
    pub clicks: u64,
}

/// One group with its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The value.
    pub value: String,
    /// Its clicks.
    pub clicks: u64,
    /// Its series; `None` for the reason in [`Stats::notes`].
    pub over_time: Option<Vec<TimeBucket>>,
}

/// Distinct (visitor, UTC day) of human clicks.
#[derive(Clone, Debug, PartialEq)]
pub enum Unique {
    /// Estimated, with the standard error as a fraction; 0 when it was counted exactly.
    Known {
        /// How many.
        visitors: u64,
        /// The standard error.
        error: f64,
    },
    /// Can't be told, and why.
    Unknown(&'static str),
}

/// What is answered. The clicks of each list, of the series and of the groups sum up to `clicks`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Human clicks that fit the filter of dimensions.
    pub human: u64,
    /// Clicks of every kind that fit it.
    pub all: u64,
    /// The same by kind, all five in the order of [`Kind::ALL`].
    pub by_kind: Vec<(Kind, u64)>,
    /// Clicks that fit the whole filter.
    pub clicks: u64,
    /// Visitors of human clicks that fit the filter of dimensions.
    pub unique: Unique,
    /// The series; `None` for the reason in `notes`.
    pub over_time: Option<Vec<TimeBucket>>,
    /// Each dimension's values by falling count, in the order of [`Dimension::ALL`].
    pub values: Vec<(Dimension, Vec<ValueCount>)>,
    /// The groups that were asked for.
    pub groups: Option<Vec<Group>>,
    /// What is not exact, and why: sentences for people. Empty when all is exact but the estimate of visitors.
    pub notes: Vec<String>,
    /// Figures of days before this one are final: no raw events are left to count them anew. `None` while there are
    /// raw events of all days.
    pub final_before: Option<Day>,
}

/// The range has too many buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the range has more than 20,000 buckets of this granularity, or all groups together more than 100,000; ask for a \
     coarser one, a shorter range or fewer groups"
)]
pub struct TooManyBuckets;

#[cfg(test)]
mod time_zone_tests {
    use super::*;

    #[test]
    fn a_day_begins_where_its_time_zone_says() {
        let noon = Timestamp::parse("2027-01-15T12:00:00Z").unwrap();
        let west = TimeZone(jiff::tz::TimeZone::fixed(jiff::tz::offset(-5)));
        for (zone, today, tomorrow) in [
            (&TimeZone::UTC, "2027-01-15T00:00:00.000Z", "2027-01-16T00:00:00.000Z"),
            (&west, "2027-01-15T05:00:00.000Z", "2027-01-16T05:00:00.000Z"),
        ] {
            assert_eq!(zone.start_of_day(noon).to_string(), today);
            assert_eq!(zone.next_day_start(noon).to_string(), tomorrow);
            assert_eq!(zone.date_start("2027-01-15").unwrap().to_string(), today);
        }
        for text in ["2027-02-30", "2027-1-15", "-027-01-15", "today", "2027-01-15T00:00:00Z", ""] {
            assert_eq!(west.date_start(text), None, "{text}");
        }
        // At the ends of what can be written, a day is cut rather than refused.
        assert_eq!(TimeZone::UTC.next_day_start(Timestamp::MAX), Timestamp::MAX);
    }
}
