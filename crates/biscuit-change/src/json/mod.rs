//! Parsing JSON without loss: numbers keep all digits, and duplicate names are detected.

pub(crate) mod extended;
pub(crate) mod layout;
pub(crate) mod object;
pub(crate) mod scanner;
