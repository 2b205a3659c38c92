//! The merge that the processes run that are killed.

use biscuit_change::{Changes, RowsOptions};
use biscuit_core::Result;
use biscuit_dataset::Dataset;
use biscuit_journal::JournalOptions;
use biscuit_merge::{ChangeFiles, Format, Merge, MergeOptions, MergeReport, MergeSpec, Mode};

/// A checkpoint every third version, so that the processes meet them.
pub fn options() -> JournalOptions {
    JournalOptions::default().with_checkpoint_every(3)
}

/// Merges a file of JSON lines into a table of days.
///
/// # Errors
/// Those of the merge.
pub async fn merge(dataset: &Dataset, changes: &str) -> Result<MergeReport> {
    let format = Format::Rows(RowsOptions::default().with_op("op"));
    merge_changes(dataset, ChangeFiles::new([changes], format).changes().await?).await
}

/// Merges change records into a table of days.
///
/// # Errors
/// Those of the merge.
pub async fn merge_changes(dataset: &Dataset, records: Changes) -> Result<MergeReport> {
    let options = MergeOptions::default().with_partition_by(["day"]).with_parallelism(1);
    Merge::new(dataset.clone(), MergeSpec::new(["id"], ["seq"])?, options)?.run(records, Mode::Commit).await
}
