//! Values that only whoever has the keys can read.

pub(crate) mod cell;
pub(crate) mod cells;
pub(crate) mod digests;
pub(crate) mod form;
pub(crate) mod message;
pub(crate) mod messages;
pub(crate) mod subjects;
