use biscuit_core::Result;
use biscuit_dataset::Dataset;
use biscuit_journal::{CommitOutcome, DivergedPolicy};
use biscuit_rewrite::RunMode;
use serde::Serialize;
use serde_json::json;

use crate::state::key_segment::KeySegments;

/// What an adoption did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AdoptReport {
    /// `adopted`, `planned` for a dry run, or `unchanged`.
    pub outcome: &'static str,
    /// The newest version.
    pub version: u64,
    /// Whether the table was not what its journal says.
    pub diverged: bool,
    /// Files that become part of the table as they are: foreign ones, changed ones, and where the table diverged all that
    /// Biscuit wrote and that the journal does not have.
    pub adopted: Vec<String>,
    /// Files that are gone and that the journal forgets.
    pub missing: Vec<String>,
    /// Rows of the table as it is now.
    pub rows: u64,
}

/// Makes what is in the folder the table: external files are adopted, and a table that is not what its journal says
/// (a live file is missing or changed, the state root is lost, an older copy was restored, staged files were lost after
/// their commit) is taken as it is. No data file is written or changed. What was kept besides the rows counts no more,
/// except deletes: each row counts by its own order columns.
///
/// After a divergence nobody can tell whether files hold a row twice: [`verify`](crate::verify) looks.
///
/// # Errors
/// Those of a file that is no readable Parquet or has no common schema with the others; `Conflict` if another run was
/// first, and those of the journal. After any of them the table is as it was.
pub async fn adopt(dataset: &Dataset, mode: RunMode) -> Result<AdoptReport> {
    let dataset = dataset.clone().with_journal(dataset.journal().clone().with_diverged(DivergedPolicy::Adopt));
    let snapshot = if mode == RunMode::DryRun { dataset.view().await? } else { dataset.observe().await? };
    let files = snapshot.open_files().await?;
    let snapshot = snapshot.looked_at(&files).await?;
    let schema = snapshot.schema(&files)?;
    let observed = &snapshot.observed;
    let mut report = AdoptReport {
        outcome: "unchanged",
        version: observed.head.version,
        diverged: observed.diverged,
        adopted: observed.external.iter().map(|f| f.path.clone()).collect(),
        missing: observed.missing.clone(),
        rows: files.iter().map(biscuit_dataset::OpenFile::rows).sum(),
    };
    if !report.diverged && report.adopted.is_empty() {
        return Ok(report);
    }
    report.outcome = "planned";
    if mode == RunMode::DryRun {
        return Ok(report);
    }
    let journal = dataset.journal();
    let mut replace = journal.replace(observed);
    replace.with_adoption();
    if observed.diverged {
        let segments = KeySegments::load(journal, &observed.head, true, dataset.encryption()).await?;
        // Without keys nothing is written that would be in the clear.
        let encryption = if segments.is_empty() { None } else { snapshot.encryption()? };
        let (segment, dropped) = segments.update(vec![], observed.head.version + 1, None, encryption.as_ref()).await?;
        dropped.iter().for_each(|name| replace.without_state(name));
        if let Some((name, bytes)) = segment {
            replace.with_state(&name, bytes).await?;
        }
    }
    let partition_by: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
    for (name, value) in snapshot.properties(&schema, &partition_by)? {
        replace.with_properties(name, value);
    }
    replace.with_report(json!({"adopted": report.adopted, "missing": report.missing, "rows": {"after": report.rows}}));
    let committed = replace.commit().await?;
    report.version = committed.version;
    report.outcome = if committed.outcome == CommitOutcome::Committed { "adopted" } else { "unchanged" };
    Ok(report)
}
