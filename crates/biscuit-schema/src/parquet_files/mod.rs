//! What has to be known of a Parquet file before it is read.

pub(crate) mod footer;
pub(crate) mod impossible;
pub(crate) mod int96;
pub(crate) mod pages;
pub(crate) mod thrift;
