//! Change records on their way into a merge: files, checks, and division into key ranges.

pub(crate) mod buffered;
pub(crate) mod change_reader;
pub(crate) mod collected;
pub(crate) mod decoding;
pub(crate) mod files;
pub(crate) mod found_files;
pub(crate) mod intake;
pub(crate) mod key_coverage;
pub(crate) mod log_epochs;
pub(crate) mod missing_rows;
pub(crate) mod opened_files;
pub(crate) mod row_groups;
pub(crate) mod spilled_ranges;
pub(crate) mod task_output;
