//! Checks of Parquet files before and after they are decoded.

pub(crate) mod footer;
pub(crate) mod impossible;
#[cfg(feature = "parquet")]
pub(crate) mod int96;
#[cfg(feature = "parquet")]
pub(crate) mod pages;
pub(crate) mod thrift;
