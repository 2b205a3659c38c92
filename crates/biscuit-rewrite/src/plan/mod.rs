//! Decides, from footers alone, what happens to each file and each row group.

pub(crate) mod apply;
pub(crate) mod choice;
pub(crate) mod edits;
pub(crate) mod properties;
pub(crate) mod unit;
