//! Retractions: stored rows that never took effect when they said they did.

use std::fmt;
use std::sync::Arc;

use biscuit_change::ChangeBatch;
use biscuit_core::Result;
use biscuit_merge::MergeSpec;
use biscuit_merge::internal::{
    KeyState, PLAIN_RANK, PriorKeyState, RecordOrder, TargetRows, TupleEncoder, TuplePurpose,
};
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::Schema;
use hashbrown::HashMap;

use crate::changes::key_coverage::KeyCoverage;

/// A stored record that, according to a later record, never took effect at its stated time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct RetractedRecord {
    /// The encoded key, as in [`key_and_order`].
    pub key: Vec<u8>,
    /// The order of the retracting record. Rows of this order or a greater one are not retracted.
    pub order: Vec<u8>,
    /// The stated effective time of the retracted record, in microseconds since 1970.
    pub effective: i64,
    /// First period in which the retracted record took effect, by its place among the periods of the run.
    pub from: u32,
    /// First later period in which the retracted record is not searched for any more.
    pub until: u32,
}

/// The retractions of a run, and how effective times are read from rows.
#[derive(Clone, Default)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct RetractionSet {
    /// The column with the effective time.
    pub column: String,
    /// Reads the effective time from a value of this column.
    pub effective: Option<EffectiveTimes>,
    /// The retractions.
    pub all: Vec<RetractedRecord>,
}

/// Returns the effective time in a row of a column, in microseconds since 1970; `None` if the row has none.
pub type EffectiveTimes = Arc<dyn Fn(&ArrayRef, usize) -> Option<i64> + Send + Sync>;

impl fmt::Debug for RetractionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetractionSet").field("column", &self.column).field("all", &self.all).finish_non_exhaustive()
    }
}

/// The encoded key and order of a record; `None` if either is null or invalid.
pub type KeyAndOrder = Option<(Vec<u8>, Vec<u8>)>;

/// Returns the encoded key and order of each record of a batch. The bytes compare as the keys and orders do, and are
/// stable across versions.
///
/// # Errors
/// `MissingColumn`, `KeyType`, `OrderType`.
pub fn key_and_order(batch: &ChangeBatch, spec: &MergeSpec) -> Result<Vec<KeyAndOrder>> {
    let place = format!("`{}`", batch.file);
    let keys = TupleEncoder::new(&batch.rows, &spec.key, TuplePurpose::Key, &place)?;
    let orders = TupleEncoder::new(&batch.rows, &spec.order, TuplePurpose::Order, &place)?;
    let mut all = Vec::with_capacity(batch.ops.len());
    for row in 0..batch.ops.len() {
        let (mut key, mut order) = (Vec::new(), Vec::new());
        let known = keys.encode(row, &mut key).is_ok() && orders.encode(row, &mut order).is_ok();
        // The rank of the operation does not matter between a record and the record that it corrects.
        all.push(known.then(|| (key, RecordOrder::new(batch.rank.max(PLAIN_RANK), &order, 0).bytes().to_vec())));
    }
    Ok(all)
}

/// The retractions of the current part of a run.
///
/// Periods are resolved in ascending order. A retracted row is replaced by the state that its key has in the period
/// before, as if the retracted record had never been there. That needs the states of the keys in the preceding
/// period, which `before` has.
#[derive(Debug, Default)]
pub(crate) struct PartRetractions {
    all: Arc<RetractionSet>,
    /// Indices of the retractions of each key.
    by_key: HashMap<u32, Vec<usize>>,
    /// States of the keys after the preceding period.
    before: HashMap<u32, KeyState>,
}

impl PartRetractions {
    /// Finds the retractions of keys that a part covers. `key_number` adds a key to the key table of the part, and
    /// returns its number.
    pub(crate) fn new(all: Arc<RetractionSet>, covers: &KeyCoverage, mut key_number: impl FnMut(&[u8]) -> u32) -> Self {
        let mut by_key: HashMap<u32, Vec<usize>> = HashMap::new();
        for (i, r) in all.all.iter().enumerate().filter(|(_, r)| covers.contains(&r.key)) {
            by_key.entry(key_number(&r.key)).or_default().push(i);
        }
        Self { all, by_key, before: HashMap::new() }
    }

    /// Whether a key is resolved in a period because of a retraction: its row may be retracted there, or the next
    /// period needs its state.
    pub(crate) fn needs_state(&self, key: u32, period: u32) -> bool {
        self.records_of(key).any(|r| r.from <= period + 1 && period < r.until)
    }

    fn records_of(&self, key: u32) -> impl Iterator<Item = &RetractedRecord> {
        self.by_key.get(&key).into_iter().flatten().map(|i| &self.all.all[*i])
    }

    /// Whether a key is resolved in a period because of a retraction.
    pub(crate) fn touches_period(&self, period: u32) -> bool {
        self.by_key.keys().any(|key| self.needs_state(*key, period))
    }

    /// Returns the prior state of a key in a period. If its row is a retracted record, this is the state of the key in
    /// the preceding period.
    pub(crate) fn unless_retracted(
        &self,
        key: u32,
        period: u32,
        prior: PriorKeyState,
        target: &Schema,
        tables: &TargetRows,
    ) -> PriorKeyState {
        // The values of other rows may not have been fetched.
        if !self.needs_state(key, period) {
            return prior;
        }
        let (Some(effective), Some(row)) = (&self.all.effective, prior.state.source) else { return prior };
        let Ok(column) = target.index_of(&self.all.column) else { return prior };
        let (array, at) = tables.column(row, column);
        let (Some(row_effective), Some(live)) = (effective(array, at), &prior.state.live) else { return prior };
        let of_row = |r: &RetractedRecord| {
            r.from <= period && period < r.until && r.effective == row_effective && live.bytes() < r.order.as_slice()
        };
        if !prior.stored || !self.records_of(key).any(of_row) {
            return prior;
        }
        let state = self.before.get(&key).cloned().unwrap_or_else(KeyState::unknown);
        PriorKeyState { state, stored: true, is_new: true }
    }

    /// Stores the state of a key for the next period.
    pub(crate) fn store_for_next_period(&mut self, key: u32, state: &KeyState) {
        if self.by_key.contains_key(&key) {
            self.before.insert(key, state.clone());
        }
    }
}
