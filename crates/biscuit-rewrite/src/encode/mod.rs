//! Row groups on their way into a new file.

pub(crate) mod group_bytes;
pub(crate) mod output;
pub(crate) mod row_group;
pub(crate) mod session;
pub(crate) mod threads;
pub(crate) mod unit_target;
pub(crate) mod write;
