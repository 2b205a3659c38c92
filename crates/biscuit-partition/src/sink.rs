//! The sink of a periodic snapshot: merges the change records of a job into the periods that they concern.

use std::sync::{Mutex, PoisonError};

use biscuit_apply::RunMode;
use biscuit_apply::internal::check_repeatable;
use biscuit_change::ChangeRecords;
use biscuit_core::{CommitId, Instant, Result, Run, Sink, WriteReceipt, async_trait};

use crate::period::table::PeriodTable;
use crate::period::table_report::PeriodTableReport;

/// Sink that takes a periodic snapshot: it merges change records into their periods, and opens periods up to the
/// current one, also without records.
///
/// The records themselves make the write idempotent: merging the same records again changes nothing, even after other
/// records were merged, unless two records of one key have equal orders and different values. The commit id is not
/// stored. The rows of a receipt are the records of the write. A write that
/// opens several periods has a commit for each of them: after an error, the periods that were committed before it
/// remain, and the next attempt continues with the rest.
///
/// ```
/// use biscuit_change::{RowsOptions, RowsReader};
/// use biscuit_core::{Instant, Outcome, Run, RunId, Sink};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
/// use biscuit_apply::{MergeOptions, MergeSpec};
/// use biscuit_partition::{PeriodBasis, PeriodCalendar, PeriodPlan, PeriodSink, PeriodTable};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://sink/lake/policies")?, JournalOptions::default());
/// let months = PeriodCalendar::new("month".parse()?, "UTC")?;
/// let periods = PeriodPlan::new(months, PeriodBasis::Effective("since".to_owned()));
/// let spec = MergeSpec::new(["id"], ["since"])?;
/// let table = PeriodTable::new(dataset, spec, MergeOptions::default(), periods)?;
///
/// let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
/// let line = r#"{"id": 1, "since": "2024-01-10", "premium": 100, "op": "c"}"#;
/// reader.read("changes.jsonl", line.into())?;
/// let changes = reader.finish()?;
///
/// // The run is scheduled for the end of February. A retry in March has the same instant.
/// let as_of: Instant = "2024-02-29".parse()?;
/// let policies = PeriodSink::new(table, as_of)?;
/// let run = Run::new("policies", RunId::new("2024-02-29"), as_of);
/// let receipt = policies.write(&run, &run.commit_id("policies"), changes.clone()).await?;
/// assert_eq!((receipt.outcome, receipt.rows), (Outcome::Committed, 1));
/// let report = policies.last_report().ok_or("a report")?;
/// assert_eq!(report.periods.iter().map(|p| (p.period.as_str(), p.after)).collect::<Vec<_>>(),
///     [("2024-01", 1), ("2024-02", 1)]);
///
/// let receipt = policies.write(&run.clone().with_attempt(2), &run.commit_id("policies"), changes).await?;
/// assert_eq!((receipt.outcome, receipt.rows), (Outcome::Unchanged, 1));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PeriodSink {
    table: PeriodTable,
    as_of: Instant,
    last: Mutex<Option<PeriodTableReport>>,
}

impl PeriodSink {
    /// Creates a sink for `table`. The current period contains `as_of`, the instant for which the run was scheduled;
    /// every attempt of the run passes the same instant.
    ///
    /// # Errors
    /// `InvalidArguments` for a table whose specification makes a repeated write change rows:
    /// [`MergeSpec::is_repeatable`](biscuit_apply::MergeSpec::is_repeatable).
    pub fn new(table: PeriodTable, as_of: Instant) -> Result<Self> {
        check_repeatable(&table.merge.spec, "PeriodTable")?;
        Ok(Self { table, as_of, last: Mutex::default() })
    }

    /// Returns the report of the last write through this sink. `None` before the first write.
    pub fn last_report(&self) -> Option<PeriodTableReport> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Sink<ChangeRecords> for PeriodSink {
    /// Merges the records into their periods. Without records, periods up to the current one are opened.
    ///
    /// # Errors
    /// As [`PeriodTable::run`].
    async fn write(&self, _: &Run, commit: &CommitId, changes: ChangeRecords) -> Result<WriteReceipt> {
        let report = self.table.run(changes, self.as_of, RunMode::Commit).await?;
        let place = format!("{} version {}", self.table.merge.dataset.location(), report.version);
        let receipt = WriteReceipt::new(commit.clone(), report.outcome, report.records, place);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        Ok(receipt)
    }
}
