//! Everything that a command prints, and the report and manifest files that it writes.

pub(crate) mod error_codes;
pub(crate) mod json_lines;
pub(crate) mod merge;
pub(crate) mod output;
pub(crate) mod own_files;
pub(crate) mod progress;
pub(crate) mod purge;
pub(crate) mod remarks;
