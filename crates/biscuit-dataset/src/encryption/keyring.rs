use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use biscuit_core::Result;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use zeroize::Zeroizing;

use crate::encryption::file_encryption::{FileEncryption, no_keys};
use crate::engine_error::parquet_error;

/// Returns the options with which the Parquet library reads a file in memory, whose footer may be encrypted.
///
/// # Errors
/// `NoFileKeys`, `UnreadableParquet`, and the errors of the keys.
pub async fn reader_options(bytes: &Bytes, place: &str, keys: Option<&FileEncryption>) -> Result<ArrowReaderOptions> {
    let options = ArrowReaderOptions::new();
    if !bytes.ends_with(ENCRYPTED_FOOTER) {
        return Ok(options);
    }
    let Some(keys) = keys else { return Err(no_keys(place, None)) };
    let keyring = FileKeyring::new(place, keys)?;
    // A failed call records the missing keys. The loop ends when a call missed no key; each round fetches at least
    // one.
    loop {
        let reader = ParquetMetaDataReader::new().with_decryption_properties(Some(keyring.properties.clone()));
        let parsed = reader.parse_and_finish(bytes);
        if !keyring.fetch_missing().await? {
            let options = options.with_file_decryption_properties(keyring.properties.clone());
            return parsed.map(|_| options).map_err(|e| parquet_error(place, e));
        }
    }
}

/// Magic bytes at the end of a Parquet file with an encrypted footer.
pub(crate) const ENCRYPTED_FOOTER: &[u8] = b"PARE";

/// Keys of one file. The Parquet library asks for keys in a synchronous call. A missing key is recorded and fails the
/// call; the caller then fetches it and reads the file again.
pub(crate) struct FileKeyring<'a> {
    place: &'a str,
    keys: &'a FileEncryption,
    fetched: Arc<FetchedKeys>,
    /// Decryption properties for the Parquet library.
    pub(crate) properties: Arc<FileDecryptionProperties>,
}

#[derive(Default)]
struct FetchedKeys(Mutex<KeysByMetadata>);

#[derive(Default)]
struct KeysByMetadata {
    held: HashMap<Vec<u8>, Zeroizing<Vec<u8>>>,
    missing: BTreeSet<Vec<u8>>,
}

impl<'a> FileKeyring<'a> {
    pub(crate) fn new(place: &'a str, keys: &'a FileEncryption) -> Result<Self> {
        let fetched = Arc::new(FetchedKeys::default());
        let properties = FileDecryptionProperties::with_key_retriever(fetched.clone()).build();
        let properties = properties.map_err(|e| parquet_error(place, e))?;
        Ok(Self { place, keys, fetched, properties })
    }

    /// Fetches the recorded missing keys. Returns whether there were any, so that the file must be read again.
    pub(crate) async fn fetch_missing(&self) -> Result<bool> {
        let missing = std::mem::take(&mut self.fetched.keys().missing);
        let any = !missing.is_empty();
        for metadata in missing {
            let key = self.keys.keys().key(&metadata).await.map_err(|e| e.in_file(self.place))?;
            self.fetched.keys().held.insert(metadata, key);
        }
        Ok(any)
    }
}

impl FetchedKeys {
    fn keys(&self) -> MutexGuard<'_, KeysByMetadata> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyRetriever for FetchedKeys {
    fn retrieve_key(&self, metadata: &[u8]) -> parquet::errors::Result<Vec<u8>> {
        let mut keys = self.keys();
        if let Some(key) = keys.held.get(metadata) {
            return Ok(key.to_vec());
        }
        keys.missing.insert(metadata.to_vec());
        Err(ParquetError::General("the key is not fetched yet".to_owned()))
    }
}
