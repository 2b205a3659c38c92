use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use biscuit_core::{Error, Result};
use biscuit_dataset::encryption::{FileEncryption, FileKey, FileKeys, FilePart};
use zeroize::Zeroizing;

/// Keys for encrypted Parquet files, in memory. A file can be read with the instance that it was written with, or
/// with a clone of it.
#[derive(Debug, Clone, Default)]
pub struct MemoryKeys(Arc<Mutex<GivenKeys>>);

#[derive(Default)]
struct GivenKeys {
    keys: HashMap<Vec<u8>, Zeroizing<Vec<u8>>>,
    asked: u64,
}

impl std::fmt::Debug for GivenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

impl MemoryKeys {
    /// Creates an instance without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an encryption that encrypts `columns` in new files.
    pub fn encrypting<S: Into<String>>(&self, columns: impl IntoIterator<Item = S>) -> FileEncryption {
        FileEncryption::new(Arc::new(self.clone())).with_columns(columns)
    }

    /// Adds the key of a file of another writer, with its key metadata.
    pub fn insert(&self, metadata: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) {
        self.lock_keys().keys.insert(metadata.into(), Zeroizing::new(key.into()));
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.lock_keys().keys.len()
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how often a key of a file was requested.
    pub fn request_count(&self) -> u64 {
        self.lock_keys().asked
    }

    fn lock_keys(&self) -> std::sync::MutexGuard<'_, GivenKeys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FileKeys for MemoryKeys {
    async fn new_key(&self, of: FilePart) -> Result<FileKey> {
        let mut given = self.lock_keys();
        let number = given.keys.len() as u64;
        // A distinct key of 32 bytes for each number; the multiplier is that of Fibonacci hashing.
        let key: Vec<u8> = (0..4).flat_map(|i: u64| (number.wrapping_mul(0x9e37_79b9) + i).to_be_bytes()).collect();
        let metadata = format!("{of:?} {number}").into_bytes();
        given.keys.insert(metadata.clone(), Zeroizing::new(key.clone()));
        Ok(FileKey { key: Zeroizing::new(key), metadata })
    }

    async fn key(&self, metadata: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let mut given = self.lock_keys();
        given.asked += 1;
        given.keys.get(metadata).cloned().ok_or_else(|| {
            let name = String::from_utf8_lossy(metadata);
            Error::new(biscuit_core::codes::UNKNOWN_KEY, format!("there is no key `{name}`"))
        })
    }
}
