//! Keys: root keys and their file, key providers, and the cache of data keys.

pub(crate) mod cache;
pub(crate) mod key_file;
pub(crate) mod parquet_keys;
pub(crate) mod provider;
pub(crate) mod roots;
pub(crate) mod secret;
pub(crate) mod wrapping;

pub use cache::{KeyCache, KeyLimits};
pub use key_file::{KeyFile, KeyWrapping};
pub use parquet_keys::{ParquetKey, ParquetKeys, ParquetPart};
pub use provider::{DataKey, KeyContext, KeyProvider, SealedKey};
pub use roots::RootKeys;
pub use secret::KeyBytes;
pub use wrapping::WrappingKeys;
