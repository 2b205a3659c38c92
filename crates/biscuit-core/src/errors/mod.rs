//! The error type of all crates, and what keeps its messages free of secrets and control characters.

pub(crate) mod code;
pub(crate) mod error;
pub(crate) mod foreign;
pub(crate) mod kind;
pub(crate) mod panics;
pub(crate) mod secrets;
