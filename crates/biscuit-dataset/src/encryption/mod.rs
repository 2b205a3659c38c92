//! Files that are encrypted in Parquet's own way.

pub(crate) mod file_encryption;
pub(crate) mod keyring;
pub(crate) mod table;
