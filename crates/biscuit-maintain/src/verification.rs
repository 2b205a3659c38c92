//! Verification of a table, with its verdict.

use biscuit_apply::report::VerifyReport;
use biscuit_apply::verify;
use biscuit_core::Result;
use biscuit_dataset::Dataset;
use serde::Serialize;

/// Result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TableVerification {
    /// `sound`, or `unsound` if someone has to look into the table.
    pub outcome: &'static str,
    /// Findings.
    #[serde(flatten)]
    pub report: VerifyReport,
}

impl TableVerification {
    /// Returns whether the rows are correct.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.report.is_sound()
    }
}

/// Checks the keys and files of a table. An empty `key` means the key of the table's merges. Nothing is changed.
///
/// ```
/// use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
/// use biscuit_change::{RowsOptions, RowsReader};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
/// use biscuit_maintain::verify_table;
/// use object_store::ObjectStoreExt;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://verify-table/lake/customer")?, JournalOptions::default());
/// let merge = Merge::new(dataset.clone(), MergeSpec::new(["id"], ["seq"])?, MergeOptions::default())?;
/// let mut reader = RowsReader::new(RowsOptions::default());
/// reader.read("customers.jsonl", r#"{"id": 1, "seq": 1}"#.into())?;
/// merge.run(reader.finish()?, RunMode::Commit).await?;
/// assert_eq!(verify_table(&dataset, &[]).await?.outcome, "sound");
///
/// // Someone deletes a live file.
/// let file = dataset.view().await?.files()[0].object.clone();
/// dataset.location().storage().store.delete(&file).await?;
/// let found = verify_table(&dataset, &[]).await?;
/// assert_eq!((found.outcome, found.report.diverged.len()), ("unsound", 1));
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`verify`].
pub async fn verify_table(dataset: &Dataset, key: &[String]) -> Result<TableVerification> {
    let report = verify(dataset, key).await?;
    Ok(TableVerification { outcome: if report.is_sound() { "sound" } else { "unsound" }, report })
}
