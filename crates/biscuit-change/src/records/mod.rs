//! Change records: how batches are built, packed and quarantined.

pub(crate) mod builder;
pub(crate) mod change_records;
pub(crate) mod refused;
