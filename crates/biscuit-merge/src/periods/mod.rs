//! Merging into a table that holds one copy of its rows for each period.

pub(crate) mod by_period;
pub(crate) mod period_state;
