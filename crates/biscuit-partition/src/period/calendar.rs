//! The calendar of periods: boundaries and names of periods in a time zone. Everything here is a function of
//! instants; the difficult cases are clocks that are put forward or back, and days that a zone skips.

use std::fmt;

use biscuit_core::{Error, Instant, Result};
use chrono::{
    DateTime, Datelike, Days, MappedLocalTime, Months, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc,
    Weekday,
};
use chrono_tz::Tz;

use crate::codes;
use crate::period::granularity::{DaySpan, FirstDay, Granularity, days_since};

/// Periods of one granularity in one time zone. They follow one another without gaps, and an instant between two
/// periods belongs to the later period.
///
/// ```
/// use biscuit_partition::PeriodCalendar;
///
/// let calendar = PeriodCalendar::new("month".parse()?, "Europe/Berlin")?;
/// let period = calendar.period("2024-02-29T23:30:00Z".parse()?)?;
/// assert_eq!(period.to_string(), "2024-03");
/// assert_eq!(period.start().to_string(), "2024-02-29T23:00:00Z");
/// assert_eq!(period.previous()?.to_string(), "2024-02");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeriodCalendar {
    granularity: Granularity,
    zone: Tz,
}

/// One period of a calendar. It prints as the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    calendar: PeriodCalendar,
    start: Instant,
    end: Instant,
}

impl PartialOrd for Period {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Period {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.start, self.end).cmp(&(other.start, other.end))
    }
}

fn out_of_range() -> Error {
    Error::new(codes::PERIOD_OUT_OF_RANGE, "only the years 1 to 9999 have periods")
}

impl PeriodCalendar {
    /// Creates a calendar in a time zone of the IANA database, such as `UTC` or `America/New_York`. The rules of the
    /// zone are those that this version of the crate was built with.
    ///
    /// # Errors
    /// `UnknownZone`.
    pub fn new(granularity: Granularity, zone: &str) -> Result<Self> {
        let unknown = |e| {
            let message = format!("unknown time zone `{zone}`; use an IANA name such as `UTC` or `America/New_York`");
            Error::new(codes::UNKNOWN_ZONE, message).with_source(e)
        };
        Ok(Self { granularity, zone: zone.parse().map_err(unknown)? })
    }

    /// Returns the length of periods.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Returns the name of the time zone.
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// Returns the period that contains an instant.
    ///
    /// # Errors
    /// `PeriodOutOfRange` outside of the years 1 to 9999.
    pub fn period(&self, at: Instant) -> Result<Period> {
        let local = self.local_time(at)?;
        if self.granularity == Granularity::Hour {
            return self.hour_of(at);
        }
        let mut first = self.first_day(local.date())?;
        // If a clock is put back over midnight, the same date is shown before and after the end of its day, so the
        // first guess may be one period off in either direction.
        for _ in 0..3 {
            let (start, end) = (self.begin_of_date(first)?, self.begin_of_date(self.step_period(first, 1)?)?);
            if at < start {
                first = self.step_period(first, -1)?;
            } else if at >= end {
                first = self.step_period(first, 1)?;
            } else {
                return Ok(Period { calendar: *self, start, end });
            }
        }
        Err(Error::internal("an instant is in no period"))
    }

    /// Returns the period with this name, as [`Period`] prints it.
    ///
    /// # Errors
    /// `InvalidPeriod`.
    pub fn parse(&self, text: &str) -> Result<Period> {
        let invalid = || {
            let example = self.period(Instant::from_micros(1_709_164_800_000_000)).map(|p| p.to_string());
            let message = format!(
                "`{text}` is not a period of the granularity {}; write it as {}",
                self.granularity,
                example.unwrap_or_default()
            );
            Error::new(codes::INVALID_PERIOD, message)
        };
        let date = |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        let year = |text: &str| text.parse::<i32>().ok().filter(|_| text.len() == 4);
        let at = match self.granularity {
            Granularity::Hour => {
                let (hour, rest) = text.split_at_checked(13).ok_or_else(invalid)?;
                let (minute, offset) =
                    rest.split_at_checked(rest.find(['+', '-']).unwrap_or(rest.len())).ok_or_else(invalid)?;
                let minute = if minute.is_empty() { "00" } else { minute };
                let offset = if offset.is_empty() { "+0000" } else { offset };
                let at = DateTime::parse_from_str(&format!("{hour}:{minute}:00{offset}"), "%Y-%m-%dT%H:%M:%S%z");
                Some(Instant::from_micros(at.map_err(|_| invalid())?.timestamp_micros()))
            }
            Granularity::Week(FirstDay::Iso) => {
                let (y, week) = text.split_once("-W").ok_or_else(invalid)?;
                let week = week.parse().ok().filter(|_| week.len() == 2);
                let monday = year(y).zip(week).and_then(|(y, w)| NaiveDate::from_isoywd_opt(y, w, Weekday::Mon));
                monday.map(|d| self.begin_of_date(d)).transpose()?
            }
            Granularity::Quarter => {
                let (y, quarter) = text.split_once("-Q").ok_or_else(invalid)?;
                let quarter = quarter.parse::<u32>().ok().filter(|q| (1..=4).contains(q));
                let first = year(y).zip(quarter).and_then(|(y, q)| NaiveDate::from_ymd_opt(y, q * 3 - 2, 1));
                first.map(|d| self.begin_of_date(d)).transpose()?
            }
            Granularity::Month => date(&format!("{text}-01")).map(|d| self.begin_of_date(d)).transpose()?,
            Granularity::Year => {
                let first = year(text).and_then(|y| NaiveDate::from_ymd_opt(y, 1, 1));
                first.map(|d| self.begin_of_date(d)).transpose()?
            }
            _ => date(text).map(|d| self.begin_of_date(d)).transpose()?,
        };
        // Printing the period again rejects other spellings, such as `2024-2`, and dates on which no period begins.
        let period = self.period(at.ok_or_else(invalid)?)?;
        if period.to_string() == text { Ok(period) } else { Err(invalid()) }
    }

    /// Parses an instant: with an offset, such as `2024-03-01T00:00:00Z`, or as the clock of the zone shows it, such
    /// as `2024-03-01` or `2024-03-01T08:00:00`.
    ///
    /// # Errors
    /// `InvalidInstant`.
    pub fn read(&self, text: &str) -> Result<Instant> {
        self.instant_in(text)?.ok_or_else(|| {
            let message = format!(
                "`{text}` is not an instant; use a form such as 2024-02-29, 2024-02-29T12:00:00 or 2024-02-29T12:00:00Z"
            );
            Error::new(biscuit_core::codes::INVALID_INSTANT, message)
        })
    }

    /// Parses a date, a time on the clock of the zone, or an instant. `None` if the text is none of them.
    pub(crate) fn instant_in(&self, text: &str) -> Result<Option<Instant>> {
        let text = text.trim();
        for form in
            ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%Z", "%Y-%m-%d %H:%M:%S%.f%Z"]
        {
            if let Ok(at) = DateTime::parse_from_str(text, form) {
                return Ok(Some(Instant::from_micros(at.timestamp_micros())));
            }
        }
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Some(Instant::from_micros(at.timestamp_micros())));
        }
        for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
            if let Ok(shown) = NaiveDateTime::parse_from_str(text, form) {
                return self.instant_of_local(shown).map(Some);
            }
        }
        if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return self.begin_of_date(date).map(Some);
        }
        Ok(None)
    }

    /// Returns the instant of a time on the clock of the zone. A time that the clock shows twice is the earlier
    /// instant. A time that the clock skips is the instant at which the clock is put forward.
    ///
    /// # Errors
    /// `PeriodOutOfRange`.
    pub(crate) fn instant_of_local(&self, local: NaiveDateTime) -> Result<Instant> {
        let at = match self.zone.from_local_datetime(&local) {
            MappedLocalTime::Single(at) => at.timestamp_micros(),
            MappedLocalTime::Ambiguous(earlier, _) => earlier.timestamp_micros(),
            MappedLocalTime::None => self.put_forward(local)?,
        };
        Ok(Instant::from_micros(at))
    }

    /// Finds the instant at which the clock skips a time: a binary search over the two days before and after for the
    /// first second whose clock shows that time or a later one.
    fn put_forward(&self, local: NaiveDateTime) -> Result<i64> {
        let shows = |seconds: i64| {
            let at = DateTime::<Utc>::from_timestamp(seconds, 0).ok_or_else(out_of_range)?;
            Ok::<_, Error>(at.with_timezone(&self.zone).naive_local())
        };
        let near = local.and_utc().timestamp();
        let (mut before, mut after) = (near - 172_800, near + 172_800);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if shows(middle)? < local {
                before = middle;
            } else {
                after = middle;
            }
        }
        Ok(after * 1_000_000)
    }

    /// Returns the instant at which a date begins.
    pub(crate) fn begin_of_date(&self, date: NaiveDate) -> Result<Instant> {
        self.instant_of_local(date.and_time(chrono::NaiveTime::MIN))
    }

    /// Returns the time on the clock of the zone.
    fn local_time(&self, at: Instant) -> Result<NaiveDateTime> {
        let utc = DateTime::<Utc>::from_timestamp_micros(at.as_micros()).ok_or_else(out_of_range)?;
        let local = utc.with_timezone(&self.zone).naive_local();
        if !(1..=9999).contains(&local.year()) {
            return Err(out_of_range());
        }
        Ok(local)
    }

    /// Returns the hour that contains an instant. Hours have sixty minutes, and begin when the clock shows a full
    /// hour. Some zones put their clocks forward by less than an hour. There, hours begin where the clock showed a
    /// full hour at the beginning of 2024: otherwise hours would overlap or differ in length.
    fn hour_of(&self, at: Instant) -> Result<Period> {
        self.local_time(at)?;
        const HOUR: i64 = 3_600_000_000;
        let ahead = self.local_time(Instant::from_micros(1_704_067_200_000_000))?;
        let ahead = i64::from(ahead.minute() * 60 + ahead.second()) * 1_000_000;
        let start = (at.as_micros() + ahead).div_euclid(HOUR) * HOUR - ahead;
        let end = Instant::from_micros(start + 3_600_000_000);
        Ok(Period { calendar: *self, start: Instant::from_micros(start), end })
    }

    /// Returns the first day of the period that contains a day.
    fn first_day(&self, day: NaiveDate) -> Result<NaiveDate> {
        let back = |days: u32| day.checked_sub_days(Days::new(u64::from(days))).ok_or_else(out_of_range);
        let month = |month| NaiveDate::from_ymd_opt(day.year(), month, 1).ok_or_else(out_of_range);
        match self.granularity {
            Granularity::Hour | Granularity::Day => Ok(day),
            Granularity::Week(FirstDay::Iso) => back(day.weekday().num_days_from_monday()),
            Granularity::Week(FirstDay::Of(first)) => {
                back((day.weekday().num_days_from_monday() + 7 - u32::from(first) % 7) % 7)
            }
            Granularity::Month => month(day.month()),
            Granularity::Quarter => month((day.month() - 1) / 3 * 3 + 1),
            Granularity::Year => month(1),
            Granularity::Days(DaySpan { days, from }) => {
                let since = i64::from(days_since(day)) - i64::from(from);
                back(u32::try_from(since.rem_euclid(i64::from(days))).expect("a remainder is below the number of days"))
            }
        }
    }

    /// Returns the first day of the period that is `by` periods after the period that begins with `first`.
    fn step_period(&self, first: NaiveDate, by: i32) -> Result<NaiveDate> {
        let days = |n: u32| first.checked_add_signed(TimeDelta::days(i64::from(n) * i64::from(by)));
        let months = |n: u32| match u32::try_from(by) {
            Ok(by) => first.checked_add_months(Months::new(n * by)),
            Err(_) => first.checked_sub_months(Months::new(n * by.unsigned_abs())),
        };
        let next = match self.granularity {
            Granularity::Hour | Granularity::Day => days(1),
            Granularity::Week(_) => days(7),
            Granularity::Month => months(1),
            Granularity::Quarter => months(3),
            Granularity::Year => months(12),
            Granularity::Days(span) => days(span.days),
        };
        next.ok_or_else(out_of_range)
    }
}

impl Period {
    /// Returns the calendar of the period.
    pub fn calendar(&self) -> &PeriodCalendar {
        &self.calendar
    }

    /// Returns the first instant of the period.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Returns the first instant after the period, which belongs to the next period.
    pub fn end(&self) -> Instant {
        self.end
    }

    /// Returns whether the period contains an instant.
    pub fn contains(&self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }

    /// Returns the next period.
    ///
    /// # Errors
    /// `PeriodOutOfRange`.
    pub fn next(&self) -> Result<Self> {
        self.calendar.period(self.end)
    }

    /// Returns the previous period.
    ///
    /// # Errors
    /// `PeriodOutOfRange`.
    pub fn previous(&self) -> Result<Self> {
        self.calendar.period(Instant::from_micros(self.start.as_micros() - 1))
    }

    /// Returns this period and all later ones up to and including `last`. Empty if `last` is earlier.
    ///
    /// # Errors
    /// `PeriodOutOfRange`.
    pub fn range(&self, last: &Self) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        let mut at = *self;
        while at <= *last {
            all.push(at);
            if at == *last {
                break;
            }
            at = at.next()?;
        }
        Ok(all)
    }
}

/// The name of the period's folder: `2024-02-29T13`, `2024-02-29`, `2024-W09`, `2024-02`, `2024-Q1` or `2024`. Hours
/// in zones other than UTC have an offset, since clocks show some hours twice. Weeks with another first day and
/// numbers of days have the name of their first day.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = DateTime::<Utc>::from_timestamp_micros(self.start.as_micros()).unwrap_or_default();
        let zoned = utc.with_timezone(&self.calendar.zone);
        // A day may begin at another time than midnight, but always with its own date.
        let day = zoned.date_naive();
        match self.calendar.granularity {
            Granularity::Hour if self.calendar.zone == Tz::UTC => write!(f, "{}", zoned.format("%Y-%m-%dT%H")),
            Granularity::Hour if zoned.minute() == 0 => write!(f, "{}", zoned.format("%Y-%m-%dT%H%z")),
            Granularity::Hour => write!(f, "{}", zoned.format("%Y-%m-%dT%H%M%z")),
            Granularity::Week(FirstDay::Iso) => {
                write!(f, "{:04}-W{:02}", day.iso_week().year(), day.iso_week().week())
            }
            Granularity::Month => write!(f, "{}", day.format("%Y-%m")),
            Granularity::Quarter => write!(f, "{:04}-Q{}", day.year(), (day.month() - 1) / 3 + 1),
            Granularity::Year => write!(f, "{:04}", day.year()),
            Granularity::Day | Granularity::Week(_) | Granularity::Days(_) => write!(f, "{}", day.format("%Y-%m-%d")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(granularity: &str, zone: &str) -> PeriodCalendar {
        PeriodCalendar::new(granularity.parse().expect("the granularity is valid"), zone)
            .expect("the calendar is valid")
    }

    fn at(text: &str) -> Instant {
        text.parse().expect("the instant is valid")
    }

    #[test]
    fn period_names_can_be_parsed() {
        let cases = [
            ("hour", "UTC", "2024-02-29T13"),
            ("hour", "Europe/Berlin", "2024-02-29T14+0100"),
            ("day", "UTC", "2024-02-29"),
            ("week", "UTC", "2024-W09"),
            ("week:sunday", "UTC", "2024-02-25"),
            ("month", "UTC", "2024-02"),
            ("quarter", "UTC", "2024-Q1"),
            ("year", "UTC", "2024"),
            ("14d", "UTC", "2024-02-29"),
            ("14d@2024-01-05", "UTC", "2024-02-16"),
        ];
        for (granularity, zone, name) in cases {
            let calendar = calendar(granularity, zone);
            let period = calendar.period(at("2024-02-29T13:10:00Z")).expect("the period is known");
            assert_eq!(period.to_string(), name, "{granularity}");
            assert_eq!(calendar.parse(name).expect("the period is valid"), period);
            assert_eq!(calendar.granularity().to_string(), granularity);
            assert_eq!(period.next().and_then(|p| p.previous()).expect("the period is valid"), period);
            assert_eq!(
                calendar.period(period.end()).expect("the period is known"),
                period.next().expect("there is a next period")
            );
            assert!(period.contains(period.start()) && !period.contains(period.end()));
        }
    }

    #[test]
    fn invalid_granularity_zone_or_period_shows_valid_forms() {
        for text in
            ["", "weeks", "0d", "week:noday", "month:3", "14d:2024-01-05", "14d@yesterday", "month@2024-01-01", "d"]
        {
            assert_eq!(text.parse::<Granularity>().unwrap_err().code(), "InvalidGranularity", "{text}");
        }
        assert_eq!(PeriodCalendar::new(Granularity::Day, "Berlin").unwrap_err().code(), "UnknownZone");
        for (granularity, text) in [
            ("month", "2024-13"),
            ("month", "2024-1"),
            ("quarter", "2024-Q5"),
            ("week", "2023-W53"),
            ("week:sunday", "2024-02-26"),
            ("year", "24"),
            ("hour", "2024-02-29"),
            ("day", "2023-02-29"),
        ] {
            let e = calendar(granularity, "UTC").parse(text).unwrap_err();
            assert_eq!(e.code(), "InvalidPeriod", "{granularity} {text}");
        }
        let e = calendar("month", "UTC").parse("2024-1").unwrap_err();
        assert!(e.to_string().contains("2024-02"), "{e}");
    }

    #[test]
    fn days_are_as_long_as_the_clock_makes_them() {
        let berlin = calendar("day", "Europe/Berlin");
        let hours = |day: &str| {
            let day = berlin.parse(day).expect("the day is valid");
            (day.end().as_micros() - day.start().as_micros()) / 3_600_000_000
        };
        assert_eq!((hours("2024-03-31"), hours("2024-10-27"), hours("2024-02-29")), (23, 25, 24));
        let hour = calendar("hour", "Europe/Berlin");
        let twice =
            ["2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"].map(|t| hour.period(at(t)).expect("the hour is known"));
        assert_eq!(twice.map(|p| p.to_string()), ["2024-10-27T02+0200", "2024-10-27T02+0100"]);
        assert!(twice[0] < twice[1] && twice[0].next().expect("there is a next hour") == twice[1]);
    }

    #[test]
    fn hours_do_not_overlap_when_the_clock_moves_by_half_an_hour() {
        for (zone, from) in
            [("Australia/Lord_Howe", "2024-10-05T12:00:00Z"), ("Asia/Kathmandu", "1985-12-31T12:00:00Z")]
        {
            let hour = calendar("hour", zone);
            let mut period = hour.period(at(from)).expect("the hour is known");
            for _ in 0..12 {
                let next = period.next().expect("there is a next hour");
                assert_eq!(next.start(), period.end(), "{zone} {period}");
                assert_ne!(next.to_string(), period.to_string());
                assert_eq!(hour.parse(&next.to_string()).expect("the hour is valid"), next);
                period = next;
            }
        }
    }

    #[test]
    fn date_is_read_as_midnight_in_the_zone() {
        let new_york = calendar("month", "America/New_York");
        let march = new_york.read("2024-03-01").expect("the instant is read");
        assert_eq!(
            (march.to_string().as_str(), new_york.period(march).expect("the month is known").to_string().as_str()),
            ("2024-03-01T05:00:00Z", "2024-03")
        );
        assert_eq!(
            new_york.read("2024-03-01T00:00:00Z").expect("the instant is read").to_string(),
            "2024-03-01T00:00:00Z"
        );
        assert_eq!(new_york.read("March").unwrap_err().code(), "InvalidInstant");
    }

    #[test]
    fn day_without_midnight_begins_when_the_clock_is_put_forward() {
        // In São Paulo the clock went from 2018-11-03 24:00 to 01:00.
        let day = calendar("day", "America/Sao_Paulo").parse("2018-11-04").expect("the day is valid");
        assert_eq!(day.start().to_string(), "2018-11-04T03:00:00Z");
        assert_eq!(day.previous().expect("there is a previous day").end(), day.start());
        // Samoa had no 2011-12-30.
        let samoa = calendar("day", "Pacific/Apia");
        let before = samoa.parse("2011-12-29").expect("the day is valid");
        assert_eq!(before.next().expect("there is a next day").to_string(), "2011-12-31");
        assert_eq!(samoa.parse("2011-12-30").unwrap_err().code(), "InvalidPeriod");
    }

    #[test]
    fn periods_have_no_gaps_or_overlaps() {
        for zone in ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Apia", "America/St_Johns"] {
            for granularity in ["day", "week", "week:saturday", "month", "quarter", "year", "10d"] {
                let calendar = calendar(granularity, zone);
                let mut period = calendar.period(at("2011-06-15T12:00:00Z")).expect("the period is known");
                for _ in 0..400 {
                    let next = period.next().expect("there is a next period");
                    assert_eq!(next.start(), period.end(), "{zone} {period}");
                    assert!(next.start() < next.end() && next.to_string() > period.to_string(), "{zone} {period}");
                    let middle = (period.start().as_micros() + period.end().as_micros()) / 2;
                    assert_eq!(calendar.period(Instant::from_micros(middle)).expect("the period is known"), period);
                    if period.start() > at("2030-01-01") {
                        break;
                    }
                    period = next;
                }
            }
        }
    }

    #[test]
    fn periods_outside_of_years_1_to_9999_are_errors() {
        let day = calendar("day", "UTC");
        assert_eq!(day.parse("9999-12-31").unwrap().next().unwrap_err().code(), "PeriodOutOfRange");
        assert_eq!(day.period(Instant::from_micros(i64::MAX)).unwrap_err().code(), "PeriodOutOfRange");
    }

    #[test]
    fn text_can_be_a_date_a_local_time_or_an_instant() {
        let calendar = calendar("day", "Europe/Berlin");
        let read = |text: &str| calendar.instant_in(text).expect("the instant is in range").map(|at| at.to_string());
        let utc = "2024-02-29T11:00:00Z";
        for text in [
            "2024-02-29T12:00:00",
            "2024-02-29 12:00",
            "2024-02-29T11:00:00Z",
            "2024-02-29 11:00:00+00:00",
            "2024-02-29T06:00:00.000-05:00",
            "2024-02-29T12:00:00+01",
        ] {
            assert_eq!(read(text).expect("the time is read"), utc, "{text}");
        }
        assert_eq!(read("2024-02-29").expect("the date is read"), "2024-02-28T23:00:00Z");
        for text in ["", "29.02.2024", "2024-02-30", "1709204400", "2024-02"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
