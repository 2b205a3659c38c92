//! Carrying out a plan: batches, retries, and an outcome for every object.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use biscuit_core::Error;
use futures::{FutureExt, StreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use serde_json::{Value, json};

use crate::listed::{ListedObject, MultipartUpload, VersionKind};
use crate::plan::{PurgePlan, object_json};
use crate::stores::any_store::AnyStore;
use crate::stores::store::{DeleteFailure, DeleteOutcome, KeptReason, PurgeStore};

/// Outcome of a plan by object.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct PurgeReport {
    /// Objects that were deleted.
    pub deleted: Vec<Path>,
    /// Objects that did not exist any more.
    pub absent: Vec<Path>,
    /// Objects that were kept, with the reason.
    pub kept: Vec<(Path, KeptReason)>,
    /// Objects that were not deleted, with the error of the store.
    pub failed: Vec<(Path, Error)>,
}

/// Carries out a plan in any store and returns the outcome of each object. Each object is checked just before its
/// delete, because `object_store` has no conditional delete. Uploads of the plan are not part of the report.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_purge::{ListedObject, PurgePlan, execute};
/// use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// store.put(&Path::from("t/a"), "1".into()).await?;
/// let listed = ListedObject::from(store.head(&Path::from("t/a")).await?);
///
/// let plan = PurgePlan::exact("t", [listed, ListedObject::new("t/b", 1, None)])?;
/// let report = execute(&store, &plan).await;
/// assert_eq!(report.deleted, [Path::from("t/a")]);
/// assert_eq!(report.absent, [Path::from("t/b")]);
/// # Ok(()) }
/// ```
pub async fn execute(store: &Arc<dyn ObjectStore>, plan: &PurgePlan) -> PurgeReport {
    execute_in(&AnyStore::new(store.clone()), plan).await
}

/// Carries out a plan as [`execute`] does.
pub async fn execute_in(store: &AnyStore, plan: &PurgePlan) -> PurgeReport {
    let mut report = PurgeReport::default();
    let mut each = |item: DeleteItem<'_>, answer: DeleteOutcome| {
        let DeleteItem::Object(object) = item else { return };
        let path = object.path().unwrap_or_else(|| Path::from(object.key()));
        match answer {
            DeleteOutcome::Deleted => report.deleted.push(path),
            DeleteOutcome::Absent => report.absent.push(path),
            DeleteOutcome::Kept(reason) => report.kept.push((path, reason)),
            DeleteOutcome::Failed(failure) => report.failed.push((path, failure.error)),
        }
    };
    carry_out(store, plan, &DeleteOptions::default().with_in_flight(8), &mut each).await;
    report
}

/// Options for carrying out a plan.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct DeleteOptions {
    /// Maximum number of requests at the same time. Default: 32. A store that is too busy asks to slow down.
    pub in_flight: usize,
    /// Maximum number of attempts for an object. Default: 6.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles with each further attempt. Default: 200 ms.
    pub pause: Duration,
}

impl Default for DeleteOptions {
    fn default() -> Self {
        Self { in_flight: 32, attempts: 6, pause: Duration::from_millis(200) }
    }
}

impl DeleteOptions {
    /// Sets the maximum number of requests at the same time. Minimum: 1. Default: 32.
    pub fn with_in_flight(mut self, requests: usize) -> Self {
        self.in_flight = requests.max(1);
        self
    }
}

/// Outcome of a plan in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeleteCounts {
    /// Number of objects that were deleted.
    pub deleted: u64,
    /// Sum of the sizes of the deleted objects in bytes.
    pub bytes: u64,
    /// Number of objects that did not exist any more.
    pub absent: u64,
    /// Number of objects that were kept, by the name of the reason.
    pub kept: BTreeMap<&'static str, u64>,
    /// Number of objects that were not deleted, by the code of the store.
    pub failed: BTreeMap<String, u64>,
    /// Number of unfinished uploads that were aborted.
    pub aborted: u64,
    /// Number of batches that were sent, including repeated ones. In a store that deletes in batches each is one
    /// request.
    pub batches: u64,
}

impl DeleteCounts {
    /// Whether every object of the plan is deleted: none was kept and none failed.
    pub fn is_complete(&self) -> bool {
        self.kept.is_empty() && self.failed.is_empty()
    }

    /// Adds the counts of another plan.
    pub fn add(&mut self, other: Self) {
        self.deleted += other.deleted;
        self.bytes += other.bytes;
        self.absent += other.absent;
        self.aborted += other.aborted;
        self.batches += other.batches;
        other.kept.into_iter().for_each(|(reason, n)| *self.kept.entry(reason).or_default() += n);
        other.failed.into_iter().for_each(|(code, n)| *self.failed.entry(code).or_default() += n);
    }

    /// Counts the outcome of one object with a size of `bytes`.
    pub fn count_outcome(&mut self, answer: &DeleteOutcome, bytes: u64) {
        match answer {
            DeleteOutcome::Deleted => {
                self.deleted += 1;
                self.bytes += bytes;
            }
            DeleteOutcome::Absent => self.absent += 1,
            DeleteOutcome::Kept(reason) => *self.kept.entry(reason.name()).or_default() += 1,
            DeleteOutcome::Failed(failure) => *self.failed.entry(failure.code.clone()).or_default() += 1,
        }
    }
}

/// The subject of an outcome.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum DeleteItem<'a> {
    /// An object or a version.
    Object(&'a ListedObject),
    /// An unfinished upload.
    Upload(&'a MultipartUpload),
}

/// Formats a line of a manifest: key, size, ETag and version of an object, its outcome, and code and message of a
/// failure.
pub fn manifest_line(item: DeleteItem<'_>, answer: &DeleteOutcome) -> String {
    let mut line = match item {
        DeleteItem::Object(object) => object_json(object),
        DeleteItem::Upload(upload) => match json!({"key": upload.key, "upload": upload.id}) {
            Value::Object(line) => line,
            _ => unreachable!("it is an object"),
        },
    };
    let mut put = |name: &str, value: &str| drop(line.insert(name.to_owned(), json!(value)));
    match answer {
        DeleteOutcome::Deleted => put("outcome", "deleted"),
        DeleteOutcome::Absent => put("outcome", "absent"),
        DeleteOutcome::Kept(reason) => {
            put("outcome", "kept");
            put("reason", reason.name());
        }
        DeleteOutcome::Failed(DeleteFailure { code, error, .. }) => {
            put("outcome", "failed");
            put("code", code);
            put("message", error.message());
        }
    }
    Value::Object(line).to_string()
}

/// Carries out a plan in batches, several at the same time, and passes the outcome of each object and of each upload
/// to `each`. A request for which the store is too busy is repeated after a pause; a refused one is not.
pub async fn carry_out(
    store: &dyn PurgeStore,
    plan: &PurgePlan,
    pace: &DeleteOptions,
    each: &mut (dyn FnMut(DeleteItem<'_>, DeleteOutcome) + Send),
) -> DeleteCounts {
    let mut done = DeleteCounts::default();
    // Two rounds: first objects and versions, then delete markers. A marker hides the older versions of its key. If
    // it were deleted while one of them still exists, that version would become the current object again. So the
    // marker of a key in `there` is kept.
    let mut there: HashSet<String> = HashSet::new();
    for markers in [false, true] {
        let mut deletes = plan.deletes().filter(|o| (o.form == VersionKind::DeleteMarker) == markers);
        let hides = there.clone();
        let batches = std::iter::from_fn(|| {
            let batch: Vec<ListedObject> = deletes.by_ref().take(store.batch_size().max(1)).collect();
            (!batch.is_empty()).then_some(batch)
        });
        let work = batches.map(|mut batch| {
            let stay: Vec<ListedObject> = batch.extract_if(.., |o| hides.contains(o.key())).collect();
            async move {
                let (mut done, batches) = delete_batch(store, batch, pace).await;
                done.extend(stay.into_iter().map(|marker| (marker, DeleteOutcome::Kept(KeptReason::HidesOlder))));
                (done, batches)
            }
        });
        let mut running = stream::iter(work).buffered(pace.in_flight.max(1));
        while let Some((batch, batches)) = running.next().await {
            done.batches += batches;
            for (object, answer) in batch {
                tracing::debug!(key = %object.key(), "delete");
                done.count_outcome(&answer, object.listed.size);
                if object.version.is_some() && !matches!(answer, DeleteOutcome::Deleted | DeleteOutcome::Absent) {
                    there.insert(object.key().to_owned());
                }
                each(DeleteItem::Object(&object), answer);
            }
        }
    }
    let one = |upload| async move { (upload, store.abort_upload(upload).await) }.boxed();
    let work: Vec<_> = plan.uploads().iter().map(one).collect();
    let mut running = stream::iter(work).buffered(pace.in_flight.max(1));
    while let Some((upload, answer)) = running.next().await {
        match answer {
            DeleteOutcome::Deleted => done.aborted += 1,
            ref other => done.count_outcome(other, 0),
        }
        each(DeleteItem::Upload(upload), answer);
    }
    done
}

/// Deletes a batch, and repeats the deletes that failed and may succeed later, without the others (exponential
/// backoff). Returns an outcome for each object, and the number of batches that were sent.
async fn delete_batch(
    store: &dyn PurgeStore,
    batch: Vec<ListedObject>,
    pace: &DeleteOptions,
) -> (Vec<(ListedObject, DeleteOutcome)>, u64) {
    if batch.is_empty() {
        return (vec![], 0);
    }
    let mut answers = store.delete(&batch).await;
    let mut batches = 1;
    for attempt in 1..pace.attempts {
        let open: Vec<usize> =
            (0..batch.len()).filter(|&i| matches!(&answers[i], DeleteOutcome::Failed(f) if f.again)).collect();
        if open.is_empty() {
            break;
        }
        tracing::debug!(objects = open.len(), attempt, "repeating deletes that failed");
        tokio::time::sleep(pace.pause * (1 << (attempt - 1).min(10))).await;
        let again: Vec<ListedObject> = open.iter().map(|&i| batch[i].clone()).collect();
        batches += 1;
        for (i, answer) in open.into_iter().zip(store.delete(&again).await) {
            answers[i] = answer;
        }
    }
    (batch.into_iter().zip(answers).collect(), batches)
}
