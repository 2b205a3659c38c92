//! The process: threads, signals and panics.

pub(crate) mod command_thread;
pub(crate) mod memory;
pub(crate) mod panics;
pub(crate) mod signals;
pub(crate) mod thread;
