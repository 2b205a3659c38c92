//! Change records: their batches and operations, conversion from plain rows, packed form, and records that cannot be
//! used.

pub(crate) mod change_batch;
pub(crate) mod key_change;
pub(crate) mod op;
pub(crate) mod packed;
pub(crate) mod placeholder;
pub(crate) mod refused;
pub(crate) mod row_changes;
