//! Column types: their names, Hive types, common types of two columns, and limits.

pub(crate) mod column_type;
pub(crate) mod common;
pub(crate) mod hive;
pub(crate) mod limits;
pub(crate) mod text;
pub(crate) mod union;
#[cfg(feature = "parquet")]
pub(crate) mod uuid;
