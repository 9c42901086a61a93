//! [`Timestamp`]: an instant in milliseconds since 1970-01-01T00:00:00Z.

use std::fmt;
use std::str::FromStr;

/// An instant in UTC with millisecond precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text is neither an RFC 3339 time nor a date, or it lies outside the years that RFC 3339 can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as 2030-01-31T12:00:00Z, nor a date such as 2030-01-31")]
pub struct InvalidTimestamp;

/// 9999-12-30T21:59:59.999Z: whatever the offset, the last instant that RFC 3339 can write.
const MAX_MILLIS: i64 = 253_402_207_199_999;
/// 0000-01-01T00:00:00Z, the first one.
const MIN_MILLIS: i64 = -62_167_219_200_000;

impl Timestamp {
    /// The last instant that can be written.
    pub const MAX: Timestamp = Timestamp(MAX_MILLIS);

    /// From milliseconds since the Unix epoch, clamped to what RFC 3339 can write.
    pub fn from_millis(millis: i64) -> Self {
        Timestamp(millis.clamp(MIN_MILLIS, MAX_MILLIS))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant moved by `seconds` (which may be negative), clamped to what can be written.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Timestamp::from_millis(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Whole seconds from `self` until `later`, rounded up; 0 when `later` is not later.
    pub fn seconds_until(self, later: Timestamp) -> u64 {
        (later.0.saturating_sub(self.0).max(0) as u64).div_ceil(1000)
    }

    /// Reads an RFC 3339 time, or a bare date, which means 00:00:00 UTC of that day.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        if let Some(date) = parse_date(text) {
            return Ok(date);
        }
        if !has_rfc3339_shape(text.as_bytes()) {
            return Err(InvalidTimestamp);
        }
        let parsed = jiff::Timestamp::from_str(text).map_err(|_| InvalidTimestamp)?;
        let millis = parsed.as_millisecond();
        (MIN_MILLIS..=MAX_MILLIS).contains(&millis).then_some(Timestamp(millis)).ok_or(InvalidTimestamp)
    }
}

fn parse_date(text: &str) -> Option<Timestamp> {
    if text.len() != 10 || text.starts_with(['-', '+']) {
        return None;
    }
    let date = jiff::civil::Date::from_str(text).ok()?;
    let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp(zoned.timestamp().as_millisecond()))
}

/// `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`: jiff reads more forms than RFC 3339 has, which we don't promise.
fn has_rfc3339_shape(text: &[u8]) -> bool {
    let digits = |range: std::ops::Range<usize>| text[range].iter().all(u8::is_ascii_digit);
    if text.len() < 20
        || !(digits(0..4)
            && digits(5..7)
            && digits(8..10)
            && digits(11..13)
            && digits(14..16)
            && digits(17..19))
        || text[4] != b'-'
        || text[7] != b'-'
        || !matches!(text[10], b'T' | b't' | b' ')
        || text[13] != b':'
        || text[16] != b':'
    {
        return false;
    }
    let mut rest = &text[19..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || count > 9 {
            return false;
        }
        rest = &fraction[count..];
    }
    match rest {
        b"Z" | b"z" => true,
        [b'+' | b'-', offset @ ..] => {
            offset.len() == 5
                && offset[2] == b':'
                && offset.iter().enumerate().all(|(at, byte)| at == 2 || byte.is_ascii_digit())
        }
        _ => false,
    }
}

/// RFC 3339 in UTC; milliseconds are written always, so that texts sort as times do.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{at:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let got = Timestamp::parse(text).ok().map(|at| at.to_string());
        assert_eq!(got.as_deref(), expected, "{text}");
    }

    #[test]
    fn reads_rfc3339_and_dates() {
        check("2030-01-31T12:00:00Z", Some("2030-01-31T12:00:00.000Z"));
        check("2030-01-31t12:00:00.1239z", Some("2030-01-31T12:00:00.123Z"));
        check("2030-01-31T12:00:00+05:45", Some("2030-01-31T06:15:00.000Z"));
        check("2030-01-31", Some("2030-01-31T00:00:00.000Z"));
        check("2028-02-29", Some("2028-02-29T00:00:00.000Z"));
        check("9999-12-30T21:59:59.999Z", Some("9999-12-30T21:59:59.999Z"));
        check("0000-01-01T00:00:00Z", Some("0000-01-01T00:00:00.000Z"));
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "tomorrow",
            "2030-02-30",
            "2030-1-31",
            "2030-01-31T12:00:00",
            "2030-01-31T12:00Z",
            "2030-01-31T25:00:00Z",
            "2030-01-31T12:00:00.Z",
            "2030-01-31T12:00:00Z[Europe/Paris]",
            "+002030-01-31",
            "9999-12-31T23:59:59-23:59",
            "2030-01-31T12:00:00,5Z",
            "1893456000",
            "２０３０-01-31",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn seconds_until_rounds_up() {
        let at = Timestamp::from_millis;
        assert_eq!(at(0).seconds_until(at(1)), 1);
        assert_eq!(at(0).seconds_until(at(1000)), 1);
        assert_eq!(at(5).seconds_until(at(0)), 0);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in MIN_MILLIS..=MAX_MILLIS) {
            let at = Timestamp::from_millis(millis);
            prop_assert_eq!(Timestamp::parse(&at.to_string()), Ok(at));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
