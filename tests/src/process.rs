//! The merge that runs in the processes that are killed by tests.

use biscuit_apply::report::MergeReport;
use biscuit_apply::{ChangeFiles, ChangeFormat, Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_aws::{AwsEnvironment, AwsOptions};
use biscuit_change::{ChangeRecords, RowsOptions};
use biscuit_core::Result;
use biscuit_dataset::{Dataset, Location, OpenLocation};
use biscuit_journal::JournalOptions;

/// Options with a checkpoint every third version, so that the processes read and write checkpoints.
pub fn options() -> JournalOptions {
    JournalOptions::default().with_checkpoint_every(3)
}

/// Opens a path or a URL. S3 is at the endpoint of `BISCUIT_TEST_S3`.
///
/// # Errors
/// Errors of the location and of the client.
pub async fn location(url: &str) -> Result<Location> {
    let mut options = AwsOptions::default();
    options.endpoint_url = std::env::var("BISCUIT_TEST_S3").ok();
    AwsEnvironment::new(options).open(url).await
}

/// Merges a file of JSON lines into a table that is partitioned by day.
///
/// # Errors
/// Errors of the merge.
pub async fn merge(dataset: &Dataset, changes: &str) -> Result<MergeReport> {
    let format = ChangeFormat::Rows(RowsOptions::default().with_op("op"));
    merge_changes(dataset, ChangeFiles::new([changes], format).changes().await?).await
}

/// Merges change records into a table that is partitioned by day.
///
/// # Errors
/// Errors of the merge.
pub async fn merge_changes(dataset: &Dataset, records: ChangeRecords) -> Result<MergeReport> {
    let options = MergeOptions::default().with_partition_by(["day"]).with_parallelism(1);
    Merge::new(dataset.clone(), MergeSpec::new(["id"], ["seq"])?, options)?.run(records, RunMode::Commit).await
}
