//! A store that takes the same time for every request, for tests of how many requests of a job wait for each other.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use biscuit_journal::TableStorage;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::time::{Instant, sleep};

/// Objects of a page of a listing, and of a request that deletes several, as on S3.
const PAGE: usize = 1000;

/// Real time of a request, in several pauses. Other threads work meanwhile, for example encode rows, so that their work
/// takes no virtual time. Without this, the virtual clock would advance as soon as all tasks wait, and requests that such work
/// sends would seem to wait for other ones.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSES: usize = 4;

/// The virtual time of a request. Timers of tokio have a resolution of a millisecond, which this makes negligible.
const LATENCY: Duration = Duration::from_secs(1);

/// Requests of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestDepth {
    /// Length of the longest chain of requests of which each waits for the one before.
    pub depth: u64,
    /// Number of requests.
    pub requests: u64,
}

/// Runs a job on a storage where every request takes the same time, and returns its requests. The time is virtual: the
/// test takes a few milliseconds for each request.
///
/// A listing has a request for each 1,000 objects, and a deletion of several objects one for each 1,000. An upload in
/// parts has one to begin, one for each part, and one to complete. Ranges of one object are read side by side.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::TableStorage;
/// use biscuit_testkit::request_depth;
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let storage = TableStorage::durable(Arc::new(InMemory::new()));
/// let (_, found) = request_depth(&storage, async |storage| {
///     let [a, b, c] = ["a", "b", "c"].map(Path::from);
///     let (first, second) = futures::join!(storage.store.put(&a, "1".into()), storage.store.put(&b, "2".into()));
///     first.and(second).expect("the objects are stored");
///     storage.store.put(&c, "3".into()).await.expect("the object is stored");
/// })
/// .await;
/// assert_eq!((found.depth, found.requests), (2, 3));
/// # }
/// ```
///
/// # Panics
/// If the clock of tokio is not paused (`#[tokio::test(start_paused = true)]`).
pub async fn request_depth<T>(storage: &TableStorage, job: impl AsyncFnOnce(TableStorage) -> T) -> (T, RequestDepth) {
    let store = LatencyStore::new(storage.store.clone(), LATENCY);
    let wall = std::time::Instant::now();
    let start = Instant::now();
    let done = job(storage.with_store(Arc::new(store.clone()))).await;
    let took = start.elapsed();
    let requests = store.requests();
    assert!(requests == 0 || took > wall.elapsed(), "the clock is not paused: `#[tokio::test(start_paused = true)]`");
    (done, RequestDepth { depth: took.as_secs() / LATENCY.as_secs(), requests })
}

/// A store that forwards every request to `inner` after a fixed time. Clones share the count of requests.
#[derive(Debug, Clone)]
pub struct LatencyStore {
    inner: Arc<dyn ObjectStore>,
    latency: Duration,
    requests: Arc<AtomicU64>,
}

impl LatencyStore {
    /// Creates a slow store in front of `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, latency: Duration) -> Self {
        Self { inner, latency, requests: Arc::default() }
    }

    /// Returns the number of requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    async fn request(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        for _ in 0..PAUSES {
            // Other tasks begin or go on with their work before each pause.
            tokio::task::yield_now().await;
            std::thread::sleep(PAUSE);
        }
        sleep(self.latency).await;
    }

    /// A listing whose pages take the time of a request each. A listing without objects has one page.
    fn in_pages(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let first = futures::stream::once({
            let store = store.clone();
            async move { store.request().await }
        })
        .filter_map(|()| async { None });
        let rest = listing.enumerate().then(move |(n, object)| {
            let store = store.clone();
            async move {
                if n > 0 && n % PAGE == 0 {
                    store.request().await;
                }
                object
            }
        });
        first.chain(rest).boxed()
    }
}

impl fmt::Display for LatencyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slow {}", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for LatencyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.request().await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.request().await;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(SlowUpload { inner, store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request().await;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.request().await;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let batches = locations.chunks(PAGE).then(move |batch| {
            let store = store.clone();
            async move {
                store.request().await;
                store.inner.delete_stream(futures::stream::iter(batch).boxed())
            }
        });
        batches.flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.in_pages(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.in_pages(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request().await;
        let found = self.inner.list_with_delimiter(prefix).await?;
        for _ in 0..(found.objects.len() + found.common_prefixes.len()) / PAGE {
            self.request().await;
        }
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request().await;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.request().await;
        self.inner.rename_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct SlowUpload {
    inner: Box<dyn MultipartUpload>,
    store: LatencyStore,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for SlowUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, part) = (self.store.clone(), self.inner.put_part(data));
        Box::pin(async move {
            store.request().await;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.request().await;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.request().await;
        self.inner.abort().await
    }
}
