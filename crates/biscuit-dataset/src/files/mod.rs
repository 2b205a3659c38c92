//! Writes, opens and reads single Parquet files.

pub(crate) mod calendar;
pub(crate) mod data_file;
pub(crate) mod dictionary;
pub(crate) mod guarded;
pub(crate) mod guarded_source;
pub(crate) mod reader;
pub(crate) mod single;
pub(crate) mod writer;
