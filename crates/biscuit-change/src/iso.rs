use chrono::{NaiveDate, NaiveDateTime, NaiveTime};

/// A date and time as ISO 8601 writes it, with the offset of its zone in seconds if it has one. Years may have a sign
/// and more than four digits, as PostgreSQL and Debezium write them; a date alone is midnight.
pub(crate) fn date_time(text: &str) -> Option<(NaiveDateTime, Option<i32>)> {
    let text = text.trim();
    let split = text.find(['T', 't', ' ']);
    let (date_text, rest) = match split {
        Some(i) => (&text[..i], text[i + 1..].trim_start()),
        None => (text, ""),
    };
    let date = date(date_text)?;
    if split.is_none() {
        return Some((date.and_time(NaiveTime::MIN), None));
    }
    let (time_text, zone) = split_zone(rest)?;
    Some((date.and_time(time(time_text)?), zone))
}

/// A date, `YYYY-MM-DD`.
pub(crate) fn date(text: &str) -> Option<NaiveDate> {
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
    NaiveDate::from_ymd_opt(sign * year.parse::<i32>().ok()?, month.parse().ok()?, day.parse().ok()?)
}

/// A time of day, `HH:MM[:SS[.fffffffff]]`, up to 23:59:59.999999999.
pub(crate) fn time(text: &str) -> Option<NaiveTime> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let mut two = || parts.next().filter(|p| p.len() == 2)?.parse::<u32>().ok();
    let (hour, minute) = (two()?, two()?);
    let second = match clock.matches(':').count() {
        1 => 0,
        2 => two()?,
        _ => return None,
    };
    let digits = fraction.bytes().all(|b| b.is_ascii_digit()) && fraction.len() <= 9;
    let nanos = format!("{fraction:0<9}").parse().ok().filter(|_| digits)?;
    NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)
}

fn split_zone(text: &str) -> Option<(&str, Option<i32>)> {
    if let Some(t) = text.strip_suffix(['Z', 'z']) {
        return Some((t.trim_end(), Some(0)));
    }
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

/// Nanoseconds since the epoch; 128 bits, since years go further than 64 bits of them.
pub(crate) fn nanos(t: NaiveDateTime) -> i128 {
    i128::from(t.and_utc().timestamp()) * 1_000_000_000 + i128::from(t.and_utc().timestamp_subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_before_christ_and_after_9999_are_read() {
        assert_eq!(date("-0043-03-15").unwrap().to_string(), "-0043-03-15");
        assert_eq!(date("+12024-01-01").unwrap().to_string(), "+12024-01-01");
        let (t, zone) = date_time("-0043-03-15T12:00:00.000000Z").unwrap();
        assert_eq!((nanos(t) / 1000, zone), (-63_517_780_800_000_000, Some(0)));
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        let (t, zone) = date_time("2024-01-01 10:00:00.5+05:30").unwrap();
        assert_eq!((t.to_string().as_str(), zone), ("2024-01-01 10:00:00.500", Some(19_800)));
        assert_eq!(date_time("2024-01-01T10:00").unwrap().1, None);
        assert_eq!(date_time("2024-01-01T10:00:00-03").unwrap().1, Some(-10_800));
    }

    #[test]
    fn what_is_no_time_is_refused() {
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
            assert_eq!(date_time(bad), None, "{bad}");
        }
    }
}
