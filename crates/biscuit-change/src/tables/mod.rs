//! Reading files with records of several tables.

pub(crate) mod name;
pub(crate) mod reader;
