//! Listings of several pages, which show parts of the folder at different times.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::table::{journal, memory, set};

/// A store whose listings omit objects that end in one of these texts, as if they were written after their page was
/// listed.
#[derive(Debug, Clone)]
struct SlowListing {
    inner: Arc<dyn ObjectStore>,
    unlisted: Arc<Mutex<Vec<String>>>,
}

impl fmt::Display for SlowListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slow {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for SlowListing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let unlisted = self.unlisted.lock().expect("no holder of this lock panics").clone();
        let shown = move |object: &ObjectMeta| !unlisted.iter().any(|name| object.location.as_ref().ends_with(name));
        self.inner.list(prefix).try_filter(move |object| std::future::ready(shown(object))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn version_that_was_not_listed_is_read_by_its_name() {
    let storage = memory();
    for text in ["one", "two", "three"] {
        set(&journal(&storage), text).await.expect("the commit succeeds");
    }
    let whole = journal(&storage).head().await.expect("the head can be read");
    for unlisted in [vec!["2.done"], vec!["2.json"], vec!["1.done", "2.done"], vec!["1.json", "1.done", "2.json"]] {
        let slow = SlowListing {
            inner: storage.store.clone(),
            unlisted: Arc::new(Mutex::new(unlisted.iter().map(|name| (*name).to_owned()).collect())),
        };
        let j = journal(&storage.with_store(Arc::new(slow)));
        assert_eq!(j.head().await.expect("the head can be read"), whole, "{unlisted:?}");
        assert_eq!(j.view().await.expect("the table can be read").files.len(), 1, "{unlisted:?}");
    }
}

#[tokio::test]
async fn lost_version_is_diverged() {
    for lost in ["2.done", "2.json"] {
        let storage = memory();
        for text in ["one", "two", "three"] {
            set(&journal(&storage), text).await.expect("the commit succeeds");
        }
        let path = Path::from(format!("lake/.biscuit/t/journal/{:0>25}", lost));
        storage
            .store
            .delete_stream(futures::stream::iter([Ok(path)]).boxed())
            .try_collect::<Vec<_>>()
            .await
            .expect("the object is deleted");
        assert_eq!(journal(&storage).head().await.unwrap_err().code(), "Diverged", "{lost}");
    }
}

#[tokio::test]
async fn record_with_an_impossible_version_is_diverged_at_once() {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    crate::table::put(&storage, "lake/.biscuit/t/journal/18446744073709551615.json", "{}").await;
    assert_eq!(journal(&storage).head().await.unwrap_err().code(), "Diverged");
}
