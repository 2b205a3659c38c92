//! Contracts: the declared schema of a table, its file format, and its checks.

pub(crate) mod check;
pub(crate) mod column;
pub(crate) mod compatibility;
pub(crate) mod compliance;
pub(crate) mod definition;
pub(crate) mod file;
pub(crate) mod settings;
