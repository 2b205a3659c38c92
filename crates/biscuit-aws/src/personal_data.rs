//! Keys, token stores and detectors for personal data, in AWS services and in files.

use std::path::Path;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::OpenLocation;
use biscuit_dataset::encryption::FileEncryption;
use biscuit_job::TableKeys;
use biscuit_journal::store_error;
use biscuit_pii::keys::{KeyFile, KeyProvider, KeyWrapping};
use biscuit_pii::{PiiContext, Policy};
use biscuit_pii_aws::{DynamoStore, KmsKeyProvider};
use object_store::ObjectStoreExt;

use crate::environment::AwsEnvironment;

/// Maximum size of a key file in bytes. A larger object is not a key file, and is not fetched.
const MOST_BYTES: u64 = 1 << 20;

/// Personal data: key files, KMS keys, token stores in DynamoDB, and Comprehend. These methods need the feature `lake`.
/// Requests to KMS, DynamoDB and Comprehend are not counted.
impl AwsEnvironment {
    /// Opens a policy whose key file, KMS key and token store may be on AWS. Paths are relative to `folder`.
    pub(crate) async fn pii_context(&self, policy: &Policy, folder: &Path) -> Result<PiiContext> {
        let mut context = PiiContext::new();
        if let Some(keys) = &policy.keys {
            let file = self.key_file(keys, folder).await?;
            let provider = self.key_provider(&file).await?;
            context = context.with_roots(file.roots(&*provider).await?).with_provider(provider);
        }
        if let Some(table) = policy.dynamodb() {
            return Ok(context.with_store(Arc::new(self.dynamodb(table).await)));
        }
        Ok(match policy.file_store(folder).await? {
            Some(store) => context.with_store(Arc::new(store)),
            None => context,
        })
    }

    /// Reads a key file from a path relative to `folder`, or from a URL.
    ///
    /// # Errors
    /// `InvalidKeyFile` for a file that is not a key file or has more than 1 MiB, and errors of the store.
    pub async fn key_file(&self, url: &str, folder: &Path) -> Result<KeyFile> {
        if !url.contains("://") {
            return KeyFile::open(&folder.join(url));
        }
        let location = self.open(url).await?;
        let failed = |e| store_error("read", location.path(), e).in_file(url);
        let object = location.storage().store.get(location.path()).await.map_err(failed)?;
        // The size is known before the content is fetched.
        if object.meta.size > MOST_BYTES {
            let message = format!("the key file has more than {MOST_BYTES} bytes; check its name");
            return Err(Error::new(biscuit_pii::codes::INVALID_KEY_FILE, message).in_file(url));
        }
        let bytes = object.bytes().await.map_err(failed)?;
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| {
            Error::new(biscuit_pii::codes::INVALID_KEY_FILE, "the key file is not UTF-8 text").in_file(url)
        })?;
        KeyFile::parse(text).map_err(|e| e.in_file(url))
    }

    /// Returns the provider that seals and opens the root keys of a key file: a KMS key, or the keys in the file.
    ///
    /// # Errors
    /// `InvalidKeyFile` if the file is sealed by a method that this version does not support.
    pub async fn key_provider(&self, file: &KeyFile) -> Result<Arc<dyn KeyProvider>> {
        match file.wrapping() {
            KeyWrapping::Kms(key) => Ok(Arc::new(self.kms(key).await)),
            KeyWrapping::Local(keys) => Ok(Arc::new(keys.clone())),
            _ => Err(Error::new(
                biscuit_pii::codes::INVALID_KEY_FILE,
                "the key file is sealed by a method that this version of `biscuit` does not support",
            )),
        }
    }

    /// Returns the keys for encrypted Parquet files from a key file: a path, or a URL.
    ///
    /// # Errors
    /// As [`key_file`](Self::key_file) and [`key_provider`](Self::key_provider).
    pub async fn file_encryption(&self, url: &str) -> Result<FileEncryption> {
        let file = self.key_file(url, Path::new("")).await?;
        Ok(TableKeys::encryption(self.key_provider(&file).await?))
    }

    /// Returns a provider for a KMS key, by its id, ARN or alias.
    pub async fn kms(&self, key: &str) -> KmsKeyProvider {
        KmsKeyProvider::new(aws_sdk_kms::Client::new(self.sdk_config().await), key)
    }

    /// Returns the token store in a DynamoDB table.
    pub async fn dynamodb(&self, table: &str) -> DynamoStore {
        DynamoStore::new(aws_sdk_dynamodb::Client::new(self.sdk_config().await), table)
    }

    /// Returns a client of Amazon Comprehend, for a `ComprehendDetector` of biscuit-pii-aws.
    pub async fn comprehend(&self) -> aws_sdk_comprehend::Client {
        aws_sdk_comprehend::Client::new(self.sdk_config().await)
    }
}
