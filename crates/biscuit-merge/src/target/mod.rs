//! The table that is merged into: which of its files and rows hold the keys.

pub(crate) mod context;
pub(crate) mod fetch;
pub(crate) mod key_statistics;
pub(crate) mod lookup;
pub(crate) mod rows;
pub(crate) mod scan;
