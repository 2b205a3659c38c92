//! A table of periods: its runs, rebuilds, audits and reads.

use biscuit_apply::internal::stored_spec;
use biscuit_apply::{BufferedChanges, MergeOptions, MergeSpec, RunMode};
use biscuit_change::ChangeRecords;
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_journal::CommitExtras;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::Expr;

use crate::codes;
use crate::period::calendar::Period;
use crate::period::plan::{PeriodPlan, PeriodsProperty};
use crate::period::table_report::PeriodTableReport;
use crate::read::{self, PeriodStatus};
use crate::rebuild::{self, PeriodAudit};
use crate::snapshots::PeriodMerge;

/// A table that holds one full copy of its rows for each period.
///
/// ```
/// use biscuit_apply::{MergeOptions, MergeSpec, RunMode};
/// use biscuit_change::{ChangeRecords, RowsOptions, RowsReader};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
/// use biscuit_partition::{PeriodBasis, PeriodCalendar, PeriodPlan, PeriodTable};
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://period-table/lake/customer")?, JournalOptions::default());
/// let days = PeriodPlan::new(PeriodCalendar::new("day".parse()?, "UTC")?, PeriodBasis::Ingestion);
/// let customers = PeriodTable::new(dataset, MergeSpec::new(["id"], ["seq"])?, MergeOptions::default(), days)?;
/// let records = |line: &'static str| -> biscuit_core::Result<ChangeRecords> {
///     let mut reader = RowsReader::new(RowsOptions::default());
///     reader.read("changes.jsonl", line.into())?;
///     reader.finish()
/// };
/// let moved = [
///     ("2024-02-28T08:00:00Z", r#"{"id": 1, "seq": 1, "city": "Lyon"}"#),
///     ("2024-02-29T08:00:00Z", r#"{"id": 1, "seq": 2, "city": "Kyiv"}"#),
/// ];
/// for (as_of, line) in moved {
///     customers.run(records(line)?, as_of.parse()?, RunMode::Commit).await?;
/// }
///
/// // Each day has the state at its end.
/// let ctx = SessionContext::new();
/// for (at, city) in [("2024-02-28T12:00:00Z", "Lyon"), ("2024-02-29T12:00:00Z", "Kyiv")] {
///     let rows = customers.as_of(&ctx, at.parse()?).await?;
///     assert_eq!(rows.filter(col("city").eq(lit(city)))?.count().await?, 1);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PeriodTable {
    pub(crate) merge: PeriodMerge,
}

impl PeriodTable {
    /// Creates a table of periods on a dataset. Partition columns in the options become subfolders of the period's
    /// folder.
    ///
    /// # Errors
    /// `InvalidArguments` if the effective column is dropped, or if a table by ingestion has a column of retractions.
    pub fn new(dataset: Dataset, spec: MergeSpec, options: MergeOptions, periods: PeriodPlan) -> Result<Self> {
        Ok(Self { merge: PeriodMerge::new(dataset, spec, options, periods)? })
    }

    /// Opens a table of periods with the key, order and periods that its last run stored.
    ///
    /// # Errors
    /// `NoPeriods` if no run with periods has committed to the table, and errors of the journal.
    pub async fn open(dataset: Dataset) -> Result<Self> {
        let snapshot = dataset.view().await?;
        let none = || {
            let message = format!("`{}` has no periods; create them with `biscuit snapshot`", dataset.location());
            Error::new(codes::NO_PERIODS, message)
        };
        let periods = PeriodsProperty::from_table(&snapshot)?.ok_or_else(none)?.period_plan()?;
        let spec = stored_spec(&snapshot.observed.head.properties)?.ok_or_else(none)?;
        Self::new(dataset.clone(), spec, MergeOptions::default(), periods)
    }

    /// Returns how the table is divided into periods.
    pub fn layout(&self) -> &PeriodPlan {
        &self.merge.periods
    }

    /// Begins to collect change records for a run. Records that exceed the memory budget of the options are written to the
    /// local disk.
    pub fn collect(&self) -> BufferedChanges {
        BufferedChanges::new(&self.merge.options)
    }

    /// Merges change records into the periods they belong to, and opens periods up to the current one. The current
    /// period contains `as_of`, the instant for which the run was scheduled. Every attempt of a run passes the same
    /// instant, even after the period has ended.
    ///
    /// Existing periods are changed in one commit, together with the first new period. Each further new period has a
    /// commit of its own, so an interrupted run continues where it stopped. Commits before an error remain. If there
    /// is nothing to change, no version is written.
    ///
    /// # Errors
    /// As for [`Merge::run`](biscuit_apply::Merge::run); `NullEffective`, `EffectiveType` and `BeforeFirstPeriod` for
    /// records without a period, with file and row; `TooManyPeriods`; `EncryptedColumn` for a table by effective time
    /// whose files encrypt columns; `SpecDrift` if the periods differ from the periods of the table.
    pub async fn run(
        &self,
        changes: impl Into<BufferedChanges>,
        as_of: Instant,
        mode: RunMode,
    ) -> Result<PeriodTableReport> {
        self.run_on(self.merge.dataset.observe().await?, changes, as_of, mode, CommitExtras::default()).await
    }

    /// As [`run`](Self::run), based on the given table version. The last commit also stores `extras`, such as the
    /// bookmarks of the input; every commit has the id of the run. After an interruption, the same input is read
    /// again, which changes nothing in the periods that already contain it.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub async fn run_on(
        &self,
        snapshot: TableVersion,
        changes: impl Into<BufferedChanges>,
        as_of: Instant,
        mode: RunMode,
        extras: CommitExtras,
    ) -> Result<PeriodTableReport> {
        self.merge.run_on(snapshot, changes.into(), as_of, mode, extras).await
    }

    /// Rebuilds periods from all events of the table, without reading their current rows. Exactly these periods are
    /// replaced, in one commit. Events of other periods count where they are carried forward to these periods.
    ///
    /// # Errors
    /// `NoSuchPeriod`; `TooManyDeleted` if a period would lose more rows than the options allow, which means that
    /// events are missing; errors as for [`run`](Self::run); `InvalidArguments` for a table by ingestion, whose events
    /// do not contain the period in which they arrived.
    pub async fn rebuild(&self, periods: &[Period], events: ChangeRecords, mode: RunMode) -> Result<PeriodTableReport> {
        rebuild::rebuild(&self.merge, periods, events, mode).await
    }

    /// Compares a period with the result of all events of the table. Differences are not an error but a finding.
    ///
    /// # Errors
    /// `NoSuchPeriod`, and errors of the events as for [`run`](Self::run).
    pub async fn audit(&self, period: &Period, events: &ChangeRecords) -> Result<PeriodAudit> {
        rebuild::audit(&self.merge, period, events).await
    }

    /// Compares every period with the result of all events of the table.
    ///
    /// # Errors
    /// As [`audit`](Self::audit).
    pub async fn verify(&self, events: &ChangeRecords) -> Result<Vec<PeriodAudit>> {
        let mut audits = Vec::new();
        for period in self.periods().await? {
            audits.push(self.audit(&period, events).await?);
        }
        Ok(audits)
    }

    /// Returns all periods of the table, in ascending order.
    ///
    /// # Errors
    /// Errors of the journal; `SpecDrift`.
    pub async fn periods(&self) -> Result<Vec<Period>> {
        read::periods_of(&self.merge.dataset.view().await?, &self.merge.periods)
    }

    /// Returns the status of each period, in ascending order.
    ///
    /// # Errors
    /// As [`periods`](Self::periods).
    pub async fn states(&self) -> Result<Vec<PeriodStatus>> {
        read::states(&self.merge.dataset, &self.merge.periods).await
    }

    /// Returns the periods after the last period up to the one that contains `until`. These are not built yet.
    ///
    /// # Errors
    /// As [`periods`](Self::periods).
    pub async fn missing_periods(&self, until: Instant) -> Result<Vec<Period>> {
        let until = self.merge.periods.calendar.period(until)?;
        match self.periods().await?.last() {
            Some(last) => Ok(last.range(&until)?.into_iter().skip(1).collect()),
            None => Ok(vec![until]),
        }
    }

    /// Returns the rows of the period that contains an instant, without the period column. Files of other periods are
    /// not opened.
    ///
    /// # Errors
    /// `NoSuchPeriod` before the first and after the last period, and errors of [`TableVersion::load`].
    pub async fn as_of(&self, ctx: &SessionContext, at: Instant) -> Result<DataFrame> {
        self.of_period(ctx, &self.merge.periods.calendar.period(at)?).await
    }

    /// Returns the rows of a period, without the period column.
    ///
    /// # Errors
    /// As [`as_of`](Self::as_of).
    pub async fn of_period(&self, ctx: &SessionContext, period: &Period) -> Result<DataFrame> {
        read::rows_of(&self.merge.dataset, &self.merge.periods, ctx, period).await
    }

    /// Returns the states of the keys that a filter selects, such as `col("id").eq(lit(7))`. There is one row for
    /// each state, ordered by key and time. The columns `period_from` and `period_to` contain the first and the last
    /// period with this state.
    ///
    /// # Errors
    /// Errors of [`Dataset::load`]; `ColumnClash` if the table has a column with one of these names.
    pub async fn history(&self, ctx: &SessionContext, filter: Expr) -> Result<DataFrame> {
        let PeriodMerge { dataset, spec, periods, .. } = &self.merge;
        read::history(dataset, &spec.key, periods, ctx, filter).await
    }
}
