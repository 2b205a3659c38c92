//! What has to be known of a Parquet file before it is read.

pub(crate) mod footer;
pub(crate) mod impossible;
#[cfg(feature = "parquet")]
pub(crate) mod int96;
#[cfg(feature = "parquet")]
pub(crate) mod pages;
pub(crate) mod thrift;
