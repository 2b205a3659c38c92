//! Merging into a table of periodic snapshots, which has one copy of its rows for each period.

pub(crate) mod by_period;
pub(crate) mod period_state;
pub(crate) mod retraction;
