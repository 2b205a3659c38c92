use crate::keys::record_order::RecordOrder;
use crate::resolve::key_state::KeyState;
use crate::target::rows::RowRef;

/// What becomes of one key.
#[derive(Debug)]
pub(crate) struct KeyOutcome {
    pub(crate) key: u32,
    /// What happens to its row.
    pub(crate) row: RowChange,
    /// What is known of the key from now on.
    pub(crate) state: KeyState,
    /// What was known of it before; none if that was its row alone.
    pub(crate) before: Option<Box<KeyState>>,
}

impl KeyOutcome {
    /// The row of this key has one order, and says it all.
    pub(crate) fn of_row(key: u32, row: RowChange, order: &RecordOrder, at: RowRef) -> Self {
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

/// What happens to the row of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowChange {
    /// It stays as it is, or there is none.
    Keep,
    /// A row that was not there.
    Insert,
    /// The row gets other values.
    Replace,
    /// The row goes.
    Remove,
}
