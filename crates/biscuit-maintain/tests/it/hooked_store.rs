//! A purge store that runs something else between the steps of a purge, such as the commit of another run.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use biscuit_core::Result;
use biscuit_journal::TableStorage;
use biscuit_purge::{
    AnyStore, DeleteOutcome, ListedObject, ListedVersions, MultipartUpload, ObjectListing, PurgeStore, StoreProbe,
};
use futures::future::BoxFuture;

/// Action of another program between two steps. It runs once.
type Hook = Mutex<Option<BoxFuture<'static, ()>>>;

/// A store whose clock may be ahead, so that new objects are old for a purge, and which runs hooks around its first
/// listing.
pub(crate) struct HookedStore {
    inner: AnyStore,
    ahead: Duration,
    before_listing: Hook,
    after_listing: Hook,
    steps: Mutex<Vec<&'static str>>,
}

impl HookedStore {
    /// Creates a store whose clock is an hour ahead. Without that, a purge keeps everything that is modified after its
    /// probe, and that rule would hide a wrong order of listing and journals.
    pub(crate) fn ahead(storage: &TableStorage) -> Self {
        Self { ahead: Duration::from_secs(3600), ..Self::on_time(storage) }
    }

    pub(crate) fn on_time(storage: &TableStorage) -> Self {
        let inner = AnyStore::new(storage.store.clone());
        Self {
            inner,
            ahead: Duration::ZERO,
            before_listing: Mutex::default(),
            after_listing: Mutex::default(),
            steps: Mutex::default(),
        }
    }

    /// Runs `hook` after the probe and before the listing. Objects that it writes are listed.
    pub(crate) fn before_listing(self, hook: impl Future<Output = ()> + Send + 'static) -> Self {
        *self.before_listing.lock().expect("no holder of this lock panics") = Some(Box::pin(hook));
        self
    }

    /// Runs `hook` after the listing and before everything that follows. Objects that it writes are not listed.
    pub(crate) fn after_listing(self, hook: impl Future<Output = ()> + Send + 'static) -> Self {
        *self.after_listing.lock().expect("no holder of this lock panics") = Some(Box::pin(hook));
        self
    }

    /// Returns the calls of the purge so far.
    pub(crate) fn steps(&self) -> Vec<&'static str> {
        self.steps.lock().expect("no holder of this lock panics").clone()
    }

    fn note(&self, step: &'static str) {
        self.steps.lock().expect("no holder of this lock panics").push(step);
    }
}

/// Takes the hook out and runs it. The lock is released before the hook runs.
async fn run(hook: &Hook) {
    let hook = hook.lock().expect("no holder of this lock panics").take();
    if let Some(hook) = hook {
        hook.await;
    }
}

impl fmt::Debug for HookedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookedStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl PurgeStore for HookedStore {
    async fn probe(&self, scratch: &str) -> Result<StoreProbe> {
        self.note("look");
        let look = self.inner.probe(scratch).await?;
        Ok(StoreProbe { now: look.now.saturating_add(self.ahead), ..look })
    }

    async fn list(&self, prefix: &str, versions: ListedVersions) -> Result<ObjectListing> {
        self.note("list");
        run(&self.before_listing).await;
        let listing = self.inner.list(prefix, versions).await;
        run(&self.after_listing).await;
        listing
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Option<Vec<MultipartUpload>>> {
        self.inner.list_uploads(prefix).await
    }

    async fn delete(&self, objects: &[ListedObject]) -> Vec<DeleteOutcome> {
        self.note("delete");
        self.inner.delete(objects).await
    }

    async fn abort_upload(&self, upload: &MultipartUpload) -> DeleteOutcome {
        self.inner.abort_upload(upload).await
    }

    fn batch_size(&self) -> usize {
        self.inner.batch_size()
    }
}

/// Shares a store with the test, which asks it for its steps afterwards.
pub(crate) fn shared(store: HookedStore) -> Arc<HookedStore> {
    Arc::new(store)
}
