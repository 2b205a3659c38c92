//! Points in time with microsecond precision, and the text forms of instants and durations.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

use crate::{Error, Result, codes};

/// Point in time, stored as microseconds since 1970-01-01T00:00:00Z.
///
/// ```
/// use biscuit_core::Instant;
///
/// let t: Instant = "2024-02-29T12:00:00+01:00".parse().unwrap();
/// assert_eq!(t.to_string(), "2024-02-29T11:00:00Z");
/// assert_eq!("2024-02-29".parse::<Instant>().unwrap().as_micros(), 1_709_164_800_000_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(i64);

impl Instant {
    /// Creates the instant that is `micros` microseconds after the Unix epoch, or before it if `micros` is negative.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Adds a duration. The result is at most the greatest instant that the type can represent.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Subtracts a duration. The result is at least the least instant that the type can represent.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(t) => f.write_str(&t.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            // chrono has a smaller range of years than 64 bits of microseconds. Such an instant is shown as its
            // number.
            None => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Instant {
    type Err = Error;

    /// Parses RFC 3339, or `YYYY-MM-DD[ HH:MM:SS[.ffffff]]` without an offset, which is taken as UTC.
    fn from_str(s: &str) -> Result<Self> {
        let utc = |t: NaiveDateTime| Self(t.and_utc().timestamp_micros());
        if let Ok(t) = DateTime::parse_from_rfc3339(s) {
            return Ok(Self(t.timestamp_micros()));
        }
        for form in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
            if let Ok(t) = NaiveDateTime::parse_from_str(s, form) {
                return Ok(utc(t));
            }
        }
        match NaiveDate::parse_from_str(s, "%Y-%m-%d") {
            Ok(d) => Ok(utc(d.and_time(chrono::NaiveTime::MIN))),
            Err(_) => Err(Error::new(
                codes::INVALID_INSTANT,
                format!("`{s}` is not a point in time; use a form such as `2024-02-29T12:00:00Z` or `2024-02-29`"),
            )),
        }
    }
}

/// Parses a duration: one or more whole numbers, each with a unit. Examples: `90s`, `2h30m`, `7d`, `250ms`, `1w`.
///
/// ```
/// use std::time::Duration;
///
/// use biscuit_core::parse_duration;
///
/// assert_eq!(parse_duration("2h30m")?, Duration::from_secs(9_000));
/// assert_eq!(parse_duration("1w")?, parse_duration("7d")?);
/// assert_eq!(parse_duration("90").unwrap_err().code(), "InvalidDuration"); // without a unit
/// # Ok::<(), biscuit_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidDuration` for an empty text, a number without a unit, an unknown unit, or more than 2^64 milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let bad = || {
        Error::new(
            codes::INVALID_DURATION,
            format!("`{text}` is not a duration; use a form such as `90s`, `2h30m` or `7d` (units: ms, s, m, h, d, w)"),
        )
    };
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    // Each pass reads one number and its unit: `2h30m` is `2h`, then `30m`.
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        let per: u64 = match rest[digits..unit_end].trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(bad()),
        };
        let n: u64 = rest[..digits].parse().map_err(|_| bad())?;
        millis = n.checked_mul(per).and_then(|m| millis.checked_add(m)).ok_or_else(bad)?;
        rest = rest[unit_end..].trim_start();
    }
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_parts() {
        assert_eq!(parse_duration("2h30m").unwrap(), Duration::from_secs(9000));
        assert_eq!(parse_duration(" 1d 12h ").unwrap(), Duration::from_secs(129_600));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
    }

    #[test]
    fn number_without_a_unit_is_not_a_duration() {
        for bad in ["", "90", "h", "-1h", "1y", "1.5h", "99999999999999999999d", "18446744073709551615w"] {
            assert_eq!(parse_duration(bad).unwrap_err().code(), "InvalidDuration", "{bad}");
        }
    }

    #[test]
    fn all_text_forms_of_an_instant_are_equal() {
        let want = Instant::from_micros(1_709_208_000_500_000);
        for s in ["2024-02-29T12:00:00.5Z", "2024-02-29 12:00:00.500", "2024-02-29T13:00:00.5+01:00"] {
            assert_eq!(s.parse::<Instant>().unwrap(), want, "{s}");
        }
        assert_eq!("2024-02-30".parse::<Instant>().unwrap_err().code(), "InvalidInstant");
    }
}
