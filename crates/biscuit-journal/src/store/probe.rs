//! A probe of what a store can do, for `biscuit doctor`: each capability is tried on scratch objects.

use std::fmt;

use biscuit_core::{Error, Result};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::Error as E;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion,
};

use crate::store::put_if_absent::{PUTS, ROUNDS, race_puts};
use crate::{TableStorage, store_error};

/// A capability of a store that Biscuit uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreCapability {
    /// Write, read and delete an object.
    Write,
    /// Consistent listings: an object is listed once it was written, and not listed once it was deleted.
    List,
    /// Create an object only if it is absent, with one winner among many writers.
    PutIfAbsent,
    /// Overwrite an object only if it still has the observed ETag.
    ConditionalPut,
    /// Copy an object within the store.
    Copy,
    /// Copy an object only if the destination does not exist.
    CopyIfAbsent,
    /// Upload an object in parts, which is not visible before it is complete.
    Multipart,
}

impl StoreCapability {
    /// All capabilities, in the order in which they are tried.
    pub const ALL: [Self; 7] = [
        Self::Write,
        Self::List,
        Self::PutIfAbsent,
        Self::ConditionalPut,
        Self::Copy,
        Self::CopyIfAbsent,
        Self::Multipart,
    ];

    /// Describes what Biscuit uses the capability for.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Write => "everything",
            Self::List => "finding the files of a table and the records of its journal",
            Self::PutIfAbsent => {
                "the commit: one of two concurrent runs wins; without it only a single writer is safe (--single-writer)"
            }
            Self::ConditionalPut => "overwriting a single file with a predictable name, which is refused without it",
            Self::Copy => "publishing: staged files get their final names",
            Self::CopyIfAbsent => {
                "a second check that a final name is unused; without it only the check before the copy remains"
            }
            Self::Multipart => "files of more than 8 MiB",
        }
    }
}

impl fmt::Display for StoreCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write, read, delete",
            Self::List => "list what was written",
            Self::PutIfAbsent => "put if absent",
            Self::ConditionalPut => "conditional put",
            Self::Copy => "copy",
            Self::CopyIfAbsent => "copy if absent",
            Self::Multipart => "upload in parts",
        })
    }
}

/// Result of the trial of one capability.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProbeResult {
    /// The store has the capability.
    Yes,
    /// The store does not have the capability, or behaves differently. The text says how.
    No(String),
    /// The trial failed, so the answer is unknown.
    Failed(Error),
}

/// Minimum size of each part of an upload except the last (`UploadPart` in the API reference of S3).
const PART: usize = 5 << 20;

/// Tries each capability of a store on objects below the folder `scratch`, and deletes the objects again. No one else
/// may use that folder.
///
/// # Errors
/// Errors of the store if the scratch objects cannot be deleted. A failed trial is a [`ProbeResult::Failed`] instead.
pub async fn probe_store(storage: &TableStorage, scratch: &Path) -> Result<Vec<(StoreCapability, ProbeResult)>> {
    let store: &dyn ObjectStore = &storage.store;
    let mut shown = Vec::new();
    for ability in StoreCapability::ALL {
        let folder = scratch.clone().join(format!("{ability:?}").to_lowercase());
        let result = try_it(ability, store, &folder).await;
        shown.push((
            ability,
            result.unwrap_or_else(|e| ProbeResult::Failed(store_error("try", format!("{ability}"), e))),
        ));
    }
    let left: Vec<ObjectMeta> =
        store.list(Some(scratch)).try_collect().await.map_err(|e| store_error("list", scratch, e))?;
    for object in left {
        match store.delete(&object.location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(store_error("delete", &object.location, e)),
        }
    }
    // On a disk the empty folders remain after their objects.
    let mut parts: Vec<_> = scratch.parts().collect();
    if let Some(own) = parts.pop() {
        let above = Path::from_iter(parts);
        storage.durability.remove_folders(&above, &|name: &str| name == own.as_ref()).await?;
    }
    Ok(shown)
}

async fn try_it(ability: StoreCapability, store: &dyn ObjectStore, folder: &Path) -> object_store::Result<ProbeResult> {
    let (a, b) = (folder.clone().join("a"), folder.clone().join("b"));
    match ability {
        StoreCapability::Write => write(store, &a).await,
        StoreCapability::List => list(store, folder, &a).await,
        StoreCapability::PutIfAbsent => put_if_absent(store, folder).await,
        StoreCapability::ConditionalPut => conditional_put(store, &a).await,
        StoreCapability::Copy => try_copy(store, &a, &b).await,
        StoreCapability::CopyIfAbsent => copy_if_absent(store, &a, &b).await,
        StoreCapability::Multipart => try_multipart(store, &a).await,
    }
}

fn impossible(how: impl Into<String>) -> object_store::Result<ProbeResult> {
    Ok(ProbeResult::No(how.into()))
}

async fn write(store: &dyn ObjectStore, path: &Path) -> object_store::Result<ProbeResult> {
    store.put(path, "1".into()).await?;
    let read = store.get(path).await?.bytes().await?;
    store.delete(path).await?;
    match store.head(path).await {
        Err(E::NotFound { .. }) if read == "1" => Ok(ProbeResult::Yes),
        Ok(_) => impossible("an object still exists after it was deleted"),
        Err(E::NotFound { .. }) => impossible("the content that was read differs from what was written"),
        Err(e) => Err(e),
    }
}

async fn list(store: &dyn ObjectStore, folder: &Path, path: &Path) -> object_store::Result<ProbeResult> {
    let names = async || -> object_store::Result<usize> {
        Ok(store.list(Some(folder)).try_collect::<Vec<ObjectMeta>>().await?.len())
    };
    store.put(path, "1".into()).await?;
    let there = names().await?;
    store.delete(path).await?;
    if (there, names().await?) == (1, 0) { Ok(ProbeResult::Yes) } else { impossible("listings are not up to date") }
}

async fn put_if_absent(store: &dyn ObjectStore, folder: &Path) -> object_store::Result<ProbeResult> {
    for round in 0..ROUNDS {
        let winners = race_puts(store, &folder.clone().join(format!("{round}"))).await?;
        if winners != 1 {
            return impossible(format!("{winners} of {PUTS} writers created the same object"));
        }
    }
    Ok(ProbeResult::Yes)
}

async fn conditional_put(store: &dyn ObjectStore, path: &Path) -> object_store::Result<ProbeResult> {
    let first = store.put(path, "1".into()).await?;
    let update = |e_tag| PutMode::Update(UpdateVersion { e_tag, version: None });
    match store.put_opts(path, "2".into(), update(first.e_tag.clone()).into()).await {
        Ok(_) => {}
        Err(E::NotImplemented { .. } | E::NotSupported { .. }) => return impossible("the store does not support it"),
        Err(E::Precondition { .. }) => return impossible("a put with the right ETag is refused"),
        Err(e) => return Err(e),
    }
    match store.put_opts(path, "3".into(), update(first.e_tag).into()).await {
        Err(E::Precondition { .. }) => Ok(ProbeResult::Yes),
        Ok(_) => impossible("a put with a wrong ETag succeeds"),
        Err(e) => Err(e),
    }
}

async fn try_copy(store: &dyn ObjectStore, from: &Path, to: &Path) -> object_store::Result<ProbeResult> {
    store.put(from, "1".into()).await?;
    store.copy_opts(from, to, CopyOptions::new()).await?;
    let read = store.get(to).await?.bytes().await?;
    if read == "1" { Ok(ProbeResult::Yes) } else { impossible("the copy differs from its source") }
}

async fn copy_if_absent(store: &dyn ObjectStore, from: &Path, to: &Path) -> object_store::Result<ProbeResult> {
    for (path, text) in [(from, "1"), (to, "2")] {
        store.put(path, text.into()).await?;
    }
    match store.copy_opts(from, to, CopyOptions::new().with_mode(CopyMode::Create)).await {
        Err(E::AlreadyExists { .. } | E::Precondition { .. }) => Ok(ProbeResult::Yes),
        Err(E::NotImplemented { .. } | E::NotSupported { .. }) => impossible("the store does not support it"),
        Ok(()) => impossible("the copy replaces an existing object"),
        Err(e) => Err(e),
    }
}

async fn try_multipart(store: &dyn ObjectStore, path: &Path) -> object_store::Result<ProbeResult> {
    let mut upload = store.put_multipart(path).await?;
    let parts: [Bytes; 2] = [vec![1; PART].into(), vec![2; 1].into()];
    let sent = async {
        for part in parts {
            upload.put_part(part.into()).await?;
        }
        let early = store.head(path).await.is_ok();
        upload.complete().await?;
        Ok::<bool, E>(early)
    };
    let early = match sent.await {
        Ok(early) => early,
        Err(e) => {
            // The upload has failed, so a failure to abort it adds nothing.
            drop(upload.abort().await);
            return Err(e);
        }
    };
    match (early, store.head(path).await?.size) {
        (true, _) => impossible("the object is visible before it is complete"),
        (false, size) if size == PART as u64 + 1 => Ok(ProbeResult::Yes),
        (false, size) => impossible(format!("the object has {size} bytes, but {} were sent", PART + 1)),
    }
}
