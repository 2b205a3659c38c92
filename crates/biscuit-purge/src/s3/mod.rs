//! Purging with the S3 API, through the AWS SDK: conditional deletes, batches, versions, uploads and lifecycle rules.

mod delete;
mod error;
mod lifecycle;
mod list;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::RequestPayer;
use biscuit_core::{Error, Instant, Result};

use crate::codes;
use crate::keys::folder_prefix;
use crate::listed::{ListedObject, ListedVersions, MultipartUpload};
use crate::listing::ObjectListing;
use crate::s3::error::{request_failure, s3_error};
use crate::stores::store::{DeleteCondition, DeleteOutcome, PurgeStore, StoreProbe, random_marker_name};

pub use lifecycle::{LifecycleDays, LifecyclePlan, lifecycle_prefix, lifecycle_rules, plan_lifecycle};

/// Reason why the lock cannot be poisoned.
const UNPOISONED: &str = "a value is only read and written under the lock";

/// Maximum number of keys in a DeleteObjects request.
const BATCH: usize = 1000;

/// Objects of a batch whose ETags the store compares before it deletes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EtagComparison {
    Each,
    None,
}

/// A [`PurgeStore`] for a bucket, through the S3 API: deletes in batches, conditional where the store supports that,
/// versions, unfinished uploads and storage classes.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    bucket: String,
    payer: Option<RequestPayer>,
    /// Condition that the last probe has found. Shared by all clones.
    condition: Arc<Mutex<DeleteCondition>>,
}

impl S3Store {
    /// Creates a purge store for a bucket. The first [`probe`](PurgeStore::probe) finds out whether its deletes are
    /// conditional; until then each object is checked before its delete.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into(), payer: None, condition: Arc::new(Mutex::new(DeleteCondition::LookedAt)) }
    }

    /// Lets the requester pay for requests, as buckets with *Requester Pays* demand. Default: the owner of the bucket
    /// pays.
    #[must_use]
    pub fn with_request_payer(mut self) -> Self {
        self.payer = Some(RequestPayer::Requester);
        self
    }

    /// Name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Client of the AWS SDK.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Condition of deletes that the last [`probe`](PurgeStore::probe) has found.
    pub fn condition(&self) -> DeleteCondition {
        *self.condition.lock().expect(UNPOISONED)
    }

    fn describe_key(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    async fn put_marker(&self, key: &str) -> Result<()> {
        let put = self.client.put_object().bucket(&self.bucket).key(key).set_request_payer(self.payer.clone());
        let put = put.body(ByteStream::from_static(b"")).send().await;
        put.map(drop).map_err(|e| s3_error("write", self.describe_key(key), e))
    }

    /// Returns the time when the marker was written; `None` if it does not exist.
    async fn head_marker(&self, key: &str) -> Result<Option<Instant>> {
        let head = self.client.head_object().bucket(&self.bucket).key(key).set_request_payer(self.payer.clone());
        match head.send().await {
            Ok(found) => match found.last_modified().and_then(to_instant) {
                Some(at) => Ok(Some(at)),
                None => {
                    let message = format!("`{}` has no time of modification", self.describe_key(key));
                    Err(Error::new(codes::NO_STORE_TIME, message))
                }
            },
            Err(e) if e.as_service_error().is_some_and(|e| e.is_not_found()) => Ok(None),
            Err(e) => Err(s3_error("check", self.describe_key(key), e)),
        }
    }

    /// Finds out whether deletes of the marker with a wrong ETag are refused, in a batch or alone.
    ///
    /// The answer alone is not enough: a store may report an error and delete nevertheless, or refuse all batches. So
    /// a store counts as conditional only if the answer is `PreconditionFailed` and the marker still exists.
    async fn try_condition(&self, key: &str) -> Result<DeleteCondition> {
        let wrong = ListedObject::new(key, 0, Some("\"00000000000000000000000000000000\"".to_owned()));
        let batch = self.delete_in_batch(std::slice::from_ref(&wrong), EtagComparison::Each).await;
        if matches!(batch[..], [DeleteOutcome::Kept(_)]) && self.head_marker(key).await?.is_some() {
            return Ok(DeleteCondition::InBatches);
        }
        // The batch may have deleted the marker.
        self.put_marker(key).await?;
        let alone = self.delete_alone(&wrong).await;
        let refused = matches!(alone, DeleteOutcome::Kept(_)) && self.head_marker(key).await?.is_some();
        Ok(if refused { DeleteCondition::OneByOne } else { DeleteCondition::LookedAt })
    }
}

#[async_trait]
impl PurgeStore for S3Store {
    async fn probe(&self, scratch: &str) -> Result<StoreProbe> {
        let key = random_marker_name(scratch)?;
        self.put_marker(&key).await?;
        let now = self.head_marker(&key).await?.ok_or_else(|| {
            let message = format!("`{}` does not exist right after it was written", self.describe_key(&key));
            Error::new(biscuit_core::codes::STORE_UNAVAILABLE, message)
        })?;
        let condition = self.try_condition(&key).await;
        let gone = self.client.delete_object().bucket(&self.bucket).key(&key).set_request_payer(self.payer.clone());
        let gone = gone.send().await;
        gone.map_err(|e| s3_error("delete", self.describe_key(&key), e))?;
        let condition = condition?;
        *self.condition.lock().expect(UNPOISONED) = condition;
        Ok(StoreProbe { now, condition })
    }

    async fn list(&self, prefix: &str, versions: ListedVersions) -> Result<ObjectListing> {
        let found = match versions {
            ListedVersions::Current => self.list_objects(prefix).await?,
            ListedVersions::All => self.list_versions(prefix).await?,
        };
        // Some tools create a marker `t/` for the folder `t`; it is not below the prefix.
        let mark = folder_prefix(prefix);
        if mark.is_empty() || !found.iter().any(|o| o.key() == mark) {
            return Ok(found);
        }
        Ok(found.iter().filter(|o| o.key() != mark).collect())
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Option<Vec<MultipartUpload>>> {
        self.list_uploads(prefix).await.map(Some)
    }

    async fn delete(&self, objects: &[ListedObject]) -> Vec<DeleteOutcome> {
        let condition = self.condition();
        // Without an ETag there is no condition to send, so the size is compared instead.
        if condition != DeleteCondition::LookedAt
            && objects.iter().any(|o| o.listed.etag.is_none() && o.version.is_none())
        {
            return self.delete_looked_at(objects).await;
        }
        match condition {
            DeleteCondition::InBatches => self.delete_in_batch(objects, EtagComparison::Each).await,
            DeleteCondition::OneByOne => self.delete_one_by_one(objects).await,
            DeleteCondition::LookedAt => self.delete_looked_at(objects).await,
        }
    }

    async fn abort_upload(&self, upload: &MultipartUpload) -> DeleteOutcome {
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(&upload.key).upload_id(&upload.id);
        match abort.set_request_payer(self.payer.clone()).send().await {
            Ok(_) => DeleteOutcome::Deleted,
            Err(e) if e.as_service_error().is_some_and(|e| e.code() == Some("NoSuchUpload")) => DeleteOutcome::Absent,
            Err(e) => DeleteOutcome::Failed(request_failure("abort the upload of", self.describe_key(&upload.key), e)),
        }
    }

    fn batch_size(&self) -> usize {
        BATCH
    }
}

/// Converts a time of S3, which has whole seconds.
fn to_instant(at: &DateTime) -> Option<Instant> {
    Some(Instant::from_micros(at.secs().checked_mul(1_000_000)?))
}
