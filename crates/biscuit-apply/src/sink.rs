//! The sink of a merge: merges the change records of a job into a table.

use std::sync::{Mutex, PoisonError};

use biscuit_change::ChangeRecords;
use biscuit_core::{CommitId, Error, Outcome, Result, Run, Sink, WriteReceipt, async_trait};
use biscuit_dataset::Dataset;

use crate::merge_report::MergeReport;
use crate::{Merge, MergeOptions, MergeSpec, RunMode};

/// Sink that merges change records into a table, which has the current state.
///
/// The records themselves make the write idempotent: merging the same records again changes nothing, even after other
/// records were merged, unless two records of one key have equal orders and different values. The commit id is stored
/// in the journal, for the history. The rows of a receipt are the records of the write.
///
/// ```
/// use biscuit_change::{RowsOptions, RowsReader};
/// use biscuit_core::{Instant, Outcome, Run, RunId, Sink};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
/// use biscuit_apply::{MergeSink, MergeSpec};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://sink/lake/customer")?, JournalOptions::default());
/// let customers = MergeSink::new(dataset.clone()).with_spec(MergeSpec::new(["id"], ["seq"])?)?;
///
/// let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
/// let lines = r#"{"id": 1, "seq": 1, "name": "Ann", "op": "c"}
/// {"id": 1, "seq": 2, "name": "Anna", "op": "u"}"#;
/// reader.read("changes.jsonl", lines.into())?;
/// let changes = reader.finish()?;
///
/// let run = Run::new("customers", RunId::new("2024-02-29"), Instant::from_micros(0));
/// let receipt = customers.write(&run, &run.commit_id("customer"), changes.clone()).await?;
/// assert_eq!((receipt.outcome, receipt.rows), (Outcome::Committed, 2));
/// assert_eq!(customers.last_report().map(|report| report.rows.after), Some(1));
///
/// // A second attempt of the run changes nothing.
/// let receipt = customers.write(&run.clone().with_attempt(2), &run.commit_id("customer"), changes).await?;
/// assert_eq!((receipt.outcome, receipt.rows), (Outcome::Unchanged, 2));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct MergeSink {
    dataset: Dataset,
    spec: Option<MergeSpec>,
    options: MergeOptions,
    last: Mutex<Option<MergeReport>>,
}

impl MergeSink {
    /// Creates a sink that merges into `dataset`. Key and order are those of the records, as the records of Debezium
    /// have them.
    pub fn new(dataset: Dataset) -> Self {
        Self { dataset, spec: None, options: MergeOptions::default(), last: Mutex::default() }
    }

    /// Sets key, order and rules of the merge. Default: key and order of the records, and default rules.
    ///
    /// # Errors
    /// `InvalidArguments` if the spec drops a key column, or if it makes a repeated write change rows:
    /// [`MergeSpec::is_repeatable`].
    pub fn with_spec(mut self, spec: MergeSpec) -> Result<Self> {
        check_repeatable(&spec, "Merge")?;
        Merge::new(self.dataset.clone(), spec.clone(), self.options.clone())?;
        self.spec = Some(spec);
        Ok(self)
    }

    /// Sets the options of the merge. Default: [`MergeOptions::default`].
    #[must_use]
    pub fn with_options(mut self, options: MergeOptions) -> Self {
        self.options = options;
        self
    }

    /// Returns the report of the last write through this sink. `None` before the first write with records.
    pub fn last_report(&self) -> Option<MergeReport> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Checks that a sink may merge by this specification: a job repeats a write whose answer was lost. The message names
/// `instead`, the type for runs that must not be repeated.
///
/// # Errors
/// `InvalidArguments` if a repeated write would change rows: [`MergeSpec::is_repeatable`].
pub fn check_repeatable(spec: &MergeSpec, instead: &str) -> Result<()> {
    if spec.is_repeatable() {
        return Ok(());
    }
    let message = format!(
        "a sink merges records again in a retry, which changes rows after a reload or without tombstones; use `{instead}` for such a run"
    );
    Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message))
}

#[async_trait]
impl Sink<ChangeRecords> for MergeSink {
    /// Merges the records in one commit.
    ///
    /// # Errors
    /// As [`Merge::run`]; `InvalidArguments` if neither the sink nor the records have a key and an order.
    async fn write(&self, _: &Run, commit: &CommitId, changes: ChangeRecords) -> Result<WriteReceipt> {
        if changes.is_empty() && changes.refused.is_empty() {
            let place = self.dataset.location().to_string();
            return Ok(WriteReceipt::new(commit.clone(), Outcome::Unchanged, 0, place));
        }
        let spec = match &self.spec {
            Some(spec) => spec.clone(),
            None => MergeSpec::new(changes.key.clone(), changes.order.clone())?,
        };
        let merge = Merge::new(self.dataset.clone(), spec, self.options.clone())?;
        let report = merge.input(changes).with_commit_id(commit.clone()).run(RunMode::Commit).await?;
        let place = format!("{} version {}", self.dataset.location(), report.version);
        let receipt = WriteReceipt::new(commit.clone(), report.outcome, report.records, place);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        Ok(receipt)
    }
}
