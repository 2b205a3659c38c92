//! Keys: root keys and their file, key providers, and the cache of data keys.

pub(crate) mod cache;
pub(crate) mod key_file;
pub(crate) mod parquet_keys;
pub(crate) mod provider;
pub(crate) mod roots;
pub(crate) mod secret;
pub(crate) mod wrapping;
