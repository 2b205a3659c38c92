use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_bookmark::InputSelection;
use biscuit_change::RefusedRecord;
use biscuit_core::{Outcome, Result};
use biscuit_pii::TreatmentStats;
use biscuit_schema::TypeConflict;
use biscuit_schema::checks::CheckFinding;
use biscuit_schema::coercion::CoercionReport;
use serde::Serialize;
use serde_json::Value;

use crate::read::choose::ChosenInput;
use crate::read::source::{ReadReport, SourceReader};
use crate::spec::OutputMode;

/// Report of a run.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct JobReport {
    /// Outcome of the last output that is not `Unchanged`.
    pub outcome: Outcome,
    /// Name of the job.
    pub job: String,
    /// Id of the run, from the scheduler.
    pub run_id: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Report of each output.
    pub outputs: Vec<OutputReport>,
}

/// Report of an output.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct OutputReport {
    /// Name of the output.
    pub name: String,
    /// URL of the table.
    pub url: String,
    /// `Committed`, `Unchanged`, or `Planned` for a dry run.
    pub outcome: Outcome,
    /// Version of the table after the run.
    pub version: u64,
    /// Mode of the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<OutputMode>,
    /// Report of each source, by name.
    pub sources: BTreeMap<String, SourceReport>,
    /// Number of rows written, or of records merged.
    pub rows: u64,
    /// Number of files written.
    pub files: u64,
    /// Number of files replaced.
    pub replaced: u64,
    /// Number of rows sent to the quarantine.
    pub quarantined: u64,
    /// Partitions that changed, for incremental consumers.
    pub partitions: Vec<String>,
    /// Values that the output's contract converted, replaced or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coercion: Option<CoercionReport>,
    /// Treated values, by column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pii: BTreeMap<String, TreatmentStats>,
    /// Violations of the checks and of the grain.
    pub findings: Vec<CheckFinding>,
    /// Report of the merge or of the periodic snapshot.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub merge: Value,
    /// Lines of the plan, in a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// Actions that failed after the commit, such as deleting a file that someone else changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<String>,
}

impl OutputReport {
    /// Adds the sources with the reports of their readers. Returns the refused records.
    ///
    /// # Errors
    /// `NotUnique` and other rules of a source's contract that stop the run.
    pub(crate) fn add_sources(
        &mut self,
        chosen: &[ChosenInput],
        readings: &[Arc<SourceReader>],
    ) -> Result<Vec<RefusedRecord>> {
        let mut refused = Vec::new();
        for (at, chosen) in chosen.iter().enumerate() {
            let source = self.sources.entry(chosen.source.clone()).or_default();
            source.bookmark.clone_from(&chosen.bookmark);
            source.selection = chosen.selection.clone();
            if let Some(reading) = readings.get(at) {
                let found = reading.findings()?;
                source.read = Some(found.report);
                self.findings.extend(found.findings);
                refused.extend(found.refused);
            }
        }
        Ok(refused)
    }
}

/// Report of a source of an output.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct SourceReport {
    /// Name of the bookmark. `None` if every run reads all objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bookmark: Option<String>,
    /// Objects that were selected, and why others were not.
    pub selection: InputSelection,
    /// Rows that were read, and losses in the conversion to the source's contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<ReadReport>,
    /// Columns for which the inferred types of the files disagree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<TypeConflict>,
}
