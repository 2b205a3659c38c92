//! Counts the requests and bytes that a command exchanges with its stores, for the costs in its report.
//!
//! [`MeteredStore`] counts the calls of an [`ObjectStore`], and [`CountRequests`] counts the requests of a client of
//! the AWS SDK.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use serde_json::{Value, json};

/// Numbers of requests by kind and of bytes, shared by all stores of a command.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts {
    get: AtomicU64,
    head: AtomicU64,
    put: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    copy: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
}

impl RequestCounts {
    /// Returns the numbers in the form of the report.
    pub(crate) fn report(&self) -> Value {
        // Relaxed: the counters are independent statistics, and nothing is synchronised by them.
        let n = |c: &AtomicU64| c.load(Ordering::Relaxed);
        json!({
            "requests": {
                "get": n(&self.get), "head": n(&self.head), "put": n(&self.put), "list": n(&self.list),
                "delete": n(&self.delete), "copy": n(&self.copy),
            },
            "bytes_read": n(&self.read),
            "bytes_written": n(&self.written),
        })
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Interceptor that counts the requests of an AWS SDK client. Each attempt counts, including retries.
#[derive(Debug)]
pub(crate) struct CountRequests(Arc<RequestCounts>);

impl CountRequests {
    pub(crate) fn new(counts: Arc<RequestCounts>) -> Self {
        Self(counts)
    }
}

impl Intercept for CountRequests {
    fn name(&self) -> &'static str {
        "CountRequests"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let counts = &self.0;
        let counter = match config.load::<Metadata>().map_or("", Metadata::name) {
            name if name.starts_with("List") => &counts.list,
            name if name.starts_with("Delete") || name.starts_with("Abort") => &counts.delete,
            name if name.starts_with("Head") => &counts.head,
            name if name.starts_with("Get") => &counts.get,
            name if name.starts_with("Copy") => &counts.copy,
            _ => &counts.put,
        };
        add(counter, 1);
        Ok(())
    }
}

/// Wrapper that counts the requests to a store. A listing counts once, whatever its number of pages. Each deleted
/// object counts once.
#[derive(Debug)]
pub(crate) struct MeteredStore {
    inner: Arc<dyn ObjectStore>,
    counts: Arc<RequestCounts>,
}

impl MeteredStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, counts: Arc<RequestCounts>) -> Self {
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
    counts: Arc<RequestCounts>,
}

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        add(&self.counts.put, 1);
        add(&self.counts.written, data.content_length() as u64);
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        add(&self.counts.put, 1);
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
        add(&self.counts.put, 1);
        add(&self.counts.written, payload.content_length() as u64);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        add(&self.counts.put, 1);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(MeteredUpload { inner, counts: self.counts.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        add(if head { &self.counts.head } else { &self.counts.get }, 1);
        let found = self.inner.get_opts(location, options).await?;
        if !head {
            add(&self.counts.read, found.range.end - found.range.start);
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        add(&self.counts.get, 1);
        let found = self.inner.get_ranges(location, ranges).await?;
        add(&self.counts.read, found.iter().map(|b| b.len() as u64).sum());
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let counts = self.counts.clone();
        self.inner.delete_stream(locations.inspect(move |_| add(&counts.delete, 1)).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        add(&self.counts.list, 1);
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        add(&self.counts.list, 1);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        add(&self.counts.list, 1);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        add(&self.counts.copy, 1);
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        add(&self.counts.copy, 1);
        self.inner.rename_opts(from, to, options).await
    }
}
