use std::fmt;
use std::str::FromStr;

use biscuit_core::{Error, Result};
use chrono::NaiveDate;

/// How long periods are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// An hour.
    Hour,
    /// A day of the calendar, as long as it is.
    Day,
    /// Seven days.
    Week(FirstDay),
    /// A month of the calendar.
    Month,
    /// Three months, from January, April, July or October on.
    Quarter,
    /// A year of the calendar.
    Year,
    /// So many days, counted from a day on.
    Days(DaySpan),
}

/// The day that weeks begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FirstDay {
    /// Monday, numbered as ISO 8601 does it: `2024-W09`.
    Iso,
    /// A day of one's own, from Monday (0) to Sunday (6); such weeks are named by their first day.
    Of(u8),
}

/// A number of days, and one on which a period begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DaySpan {
    /// How many, at least one.
    pub(crate) days: u32,
    /// Days since 1970-01-01.
    pub(crate) from: i32,
}

impl DaySpan {
    /// Periods of so many days, one of which begins at `from`, in days since 1970-01-01.
    ///
    /// # Errors
    /// `InvalidGranularity` for no days, or more than 100 years of them.
    pub fn new(days: u32, from: i32) -> Result<Self> {
        if days == 0 || days > 36_525 {
            return Err(invalid_granularity(&format!("{days}d")));
        }
        Ok(Self { days, from })
    }
}

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

fn invalid_granularity(text: &str) -> Error {
    let message = format!(
        "`{text}` is not a granularity; write hour, day, week, week:sunday, month, quarter, year, 14d or 14d@2024-01-05"
    );
    Error::usage("InvalidGranularity", message)
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour => f.write_str("hour"),
            Self::Day => f.write_str("day"),
            Self::Week(FirstDay::Iso) => f.write_str("week"),
            Self::Week(FirstDay::Of(day)) => write!(f, "week:{}", WEEKDAYS[usize::from(*day) % 7]),
            Self::Month => f.write_str("month"),
            Self::Quarter => f.write_str("quarter"),
            Self::Year => f.write_str("year"),
            Self::Days(DaySpan { days, from: 0 }) => write!(f, "{days}d"),
            Self::Days(DaySpan { days, from }) => write!(f, "{days}d@{}", date_of(*from)),
        }
    }
}

impl FromStr for Granularity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || invalid_granularity(text);
        let (what, rest) = match text.split_once([':', '@']) {
            Some((what, rest)) => (what, Some(rest)),
            None => (text, None),
        };
        if let (Some(days), sign) = (what.strip_suffix('d'), text.contains(':')) {
            let days = days.parse().map_err(|_| invalid())?;
            let from = match rest {
                None => 0,
                Some(_) if sign => return Err(invalid()),
                Some(date) => days_since(date.parse().map_err(|_| invalid())?),
            };
            return Ok(Self::Days(DaySpan::new(days, from).map_err(|_| invalid())?));
        }
        if text.contains('@') {
            return Err(invalid());
        }
        match (what, rest) {
            ("hour", None) => Ok(Self::Hour),
            ("day", None) => Ok(Self::Day),
            ("week", None | Some("iso")) => Ok(Self::Week(FirstDay::Iso)),
            ("week", Some(day)) => {
                let day = WEEKDAYS.iter().position(|d| *d == day.to_lowercase()).ok_or_else(invalid)?;
                Ok(Self::Week(FirstDay::Of(u8::try_from(day).expect("there are seven days"))))
            }
            ("month", None) => Ok(Self::Month),
            ("quarter", None) => Ok(Self::Quarter),
            ("year", None) => Ok(Self::Year),
            _ => Err(invalid()),
        }
    }
}

fn date_of(days: i32) -> NaiveDate {
    NaiveDate::from_epoch_days(days).unwrap_or_default()
}

pub(crate) fn days_since(date: NaiveDate) -> i32 {
    date.to_epoch_days()
}
