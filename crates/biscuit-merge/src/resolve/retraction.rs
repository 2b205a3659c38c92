use std::fmt;
use std::sync::Arc;

use biscuit_change::ChangeBatch;
use biscuit_core::Result;
use datafusion::arrow::array::ArrayRef;
use hashbrown::HashMap;

use crate::keys::encoding::{TupleEncoder, TuplePurpose};
use crate::keys::record_order::{PLAIN_RANK, RecordOrder};
use crate::resolve::key_state::KeyState;
use crate::resolve::resolver::PriorKeyState;
use crate::spec::MergeSpec;
use crate::target::context::MergeContext;

/// A stored record that a later one says never took effect when it says it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetractedRecord {
    /// Its key, as [`key_and_order`] has it.
    pub key: Vec<u8>,
    /// The order of the record that says so: what is as new or newer is not taken away.
    pub order: Vec<u8>,
    /// When it says it took effect, in microseconds.
    pub effective: i64,
    /// The first slice that it counts in, by its place among the slices of the run.
    pub from: u32,
    /// The first slice behind that in which it is not looked for any more.
    pub until: u32,
}

/// The retractions of a run, and how rows say when they take effect.
#[derive(Clone, Default)]
pub struct RetractionSet {
    /// The column that says it.
    pub column: String,
    /// Reads it off a value of that column.
    pub effective: Option<EffectiveTimes>,
    /// The retractions.
    pub all: Vec<RetractedRecord>,
}

/// The microseconds of an instant that a row of a column says; none where it says none.
pub type EffectiveTimes = Arc<dyn Fn(&ArrayRef, usize) -> Option<i64> + Send + Sync>;

impl fmt::Debug for RetractionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retractions").field("column", &self.column).field("all", &self.all).finish_non_exhaustive()
    }
}

/// The key and the order of a record, encoded; none where it has none.
pub type KeyAndOrder = Option<(Vec<u8>, Vec<u8>)>;

/// The key and the order of each record of a batch, as bytes that compare as these do and are kept for ever; none where it has none.
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
        // The rank of an operation does not matter between a record and the one that it corrects.
        all.push(known.then(|| (key, RecordOrder::new(batch.rank.max(PLAIN_RANK), &order, 0).bytes().to_vec())));
    }
    Ok(all)
}

/// The retractions of the part of a run that is worked on.
#[derive(Debug, Default)]
pub(crate) struct PartRetractions {
    all: RetractionSet,
    by_key: HashMap<u32, Vec<usize>>,
    /// What the keys came to in the slice before.
    before: HashMap<u32, KeyState>,
}

impl PartRetractions {
    pub(crate) fn new(all: RetractionSet) -> Self {
        Self { all, ..Self::default() }
    }

    /// The keys that are looked at in a slice, or whose state in it is asked for by the next one.
    pub(crate) fn looks_at(&self, key: u32, period: u32) -> bool {
        self.of(key).any(|r| r.from <= period + 1 && period < r.until)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.all.is_empty()
    }

    fn of(&self, key: u32) -> impl Iterator<Item = &RetractedRecord> {
        self.by_key.get(&key).into_iter().flatten().map(|i| &self.all.all[*i])
    }

    /// Whether any key is looked at in a slice.
    pub(crate) fn any(&self, period: u32) -> bool {
        self.by_key.keys().any(|key| self.looks_at(*key, period))
    }
}

impl MergeContext {
    /// Finds the keys of the retractions that the part of the records covers.
    pub(crate) fn enter_retractions(&mut self) {
        let retracting = &mut self.retracting;
        retracting.by_key.clear();
        retracting.before.clear();
        for (i, r) in retracting.all.all.iter().enumerate().filter(|(_, r)| self.covers.has(&r.key)) {
            let key = self.set.keys_mut().intern(&r.key);
            retracting.by_key.entry(key).or_default().push(i);
        }
    }

    /// What was known of a key in a slice, or if its row there is a record that was retracted, what the key came to in the slice before.
    pub(crate) fn unless_retracted(&self, key: u32, prior: PriorKeyState) -> PriorKeyState {
        let period = u32::try_from(self.periods.at).expect("there are fewer than 2^32 slices");
        // The values of other rows need not be there.
        if !self.retracting.looks_at(key, period) {
            return prior;
        }
        let (Some(effective), Some(row)) = (&self.retracting.all.effective, prior.state.source) else { return prior };
        let Ok(column) = self.target.index_of(&self.retracting.all.column) else { return prior };
        let (array, at) = self.tables.column(row, column);
        let (Some(says), Some(live)) = (effective(array, at), &prior.state.live) else { return prior };
        let of_row = |r: &RetractedRecord| {
            r.from <= period && period < r.until && r.effective == says && live.bytes() < r.order.as_slice()
        };
        if !prior.stored || !self.retracting.of(key).any(of_row) {
            return prior;
        }
        let state = self.retracting.before.get(&key).cloned().unwrap_or_else(KeyState::unknown);
        PriorKeyState { state, stored: true, is_new: true }
    }

    /// Keeps what a key came to, for the slice behind.
    pub(crate) fn keep_for_next(&mut self, key: u32, state: &KeyState) {
        if self.retracting.by_key.contains_key(&key) {
            self.retracting.before.insert(key, state.clone());
        }
    }
}
