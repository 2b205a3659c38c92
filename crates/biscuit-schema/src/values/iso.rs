//! Parsers of ISO 8601 dates and times, with the extended years of PostgreSQL and Debezium.

use chrono::{NaiveDate, NaiveTime};

/// Parses an ISO 8601 date and time. Returns the nanoseconds since 1970, and the offset in seconds if the text has
/// one. The offset is not subtracted. Years may have a sign and more than four digits, as PostgreSQL and Debezium
/// write them. A date alone is midnight.
///
/// ```
/// use biscuit_schema::internal::iso_date_time;
///
/// assert_eq!(iso_date_time("1970-01-02T00:00:01+01:00"), Some((86_401_000_000_000, Some(3600))));
/// assert_eq!(iso_date_time("1970-02-30"), None);
/// ```
pub fn iso_date_time(text: &str) -> Option<(i128, Option<i32>)> {
    let text = text.trim();
    if let Some(plain) = parse_usual_form(text.as_bytes()) {
        return Some(plain);
    }
    let split = text.find(['T', 't', ' ']);
    let (date_text, rest) = match split {
        Some(i) => (&text[..i], text[i + 1..].trim_start()),
        None => (text, ""),
    };
    let midnight = i128::from(iso_date(date_text)?) * DAY;
    if split.is_none() {
        return Some((midnight, None));
    }
    let (time_text, zone) = split_zone(rest)?;
    Some((midnight + i128::from(iso_time(time_text)?), zone))
}

/// Fast path for the usual form, `YYYY-MM-DDTHH:MM:SS[.f…][Z]`. Returns `None` for other forms, which may still be
/// valid.
fn parse_usual_form(b: &[u8]) -> Option<(i128, Option<i32>)> {
    let marks =
        b.len() >= 19 && b[4] == b'-' && b[7] == b'-' && matches!(b[10], b'T' | b' ') && b[13] == b':' && b[16] == b':';
    if !marks {
        return None;
    }
    let digits = |from: usize, to: usize| {
        b[from..to].iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match b[19..].strip_suffix(b"Z") {
        Some(fraction) => (fraction, Some(0)),
        None => (&b[19..], None),
    };
    let nanos = match fraction {
        [] => 0,
        [b'.', places @ ..] if (1..=9).contains(&places.len()) => {
            digits(20, 20 + places.len())? * 10i64.pow(9 - places.len() as u32)
        }
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32)?;
    let seconds = (hour * 60 + minute) * 60 + second;
    let midnight = i128::from(date.to_epoch_days()) * DAY;
    Some((midnight + i128::from(seconds) * 1_000_000_000 + i128::from(nanos), zone))
}

const DAY: i128 = 86_400_000_000_000;

/// Parses a date of the form `YYYY-MM-DD` as days since 1970.
pub fn iso_date(text: &str) -> Option<i32> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = digits.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = |s: &str, n: usize| (s.len() == n && s.bytes().all(|b| b.is_ascii_digit())).then_some(());
    if parts.next().is_some() || year.len() < 4 || whole(year, year.len()).is_none() {
        return None;
    }
    whole(month, 2)?;
    whole(day, 2)?;
    let date = NaiveDate::from_ymd_opt(sign * year.parse::<i32>().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    Some(date.to_epoch_days())
}

/// Parses a time of day of the form `HH:MM[:SS[.fffffffff]]`, up to 23:59:59.999999999, as nanoseconds since
/// midnight.
pub fn iso_time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let mut two = || parts.next().filter(|p| p.len() == 2)?.parse::<u32>().ok();
    let (hour, minute) = (two()?, two()?);
    let second = match clock.matches(':').count() {
        1 => 0,
        2 => two()?,
        _ => return None,
    };
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = fraction.bytes().fold(0, |n, b| n * 10 + u32::from(b - b'0')) * 10u32.pow(9 - fraction.len() as u32);
    let time = NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)?;
    (time - NaiveTime::MIN).num_nanoseconds()
}

/// Splits a time into the clock part and the offset in seconds. The offset has the form `Z`, `+HH`, `+HHMM`, `+HH:MM`
/// or `+HH:MM:SS`.
fn split_zone(text: &str) -> Option<(&str, Option<i32>)> {
    if let Some(t) = text.strip_suffix(['Z', 'z']) {
        return Some((t.trim_end(), Some(0)));
    }
    // A clock time contains neither sign, so the first one begins the offset.
    let Some(i) = text.find(['+', '-']) else { return Some((text, None)) };
    let (time, zone) = text.split_at(i);
    let digits: String = zone[1..].chars().filter(|c| *c != ':').collect();
    if !matches!(digits.len(), 2 | 4 | 6) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |n: usize| digits.get(2 * n..2 * n + 2).map_or(Some(0), |d| d.parse::<i32>().ok());
    let seconds = part(0)? * 3600 + part(1)? * 60 + part(2)?;
    Some((time.trim_end(), Some(if zone.starts_with('-') { -seconds } else { seconds })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_before_0_and_after_9999_are_read() {
        assert_eq!(iso_date("-0043-03-15"), Some(-735_160));
        assert_eq!(iso_date("+12024-01-01"), Some(3_672_148));
        let (nanos, zone) = iso_date_time("-0043-03-15T12:00:00.000000Z").unwrap();
        assert_eq!((nanos / 1000, zone), (-63_517_780_800_000_000, Some(0)));
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        let (nanos, zone) = iso_date_time("1970-01-01 10:00:00.5+05:30").unwrap();
        assert_eq!((nanos, zone), (36_000_500_000_000, Some(19_800)));
        assert_eq!(iso_date_time("2024-01-01T10:00").unwrap().1, None);
        assert_eq!(iso_date_time("2024-01-01T10:00:00-03").unwrap().1, Some(-10_800));
    }

    #[test]
    fn invalid_dates_and_times_are_refused() {
        for bad in [
            "2024-1-1",
            "2024-02-30",
            "2024-01-01T",
            "2024-01-01T25:00:00",
            "2024-01-01T10:00:00+1",
            "12:00",
            "2024-01-01T1:00:00",
            "2024-01-01T10:00:00.1234567890",
        ] {
            assert_eq!(iso_date_time(bad), None, "{bad}");
        }
    }
}
