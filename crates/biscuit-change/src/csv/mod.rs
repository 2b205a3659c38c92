//! Reading CSV files.

pub(crate) mod dialect;
pub(crate) mod records;
