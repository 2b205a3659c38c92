//! Formats with columns or schemas: Parquet and Avro, a few rows at a time.

pub(crate) mod parquet;
pub(crate) mod rows;
pub(crate) mod units;
