//! Plain rows that say what they change.

pub(crate) mod changes;
pub(crate) mod reader;
