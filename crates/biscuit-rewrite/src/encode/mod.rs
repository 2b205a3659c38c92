//! Produces the row groups of new files: copies, encodes and orders them, and writes them to staged files.

pub(crate) mod group_bytes;
pub(crate) mod output;
pub(crate) mod row_group;
pub(crate) mod session;
pub(crate) mod threads;
pub(crate) mod unit_target;
pub(crate) mod write;
