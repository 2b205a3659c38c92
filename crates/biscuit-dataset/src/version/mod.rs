//! A version of a table, as one run reads and writes it.

pub(crate) mod opened_before;
pub(crate) mod properties;
pub(crate) mod provider;
pub(crate) mod store;
pub(crate) mod table_version;
