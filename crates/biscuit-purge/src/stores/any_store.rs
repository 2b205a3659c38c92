//! Purging in any store that `object_store` supports, with a check of each object just before its delete.

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::{Error, Instant, Result};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::codes;
use crate::keys::is_below;
use crate::listed::{ListedObject, ListedVersions, MultipartUpload};
use crate::listing::ObjectListing;
use crate::stores::store::{
    DeleteCondition, DeleteFailure, DeleteOutcome, KeptReason, PurgeStore, StoreProbe, random_marker_name,
};
use crate::stores::store_error::store_error;

/// A [`PurgeStore`] for any store that `object_store` supports. It has no conditional deletes, versions, storage
/// classes or unfinished uploads.
#[derive(Debug, Clone)]
pub struct AnyStore {
    store: Arc<dyn ObjectStore>,
    /// Folder of a disk that keys are relative to; none for a store that is not a disk.
    disk: Option<PathBuf>,
    /// Metadata of objects that the caller has just read.
    known: Arc<HashMap<Path, ObjectMeta>>,
}

impl AnyStore {
    /// Creates a purge store for this store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, disk: None, known: Arc::default() }
    }

    /// Declares that the store is a disk whose keys are relative to the folder `root`. Listings then omit objects
    /// that are reached through a link to a folder elsewhere: their paths look as if they were below the prefix, but
    /// they are not.
    #[must_use]
    pub fn on_disk(mut self, root: impl Into<PathBuf>) -> Self {
        self.disk = Some(root.into());
        self
    }

    /// Sets the metadata of objects that the caller has just read. The size and ETag of these objects are not read again
    /// before they are deleted.
    #[must_use]
    pub fn with_known_metadata(mut self, objects: impl IntoIterator<Item = ObjectMeta>) -> Self {
        self.known = Arc::new(objects.into_iter().map(|meta| (meta.location.clone(), meta)).collect());
        self
    }
}

#[async_trait]
impl PurgeStore for AnyStore {
    async fn probe(&self, scratch: &str) -> Result<StoreProbe> {
        let path = Path::from(random_marker_name(scratch)?);
        self.store.put(&path, "".into()).await.map_err(|e| store_error("write", &path, e))?;
        let seen = self.store.head(&path).await.map_err(|e| store_error("check", &path, e));
        self.store.delete(&path).await.map_err(|e| store_error("delete", &path, e))?;
        let now = Instant::from_micros(seen?.last_modified.timestamp_micros());
        Ok(StoreProbe { now, condition: DeleteCondition::LookedAt })
    }

    async fn list(&self, prefix: &str, versions: ListedVersions) -> Result<ObjectListing> {
        if versions == ListedVersions::All {
            return Err(no_versions());
        }
        let path = Path::from(prefix);
        let mut objects = self.store.list((!path.as_ref().is_empty()).then_some(&path));
        let mut listing = ObjectListing::default();
        let mut links = ResolvedLinks::new(self.disk.as_deref(), prefix);
        while let Some(meta) = objects.try_next().await.map_err(|e| store_error("list", prefix, e))? {
            let object = ListedObject::from(meta);
            // `is_below` also excludes the marker that some tools create for the folder of the prefix itself.
            if is_below(object.key(), prefix) && links.is_within(object.key()) {
                listing.push(&object);
            }
        }
        Ok(listing)
    }

    async fn list_uploads(&self, _: &str) -> Result<Option<Vec<MultipartUpload>>> {
        Ok(None)
    }

    async fn delete(&self, objects: &[ListedObject]) -> Vec<DeleteOutcome> {
        let mut answers = Vec::with_capacity(objects.len());
        for object in objects {
            let known = object.path().and_then(|path| self.known.get(&path));
            answers.push(delete_one(&*self.store, object, known).await);
        }
        answers
    }

    async fn abort_upload(&self, upload: &MultipartUpload) -> DeleteOutcome {
        let message = format!("the upload of `{}` cannot be aborted through this store", upload.key);
        let error = Error::new(biscuit_core::codes::NOT_SUPPORTED, message);
        DeleteOutcome::Failed(DeleteFailure { code: error.code().to_owned(), error, again: false })
    }

    fn batch_size(&self) -> usize {
        1
    }
}

/// Resolves links in folders of a disk, to find objects that are not really below the prefix.
struct ResolvedLinks<'a> {
    disk: Option<&'a FilePath>,
    /// Canonical path of the prefix.
    root: Option<PathBuf>,
    /// The last folder and its result. Listings go folder by folder, so one entry saves nearly all system calls.
    last: Option<(String, bool)>,
}

impl<'a> ResolvedLinks<'a> {
    fn new(disk: Option<&'a FilePath>, prefix: &str) -> Self {
        let root = disk.and_then(|disk| disk.join(prefix.trim_matches('/')).canonicalize().ok());
        Self { disk, root, last: None }
    }

    fn is_within(&mut self, key: &str) -> bool {
        let Some(disk) = self.disk else { return true };
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        if let Some((last, found)) = &self.last
            && last == folder
        {
            return *found;
        }
        let real = disk.join(folder).canonicalize().ok();
        let found = real.zip(self.root.as_ref()).is_some_and(|(real, root)| real.starts_with(root));
        if !found {
            tracing::warn!(
                folder,
                "the folder is reached through a link to a place outside of the prefix and is skipped"
            );
        }
        self.last = Some((folder.to_owned(), found));
        found
    }
}

fn no_versions() -> Error {
    Error::new(codes::NO_VERSIONS, "versions of objects can be listed and deleted on S3 only")
}

/// Deletes an object if it still has the listed size and ETag. The check and the delete are two calls: an object that
/// is replaced between them is lost (see [`DeleteCondition::caveat`]).
async fn delete_one(store: &dyn ObjectStore, object: &ListedObject, known: Option<&ObjectMeta>) -> DeleteOutcome {
    let failed =
        |e: Error, again: bool| DeleteOutcome::Failed(DeleteFailure { code: e.code().to_owned(), error: e, again });
    if object.version.is_some() {
        return failed(no_versions(), false);
    }
    let Some(path) = object.path() else {
        let message = format!("`{}` is not a valid path of this store; it was not deleted", object.key());
        return failed(Error::new(biscuit_core::codes::INVALID_PATH, message), false);
    };
    let deleted = async {
        let now = match known {
            Some(known) => known.clone(),
            None => store.head(&path).await?,
        };
        if now.size != object.listed.size || (object.listed.etag.is_some() && now.e_tag != object.listed.etag) {
            return Ok(DeleteOutcome::Kept(KeptReason::Changed));
        }
        store.delete(&path).await.map(|()| DeleteOutcome::Deleted)
    };
    match deleted.await {
        Ok(answer) => answer,
        Err(object_store::Error::NotFound { .. }) => DeleteOutcome::Absent,
        // The store has its own retries, so another attempt is unlikely to help.
        Err(e) => failed(store_error("delete", &path, e), false),
    }
}
