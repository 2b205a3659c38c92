//! How a table is divided into periods, and the property of the journal that stores it.

use biscuit_apply::internal::{PeriodBase, PeriodState};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::TableVersion;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes;
use crate::period::calendar::{Period, PeriodCalendar};

/// Name of the property with the periods of a table.
pub(crate) const PERIODS: &str = "periods";

/// Which period a record belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a record counts when it arrives or when it takes effect")]
pub enum PeriodBasis {
    /// The current period, whatever the record contains.
    Ingestion,
    /// The period that contains the time in this column.
    Effective(String),
}

/// Handling of records that take effect before the first period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BeforeFirstPeriod {
    /// They are an error, `BeforeFirstPeriod`.
    #[default]
    Error,
    /// They count from the first period on.
    Clamp,
    /// The table gets earlier periods, from the period of the earliest record on.
    Extend,
}

/// How a table is divided into periods.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct PeriodPlan {
    /// Length of periods and time zone.
    pub calendar: PeriodCalendar,
    /// Which period a record belongs to.
    pub by: PeriodBasis,
    /// Column of retractions: the effective time of an earlier record with the same key, which is retracted. Null in
    /// records that retract nothing. Default: no retractions.
    pub retracts: Option<String>,
    /// Partition column with the name of the period. Default: `period`.
    pub column: String,
    /// Handling of records that take effect before the first period. Default: they are an error.
    pub before_first: BeforeFirstPeriod,
    /// First period of a new table. Default: the period of the earliest record.
    pub first: Option<Period>,
    /// Maximum number of periods that one run may add. It turns a wrong date, such as the year 1, into an error
    /// instead of 24,000 months. Default: 1,000.
    pub max_new_periods: usize,
}

impl PeriodPlan {
    /// Creates a plan with the default settings.
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

    /// Sets the column of retractions: a record retracts the record of its key whose effective time equals the value
    /// of this column. Null retracts nothing. Default: no retractions. Only for [`PeriodBasis::Effective`].
    pub fn with_retracts(mut self, column: impl Into<String>) -> Self {
        self.retracts = Some(column.into());
        self
    }

    /// Sets the partition column with the name of the period. Default: `period`.
    pub fn with_column(mut self, column: impl Into<String>) -> Self {
        self.column = column.into();
        self
    }

    /// Sets what happens to records that take effect before the first period. Default: [`BeforeFirstPeriod::Error`].
    pub fn with_before_first(mut self, choice: BeforeFirstPeriod) -> Self {
        self.before_first = choice;
        self
    }

    /// Sets the first period of a new table. Default: the period of the earliest record. An existing table keeps its
    /// first period.
    pub fn with_first(mut self, first: Period) -> Self {
        self.first = Some(first);
        self
    }

    /// Sets the maximum number of periods that one run may add. Beyond it, the run fails with `TooManyPeriods`.
    /// Default: 1,000.
    pub fn with_max_new_periods(mut self, periods: usize) -> Self {
        self.max_new_periods = periods;
        self
    }
}

/// The property of the journal with the periods of a table.
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

    pub(crate) fn to_json(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::internal("cannot serialize the periods").with_source(e))
    }

    /// Returns the property of a table. `None` if no run with periods has committed to the table.
    pub(crate) fn from_table(snapshot: &TableVersion) -> Result<Option<Self>> {
        let Some(property) = snapshot.observed.head.properties.get(PERIODS) else { return Ok(None) };
        let damaged = |e| {
            Error::new(biscuit_journal::codes::DIVERGED, "cannot read the property `periods` of the journal")
                .with_source(e)
        };
        serde_json::from_value(property.clone()).map(Some).map_err(damaged)
    }

    /// Returns the plan that the property describes.
    pub(crate) fn period_plan(&self) -> Result<PeriodPlan> {
        let by = match &self.effective {
            Some(column) => PeriodBasis::Effective(column.clone()),
            None => PeriodBasis::Ingestion,
        };
        let calendar = PeriodCalendar::new(self.granularity.parse()?, &self.zone)?;
        let mut periods = PeriodPlan::new(calendar, by).with_column(&self.column);
        periods.retracts.clone_from(&self.retracts);
        Ok(periods)
    }

    /// Checks that a run divides the table as earlier runs did.
    fn check_plan(&self, periods: &PeriodPlan) -> Result<()> {
        let now = Self::new(
            periods,
            &periods.calendar.period(Instant::from_micros(0))?,
            &periods.calendar.period(Instant::from_micros(0))?,
        );
        if self.retracts.is_some() && self.retracts != now.retracts {
            let message = format!(
                "earlier runs of this table used the column `{}` for retractions, but this run does not; set it again",
                self.retracts.clone().unwrap_or_default()
            );
            return Err(Error::new(biscuit_apply::codes::SPEC_DRIFT, message));
        }
        let effective = |f: &Self| f.effective.clone().unwrap_or_default();
        for (what, then, now) in [
            ("granularity", &self.granularity, &now.granularity),
            ("time zone", &self.zone, &now.zone),
            ("period column", &self.column, &now.column),
            ("way to find the period of a record", &self.by, &now.by),
            ("effective column", &effective(self), &effective(&now)),
        ] {
            if then != now {
                let message = format!("the {what} of this table is `{then}`, but this run has `{now}`");
                return Err(Error::new(biscuit_apply::codes::SPEC_DRIFT, message));
            }
        }
        Ok(())
    }
}

/// Returns the first and the last period of a table. `None` for a new table. A table without the property, written by
/// another program, has the periods of its folders.
///
/// # Errors
/// `SpecDrift` if the periods differ from `periods`; `MissingPeriods` if there is a gap between folders;
/// `InvalidPeriod` for a folder that is not the name of a period; `PartitioningDiffers` for a file outside of such
/// folders.
pub(crate) fn existing_periods(snapshot: &TableVersion, periods: &PeriodPlan) -> Result<Option<(Period, Period)>> {
    let calendar = &periods.calendar;
    if let Some(property) = PeriodsProperty::from_table(snapshot)? {
        property.check_plan(periods)?;
        return Ok(Some((calendar.parse(&property.first)?, calendar.parse(&property.last)?)));
    }
    let mut there = std::collections::BTreeSet::new();
    for file in snapshot.files() {
        let value = match file.partition.first().cloned() {
            Some((column, Some(value))) if column == periods.column => value,
            _ => {
                let message = format!("`{}` is not in a folder of the column `{}`", file.path(), periods.column);
                return Err(Error::new(biscuit_dataset::codes::PARTITIONING_DIFFERS, message));
            }
        };
        there.insert(calendar.parse(&value)?);
    }
    let (Some(first), Some(last)) = (there.first().copied(), there.last().copied()) else { return Ok(None) };
    if let Some(gap) = first.range(&last)?.into_iter().find(|p| !there.contains(p)) {
        let message = format!("the table has periods from {first} to {last}, but not {gap}; its rows are not known");
        return Err(Error::new(codes::MISSING_PERIODS, message));
    }
    Ok(Some((first, last)))
}

/// Returns the state of a period for the merge, in a table whose newest period is `last`.
pub(crate) fn period_state(period: &Period, base: PeriodBase, last: &Period) -> PeriodState {
    let next = (period < last).then(|| period.end().as_micros());
    PeriodState { number: period.start().as_micros(), next, value: period.to_string(), base }
}
