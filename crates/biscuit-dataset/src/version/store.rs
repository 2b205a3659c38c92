use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Expected place and content of a file of a snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct PinnedFile {
    /// ETag of the file under its final name. An object with another ETag is another file.
    pub(crate) etag: Option<String>,
    /// Staged name, while the version of the file is not finished.
    pub(crate) staged: Option<Path>,
}

/// A read-only store for the files of one snapshot. A file is read only if it has the ETag of the snapshot. All
/// writes return an error.
#[derive(Debug)]
pub(crate) struct TableVersionStore {
    inner: Arc<dyn ObjectStore>,
    files: HashMap<Path, PinnedFile>,
}

impl TableVersionStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, files: HashMap<Path, PinnedFile>) -> Self {
        Self { inner, files }
    }
}

/// Returns a read-only store that reads `objects` only while they have the ETags of a listing. An object that was
/// overwritten after the listing is refused.
pub fn as_listed(
    store: Arc<dyn ObjectStore>,
    objects: impl IntoIterator<Item = (Path, Option<String>)>,
) -> Arc<dyn ObjectStore> {
    let files = objects.into_iter().map(|(path, etag)| (path, PinnedFile { etag, staged: None })).collect();
    Arc::new(TableVersionStore::new(store, files))
}

impl fmt::Display for TableVersionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot of {}", self.inner)
    }
}

fn read_only(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "a snapshot".to_owned() }
}

#[async_trait]
impl ObjectStore for TableVersionStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(pinned) = self.files.get(location) else { return self.inner.get_opts(location, options).await };
        let at_final = || {
            let options = options.clone().with_if_match(pinned.etag.clone());
            self.inner.get_opts(location, options)
        };
        // A committed file may not be published yet. The order of the attempts covers a publish in between: the final
        // name is not found, then the staged file is deleted after it was published, so the final name is tried
        // again.
        match (at_final().await, &pinned.staged) {
            (Err(Error::NotFound { .. }), Some(staged)) => match self.inner.get_opts(staged, options.clone()).await {
                Err(Error::NotFound { .. }) => at_final().await,
                other => other,
            },
            (other, _) => other,
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only("put"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only("put"))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        locations.map(|_| Err(read_only("delete"))).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only("copy"))
    }
}
