use std::fmt;

use async_trait::async_trait;
use biscuit_core::{Error, ErrorKind, Instant, Result};

use crate::listed::{ListedObject, MultipartUpload};
use crate::listing::ObjectListing;

/// Why an object of a plan was kept when it was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeptReason {
    /// Its size or its ETag is not the listed one: somebody wrote to it since.
    Changed,
    /// It is the mark of a delete, and a version under it could not be deleted.
    HidesOlder,
}

impl KeptReason {
    /// The reason as reports say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::HidesOlder => "hides-older",
        }
    }
}

/// What became of one object.
#[derive(Debug)]
pub enum DeleteOutcome {
    /// Deleted now; in a bucket that keeps versions a mark was put over it, unless the version itself was meant.
    Deleted,
    /// Not there any more.
    Absent,
    /// Kept.
    Kept(KeptReason),
    /// Not deleted.
    Failed(DeleteFailure),
}

/// Why an object was not deleted.
#[derive(Debug)]
pub struct DeleteFailure {
    /// The store's own code, where it gave one: `AccessDenied`, `SlowDown`.
    pub code: String,
    /// What it means.
    pub error: Error,
    /// Whether another attempt may help.
    pub again: bool,
}

/// How far a delete depends on the object being the one that was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeleteCondition {
    /// The store deletes only what still has the listed ETag, in whole batches.
    InBatches,
    /// The store does so for one object at a time.
    OneByOne,
    /// It is looked at just before: what is replaced between the look and the delete is lost.
    LookedAt,
}

impl DeleteCondition {
    /// What cannot be guaranteed, if something cannot.
    pub fn caveat(self) -> Option<&'static str> {
        (self == Self::LookedAt).then_some(
            "this store has no conditional delete: an object that is replaced between the last look at it and its delete is lost",
        )
    }
}

/// What a look at a store shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreProbe {
    /// The store's time, read from a marker that was written and deleted again.
    pub now: Instant,
    /// How its deletes depend on the listed ETag.
    pub condition: DeleteCondition,
}

/// What a plan is made of and carried out on.
#[async_trait]
pub trait PurgeStore: fmt::Debug + Send + Sync {
    /// Writes a marker below `scratch`, reads the store's time from it, sees whether a delete with a wrong ETag is refused, and
    /// deletes it.
    async fn look(&self, scratch: &str) -> Result<StoreProbe>;

    /// Lists everything below a prefix, with whole segments; with `versions` every version and delete marker.
    async fn list(&self, prefix: &str, versions: bool) -> Result<ObjectListing>;

    /// Unfinished uploads below a prefix; none where the store cannot tell.
    async fn uploads(&self, prefix: &str) -> Result<Option<Vec<MultipartUpload>>>;

    /// Deletes these, at most [`batch`](Self::batch) of them, each only if it is still the one that was listed, and answers for
    /// each, in their order. Of an object with a version that very version is deleted.
    async fn delete(&self, objects: &[ListedObject]) -> Vec<DeleteOutcome>;

    /// Aborts an unfinished upload.
    async fn abort(&self, upload: &MultipartUpload) -> DeleteOutcome;

    /// The most objects that are deleted by one request.
    fn batch(&self) -> usize;
}

/// The name of a marker that nobody else writes.
pub(crate) fn marker(scratch: &str) -> Result<String> {
    let nonce = getrandom::u64().map_err(|e| {
        Error::new(ErrorKind::Unavailable, "NoRandomNumbers", "the operating system gives no random numbers")
            .with_source(std::io::Error::other(e.to_string()))
    })?;
    Ok(format!("{}/marker-{nonce:016x}", scratch.trim_matches('/')))
}
