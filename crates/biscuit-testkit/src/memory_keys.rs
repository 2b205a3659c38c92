use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use biscuit_core::{Error, Result};
use biscuit_dataset::{FileEncryption, FileKey, FileKeys, FilePart};
use zeroize::Zeroizing;

/// Keys of encrypted Parquet files that are in memory alone: what was written with them opens with the same ones, and with no others.
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
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a dataset is to have, which encrypts these columns of new files.
    pub fn encrypting<S: Into<String>>(&self, columns: impl IntoIterator<Item = S>) -> FileEncryption {
        FileEncryption::new(Arc::new(self.clone())).with_columns(columns)
    }

    /// A key that a file of another writer has, and what it says of it.
    pub fn insert(&self, metadata: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) {
        self.given().keys.insert(metadata.into(), Zeroizing::new(key.into()));
    }

    /// How many keys were made or put in.
    pub fn len(&self) -> usize {
        self.given().keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a key of a file was asked for.
    pub fn asked(&self) -> u64 {
        self.given().asked
    }

    fn given(&self) -> std::sync::MutexGuard<'_, GivenKeys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FileKeys for MemoryKeys {
    async fn new_key(&self, of: FilePart) -> Result<FileKey> {
        let mut given = self.given();
        let number = given.keys.len() as u64;
        let key: Vec<u8> = (0..4).flat_map(|i: u64| (number.wrapping_mul(0x9e37_79b9) + i).to_be_bytes()).collect();
        let metadata = format!("{of:?} {number}").into_bytes();
        given.keys.insert(metadata.clone(), Zeroizing::new(key.clone()));
        Ok(FileKey { key: Zeroizing::new(key), metadata })
    }

    async fn key(&self, metadata: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let mut given = self.given();
        given.asked += 1;
        given.keys.get(metadata).cloned().ok_or_else(|| {
            let message = String::from_utf8_lossy(metadata);
            Error::usage("UnknownKey", format!("there is no key `{message}`"))
        })
    }
}
