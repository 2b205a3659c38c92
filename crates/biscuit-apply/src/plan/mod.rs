//! From resolved keys to files: which files are kept, spliced, rewritten and added.

pub(crate) mod fingerprints;
pub(crate) mod guards;
pub(crate) mod joining;
pub(crate) mod merge_plan;
pub(crate) mod new_files;
pub(crate) mod placement;
pub(crate) mod summary;
