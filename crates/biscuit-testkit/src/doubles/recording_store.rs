//! A store that records its calls, for tests of their order.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use biscuit_journal::{TableStorage, WriteDurability};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// Calls that a store received, in order, each as `verb path`. The verbs are `put`, `create` (put-if-absent),
/// `update`, `upload`, `get`, `head`, `delete`, `list` and `copy from to`; with [`RecordingStore::storage`] also
/// `sync` and `sync-folder`.
#[derive(Debug, Clone, Default)]
pub struct StoreCalls(Vec<String>);

impl StoreCalls {
    /// Returns all calls.
    pub fn all(&self) -> &[String] {
        &self.0
    }

    /// Returns the calls that contain `text`.
    pub fn with(&self, text: &str) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|c| c.contains(text)).collect()
    }

    /// Returns whether there is a call that contains `first`, and no call that contains `then` came before it.
    pub fn before(&self, first: &str, then: &str) -> bool {
        let at = |text: &str| self.0.iter().position(|c| c.contains(text));
        match (at(first), at(then)) {
            (Some(f), Some(t)) => f < t,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

/// A store that forwards every call to `inner` and records it. Clones share the list of calls.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_testkit::RecordingStore;
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> object_store::Result<()> {
/// let store = RecordingStore::new(Arc::new(InMemory::new()));
/// store.put(&Path::from("old"), "1".into()).await?;
/// store.put(&Path::from("new"), "2".into()).await?;
/// store.delete(&Path::from("old")).await?;
/// assert_eq!(store.calls().all(), ["put old", "put new", "delete old"]);
/// assert!(store.calls().before("put new", "delete old"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RecordingStore {
    inner: Arc<dyn ObjectStore>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl RecordingStore {
    /// Creates a recorder in front of `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, calls: Arc::default() }
    }

    /// Creates a recorder in front of a storage, and the recorded storage. `sync path` and `sync-folder path` are
    /// recorded as well.
    pub fn storage(storage: &TableStorage) -> (Self, TableStorage) {
        let recorder = Self::new(storage.store.clone());
        let durability = Arc::new(RecordedDurability { inner: storage.durability.clone(), recorder: recorder.clone() });
        let recorded = TableStorage::new(Arc::new(recorder.clone()), durability);
        (recorder, recorded)
    }

    /// Returns the calls so far.
    pub fn calls(&self) -> StoreCalls {
        StoreCalls(self.calls.lock().expect("no holder of this lock panics").clone())
    }

    fn record_call(&self, call: String) {
        self.calls.lock().expect("no holder of this lock panics").push(call);
    }
}

#[derive(Debug)]
struct RecordedDurability {
    inner: Arc<dyn WriteDurability>,
    recorder: RecordingStore,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl WriteDurability for RecordedDurability {
    async fn sync_file(&self, path: &Path) -> biscuit_core::Result<()> {
        // Recorded after the sync, so that a recorded sync is one that succeeded.
        self.inner.sync_file(path).await?;
        self.recorder.record_call(format!("sync {path}"));
        Ok(())
    }

    async fn sync_folder_of(&self, path: &Path) -> biscuit_core::Result<()> {
        self.inner.sync_folder_of(path).await?;
        let parts: Vec<_> = path.parts().collect();
        let folder = Path::from_iter(parts[..parts.len().saturating_sub(1)].iter().cloned());
        self.recorder.record_call(format!("sync-folder {folder}"));
        Ok(())
    }

    fn is_immediate(&self) -> bool {
        self.inner.is_immediate()
    }

    async fn copy(&self, from: &Path, to: &Path) -> Option<object_store::Result<()>> {
        let copied = self.inner.copy(from, to).await?;
        self.recorder.record_call(format!("copy {from} {to}"));
        Some(copied)
    }

    async fn is_spelled_so(&self, path: &Path, root: &Path) -> biscuit_core::Result<bool> {
        self.inner.is_spelled_so(path, root).await
    }

    async fn link_below(&self, folder: &Path) -> biscuit_core::Result<Option<Path>> {
        self.inner.link_below(folder).await
    }

    async fn remove_folders(
        &self,
        root: &Path,
        dead: &(dyn for<'a> Fn(&'a str) -> bool + Send + Sync),
    ) -> biscuit_core::Result<()> {
        self.inner.remove_folders(root, dead).await
    }
}

impl fmt::Display for RecordingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recording {}", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for RecordingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let verb = match opts.mode {
            PutMode::Overwrite => "put",
            PutMode::Create => "create",
            PutMode::Update(_) => "update",
        };
        self.record_call(format!("{verb} {location}"));
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.record_call(format!("upload {location}"));
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.record_call(format!("{} {location}", if options.head { "head" } else { "get" }));
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.record_call(format!("get {location}"));
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let calls = self.calls.clone();
        let noted = locations.inspect(move |l| {
            if let Ok(l) = l {
                calls.lock().expect("no holder of this lock panics").push(format!("delete {l}"));
            }
        });
        self.inner.delete_stream(noted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.record_call(format!("list {}", prefix.map(Path::as_ref).unwrap_or_default()));
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.record_call(format!("list {}", prefix.map(Path::as_ref).unwrap_or_default()));
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.record_call(format!("list {}", prefix.map(Path::as_ref).unwrap_or_default()));
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.record_call(format!("copy {from} {to}"));
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.record_call(format!("rename {from} {to}"));
        self.inner.rename_opts(from, to, options).await
    }
}
