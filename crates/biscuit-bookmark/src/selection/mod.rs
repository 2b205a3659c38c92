//! Which listed objects a run reads, and why it ignores the others.

pub(crate) mod explain;
pub(crate) mod ignored;
pub(crate) mod known;
pub(crate) mod mode;
pub(crate) mod select;
pub(crate) mod selected;
