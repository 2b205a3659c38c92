//! A key while the records of a run are applied to it, and the error of a record that cannot be applied.

use biscuit_core::Error;

use crate::resolve::key_state::KeyState;
use crate::resolve::target_rows::RowRef;

/// An error, and the record that causes it, if it is a single record.
#[derive(Debug)]
pub(crate) struct ResolveError {
    pub(crate) at: Option<RowRef>,
    pub(crate) error: Error,
}

impl From<Error> for ResolveError {
    fn from(error: Error) -> Self {
        Self { at: None, error }
    }
}

/// A key while its records are applied.
#[derive(Debug)]
pub(crate) struct KeyInProgress {
    pub(crate) key: u32,
    pub(crate) before: KeyState,
    pub(crate) stored: bool,
    pub(crate) now: KeyState,
    /// Whether a value or the order of the row has changed.
    pub(crate) touched: bool,
    /// Whether the prior state differs from the key metadata and the row.
    pub(crate) is_new: bool,
}
