use std::collections::BTreeMap;

use biscuit_schema::{ColumnLosses, TypeConflict};
use serde::{Deserialize, Serialize};

/// What became of every input record; the numbers add up to the input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecordVerdicts {
    /// Made a row that was not there.
    pub inserted: u64,
    /// Gave a row its newest state.
    pub updated: u64,
    /// Took a row away; a truncate counts once.
    pub deleted: u64,
    /// Said what is so already: the stored content again, or the delete of a row that is not there.
    pub unchanged: u64,
    /// Was overtaken by a newer record of the same run.
    pub superseded: u64,
    /// Was older than what was known before the run.
    pub late: u64,
    /// Repeated another record of the same run.
    pub duplicate: u64,
    /// Gave some columns of a row that a newer record made.
    pub merged: u64,
    /// Replaced stored content of the same order.
    pub corrected: u64,
    /// Was no change of the table.
    pub ignored: u64,
    /// Was put aside with a reason.
    pub quarantined: u64,
    /// Waits for the period that it takes effect in.
    #[serde(skip_serializing_if = "is_zero")]
    pub pending: u64,
    /// Was of a key that was forgotten, and is neither stored nor put aside.
    #[serde(skip_serializing_if = "is_zero")]
    pub forgotten: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl RecordVerdicts {
    /// Adds those of other records.
    pub fn add(&mut self, other: &Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.unchanged += other.unchanged;
        self.superseded += other.superseded;
        self.late += other.late;
        self.duplicate += other.duplicate;
        self.merged += other.merged;
        self.corrected += other.corrected;
        self.ignored += other.ignored;
        self.quarantined += other.quarantined;
        self.pending += other.pending;
        self.forgotten += other.forgotten;
    }

    /// The sum of all.
    pub fn total(&self) -> u64 {
        let Self {
            inserted,
            updated,
            deleted,
            unchanged,
            superseded,
            late,
            duplicate,
            merged,
            corrected,
            ignored,
            quarantined,
            pending,
            forgotten,
        } = *self;
        inserted
            + updated
            + deleted
            + unchanged
            + superseded
            + late
            + duplicate
            + merged
            + corrected
            + ignored
            + quarantined
            + pending
            + forgotten
    }
}

/// Rows of the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RowCounts {
    /// Before the run.
    pub before: u64,
    /// After it.
    pub after: u64,
    /// New keys.
    pub inserted: u64,
    /// Keys whose row is another now.
    pub updated: u64,
    /// Keys whose row is gone, by deletes and truncates.
    pub deleted: u64,
    /// Updated rows that are in another partition now.
    pub repartitioned: u64,
    /// Surplus rows of keys that the target held more than once.
    pub duplicate_target_keys: u64,
}

/// Partitions that a run touched, by folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TouchedPartitions {
    /// Without a file before.
    pub added: Vec<String>,
    /// With files before and after.
    pub changed: Vec<String>,
    /// Without a file after.
    pub emptied: Vec<String>,
}

/// Files of the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileCounts {
    /// Not touched: same name, same ETag.
    pub kept: u64,
    /// Replaced by a new file.
    pub rewritten: u64,
    /// Of those, the ones of which row groups were copied as they were.
    pub spliced: u64,
    /// New, for inserted rows alone.
    pub added: u64,
    /// Deleted without a new file.
    pub removed: u64,
    /// Written by somebody else and part of the table from now on.
    pub adopted: u64,
}

/// What a run did to one slice of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PeriodReport {
    /// The value of the slice column.
    pub period: String,
    /// Whether this run made it.
    pub is_new: bool,
    /// Rows before the run; of a new slice those that it begins with.
    pub before: u64,
    /// Rows after it.
    pub after: u64,
    /// Keys whose records counted here.
    pub keys: u64,
    /// Of those, keys with records of an earlier slice that nothing newer has met so far.
    pub carried: u64,
    /// New keys.
    pub inserted: u64,
    /// Keys whose row is another now.
    pub updated: u64,
    /// Keys whose row is gone.
    pub deleted: u64,
    /// Its files.
    pub files: PeriodFiles,
}

/// The files of a slice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PeriodFiles {
    /// Not touched: same name, same ETag.
    pub kept: u64,
    /// Copied from the slice before by the store, without being read.
    pub copied: u64,
    /// Written in this slice.
    pub written: u64,
    /// Of those, the ones of which row groups were copied as they were.
    pub spliced: u64,
    /// Copied by the store from what was written for an earlier slice.
    pub shared: u64,
    /// Deleted, replaced or not.
    pub removed: u64,
}

impl PeriodReport {
    /// Whether anything was looked at or done in the slice.
    pub fn is_touched(&self) -> bool {
        let f = &self.files;
        self.keys > 0
            || self.is_new
            || self.inserted + self.updated + self.deleted + f.written + f.shared + f.removed > 0
    }

    /// Adds what happened to rows between two counts.
    pub(crate) fn count(&mut self, before: &RowCounts, after: &RowCounts) {
        self.inserted += after.inserted - before.inserted;
        self.updated += after.updated - before.updated;
        self.deleted += after.deleted - before.deleted + after.duplicate_target_keys - before.duplicate_target_keys;
    }
}

/// What a merge did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MergeReport {
    /// `committed`, `unchanged`, or `planned` for a dry run.
    pub outcome: &'static str,
    /// The newest version of the table.
    pub version: u64,
    /// Input records.
    pub records: u64,
    /// Input records of other tables, which are not in `records`.
    pub other_tables: u64,
    /// What became of each record.
    pub verdicts: RecordVerdicts,
    /// Rows of the target.
    pub rows: RowCounts,
    /// Partitions that were touched; a table without folders has the one named by an empty text.
    pub partitions: TouchedPartitions,
    /// Files of the target.
    pub files: FileCounts,
    /// Files that have the keys or headers of messages, whose values are in others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// Columns of the records, and fields of structs, that are not stored.
    pub dropped_columns: Vec<String>,
    /// Values of the records that were rounded, or became null or the default, as the contract has it, by column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, ColumnLosses>,
    /// Columns of JSON and CSV whose values are of several types, and that are text for that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<TypeConflict>,
    /// Columns that the table did not have before.
    pub added_columns: Vec<String>,
    /// Columns whose type became wider, which rewrites the files of the old type.
    pub widened_columns: Vec<String>,
    /// What happened in each slice, ascending, where the table has slices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub periods: Vec<PeriodReport>,
    /// Live files that were kept because somebody else changed them since: the run ended with exceptions.
    pub exceptions: Vec<String>,
}
