use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::{TableVersion, partition_values};
use biscuit_merge::{PeriodBase, PeriodState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::calendar::{Period, PeriodCalendar};

/// The fact in the journal that says which periods a table has.
pub(crate) const PERIODS: &str = "periods";

/// In which period a record counts first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeriodBasis {
    /// In the current one, whatever the record says.
    Ingestion,
    /// In the one that holds the time in this column.
    Effective(String),
}

/// What becomes of records that take effect before the first period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BeforeFirstPeriod {
    /// They are an error, `BeforeFirstPeriod`.
    #[default]
    Error,
    /// They count from the first period on.
    Clamp,
    /// The periods from theirs on are built.
    Extend,
}

/// How a table is divided into periods.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeriodPlan {
    /// How long they are, and in which time zone.
    pub calendar: PeriodCalendar,
    /// In which of them a record counts first.
    pub by: PeriodBasis,
    /// The column in which a record says when a record of its key says it took effect, which never did: the correction of a date.
    pub retracts: Option<String>,
    /// The partition column that names them. Default: `period`.
    pub column: String,
    /// What becomes of records that take effect before the first one.
    pub before_first: BeforeFirstPeriod,
    /// The first one of a new table. Default: that of the earliest record.
    pub first: Option<Period>,
    /// The most periods that one run may add: a date of the year 1 is an error, and not 24,000 months. Default: 1,000.
    pub max_new_periods: usize,
}

impl PeriodPlan {
    /// Periods of a calendar.
    pub fn new(calendar: PeriodCalendar, by: PeriodBasis) -> Self {
        Self {
            calendar,
            by,
            retracts: None,
            column: "period".to_owned(),
            before_first: BeforeFirstPeriod::Error,
            first: None,
            max_new_periods: 1000,
        }
    }

    /// The same periods; a record takes back the one of its key that took effect at the time in this column, which is null where it takes
    /// back none.
    pub fn with_retracts(mut self, column: impl Into<String>) -> Self {
        self.retracts = Some(column.into());
        self
    }

    /// The same periods, named by another column.
    pub fn with_column(mut self, column: impl Into<String>) -> Self {
        self.column = column.into();
        self
    }

    /// The same periods with another choice for records before the first one.
    pub fn with_before_first(mut self, choice: BeforeFirstPeriod) -> Self {
        self.before_first = choice;
        self
    }

    /// The same periods; a new table begins with this one.
    pub fn with_first(mut self, first: Period) -> Self {
        self.first = Some(first);
        self
    }

    /// The same periods; a run may add so many.
    pub fn with_max_new_periods(mut self, periods: usize) -> Self {
        self.max_new_periods = periods;
        self
    }
}

/// The fact as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeriodsProperty {
    pub(crate) granularity: String,
    pub(crate) zone: String,
    pub(crate) column: String,
    pub(crate) by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) effective: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retracts: Option<String>,
    pub(crate) first: String,
    pub(crate) last: String,
}

impl PeriodsProperty {
    pub(crate) fn new(periods: &PeriodPlan, first: &Period, last: &Period) -> Self {
        let (by, effective) = match &periods.by {
            PeriodBasis::Ingestion => ("ingestion", None),
            PeriodBasis::Effective(column) => ("effective", Some(column.clone())),
        };
        Self {
            granularity: periods.calendar.granularity().to_string(),
            zone: periods.calendar.zone().to_owned(),
            column: periods.column.clone(),
            by: by.to_owned(),
            effective,
            retracts: periods.retracts.clone(),
            first: first.to_string(),
            last: last.to_string(),
        }
    }

    pub(crate) fn value(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::internal("the periods could not be written").with_source(e))
    }

    /// The fact of a table; none if no run of periods has committed to it.
    pub(crate) fn of(snapshot: &TableVersion) -> Result<Option<Self>> {
        let Some(property) = snapshot.observed.head.properties.get(PERIODS) else { return Ok(None) };
        let damaged = |e| Error::data("Diverged", "the periods in the journal cannot be read").with_source(e);
        serde_json::from_value(property.clone()).map(Some).map_err(damaged)
    }

    /// The periods that it speaks of.
    pub(crate) fn periods(&self) -> Result<PeriodPlan> {
        let by = match &self.effective {
            Some(column) => PeriodBasis::Effective(column.clone()),
            None => PeriodBasis::Ingestion,
        };
        let calendar = PeriodCalendar::new(self.granularity.parse()?, &self.zone)?;
        let mut periods = PeriodPlan::new(calendar, by).with_column(&self.column);
        periods.retracts.clone_from(&self.retracts);
        Ok(periods)
    }

    fn check(&self, periods: &PeriodPlan) -> Result<()> {
        let now = Self::new(
            periods,
            &periods.calendar.period(Instant::from_micros(0))?,
            &periods.calendar.period(Instant::from_micros(0))?,
        );
        if self.retracts.is_some() && self.retracts != now.retracts {
            let message = format!(
                "records of this table take others back by the column `{}`, and this run does not look at it",
                self.retracts.clone().unwrap_or_default()
            );
            return Err(Error::usage("SpecDrift", message));
        }
        let effective = |f: &Self| f.effective.clone().unwrap_or_default();
        for (what, then, now) in [
            ("granularity", &self.granularity, &now.granularity),
            ("time zone", &self.zone, &now.zone),
            ("period column", &self.column, &now.column),
            ("way to find a record's period", &self.by, &now.by),
            ("effective column", &effective(self), &effective(&now)),
        ] {
            if then != now {
                let message = format!("the {what} of this table is `{then}`, and this run has `{now}`");
                return Err(Error::usage("SpecDrift", message));
            }
        }
        Ok(())
    }
}

/// The periods that a table has, from the first to the last; none for a new one. A table that somebody else has written has those of
/// its folders.
///
/// # Errors
/// `SpecDrift` if they are not those of `periods`; `MissingPeriods` if folders leave one out, `InvalidPeriod` for one of another
/// name.
pub(crate) fn existing(snapshot: &TableVersion, periods: &PeriodPlan) -> Result<Option<(Period, Period)>> {
    let calendar = &periods.calendar;
    if let Some(property) = PeriodsProperty::of(snapshot)? {
        property.check(periods)?;
        return Ok(Some((calendar.parse(&property.first)?, calendar.parse(&property.last)?)));
    }
    let mut there = std::collections::BTreeSet::new();
    for file in snapshot.files() {
        let value = match partition_values(&file.path)?.into_iter().next() {
            Some((column, Some(value))) if column == periods.column => value,
            _ => {
                let message = format!("`{}` is in no folder of the column `{}`", file.path, periods.column);
                return Err(Error::usage("PartitioningDiffers", message));
            }
        };
        there.insert(calendar.parse(&value)?);
    }
    let (Some(first), Some(last)) = (there.first().copied(), there.last().copied()) else { return Ok(None) };
    if let Some(gap) = first.range(&last)?.into_iter().find(|p| !there.contains(p)) {
        let message =
            format!("the table has periods from {first} to {last}, and none for {gap}: what it held is not known");
        return Err(Error::data("MissingPeriods", message));
    }
    Ok(Some((first, last)))
}

/// A period as a slice of a table whose newest period is `last`.
pub(crate) fn period_state(period: &Period, base: PeriodBase, last: &Period) -> PeriodState {
    let next = (period < last).then(|| period.end().as_micros());
    PeriodState { number: period.start().as_micros(), next, value: period.to_string(), base }
}
