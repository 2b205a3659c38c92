//! What a run did, and would do.

pub(crate) mod counts;
pub(crate) mod impact;
pub(crate) mod plan;
