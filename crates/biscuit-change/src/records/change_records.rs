//! The result of reading all files of a run.

use std::collections::BTreeMap;

use biscuit_merge::{ChangeBatch, RefusedRecord};
use biscuit_schema::TypeConflict;
use biscuit_schema::coercion::ColumnLosses;

use crate::values::declared::{LossCounter, push_once};

/// Change records of one run, with counters of everything that did not become a change record.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ChangeRecords {
    /// Change records.
    pub batches: Vec<ChangeBatch>,
    /// Number of input records that are not a change of the table: Kafka tombstones, images before an update, logical
    /// messages and the like.
    pub ignored: u64,
    /// Number of input records of other tables.
    pub other_tables: u64,
    /// Number of records in files without the operation column of the options, and of JSON lines without it. They are
    /// upserts, as in a full load.
    pub without_op: u64,
    /// Key columns, if the records or the options name them.
    pub key: Vec<String>,
    /// Order columns, if the records or the options name them.
    pub order: Vec<String>,
    /// Files that were skipped because they contain the keys or headers of messages.
    pub passed_over: Vec<String>,
    /// Quarantined records.
    pub refused: Vec<RefusedRecord>,
    /// Columns, and fields of structs, that were dropped because the contract does not have them.
    pub dropped_columns: Vec<String>,
    /// For each column, the number of values that were rounded, set to null or set to the default, as the contract
    /// allows it.
    pub losses: BTreeMap<String, ColumnLosses>,
    /// Columns of JSON and CSV files that are text because their values have several types.
    pub conflicts: Vec<TypeConflict>,
}

impl ChangeRecords {
    /// Creates a result from batches, without key and order.
    pub fn from_batches(batches: Vec<ChangeBatch>) -> Self {
        Self { batches, ..Self::default() }
    }

    /// Number of change records, without the quarantined ones.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|b| b.ops.len()).sum()
    }

    /// Adds the records of a later part of the input. Key and order are those of the first part that names them.
    pub fn append(&mut self, part: Self) {
        self.batches.extend(part.batches);
        self.ignored += part.ignored;
        self.other_tables += part.other_tables;
        self.without_op += part.without_op;
        self.passed_over.extend(part.passed_over);
        self.refused.extend(part.refused);
        self.add_losses(LossCounter { dropped: part.dropped_columns, columns: part.losses });
        self.conflicts.extend(part.conflicts);
        if self.key.is_empty() {
            self.key = part.key;
        }
        if self.order.is_empty() {
            self.order = part.order;
        }
    }

    /// Adds the losses of one part of the input.
    pub(crate) fn add_losses(&mut self, lost: LossCounter) {
        lost.dropped.into_iter().for_each(|name| push_once(&mut self.dropped_columns, name));
        lost.columns.into_iter().for_each(|(column, losses)| self.losses.entry(column).or_default().add(&losses));
    }

    /// Returns whether there are no change records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
