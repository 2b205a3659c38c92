//! Lengths of periods and their text form, such as `month` or `14d@2024-01-05`.

use std::fmt;
use std::str::FromStr;

use biscuit_core::{Error, Result};
use chrono::NaiveDate;

use crate::codes;

/// Length of periods.
///
/// ```
/// use biscuit_partition::{FirstDay, Granularity};
///
/// assert_eq!("month".parse::<Granularity>()?, Granularity::Month);
/// assert_eq!("week:sunday".parse::<Granularity>()?, Granularity::Week(FirstDay::Of(6)));
/// assert_eq!("14d@2024-01-05".parse::<Granularity>()?.to_string(), "14d@2024-01-05");
/// assert_eq!("fortnight".parse::<Granularity>().unwrap_err().code(), "InvalidGranularity");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Granularity {
    /// Sixty minutes.
    Hour,
    /// A calendar day, of 23 to 25 hours.
    Day,
    /// Seven days.
    Week(FirstDay),
    /// A calendar month.
    Month,
    /// Three months, beginning in January, April, July or October.
    Quarter,
    /// A calendar year.
    Year,
    /// A number of days, counted from a given day.
    Days(DaySpan),
}

/// First day of weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FirstDay {
    /// Monday. Weeks have ISO 8601 numbers: `2024-W09`.
    Iso,
    /// Another day, from Monday (0) to Sunday (6). Weeks have the name of their first day.
    Of(u8),
}

/// A number of days, and a day on which a period begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DaySpan {
    /// Length in days, at least one.
    pub(crate) days: u32,
    /// Day on which a period begins, in days since 1970-01-01.
    pub(crate) from: i32,
}

impl DaySpan {
    /// Creates periods of `days` days, one of which begins on `from`, in days since 1970-01-01.
    ///
    /// # Errors
    /// `InvalidGranularity` for zero days, or for more than 100 years.
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
        "`{text}` is not a granularity; use hour, day, week, week:sunday, month, quarter, year, 14d or 14d@2024-01-05"
    );
    Error::new(codes::INVALID_GRANULARITY, message)
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
