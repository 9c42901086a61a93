//! [`TimeZone`]: whose hours, days and months.

use crate::time::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZoneDatabase};
use std::fmt;
use std::sync::LazyLock;

/// A time zone of the IANA database, or a fixed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZone(pub(super) jiff::tz::TimeZone);

/// The copy of the IANA database that is built in, so that answers don't depend on the system. It keeps zones that were
/// asked for; making it reads nothing.
static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The longest name is `America/Argentina/ComodRivadavia`, with 32.
const NAME_BYTES_MAX: usize = 40;
/// Offsets are less than a day.
const OFFSET_SECONDS_MAX: i32 = 86_399;

impl TimeZone {
    /// UTC.
    pub const UTC: TimeZone = TimeZone(jiff::tz::TimeZone::UTC);

    /// Reads a name such as `Europe/Zurich`, `UTC`, or an offset such as `+05:30`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("utc") || text.eq_ignore_ascii_case("z") {
            return Some(TimeZone::UTC);
        }
        if let Some(seconds) = parse_offset(text) {
            let offset = Offset::from_seconds(seconds).ok()?;
            return Some(if seconds == 0 { TimeZone::UTC } else { TimeZone(offset.to_time_zone()) });
        }
        let is_name = text.len() <= NAME_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-+".contains(&byte));
        is_name.then(|| DATABASE.get(text).ok()).flatten().map(TimeZone)
    }

    /// The first instant of a date, in milliseconds: midnight, or the instant when clocks skip it. `None` beyond the
    /// years that can be written.
    pub(super) fn day_start(&self, date: jiff::civil::Date) -> Option<i64> {
        let midnight = date.at(0, 0, 0, 0);
        let start = match self.0.to_ambiguous_timestamp(midnight).offset() {
            AmbiguousOffset::Gap { after, .. } => {
                let before = after.to_timestamp(midnight).ok()?;
                self.0.following(before).next()?.timestamp()
            }
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(midnight).ok()?,
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(midnight).ok()?,
        };
        Some(start.as_millisecond())
    }
}

/// Days of a time zone as instants.
impl TimeZone {
    /// The first instant of the day that `at` lies in.
    pub fn start_of_day(&self, at: Timestamp) -> Timestamp {
        let start = self.zoned(at).and_then(|zoned| zoned.start_of_day().ok());
        start.map_or(at, |start| Timestamp::from_millis(start.timestamp().as_millisecond()))
    }

    /// The first instant of the day after the one that `at` lies in.
    pub fn next_day_start(&self, at: Timestamp) -> Timestamp {
        let next = self.zoned(at).and_then(|zoned| zoned.tomorrow().ok()?.start_of_day().ok());
        next.map_or(Timestamp::MAX, |next| Timestamp::from_millis(next.timestamp().as_millisecond()))
    }

    /// The first instant of a date such as `2030-01-31`; `None` for any other text.
    pub fn date_start(&self, date: &str) -> Option<Timestamp> {
        if date.len() != 10 || date.starts_with(['-', '+']) {
            return None;
        }
        self.day_start(date.parse().ok()?).map(Timestamp::from_millis)
    }

    fn zoned(&self, at: Timestamp) -> Option<jiff::Zoned> {
        Some(jiff::Timestamp::from_millisecond(at.as_millis()).ok()?.to_zoned(self.0.clone()))
    }
}

/// As [`TimeZone::parse`] reads it.
impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.iana_name(), self.0.to_fixed_offset()) {
            (Some(name), _) => f.write_str(name),
            (None, Ok(offset)) => {
                let (sign, seconds) =
                    if offset.seconds() < 0 { ('-', -offset.seconds()) } else { ('+', offset.seconds()) };
                write!(f, "{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)
            }
            (None, Err(_)) => f.write_str("UTC"),
        }
    }
}

/// `+hh:mm` or `-hh:mm`, in seconds.
fn parse_offset(text: &str) -> Option<i32> {
    let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = text.as_bytes() else { return None };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| i32::from(byte - b'0'));
    let (hours, minutes) = (digit(h1)? * 10 + digit(h2)?, digit(m1)? * 10 + digit(m2)?);
    let seconds = (hours * 60 + minutes) * 60;
    let is_offset = minutes < 60 && seconds <= OFFSET_SECONDS_MAX;
    is_offset.then_some(if *sign == b'-' { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let found = TimeZone::parse(text).map(|zone| zone.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn reads_names_and_offsets() {
        check("Europe/Zurich", Some("Europe/Zurich"));
        check("europe/zurich", Some("Europe/Zurich"));
        check("America/Argentina/ComodRivadavia", Some("America/Argentina/ComodRivadavia"));
        check("Etc/GMT+5", Some("Etc/GMT+5"));
        check("UTC", Some("UTC"));
        check("utc", Some("UTC"));
        check("Z", Some("UTC"));
        check("+00:00", Some("UTC"));
        check("-00:00", Some("UTC"));
        check("+05:30", Some("+05:30"));
        check("-03:00", Some("-03:00"));
        check("-00:45", Some("-00:45"));
        check("+23:59", Some("+23:59"));
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            " UTC",
            "CH",
            "Europe/Nowhere",
            "../../etc/passwd",
            "/etc/localtime",
            "Europe/Zurich\0",
            "Europe/Zürich",
            "+5:30",
            "+05:60",
            "+24:00",
            "+0530",
            "+05:30:00",
            "−03:00",
            "<+03>-3",
        ] {
            check(text, None);
        }
        check(&"a/".repeat(5_000), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_is_read_is_written(text in "\\PC{0,40}|[+-][0-2][0-9]:[0-6][0-9]") {
            if let Some(zone) = TimeZone::parse(&text) {
                prop_assert_eq!(TimeZone::parse(&zone.to_string()), Some(zone));
            }
        }
    }
}
