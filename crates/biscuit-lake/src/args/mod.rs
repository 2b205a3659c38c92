//! Options of the command line, and their conversion to the options of the crates.

pub(crate) mod access;
pub(crate) mod aws;
pub(crate) mod bookmark;
pub(crate) mod command;
pub(crate) mod csv;
pub(crate) mod duration;
pub(crate) mod merge;
pub(crate) mod merge_options;
pub(crate) mod parquet;
pub(crate) mod quarantine;
pub(crate) mod table;
