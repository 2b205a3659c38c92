//! The table that is merged into: which of its files and rows have the keys of the run, and what is known of these
//! keys.

pub(crate) mod context;
pub(crate) mod fetch;
pub(crate) mod key_statistics;
pub(crate) mod lookup;
pub(crate) mod scan;
