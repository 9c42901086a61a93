//! [`Buckets`]: the hours, days, weeks or months of a time zone that a range touches.

use super::{Granularity, TimeBucket, TimeZone, TooManyBuckets};
use jiff::Timestamp as Instant;
use jiff::ToSpan;
use jiff::civil::Date;
use std::ops::Range;

/// Buckets of an answer.
pub(super) const BUCKETS_LEN_MAX: usize = 20_000;

const HOUR_MILLIS: i64 = 3_600_000;

/// Their first instants in milliseconds, in ascending order.
#[derive(Debug)]
pub(super) struct Buckets {
    starts: Vec<i64>,
    timezone: TimeZone,
}

impl Buckets {
    /// Those that touch `range`. The first one's start is its own, even if the range begins inside it.
    pub(super) fn new(
        range: Range<i64>,
        timezone: TimeZone,
        granularity: Granularity,
    ) -> Result<Self, TooManyBuckets> {
        let mut starts = Vec::new();
        if !range.is_empty() {
            match granularity {
                Granularity::Hour => hours(&range, &timezone, &mut starts)?,
                Granularity::Day => dates(&range, &timezone, &mut starts, |day| day, 1.day())?,
                Granularity::Week => dates(&range, &timezone, &mut starts, monday, 1.week())?,
                Granularity::Month => dates(&range, &timezone, &mut starts, Date::first_of_month, 1.month())?,
            }
        }
        Ok(Buckets { starts, timezone })
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The bucket that an instant of the range lies in. A quarter of an hour belongs to the bucket that it starts in;
    /// bounds inside of a quarter are found only in zones of long ago, whose offsets are no multiples of it.
    pub(super) fn at(&self, millis: i64) -> usize {
        self.starts.partition_point(|start| *start <= millis).saturating_sub(1)
    }

    /// Whether a bucket begins inside of a UTC day.
    pub(super) fn cut_days(&self) -> bool {
        self.starts.iter().skip(1).any(|start| start % (24 * HOUR_MILLIS) != 0)
    }

    /// A series.
    pub(super) fn series(&self, clicks: impl Fn(usize) -> u64) -> Vec<TimeBucket> {
        let bucket = |(at, start): (usize, &i64)| TimeBucket { start: self.text(*start), clicks: clicks(at) };
        self.starts.iter().enumerate().map(bucket).collect()
    }

    fn text(&self, millis: i64) -> String {
        let at = instant(millis);
        at.display_with_offset(self.timezone.0.to_offset(at)).to_string()
    }
}

/// Hours begin where local clocks show whole ones, and where clocks are moved by a part of an hour.
fn hours(range: &Range<i64>, timezone: &TimeZone, starts: &mut Vec<i64>) -> Result<(), TooManyBuckets> {
    let mut start = floor(range.start, timezone);
    if let Some(moved) = part_of_hour(start, range.start + 1, timezone) {
        start = moved;
    }
    while start < range.end {
        push(starts, start)?;
        let next = floor(start, timezone) + HOUR_MILLIS;
        start = part_of_hour(start, next, timezone).unwrap_or(next);
    }
    Ok(())
}

/// The whole hour of the offset that holds at `millis`, at or before it.
fn floor(millis: i64, timezone: &TimeZone) -> i64 {
    let offset = offset_millis(millis, timezone);
    (millis + offset).div_euclid(HOUR_MILLIS) * HOUR_MILLIS - offset
}

/// The last instant behind `from` and before `to` at which clocks are moved by a part of an hour.
fn part_of_hour(from: i64, to: i64, timezone: &TimeZone) -> Option<i64> {
    let moved = offset_millis(to - 1, timezone) - offset_millis(from, timezone);
    if moved % HOUR_MILLIS == 0 {
        return None;
    }
    timezone.0.preceding(instant(to)).next().map(|transition| transition.timestamp().as_millisecond())
}

fn offset_millis(millis: i64, timezone: &TimeZone) -> i64 {
    i64::from(timezone.0.to_offset(instant(millis)).seconds()) * 1000
}

/// Buckets that begin with a date: the one that `first` makes of the range's first date, and so on by `step`.
fn dates(
    range: &Range<i64>,
    timezone: &TimeZone,
    starts: &mut Vec<i64>,
    first: impl Fn(Date) -> Date,
    step: jiff::Span,
) -> Result<(), TooManyBuckets> {
    let mut date = first(timezone.0.to_datetime(instant(range.start)).date());
    // Where clocks go back over midnight, a date's last hour comes after the next date's first instant.
    while let Some(start) = timezone.day_start(date).filter(|start| *start < range.end) {
        // Where a whole date was skipped, two begin at once.
        if starts.last().is_none_or(|last| *last < start) {
            push(starts, start)?;
        }
        let Ok(next) = date.checked_add(step) else { break };
        date = next;
    }
    if starts.len() > 1 && starts[1] <= range.start {
        starts.remove(0);
    }
    Ok(())
}

fn monday(date: Date) -> Date {
    let days = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(days.days()).unwrap_or(Date::MIN)
}

fn push(starts: &mut Vec<i64>, start: i64) -> Result<(), TooManyBuckets> {
    if starts.len() >= BUCKETS_LEN_MAX {
        return Err(TooManyBuckets);
    }
    starts.push(start);
    Ok(())
}

fn instant(millis: i64) -> Instant {
    Instant::from_millisecond(millis).unwrap_or(if millis < 0 { Instant::MIN } else { Instant::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn buckets(zone: &str, granularity: Granularity, from: &str, to: &str) -> Buckets {
        let millis = |text| Timestamp::parse(text).unwrap().as_millis();
        Buckets::new(millis(from)..millis(to), TimeZone::parse(zone).unwrap(), granularity).unwrap()
    }

    #[track_caller]
    fn check(zone: &str, granularity: Granularity, from: &str, to: &str, expected: &[&str]) {
        let found = buckets(zone, granularity, from, to).series(|_| 0);
        let found: Vec<_> = found.iter().map(|bucket| bucket.start.as_str()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn begin_where_local_clocks_say_so() {
        use Granularity::*;
        check(
            "UTC",
            Day,
            "2026-01-01T12:00:00Z",
            "2026-01-02T00:00:00.001Z",
            &["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"],
        );
        check("UTC", Day, "2026-01-01", "2026-01-01", &[]);
        check("UTC", Day, "2026-01-02", "2026-01-01", &[]);
        check(
            "Asia/Kathmandu",
            Hour,
            "2026-01-01T00:00:00Z",
            "2026-01-01T01:00:00Z",
            &["2026-01-01T05:00:00+05:45", "2026-01-01T06:00:00+05:45"],
        );
        check(
            "Europe/Zurich",
            Week,
            "2026-03-25",
            "2026-03-31",
            &["2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00"],
        );
        check(
            "America/New_York",
            Month,
            "2026-01-31T23:00:00Z",
            "2026-04-01",
            &["2026-01-01T00:00:00-05:00", "2026-02-01T00:00:00-05:00", "2026-03-01T00:00:00-05:00"],
        );
    }

    #[test]
    fn hours_follow_moved_clocks() {
        use Granularity::*;
        check(
            "Europe/Zurich",
            Hour,
            "2026-03-29T00:00:00Z",
            "2026-03-29T02:00:00Z",
            &["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"],
        );
        check(
            "Europe/Zurich",
            Hour,
            "2026-10-25T00:00:00Z",
            "2026-10-25T02:00:00Z",
            &["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"],
        );
        assert_eq!(buckets("Europe/Zurich", Hour, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z").len(), 23);
        assert_eq!(buckets("Europe/Zurich", Hour, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z").len(), 25);
        // Half an hour forward, and back.
        check(
            "Australia/Lord_Howe",
            Hour,
            "2026-10-03T14:45:00Z",
            "2026-10-03T17:00:00Z",
            &["2026-10-04T01:00:00+10:30", "2026-10-04T02:30:00+11:00", "2026-10-04T03:00:00+11:00"],
        );
        check(
            "Australia/Lord_Howe",
            Hour,
            "2026-04-04T14:00:00Z",
            "2026-04-04T16:00:00Z",
            &["2026-04-05T01:00:00+11:00", "2026-04-05T01:30:00+10:30", "2026-04-05T02:00:00+10:30"],
        );
        check(
            "Australia/Lord_Howe",
            Hour,
            "2026-10-03T15:45:00Z",
            "2026-10-03T16:00:00Z",
            &["2026-10-04T02:30:00+11:00"],
        );
    }

    #[test]
    fn days_follow_moved_clocks() {
        use Granularity::*;
        check(
            "Europe/Zurich",
            Day,
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:01Z",
            &["2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"],
        );
        // Midnight was skipped: from 00:00 to 01:00, and from 23:30 to 00:30.
        check(
            "America/Sao_Paulo",
            Day,
            "2018-11-04T12:00:00Z",
            "2018-11-04T13:00:00Z",
            &["2018-11-04T01:00:00-02:00"],
        );
        check(
            "America/Toronto",
            Day,
            "1919-03-31T12:00:00Z",
            "1919-03-31T13:00:00Z",
            &["1919-03-31T00:30:00-04:00"],
        );
        // Midnight came twice.
        check(
            "Atlantic/Azores",
            Day,
            "2026-10-25T12:00:00Z",
            "2026-10-25T13:00:00Z",
            &["2026-10-25T00:00:00+00:00"],
        );
        // A whole day was skipped.
        check(
            "Pacific/Apia",
            Day,
            "2011-12-30T09:00:00Z",
            "2011-12-30T11:00:00Z",
            &["2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"],
        );
    }

    #[test]
    fn are_bounded() {
        let new =
            |to, granularity| Buckets::new(0..to, TimeZone::UTC, granularity).map(|buckets| buckets.len());
        assert_eq!(new(20_000 * HOUR_MILLIS, Granularity::Hour), Ok(20_000));
        assert_eq!(new(20_000 * HOUR_MILLIS + 1, Granularity::Hour), Err(TooManyBuckets));
        assert_eq!(new(20_001 * 24 * HOUR_MILLIS, Granularity::Day), Err(TooManyBuckets));
        for zone in ["UTC", "Pacific/Apia", "-23:59", "+23:59"] {
            let all = Timestamp::from_millis(i64::MIN).as_millis()..Timestamp::MAX.as_millis();
            let end = all.end - 1000..all.end;
            for granularity in [Granularity::Hour, Granularity::Day, Granularity::Week, Granularity::Month] {
                let zone = TimeZone::parse(zone).unwrap();
                assert_eq!(
                    Buckets::new(all.clone(), zone.clone(), granularity).map(|buckets| buckets.len()),
                    Err(TooManyBuckets)
                );
                assert_eq!(Buckets::new(end.clone(), zone, granularity).unwrap().len(), 1);
            }
        }
    }
}
