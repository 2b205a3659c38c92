//! Reports of a reduction: verdicts of records, and counts of rows.

use serde::Serialize;

/// Report of [`merge_and_retain_last`](crate::merge_and_retain_last).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReductionReport {
    /// Number of change records, including rows that are not changes of the table.
    pub records: u64,
    /// Verdicts of the records.
    pub verdicts: RecordVerdicts,
    /// Numbers of rows.
    pub rows: RowCounts,
}

/// The verdicts of all input records. Each record gets exactly one, so that the numbers add up to the number of
/// records.
///
/// ```
/// use biscuit_merge::RecordVerdicts;
///
/// let mut morning = RecordVerdicts::default();
/// (morning.inserted, morning.late) = (3, 1);
/// let mut day = RecordVerdicts::default();
/// (day.updated, day.late) = (2, 1);
///
/// day.add(&morning);
/// assert_eq!((day.inserted, day.updated, day.late), (3, 2, 2));
/// assert_eq!(day.total(), 7);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecordVerdicts {
    /// Records that created a row.
    pub inserted: u64,
    /// Records that gave a row its newest values.
    pub updated: u64,
    /// Records that deleted a row. A truncate counts once.
    pub deleted: u64,
    /// Records that changed nothing: they repeat stored content, or delete a row that does not exist.
    pub unchanged: u64,
    /// Records that a newer record of the same run replaced.
    pub superseded: u64,
    /// Records that were older than the state of their key before the run.
    pub late: u64,
    /// Records that repeat another record of the same run.
    pub duplicate: u64,
    /// Records that gave some columns of a row, while a newer record gave others.
    pub merged: u64,
    /// Records that replaced stored content of the same order.
    pub corrected: u64,
    /// Records that are not changes of the table.
    pub ignored: u64,
    /// Records that were quarantined with a reason.
    pub quarantined: u64,
    /// Records that take effect in a period that does not exist yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub pending: u64,
    /// Records of forgotten keys. They are neither stored nor quarantined.
    #[serde(skip_serializing_if = "is_zero")]
    pub forgotten: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl RecordVerdicts {
    /// Adds the verdicts of other records.
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

    /// Returns the sum of all verdicts.
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

/// Numbers of rows of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RowCounts {
    /// Rows before the run.
    pub before: u64,
    /// Rows after the run.
    pub after: u64,
    /// Inserted rows.
    pub inserted: u64,
    /// Rows whose values changed.
    pub updated: u64,
    /// Rows that were deleted, by deletes and truncates.
    pub deleted: u64,
    /// Updated rows that moved to another partition.
    pub repartitioned: u64,
    /// Removed rows of keys of which the table had several rows.
    pub duplicate_target_keys: u64,
}
