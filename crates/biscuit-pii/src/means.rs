use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use biscuit_core::{Error, Result};

use crate::detector::Detector;
use crate::keys::key_file::{KeyFile, KeyWrapping};
use crate::keys::provider::KeyProvider;
use crate::keys::roots::RootKeys;
use crate::policy::Policy;
use crate::tokens::embedded::FileStore;
use crate::tokens::store::TokenStore;

/// What a policy works with. What a policy does not need, need not be there.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PiiContext {
    /// Root keys.
    pub roots: Option<RootKeys>,
    /// Where data keys of messages come from.
    pub provider: Option<Arc<dyn KeyProvider>>,
    /// Where tokens and keys of subjects are kept.
    pub store: Option<Arc<dyn TokenStore>>,
    /// Detectors besides the usual ones.
    pub detectors: Vec<Arc<dyn Detector>>,
}

impl PiiContext {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with root keys.
    pub fn with_roots(mut self, roots: RootKeys) -> Self {
        self.roots = Some(roots);
        self
    }

    /// The same with a key provider for messages.
    pub fn with_provider(mut self, provider: Arc<dyn KeyProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// The same with a store.
    pub fn with_store(mut self, store: Arc<dyn TokenStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// The same with one more detector.
    pub fn with_detector(mut self, detector: Arc<dyn Detector>) -> Self {
        self.detectors.push(detector);
        self
    }

    pub(crate) fn roots(&self, path: &str) -> Result<RootKeys> {
        self.roots.clone().ok_or_else(|| {
            let message =
                format!("column `{path}` needs keys, and [pii] names no key file; `biscuit pii keygen` makes one");
            Error::usage("NoKeys", message).with_column(path)
        })
    }

    pub(crate) fn store(&self, path: &str) -> Result<Arc<dyn TokenStore>> {
        self.store.clone().ok_or_else(|| {
            let message = format!("column `{path}` needs a store, and [pii] names none: `store = \"tokens.redb\"`");
            Error::usage("NoStore", message).with_column(path)
        })
    }
}

impl PiiContext {
    /// What a policy names on this machine: its key file, and its store in a file.
    ///
    /// # Errors
    /// `NeedsAws` for keys of KMS and stores in DynamoDB; those of [`Policy::key_file`] and [`Policy::file_store`].
    pub async fn open_local(policy: &Policy, folder: &Path) -> Result<Self> {
        let mut means = Self::new();
        if let Some(file) = policy.key_file(folder)? {
            let KeyWrapping::Local(provider) = file.wrapping() else {
                return Err(needs_aws("the key file names a key of KMS"));
            };
            means = means.with_roots(file.roots(provider).await?).with_provider(Arc::new(provider.clone()));
        }
        if policy.dynamodb().is_some() {
            return Err(needs_aws("the store is in DynamoDB"));
        }
        Ok(match policy.file_store(folder).await? {
            Some(store) => means.with_store(Arc::new(store)),
            None => means,
        })
    }
}

fn needs_aws(what: &str) -> Error {
    Error::usage("NeedsAws", format!("{what}, which biscuit-pii-aws opens"))
}

/// What the name of a table of DynamoDB stands behind.
const DYNAMODB: &str = "dynamodb:";
/// How long a store that another process has is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

impl Policy {
    /// The table of DynamoDB that is its store, if it is one.
    pub fn dynamodb(&self) -> Option<&str> {
        self.store.as_deref()?.strip_prefix(DYNAMODB)
    }

    /// Its key file, if it names one: a path, relative to a folder.
    ///
    /// # Errors
    /// Those of [`KeyFile::open`].
    pub fn key_file(&self, folder: &Path) -> Result<Option<KeyFile>> {
        self.keys.as_ref().map(|keys| KeyFile::open(&folder.join(keys))).transpose()
    }

    /// Its store, if it is a file: a path, relative to a folder. Another process that has it is waited for, half a minute.
    ///
    /// # Errors
    /// `InvalidPolicy` for a URL; those of [`FileStore::open`].
    pub async fn file_store(&self, folder: &Path) -> Result<Option<FileStore>> {
        let Some(store) = self.store.as_ref().filter(|_| self.dynamodb().is_none()) else { return Ok(None) };
        if store.contains("://") {
            let message =
                format!("`{store}` is no store of tokens: name a file on this machine, or `dynamodb:` and a table");
            return Err(Error::usage("InvalidPolicy", message));
        }
        FileStore::open(folder.join(store), PATIENCE).await.map(Some)
    }
}
