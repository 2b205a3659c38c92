//! The process: threads, signals and panics.

pub(crate) mod panics;
pub(crate) mod signals;
pub(crate) mod thread;
