//! Conformance suites for implementations of sources, sinks, deleters and stores. A suite panics at the first
//! violated requirement, with a message that states the requirement.

mod deleter;
mod sink;
mod source;
mod store;

pub use deleter::check_deleter;
pub use sink::{ReadRows, SinkCase, SinkWorld, check_sink, check_storage_sink};
pub use source::{check_source, check_storage_source};
pub use store::check_store;
