//! Options of the command.

pub(crate) mod aws;
pub(crate) mod bookmark;
pub(crate) mod command;
pub(crate) mod csv;
pub(crate) mod parquet;
