//! Counts the requests to a store of object_store.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use crate::requests::counts::{RequestCounters, add_to};

/// Wrapper that counts the requests to a store. A listing counts once, whatever its number of pages. Each deleted
/// object counts once.
#[derive(Debug)]
pub(crate) struct MeteredStore {
    inner: Arc<dyn ObjectStore>,
    counts: Arc<RequestCounters>,
}

impl MeteredStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, counts: Arc<RequestCounters>) -> Self {
        Self { inner, counts }
    }
}

impl fmt::Display for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Multipart upload that counts its parts and its completion as puts.
#[derive(Debug)]
struct MeteredUpload {
    inner: Box<dyn MultipartUpload>,
    counts: Arc<RequestCounters>,
}

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        add_to(&self.counts.put, 1);
        add_to(&self.counts.written, data.content_length() as u64);
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        add_to(&self.counts.put, 1);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[async_trait]
// A method with a default implementation would call other methods of this wrapper, and count a request twice.
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for MeteredStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        add_to(&self.counts.put, 1);
        add_to(&self.counts.written, payload.content_length() as u64);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        add_to(&self.counts.put, 1);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(MeteredUpload { inner, counts: self.counts.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        add_to(if head { &self.counts.head } else { &self.counts.get }, 1);
        let found = self.inner.get_opts(location, options).await?;
        if !head {
            add_to(&self.counts.read, found.range.end - found.range.start);
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        add_to(&self.counts.get, 1);
        let found = self.inner.get_ranges(location, ranges).await?;
        add_to(&self.counts.read, found.iter().map(|b| b.len() as u64).sum());
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let counts = self.counts.clone();
        self.inner.delete_stream(locations.inspect(move |_| add_to(&counts.delete, 1)).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        add_to(&self.counts.list, 1);
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        add_to(&self.counts.list, 1);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        add_to(&self.counts.list, 1);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        add_to(&self.counts.copy, 1);
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        add_to(&self.counts.copy, 1);
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::TryStreamExt;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{GetRange, ObjectStoreExt};

    use super::*;
    use crate::requests::counts::{RequestCounts, RequestsByKind};

    /// A counted store, and the counts since the last look.
    struct CountedStore {
        store: Arc<dyn ObjectStore>,
        counters: Arc<RequestCounters>,
        before: RequestCounts,
    }

    impl CountedStore {
        fn new(inner: Arc<dyn ObjectStore>) -> Self {
            let counters = Arc::new(RequestCounters::default());
            let store = Arc::new(MeteredStore::new(inner, counters.clone()));
            Self { store, counters, before: RequestCounts::default() }
        }

        /// Returns the kinds of the requests since the last look with their numbers, and the bytes read and written.
        fn since(&mut self) -> (Vec<(&'static str, u64)>, u64, u64) {
            let (now, before) = (self.counters.counts(), self.before);
            self.before = now;
            let RequestsByKind { get, head, put, list, delete, copy } = now.requests;
            let b = before.requests;
            let kinds = [
                ("get", get - b.get),
                ("head", head - b.head),
                ("put", put - b.put),
                ("list", list - b.list),
                ("delete", delete - b.delete),
                ("copy", copy - b.copy),
            ];
            let kinds = kinds.into_iter().filter(|(_, n)| *n > 0).collect();
            (kinds, now.bytes_read - before.bytes_read, now.bytes_written - before.bytes_written)
        }
    }

    #[tokio::test]
    async fn each_kind_of_request_counts_once() {
        let mut s = CountedStore::new(Arc::new(InMemory::new()));
        let (a, b) = (Path::from("t/a"), Path::from("t/b"));
        let store = s.store.clone();
        store.put(&a, "0123456789".into()).await.unwrap();
        assert_eq!(s.since(), (vec![("put", 1)], 0, 10));
        store.get(&a).await.unwrap().bytes().await.unwrap();
        assert_eq!(s.since(), (vec![("get", 1)], 10, 0));
        let options = GetOptions { range: Some(GetRange::Suffix(3)), ..GetOptions::default() };
        store.get_opts(&a, options).await.unwrap();
        assert_eq!(s.since(), (vec![("get", 1)], 3, 0));
        store.get_range(&a, 2..6).await.unwrap();
        assert_eq!(s.since(), (vec![("get", 1)], 4, 0));
        store.get_ranges(&a, &[0..1, 5..9]).await.unwrap();
        assert_eq!(s.since(), (vec![("get", 1)], 5, 0));
        store.head(&a).await.unwrap();
        assert_eq!(s.since(), (vec![("head", 1)], 0, 0));
        store.copy(&a, &b).await.unwrap();
        assert_eq!(s.since(), (vec![("copy", 1)], 0, 0));
        store.rename(&b, &Path::from("t/c")).await.unwrap();
        assert_eq!(s.since(), (vec![("copy", 1)], 0, 0));
        store.list(None).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(s.since(), (vec![("list", 1)], 0, 0));
        store.list_with_offset(None, &a).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(s.since(), (vec![("list", 1)], 0, 0));
        store.list_with_delimiter(None).await.unwrap();
        assert_eq!(s.since(), (vec![("list", 1)], 0, 0));
        store.delete(&a).await.unwrap();
        assert_eq!(s.since(), (vec![("delete", 1)], 0, 0));
    }

    #[tokio::test]
    async fn each_deleted_object_and_each_part_of_an_upload_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut s = CountedStore::new(Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap()));
        let path = Path::from("t/large");
        let mut upload = s.store.put_multipart(&path).await.unwrap();
        for part in ["12345", "678"] {
            upload.put_part(part.into()).await.unwrap();
        }
        upload.complete().await.unwrap();
        assert_eq!(s.since(), (vec![("put", 4)], 0, 8), "begin, two parts, complete");
        s.store.put(&Path::from("t/small"), "1".into()).await.unwrap();
        s.since();
        let paths = futures::stream::iter([Ok(path), Ok(Path::from("t/small"))]).boxed();
        s.store.delete_stream(paths).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(s.since(), (vec![("delete", 2)], 0, 0));
    }

    #[tokio::test]
    async fn requests_that_fail_count_and_read_nothing() {
        let mut s = CountedStore::new(Arc::new(InMemory::new()));
        let store = s.store.clone();
        store.get(&Path::from("t/missing")).await.unwrap_err();
        store.head(&Path::from("t/missing")).await.unwrap_err();
        assert_eq!(s.since(), (vec![("get", 1), ("head", 1)], 0, 0));
    }
}
