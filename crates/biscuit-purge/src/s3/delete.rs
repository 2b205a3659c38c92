//! The three ways to delete with the S3 API, one for each [`DeleteCondition`](crate::DeleteCondition).

use std::collections::HashMap;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use biscuit_core::{Error, ErrorKind};
use futures::{FutureExt, StreamExt, stream};

use crate::listed::ListedObject;
use crate::s3::error::{object_outcome, request_failure};
use crate::s3::{EtagComparison, S3Store};
use crate::stores::store::{DeleteFailure, DeleteOutcome, KeptReason};

/// Maximum number of requests for single objects at the same time, within one batch.
const IN_FLIGHT: usize = 16;

impl S3Store {
    /// Deletes objects with one request. Versions need no comparison of ETags, because they never change.
    pub(super) async fn delete_in_batch(
        &self,
        objects: &[ListedObject],
        comparison: EtagComparison,
    ) -> Vec<DeleteOutcome> {
        if objects.is_empty() {
            return vec![];
        }
        let identifier = |object: &ListedObject| {
            let etag = object.listed.etag.clone();
            let etag = etag.filter(|_| comparison == EtagComparison::Each && object.version.is_none());
            let id = ObjectIdentifier::builder().key(object.key()).set_version_id(object.version.clone());
            id.set_e_tag(etag).build().expect("the identifier has a key")
        };
        let delete = Delete::builder().set_objects(Some(objects.iter().map(identifier).collect())).quiet(false);
        let delete = delete.build().expect("the request has objects");
        let request = self.client.delete_objects().bucket(&self.bucket).delete(delete);
        let done = match request.set_request_payer(self.payer.clone()).send().await {
            Ok(done) => done,
            Err(e) => {
                let f = request_failure("delete objects of", self.describe_key(""), e);
                return objects.iter().map(|o| DeleteOutcome::Failed(self.copy_of(&f, o))).collect();
            }
        };
        // Answers come in any order. An object without an answer is not deleted as far as is known, so it counts as
        // failed.
        let name = |key: &str, version: Option<&str>| (key.to_owned(), version.map(str::to_owned));
        let mut answers: HashMap<_, DeleteOutcome> = HashMap::with_capacity(objects.len());
        for d in done.deleted() {
            answers.insert(name(d.key().unwrap_or_default(), d.version_id()), DeleteOutcome::Deleted);
        }
        for e in done.errors() {
            let (key, code) = (e.key().unwrap_or_default(), e.code().unwrap_or("Unknown"));
            let answer = object_outcome(code, e.message().unwrap_or_default(), &self.describe_key(key));
            answers.insert(name(key, e.version_id().filter(|v| !v.is_empty())), answer);
        }
        let of = |object: &ListedObject| {
            let found = answers.remove(&name(object.key(), object.version.as_deref()));
            found.or_else(|| answers.remove(&name(object.key(), None))).unwrap_or_else(|| {
                let message = format!("the answer of the store does not contain `{}`", self.describe_key(object.key()));
                let error = Error::new(biscuit_core::codes::STORE_UNAVAILABLE, message);
                DeleteOutcome::Failed(DeleteFailure { code: "NoAnswer".to_owned(), error, again: true })
            })
        };
        objects.iter().map(of).collect()
    }

    /// Returns the failure of a whole request as the failure of one of its objects.
    fn copy_of(&self, f: &DeleteFailure, object: &ListedObject) -> DeleteFailure {
        let message = format!("`{}` was not deleted: {}", self.describe_key(object.key()), f.error.message());
        DeleteFailure { code: f.code.clone(), error: Error::new(f.error.error_code(), message), again: f.again }
    }

    /// Deletes one object if it still has its ETag (`If-Match`).
    pub(super) async fn delete_alone(&self, object: &ListedObject) -> DeleteOutcome {
        let delete = self.client.delete_object().bucket(&self.bucket).key(object.key());
        let delete = match &object.version {
            Some(version) => delete.version_id(version),
            None => delete.set_if_match(object.listed.etag.clone()),
        };
        match delete.set_request_payer(self.payer.clone()).send().await {
            Ok(_) => DeleteOutcome::Deleted,
            Err(e) => {
                let f = request_failure("delete", self.describe_key(object.key()), e);
                match f.code.as_str() {
                    "PreconditionFailed" => DeleteOutcome::Kept(KeptReason::Changed),
                    "NoSuchKey" | "NoSuchVersion" | "NotFound" => DeleteOutcome::Absent,
                    _ => DeleteOutcome::Failed(f),
                }
            }
        }
    }

    /// Deletes each object with a conditional request of its own, and all versions with one batch.
    pub(super) async fn delete_one_by_one(&self, objects: &[ListedObject]) -> Vec<DeleteOutcome> {
        // Versions never change, so they need no condition.
        let versions: Vec<ListedObject> = objects.iter().filter(|o| o.version.is_some()).cloned().collect();
        let mut of_versions = self.delete_in_batch(&versions, EtagComparison::None).await.into_iter();
        let single = objects.iter().filter(|o| o.version.is_none()).map(|o| self.delete_alone(o).boxed());
        let single: Vec<_> = single.collect();
        let mut of_others = stream::iter(single).buffered(IN_FLIGHT).collect::<Vec<_>>().await.into_iter();
        let mut next = |o: &ListedObject| if o.version.is_some() { of_versions.next() } else { of_others.next() };
        objects.iter().map(|o| next(o).expect("there is an answer for each object")).collect()
    }

    /// Lists all objects again, folder by folder, and deletes those that have not changed. Versions are deleted
    /// without a check.
    ///
    /// For each object, `answers` has its outcome, or `None` if it is to be deleted. The answers to the delete then
    /// fill these places in order.
    pub(super) async fn delete_looked_at(&self, objects: &[ListedObject]) -> Vec<DeleteOutcome> {
        let mut now: HashMap<String, ListedObject> = HashMap::with_capacity(objects.len());
        let mut failed: HashMap<&str, DeleteFailure> = HashMap::new();
        let looked = |o: &&ListedObject| o.version.is_none();
        let mut current: Vec<&ListedObject> = objects.iter().filter(looked).collect();
        current.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let ranges = current.chunk_by(|a, b| a.listed.folder() == b.listed.folder());
        let looks = ranges.map(|range| async move { (range, self.list_again(range).await) });
        let looks: Vec<_> = looks.map(FutureExt::boxed).collect();
        let mut looks = stream::iter(looks).buffered(IN_FLIGHT);
        while let Some((range, found)) = looks.next().await {
            match found {
                Ok(found) => now.extend(found.into_iter().map(|o| (o.key().to_owned(), o))),
                Err(e) => failed.extend(range.iter().map(|o| {
                    let message = format!("`{}` was not deleted: {}", self.describe_key(o.key()), e.message());
                    let error = Error::new(e.error_code(), message);
                    (
                        o.key(),
                        DeleteFailure { code: e.code().to_owned(), error, again: e.kind() == ErrorKind::Unavailable },
                    )
                })),
            }
        }
        drop(looks);
        let mut answers: Vec<Option<DeleteOutcome>> = Vec::with_capacity(objects.len());
        for object in objects {
            let same = |found: &ListedObject| {
                let (found, object) = (&found.listed, &object.listed);
                found.size == object.size && (object.etag.is_none() || found.etag == object.etag)
            };
            answers.push(match (failed.remove(object.key()), now.get(object.key())) {
                _ if object.version.is_some() => None,
                (Some(failure), _) => Some(DeleteOutcome::Failed(failure)),
                (None, None) => Some(DeleteOutcome::Absent),
                (None, Some(found)) if same(found) => None,
                (None, Some(_)) => Some(DeleteOutcome::Kept(KeptReason::Changed)),
            });
        }
        let open = objects.iter().zip(&answers).filter(|(_, a)| a.is_none());
        let open: Vec<ListedObject> = open.map(|(o, _)| o.clone()).collect();
        let mut deleted = self.delete_in_batch(&open, EtagComparison::None).await.into_iter();
        let mut next = || deleted.next().expect("there is an answer for each object");
        answers.into_iter().map(|a| a.unwrap_or_else(&mut next)).collect()
    }
}
