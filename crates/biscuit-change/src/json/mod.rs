//! JSON text, read without losing digits or repeated names.

pub(crate) mod extended;
pub(crate) mod object;
pub(crate) mod scan;
