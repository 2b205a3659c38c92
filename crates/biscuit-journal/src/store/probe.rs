use std::fmt;

use biscuit_core::{Error, Result};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::Error as E;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion,
};

use crate::store::put_if_absent::{PUTS, ROUNDS, race};
use crate::{TableStorage, store_error};

/// What a store can be asked to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreCapability {
    /// To write, read and delete an object.
    Write,
    /// To list an object as soon as it was written, and not any more once it was deleted.
    List,
    /// To create an object only if it is absent, with one winner among many.
    PutIfAbsent,
    /// To overwrite an object only if it still has the observed ETag.
    ConditionalPut,
    /// To copy an object within the store.
    Copy,
    /// To do so only if nothing is there.
    CopyIfAbsent,
    /// To take an object in parts, which is not seen before it is whole.
    Multipart,
}

impl StoreCapability {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 7] = [
        Self::Write,
        Self::List,
        Self::PutIfAbsent,
        Self::ConditionalPut,
        Self::Copy,
        Self::CopyIfAbsent,
        Self::Multipart,
    ];

    /// What rests on it.
    pub fn use_of_it(self) -> &'static str {
        match self {
            Self::Write => "everything",
            Self::List => "what a run starts from: the files of the table and the records of its journal",
            Self::PutIfAbsent => {
                "the commit: of two runs at once one wins; without it only one writer is safe (--single-writer)"
            }
            Self::ConditionalPut => "overwriting a single file of a predictable name, which is refused without it",
            Self::Copy => "publishing: staged files get their final names",
            Self::CopyIfAbsent => {
                "a second look at names that nobody else gives; without it they are looked at before the copy"
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

/// What a trial has shown.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProbeResult {
    /// The store does it.
    Yes,
    /// It does not, or does it otherwise: how.
    No(String),
    /// The trial came to no end.
    Failed(Error),
}

/// The least size of a part of an upload but the last (UploadPart in the API reference of S3).
const PART: usize = 5 << 20;

/// Tries what a store can do, on objects below `scratch` that nobody else uses, and deletes them again.
///
/// # Errors
/// Those of the store, where what was written cannot be cleaned up.
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
    // On a disk the folders are left.
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
        StoreCapability::Copy => copy(store, &a, &b).await,
        StoreCapability::CopyIfAbsent => copy_if_absent(store, &a, &b).await,
        StoreCapability::Multipart => multipart(store, &a).await,
    }
}

fn no(how: impl Into<String>) -> object_store::Result<ProbeResult> {
    Ok(ProbeResult::No(how.into()))
}

async fn write(store: &dyn ObjectStore, path: &Path) -> object_store::Result<ProbeResult> {
    store.put(path, "1".into()).await?;
    let read = store.get(path).await?.bytes().await?;
    store.delete(path).await?;
    match store.head(path).await {
        Err(E::NotFound { .. }) if read == "1" => Ok(ProbeResult::Yes),
        Ok(_) => no("it is still there after it was deleted"),
        Err(E::NotFound { .. }) => no("what was read is not what was written"),
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
    if (there, names().await?) == (1, 0) { Ok(ProbeResult::Yes) } else { no("listings come late") }
}

async fn put_if_absent(store: &dyn ObjectStore, folder: &Path) -> object_store::Result<ProbeResult> {
    for round in 0..ROUNDS {
        let winners = race(store, &folder.clone().join(format!("{round}"))).await?;
        if winners != 1 {
            return no(format!("{winners} of {PUTS} writers created the same object"));
        }
    }
    Ok(ProbeResult::Yes)
}

async fn conditional_put(store: &dyn ObjectStore, path: &Path) -> object_store::Result<ProbeResult> {
    let first = store.put(path, "1".into()).await?;
    let update = |e_tag| PutMode::Update(UpdateVersion { e_tag, version: None });
    match store.put_opts(path, "2".into(), update(first.e_tag.clone()).into()).await {
        Ok(_) => {}
        Err(E::NotImplemented { .. } | E::NotSupported { .. }) => return no("the store has no such put"),
        Err(E::Precondition { .. }) => return no("a put with the right ETag is refused"),
        Err(e) => return Err(e),
    }
    match store.put_opts(path, "3".into(), update(first.e_tag).into()).await {
        Err(E::Precondition { .. }) => Ok(ProbeResult::Yes),
        Ok(_) => no("a put with a wrong ETag is done all the same"),
        Err(e) => Err(e),
    }
}

async fn copy(store: &dyn ObjectStore, from: &Path, to: &Path) -> object_store::Result<ProbeResult> {
    store.put(from, "1".into()).await?;
    store.copy_opts(from, to, CopyOptions::new()).await?;
    let read = store.get(to).await?.bytes().await?;
    if read == "1" { Ok(ProbeResult::Yes) } else { no("the copy is not what was copied") }
}

async fn copy_if_absent(store: &dyn ObjectStore, from: &Path, to: &Path) -> object_store::Result<ProbeResult> {
    for (path, text) in [(from, "1"), (to, "2")] {
        store.put(path, text.into()).await?;
    }
    match store.copy_opts(from, to, CopyOptions::new().with_mode(CopyMode::Create)).await {
        Err(E::AlreadyExists { .. } | E::Precondition { .. }) => Ok(ProbeResult::Yes),
        Err(E::NotImplemented { .. } | E::NotSupported { .. }) => no("the store has no such copy"),
        Ok(()) => no("it replaces what is there"),
        Err(e) => Err(e),
    }
}

async fn multipart(store: &dyn ObjectStore, path: &Path) -> object_store::Result<ProbeResult> {
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
            // It failed already.
            drop(upload.abort().await);
            return Err(e);
        }
    };
    match (early, store.head(path).await?.size) {
        (true, _) => no("it is seen before it is whole"),
        (false, size) if size == PART as u64 + 1 => Ok(ProbeResult::Yes),
        (false, size) => no(format!("it has {size} bytes where {} were sent", PART + 1)),
    }
}
