//! Replacements for clocks, stores, keys, sources and sinks in tests.

pub(crate) mod clock;
pub(crate) mod fault_store;
pub(crate) mod latency_store;
pub(crate) mod memory_keys;
pub(crate) mod recording_sink;
pub(crate) mod recording_store;
pub(crate) mod source;
