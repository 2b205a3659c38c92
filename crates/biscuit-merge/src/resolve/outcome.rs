use crate::keys::record_order::RecordOrder;
use crate::resolve::key_state::KeyState;
use crate::resolve::target_rows::RowRef;

/// The outcome of one key.
#[derive(Debug)]
#[non_exhaustive]
pub struct KeyOutcome {
    /// Number of the key in the key table.
    pub key: u32,
    /// Change of the row of the key.
    pub row: RowChange,
    /// State of the key after the run.
    pub state: KeyState,
    /// State of the key before the run; `None` if it had no key metadata, or its metadata no longer applies.
    pub before: Option<Box<KeyState>>,
}

impl KeyOutcome {
    /// Returns the outcome of a key whose row has a single order, so that it needs no key metadata.
    pub fn of_row(key: u32, row: RowChange, order: &RecordOrder, at: RowRef) -> Self {
        let state = KeyState {
            live: Some(order.clone()),
            base: order.clone(),
            source: Some(at),
            columns: vec![],
            key_changes: vec![],
        };
        Self { key, row, state, before: None }
    }
}

/// Change of the row of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum RowChange {
    /// The row remains as it is, or the key has no row.
    Keep,
    /// A new row.
    Insert,
    /// The row gets other values.
    Replace,
    /// The row is removed.
    Remove,
}
