use std::collections::BTreeMap;

use biscuit_apply::{MergeReport, PeriodReport, RecordVerdicts};
use biscuit_core::Instant;
use biscuit_schema::{ColumnLosses, TypeConflict};
use serde::Serialize;

use crate::period::calendar::Period;

/// Report of a run or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PeriodTableReport {
    /// `committed`, `unchanged`, or `planned` for a dry run.
    pub outcome: &'static str,
    /// Newest version of the table.
    pub version: u64,
    /// Number of commits: one for the existing periods together with the first new period, and one for each further
    /// new period.
    pub commits: u64,
    /// Instant for which the run was scheduled.
    pub as_of: String,
    /// Name of the newest period.
    pub current: String,
    /// Number of input records.
    pub records: u64,
    /// Number of input records of other tables, which are not in `records`.
    pub other_tables: u64,
    /// Number of pending records whose period was opened by this run. They have verdicts, too.
    pub opened: u64,
    /// Number of pending records after the run.
    pub pending: u64,
    /// Verdicts of the records, each in the period in which the record first counts.
    pub verdicts: RecordVerdicts,
    /// Report of each period, in ascending order.
    pub periods: Vec<PeriodReport>,
    /// Files that contain only keys or headers of messages. The values are in other files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// Columns of the records, and fields of structs, that are not stored.
    pub dropped_columns: Vec<String>,
    /// Values of the records that were rounded, or replaced by null or the default as the contract demands, by
    /// column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, ColumnLosses>,
    /// Columns of JSON and CSV with values of several types, which are stored as text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<TypeConflict>,
    /// Columns that are new in the table.
    pub added_columns: Vec<String>,
    /// Columns whose type became wider. A wider type rewrites all periods.
    pub widened_columns: Vec<String>,
    /// Live files that were not deleted because someone else changed them. The run ended with exceptions.
    pub exceptions: Vec<String>,
}

impl PeriodTableReport {
    pub(crate) fn new(as_of: Instant, current: &Period, version: u64) -> Self {
        let (as_of, current) = (as_of.to_string(), current.to_string());
        Self { outcome: "unchanged", version, as_of, current, ..Self::default() }
    }

    /// Adds the report of a commit.
    pub(crate) fn take(&mut self, merged: MergeReport) {
        if merged.outcome != "unchanged" {
            self.outcome = merged.outcome;
            self.commits += u64::from(merged.outcome == "committed");
        }
        self.version = self.version.max(merged.version);
        self.other_tables += merged.other_tables;
        self.verdicts.add(&merged.verdicts);
        merged.losses.into_iter().for_each(|(column, losses)| self.losses.entry(column).or_default().add(&losses));
        self.conflicts.extend(merged.conflicts);
        self.passed_over.extend(merged.passed_over);
        for report in merged.periods {
            match self.periods.iter_mut().find(|p| p.period == report.period) {
                // The period was made or changed by an earlier commit of the run, and is only the base of this
                // commit.
                Some(_) if !report.is_touched() => {}
                Some(known) => known.clone_from(&report),
                None => self.periods.push(report),
            }
        }
        for (all, own) in [
            (&mut self.dropped_columns, merged.dropped_columns),
            (&mut self.added_columns, merged.added_columns),
            (&mut self.widened_columns, merged.widened_columns),
            (&mut self.exceptions, merged.exceptions),
        ] {
            own.into_iter().for_each(|one| {
                if !all.contains(&one) {
                    all.push(one);
                }
            });
        }
    }
}
