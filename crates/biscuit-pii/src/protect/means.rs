//! The keys, the store and the detectors that a policy works with, and how to open those that are on this machine.

use std::path::Path;
use std::sync::Arc;

use biscuit_core::{Error, Result};

use crate::codes;
use crate::detect::detector::Detector;
use crate::keys::key_file::KeyWrapping;
use crate::keys::provider::KeyProvider;
use crate::keys::roots::RootKeys;
use crate::policy::Policy;
use crate::tokens::store::TokenStore;

/// Keys, store and detectors that a policy works with. Each part is optional;
/// [`Protector::new`](crate::Protector::new) returns an error if a treatment needs a part that is missing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct PiiContext {
    /// Root keys of hashes, tokens and encrypted columns.
    pub roots: Option<RootKeys>,
    /// Provider of data keys, for messages and for Parquet encryption.
    pub provider: Option<Arc<dyn KeyProvider>>,
    /// Store of tokens and of subject keys.
    pub store: Option<Arc<dyn TokenStore>>,
    /// Detectors in addition to the default ones.
    pub detectors: Vec<Arc<dyn Detector>>,
}

impl PiiContext {
    /// Creates a context without keys, store and additional detectors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the root keys of hashes, tokens and encrypted columns.
    pub fn with_roots(mut self, roots: RootKeys) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Sets the provider of data keys, for messages and for Parquet encryption.
    pub fn with_provider(mut self, provider: Arc<dyn KeyProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Sets the store of tokens and of subject keys.
    pub fn with_store(mut self, store: Arc<dyn TokenStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Adds a detector to the default ones.
    pub fn with_detector(mut self, detector: Arc<dyn Detector>) -> Self {
        self.detectors.push(detector);
        self
    }

    pub(crate) fn load_roots(&self, path: &str) -> Result<RootKeys> {
        self.roots.clone().ok_or_else(|| {
            let message = format!(
                "column `{path}` needs keys; set `keys` in [pii] to a key file, which `biscuit pii keygen` creates"
            );
            Error::new(codes::NO_KEYS, message).with_column(path)
        })
    }

    pub(crate) fn open_store(&self, path: &str) -> Result<Arc<dyn TokenStore>> {
        self.store.clone().ok_or_else(|| {
            let message = format!("column `{path}` needs a store; set one in [pii], such as `store = \"tokens.redb\"`");
            Error::new(codes::NO_STORE, message).with_column(path)
        })
    }

    /// Opens the key file and the file store that a policy names. Relative paths are relative to `folder`.
    ///
    /// # Errors
    /// `NeedsAws` if the keys are in KMS or the store is in DynamoDB; the errors of [`Policy::key_file`] and
    /// [`Policy::file_store`].
    pub async fn open_local(policy: &Policy, folder: &Path) -> Result<Self> {
        let mut means = Self::new();
        if let Some(file) = policy.key_file(folder)? {
            let KeyWrapping::Local(provider) = file.wrapping() else {
                return Err(needs_aws("the root keys are sealed by a KMS key"));
            };
            means = means.with_roots(file.roots(provider).await?).with_provider(Arc::new(provider.clone()));
        }
        if policy.dynamodb_table().is_some() {
            return Err(needs_aws("the token store is in DynamoDB"));
        }
        Ok(match policy.file_store(folder).await? {
            Some(store) => means.with_store(Arc::new(store)),
            None => means,
        })
    }
}

fn needs_aws(what: &str) -> Error {
    Error::new(codes::NEEDS_AWS, format!("{what}; open it with biscuit-pii-aws"))
}
