//! Suites of checks that a plug-in has to pass: sources, sinks, deleters, stores. Each panics at the first thing that does
//! not hold, with a message that says what.

mod deleter;
mod sink;
mod source;
mod store;

pub use deleter::check_deleter;
pub use sink::{ReadRows, SinkCase, SinkWorld, check_sink, check_storage_sink};
pub use source::{check_source, check_storage_source};
pub use store::check_store;
