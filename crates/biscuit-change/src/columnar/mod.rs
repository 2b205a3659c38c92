//! Formats with a schema, Parquet and Avro, which are read a few thousand rows at a time.

pub(crate) mod parquet;
pub(crate) mod rows;
