//! Opens what a policy on personal data refers to: key files, KMS keys and token stores.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::{Error, Result};
use biscuit_dataset::OpenLocation;
use biscuit_job::PiiResolver;
use biscuit_journal::store_error;
use biscuit_pii::{KeyFile, KeyProvider, KeyWrapping, PiiContext, Policy};
use biscuit_pii_aws::{DynamoStore, KmsKeyProvider};
use object_store::ObjectStoreExt;

use crate::environment::stores::StoreOpener;

/// Resolver of policies whose key files, KMS keys and stores may be on AWS.
#[derive(Debug)]
pub(crate) struct CliPiiResolver(pub(crate) Arc<StoreOpener>);

#[async_trait]
impl PiiResolver for CliPiiResolver {
    async fn open(&self, policy: &Policy, folder: &Path) -> Result<PiiContext> {
        let mut means = PiiContext::new();
        if let Some(keys) = &policy.keys {
            let file = key_file(keys, folder, &self.0).await?;
            let provider = provider(&file, &self.0).await?;
            means = means.with_roots(file.roots(&*provider).await?).with_provider(provider);
        }
        if let Some(table) = policy.dynamodb() {
            return Ok(means.with_store(Arc::new(self.0.dynamodb(table).await)));
        }
        Ok(match policy.file_store(folder).await? {
            Some(store) => means.with_store(Arc::new(store)),
            None => means,
        })
    }
}

/// Maximum size of a key file in bytes. A larger object is not a key file, and is not fetched.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a key file from a path relative to `folder`, or from a URL.
pub(crate) async fn key_file(place: &str, folder: &Path, stores: &StoreOpener) -> Result<KeyFile> {
    if !place.contains("://") {
        return KeyFile::open(&folder.join(place));
    }
    let location = stores.open(place).await?;
    let failed = |e| store_error("read", location.path(), e).in_file(place);
    let object = location.storage().store.get(location.path()).await.map_err(failed)?;
    // The size is known before the content is fetched.
    if object.meta.size > MOST_BYTES {
        let message = format!("the key file has more than {MOST_BYTES} bytes; check its name");
        return Err(Error::usage("InvalidKeyFile", message).in_file(place));
    }
    let bytes = object.bytes().await.map_err(failed)?;
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|_| Error::usage("InvalidKeyFile", "the key file is not UTF-8 text").in_file(place))?;
    KeyFile::parse(text).map_err(|e| e.in_file(place))
}

/// Returns the provider that seals and opens the root keys of a key file.
pub(crate) async fn provider(file: &KeyFile, stores: &StoreOpener) -> Result<Arc<dyn KeyProvider>> {
    match file.wrapping() {
        KeyWrapping::Kms(key) => Ok(Arc::new(stores.kms(key).await)),
        KeyWrapping::Local(keys) => Ok(Arc::new(keys.clone())),
        _ => Err(Error::usage(
            "InvalidKeyFile",
            "the key file is sealed by a method that this version of `biscuit` does not support",
        )),
    }
}

impl StoreOpener {
    /// Returns a provider for a KMS key.
    pub(crate) async fn kms(&self, key: &str) -> KmsKeyProvider {
        KmsKeyProvider::new(aws_sdk_kms::Client::new(self.sdk_config().await), key)
    }

    /// Returns the token store in a DynamoDB table.
    pub(crate) async fn dynamodb(&self, table: &str) -> DynamoStore {
        DynamoStore::new(aws_sdk_dynamodb::Client::new(self.sdk_config().await), table)
    }
}
