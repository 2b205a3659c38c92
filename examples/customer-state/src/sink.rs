//! The sink of the job: merges change records into a dataset, once for each commit id.

use std::sync::Mutex;

use biscuit_apply::{Merge, MergeOptions, MergeReport, MergeSpec, RunMode};
use biscuit_change::ChangeRecords;
use biscuit_core::{CommitId, Result, Run, Sink, SinkOutcome, WriteReceipt, async_trait};
use biscuit_dataset::Dataset;

/// Sink that merges change records into a dataset, the current state of one table.
#[derive(Debug)]
pub struct StateSink {
    dataset: Dataset,
    options: MergeOptions,
    last: Mutex<Option<MergeReport>>,
}

impl StateSink {
    /// Creates a sink for `dataset`.
    pub fn new(dataset: Dataset, options: MergeOptions) -> Self {
        Self { dataset, options, last: Mutex::default() }
    }

    /// Returns the report of the last write.
    pub fn report(&self) -> Option<MergeReport> {
        self.last.lock().expect("no holder of this lock panics").clone()
    }
}

#[async_trait]
impl Sink<ChangeRecords> for StateSink {
    async fn write(&self, _: &Run, commit: &CommitId, changes: ChangeRecords) -> Result<WriteReceipt> {
        if changes.is_empty() {
            let place = self.dataset.location().to_string();
            return Ok(WriteReceipt { commit: commit.clone(), outcome: SinkOutcome::AlreadyDone, rows: 0, place });
        }
        let spec = MergeSpec::new(changes.key.clone(), changes.order.clone())?;
        let merge = Merge::new(self.dataset.clone(), spec, self.options.clone())?;
        let report = merge.input(changes).with_commit_id(commit.clone()).run(RunMode::Commit).await?;
        let outcome = if report.outcome == "committed" { SinkOutcome::Changed } else { SinkOutcome::AlreadyDone };
        let place = format!("{} version {}", self.dataset.location(), report.version);
        let receipt = WriteReceipt { commit: commit.clone(), outcome, rows: report.rows.after, place };
        *self.last.lock().expect("no holder of this lock panics") = Some(report);
        Ok(receipt)
    }
}
