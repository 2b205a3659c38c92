//! Commit records and their parts: the files, state files and exceptions of a version.

pub use crate::log::head::{LiveFile, RetainedEntry};
pub use crate::log::record::{CommitException, CommitRecord, PastVersion, PublishedFile, RetainedFile, StateFile};
