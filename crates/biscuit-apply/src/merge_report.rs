//! Reports of merges: counts of partitions, files and periods.

use std::collections::BTreeMap;

use biscuit_core::Outcome;
use biscuit_merge::{RecordVerdicts, RowCounts};
use biscuit_schema::TypeConflict;
use biscuit_schema::coercion::ColumnLosses;
use serde::{Deserialize, Serialize};

/// Partitions that a run changed, by folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TouchedPartitions {
    /// Partitions that had no file before.
    pub added: Vec<String>,
    /// Partitions that have files before and after.
    pub changed: Vec<String>,
    /// Partitions that have no file any more.
    pub emptied: Vec<String>,
}

/// Numbers of files of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileCounts {
    /// Files that were not changed: same name, same ETag.
    pub kept: u64,
    /// Files that were replaced by a new file.
    pub rewritten: u64,
    /// Rewritten files of which row groups were copied unchanged.
    pub spliced: u64,
    /// Small files whose rows are in one of the rewritten files, together with those of other files.
    pub joined: u64,
    /// New files, which contain only inserted rows.
    pub added: u64,
    /// Files that were removed without a replacement.
    pub removed: u64,
    /// External files that became part of the table.
    pub adopted: u64,
}

/// Report of one period of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PeriodReport {
    /// Value of the period column.
    pub period: String,
    /// Whether the run created the period.
    pub is_new: bool,
    /// Rows before the run; for a new period, the rows that it begins with.
    pub before: u64,
    /// Rows after the run.
    pub after: u64,
    /// Keys with records that take effect in this period.
    pub keys: u64,
    /// Keys among these with records of an earlier period that no newer record has replaced yet.
    pub carried: u64,
    /// Inserted rows.
    pub inserted: u64,
    /// Rows whose values changed.
    pub updated: u64,
    /// Deleted rows.
    pub deleted: u64,
    /// Files of the period.
    pub files: PeriodFiles,
}

/// Numbers of files of a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PeriodFiles {
    /// Files that were not changed: same name, same ETag.
    pub kept: u64,
    /// Files that the store copied from the predecessor, without reading them.
    pub copied: u64,
    /// Files that were written for this period.
    pub written: u64,
    /// Written files of which row groups were copied unchanged.
    pub spliced: u64,
    /// Files that the store copied from a file that was written for an earlier period.
    pub shared: u64,
    /// Files that were removed, with or without a replacement.
    pub removed: u64,
}

impl PeriodReport {
    /// Whether the period was changed or had records.
    pub fn is_touched(&self) -> bool {
        let f = &self.files;
        self.keys > 0
            || self.is_new
            || self.inserted + self.updated + self.deleted + f.written + f.shared + f.removed > 0
    }

    /// Adds the changes of rows between two counts.
    pub(crate) fn count_changes(&mut self, before: &RowCounts, after: &RowCounts) {
        self.inserted += after.inserted - before.inserted;
        self.updated += after.updated - before.updated;
        self.deleted += after.deleted - before.deleted + after.duplicate_target_keys - before.duplicate_target_keys;
    }
}

/// Report of a merge.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MergeReport {
    /// `Committed`, `Unchanged`, or `Planned` for a dry run.
    pub outcome: Outcome,
    /// Newest version of the table.
    pub version: u64,
    /// Number of input records.
    pub records: u64,
    /// Verdicts of the records.
    pub verdicts: RecordVerdicts,
    /// Numbers of rows of the table.
    pub rows: RowCounts,
    /// Partitions that were changed. A table without partition columns has one partition, named by an empty text.
    pub partitions: TouchedPartitions,
    /// Numbers of files of the table.
    pub files: FileCounts,
    /// Remarks about the input, the columns and the files.
    #[serde(flatten)]
    pub remarks: MergeRemarks,
    /// Reports of the periods in ascending order, for a table of periodic snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub periods: Vec<PeriodReport>,
}

/// Remarks about a run: what was skipped, changed or lost, and what remains to be done. The reports of merges into a
/// table and into its periods have them as their own fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MergeRemarks {
    /// Number of input records of other tables. They are not among the records of the report.
    pub other_tables: u64,
    /// Files that were skipped, because they hold the keys or headers of messages whose values are in other files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// Columns of the records, and fields of structs, that are not stored.
    pub dropped_columns: Vec<String>,
    /// Number of values by column that were rounded, or replaced by null or the default, as the contract allows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, ColumnLosses>,
    /// Columns of JSON and CSV files whose values have several types. They are stored as text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<TypeConflict>,
    /// Columns that are new in the table.
    pub added_columns: Vec<String>,
    /// Columns whose type became wider. The files of the old type are rewritten.
    pub widened_columns: Vec<String>,
    /// Removed files that were not deleted, because another program changed them: the run ended with exceptions.
    pub exceptions: Vec<String>,
}

impl MergeRemarks {
    /// Adds the remarks about another commit of the run. Columns and exceptions are named once.
    pub fn add(&mut self, other: Self) {
        self.other_tables += other.other_tables;
        self.passed_over.extend(other.passed_over);
        other.losses.into_iter().for_each(|(column, losses)| self.losses.entry(column).or_default().add(&losses));
        self.conflicts.extend(other.conflicts);
        for (all, own) in [
            (&mut self.dropped_columns, other.dropped_columns),
            (&mut self.added_columns, other.added_columns),
            (&mut self.widened_columns, other.widened_columns),
            (&mut self.exceptions, other.exceptions),
        ] {
            own.into_iter().for_each(|one| {
                if !all.contains(&one) {
                    all.push(one);
                }
            });
        }
    }
}
