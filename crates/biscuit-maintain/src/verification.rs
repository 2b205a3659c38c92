//! Verification of a table, with its verdict.

use biscuit_apply::{VerifyReport, verify};
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
/// # Errors
/// Those of [`verify`].
pub async fn verify_table(dataset: &Dataset, key: &[String]) -> Result<TableVerification> {
    let report = verify(dataset, key).await?;
    Ok(TableVerification { outcome: if report.is_sound() { "sound" } else { "unsound" }, report })
}
