//! Writes rows to an output, by its mode.

pub(crate) mod merge;
pub(crate) mod output;
pub(crate) mod quarantine;
pub(crate) mod records;
pub(crate) mod writer;
