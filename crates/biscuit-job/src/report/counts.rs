use std::collections::BTreeMap;

use biscuit_bookmark::InputSelection;
use biscuit_pii::TreatmentStats;
use biscuit_schema::{CheckFinding, CoercionReport, TypeConflict};
use serde::Serialize;
use serde_json::Value;

use crate::read::source::ReadReport;
use crate::spec::OutputMode;

/// What a run did.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct JobReport {
    /// `committed`, `unchanged`, or `planned`.
    pub outcome: &'static str,
    /// The job.
    pub job: String,
    /// The scheduler's name for the run.
    pub run_id: String,
    /// Which attempt of it this is.
    pub attempt: u32,
    /// What became of each output.
    pub outputs: Vec<OutputReport>,
}

/// What became of an output.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// The table.
    pub url: String,
    /// `committed`, `unchanged`, or `planned`.
    pub outcome: &'static str,
    /// The version of the table.
    pub version: u64,
    /// What happens to the rows it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<OutputMode>,
    /// What was read of each source.
    pub sources: BTreeMap<String, SourceReport>,
    /// Rows that were written.
    pub rows: u64,
    /// Files that were written.
    pub files: u64,
    /// Files that were replaced.
    pub replaced: u64,
    /// Rows that were put aside.
    pub quarantined: u64,
    /// Partitions that changed: what to read for those who read incrementally.
    pub partitions: Vec<String>,
    /// What the output's contract lost, filled in, and left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coercion: Option<CoercionReport>,
    /// What was done to personal data, by column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pii: BTreeMap<String, TreatmentStats>,
    /// Rules that rows do not comply with.
    pub findings: Vec<CheckFinding>,
    /// What the merge reports, or the snapshot.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub merge: Value,
    /// How the rows are made, of a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// What could not be done after the commit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<String>,
}

/// What was read of a source.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct SourceReport {
    /// The bookmark; none if everything is read every time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bookmark: Option<String>,
    /// Which objects were chosen, and why others were not.
    pub selection: InputSelection,
    /// What was read, and lost on the way to the source's contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<ReadReport>,
    /// Columns that samples do not agree on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<TypeConflict>,
}
