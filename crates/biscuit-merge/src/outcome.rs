use crate::key_state::KeyState;

/// What becomes of one key.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) key: u32,
    /// What happens to its row.
    pub(crate) row: RowChange,
    /// What is known of the key from now on.
    pub(crate) state: KeyState,
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
