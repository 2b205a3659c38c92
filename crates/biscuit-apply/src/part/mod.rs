//! The part of the records that is being decided: its keys, their state before the run, and their outcomes.

pub(crate) mod encoded;
pub(crate) mod lookup;
pub(crate) mod progress;
pub(crate) mod resolve;
