//! Adoption: the files in the folder of a table become the table.

use biscuit_core::{Outcome, Result};
use biscuit_dataset::Dataset;
use biscuit_journal::DivergedPolicy;
use biscuit_rewrite::RunMode;
use serde::Serialize;
use serde_json::json;

use crate::state::key_segment::KeySegments;

/// Report of an adoption.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AdoptReport {
    /// `Adopted`; `Planned` for a dry run; `Unchanged` if there was nothing to adopt.
    pub outcome: Outcome,
    /// Newest version of the table.
    pub version: u64,
    /// Whether the table had diverged from its journal.
    pub diverged: bool,
    /// Files that become part of the table as they are: external files, changed files, and in a diverged table all
    /// files written by Biscuit that the journal does not name.
    pub adopted: Vec<String>,
    /// Live files that are missing and that are removed from the journal.
    pub missing: Vec<String>,
    /// Number of rows of the table after the adoption.
    pub rows: u64,
}

/// Makes the files in the folder of a table its live files.
///
/// External files are adopted. A diverged table is taken as it is: if a live file is missing or was changed, the
/// state root is lost, an older copy was restored, or staged files were lost after their commit. No data file is
/// written or changed. Of the key metadata of a diverged table only tombstones still count: each row counts by its
/// own order columns.
///
/// After a divergence it is not known whether files contain a row twice. [`verify`](crate::verify) finds such rows.
///
/// ```
/// use biscuit_apply::{RunMode, adopt};
/// use biscuit_core::Outcome;
/// use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use datafusion::prelude::*;
/// use object_store::{ObjectStoreExt, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let open = |url: &str| Location::parse(url).map(|place| Dataset::new(place, JournalOptions::default()));
/// let (items, other) = (open("memory://adopt/lake/items")?, open("memory://adopt/other/items")?);
/// for table in [&items, &other] {
///     let rows = dataframe!("id" => [1, 2])?;
///     table.observe().await?.write(rows, WriteMode::Append, &WriteOptions::default()).await?;
/// }
/// // Another program puts a file into the folder of the table.
/// let file = other.view().await?.files()[0].object.clone();
/// items.location().storage().store.copy(&file, &Path::from("lake/items/part-0.parquet")).await?;
///
/// let report = adopt(&items, RunMode::Commit).await?;
/// assert_eq!((report.outcome, report.diverged, report.rows), (Outcome::Adopted, false, 4));
/// assert_eq!(report.adopted, ["part-0.parquet"]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The errors of a file that is not a readable Parquet file or has no common schema with the others; `Conflict` if
/// another run committed first; the errors of the journal. After each of them the table is as it was before.
pub async fn adopt(dataset: &Dataset, mode: RunMode) -> Result<AdoptReport> {
    let dataset = dataset.clone().with_journal(dataset.journal().clone().with_diverged(DivergedPolicy::Adopt));
    let snapshot = if mode == RunMode::DryRun { dataset.view().await? } else { dataset.observe().await? };
    let files = snapshot.open_files().await?;
    let snapshot = snapshot.with_encryption_of_files(&files).await?;
    let schema = snapshot.schema(&files)?;
    let observed = &snapshot.observed;
    let mut report = AdoptReport {
        outcome: Outcome::Unchanged,
        version: observed.head.version,
        diverged: observed.diverged,
        adopted: observed.external.iter().map(|f| f.path.clone()).collect(),
        missing: observed.missing.clone(),
        rows: files.iter().map(biscuit_dataset::OpenFile::rows).sum(),
    };
    if !report.diverged && report.adopted.is_empty() {
        return Ok(report);
    }
    report.outcome = Outcome::Planned;
    if mode == RunMode::DryRun {
        return Ok(report);
    }
    let journal = dataset.journal();
    let mut table_commit = journal.begin_commit(observed);
    table_commit.with_adoption();
    if observed.diverged {
        // Loaded as diverged, and written again: tombstones remain, metadata of rows is removed.
        let segments = KeySegments::of_observed(journal, observed, dataset.encryption()).await?;
        // Encryption keys are needed only if there is key metadata to write, which must not be written in plain text.
        let encryption = if segments.is_empty() { None } else { snapshot.encryption()? };
        table_commit
            .with_extras(segments.plan_update(vec![], observed.head.version + 1, None, encryption.as_ref()).await?)
            .await?;
    }
    let partition_by: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
    for (name, value) in snapshot.journal_properties(&schema, &partition_by)? {
        table_commit.with_property(name, value);
    }
    table_commit
        .with_report(json!({"adopted": report.adopted, "missing": report.missing, "rows": {"after": report.rows}}));
    let committed = table_commit.commit().await?;
    report.version = committed.version;
    report.outcome = if committed.outcome == Outcome::Committed { Outcome::Adopted } else { Outcome::Unchanged };
    Ok(report)
}
