//! The table that is merged into: how it was read, which rows its files have, and which properties merges store.

pub(crate) mod adopt;
pub(crate) mod context;
pub(crate) mod fetch;
pub(crate) mod key_statistics;
pub(crate) mod open_files;
pub(crate) mod scan;
pub(crate) mod stored_spec;
pub(crate) mod truncate_marks;
pub(crate) mod verify;
