//! Parquet modular encryption: keys, encrypted parts, and how a table remains encrypted.

pub(crate) mod file_encryption;
pub(crate) mod keyring;
pub(crate) mod table;

pub use file_encryption::{FileEncryption, FileKey, FileKeys, FilePart};
