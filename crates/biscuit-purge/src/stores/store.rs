//! The interface of a store in which objects are purged, and the outcome of each delete.

use std::fmt;

use async_trait::async_trait;
use biscuit_core::{Error, Instant, Result};

use crate::listed::{ListedObject, ListedVersions, MultipartUpload};
use crate::listing::ObjectListing;

/// Reason why an object was kept although the plan deletes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeptReason {
    /// Its size or ETag differs from the listed one: another program has written it since.
    Changed,
    /// It is a delete marker, and a version that it hides could not be deleted.
    HidesOlder,
}

impl KeptReason {
    /// Name of the reason in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::HidesOlder => "hides-older",
        }
    }
}

/// Outcome of the delete of one object.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeleteOutcome {
    /// The object was deleted. In a bucket with versions, an object without a given version gets a delete marker.
    Deleted,
    /// The object did not exist any more.
    Absent,
    /// The object was kept.
    Kept(KeptReason),
    /// The object was not deleted because of an error.
    Failed(DeleteFailure),
}

/// Failure to delete an object.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "implementations of `PurgeStore` write it as a literal")]
pub struct DeleteFailure {
    /// Code of the store if it gave one, such as `AccessDenied` or `SlowDown`; otherwise the code of the error.
    pub code: String,
    /// The failure as an error.
    pub error: Error,
    /// Whether another attempt may help.
    pub again: bool,
}

/// How a store makes sure that a deleted object is still the listed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeleteCondition {
    /// The store itself compares the ETag of each object of a batch.
    InBatches,
    /// The store itself compares the ETag, in requests for single objects.
    OneByOne,
    /// Each object is checked just before its delete. An object that is replaced between the check and the delete is
    /// lost.
    LookedAt,
}

impl DeleteCondition {
    /// Describes what the condition does not guarantee; `None` if it guarantees everything.
    pub fn caveat(self) -> Option<&'static str> {
        (self == Self::LookedAt).then_some(
            "this store has no conditional delete: an object that is replaced between its last check and its delete is lost",
        )
    }
}

/// Result of probing a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "implementations of `PurgeStore` write it as a literal")]
pub struct StoreProbe {
    /// Time of the store, read from a marker object that was written and deleted again.
    pub now: Instant,
    /// Condition under which the store deletes objects.
    pub condition: DeleteCondition,
}

/// A store that can be listed for a plan and in which a plan can be carried out.
#[async_trait]
pub trait PurgeStore: fmt::Debug + Send + Sync {
    /// Probes the store: writes a marker object below `scratch`, reads the time of the store from it, tries whether a
    /// delete with a wrong ETag is refused, and deletes the marker.
    async fn probe(&self, scratch: &str) -> Result<StoreProbe>;

    /// Lists the objects below a prefix, compared by whole segments.
    async fn list(&self, prefix: &str, versions: ListedVersions) -> Result<ObjectListing>;

    /// Lists the unfinished uploads below a prefix; `None` if the store cannot list uploads.
    async fn list_uploads(&self, prefix: &str) -> Result<Option<Vec<MultipartUpload>>>;

    /// Deletes at most [`batch_size`](Self::batch_size) objects, each only if it is still the listed one. Returns one
    /// outcome for each object, in the order of `objects`. If an object has a version, exactly that version is deleted.
    async fn delete(&self, objects: &[ListedObject]) -> Vec<DeleteOutcome>;

    /// Aborts an unfinished upload.
    async fn abort_upload(&self, upload: &MultipartUpload) -> DeleteOutcome;

    /// Maximum number of objects in one request.
    fn batch_size(&self) -> usize;
}

/// Returns a random name for a marker object, which no other program writes.
pub(crate) fn random_marker_name(scratch: &str) -> Result<String> {
    let nonce = getrandom::u64().map_err(|e| {
        Error::new(biscuit_core::codes::NO_RANDOM_NUMBERS, "the operating system provides no random numbers")
            .with_source(std::io::Error::other(e.to_string()))
    })?;
    Ok(format!("{}/marker-{nonce:016x}", scratch.trim_matches('/')))
}
