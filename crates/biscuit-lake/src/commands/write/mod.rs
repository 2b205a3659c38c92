//! Commands that write rows.

pub(crate) mod adopt;
pub(crate) mod compact;
pub(crate) mod merge;
pub(crate) mod merge_tables;
pub(crate) mod merge_target;
pub(crate) mod periods;
pub(crate) mod run;
pub(crate) mod snapshot;
