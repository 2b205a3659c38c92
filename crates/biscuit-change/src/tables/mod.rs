//! Files with the records of several tables.

pub(crate) mod name;
pub(crate) mod reader;
