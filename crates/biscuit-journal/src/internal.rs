//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::commit::staged::StagedWriter;
pub use crate::log::layout::{MAX_NAME, is_hidden};
pub use crate::log::writer_ids::{RandomWriterIds, WriterIds};
pub use crate::observe::ownership::{fold_name, table_format_around};
pub use crate::store::probe::{ProbeResult, StoreCapability, probe_store};
