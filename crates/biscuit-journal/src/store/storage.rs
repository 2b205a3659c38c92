//! An object store together with the way in which writes to it become durable.

use std::fmt;
use std::io;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

/// Durability of writes: makes written objects survive a loss of power.
#[async_trait::async_trait]
pub trait WriteDurability: fmt::Debug + Send + Sync {
    /// Makes the content of this object durable before it returns.
    async fn sync_file(&self, path: &Path) -> Result<()>;

    /// Makes the names in the folder of this object durable before it returns.
    async fn sync_folder_of(&self, path: &Path) -> Result<()>;

    /// Whether a successful write means that the object is complete and durable. If not, an object that must never be
    /// seen in part is written and synced under another name first and then linked to its own name. Default: false.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Copies a file as a separate file, which shares its blocks with the source where the file system supports that.
    /// Returns `None` if the copy of the store itself makes separate objects already. Default: none.
    async fn copy(&self, from: &Path, to: &Path) -> Option<object_store::Result<()>> {
        let _ = (from, to);
        None
    }

    /// Whether the names in a path below `root` are stored as they are spelled. Some file systems do not distinguish
    /// names that differ by letter case or Unicode form. Default: true.
    async fn is_spelled_so(&self, path: &Path, root: &Path) -> Result<bool> {
        let _ = (path, root);
        Ok(true)
    }

    /// Returns the first symbolic link at a folder or below it, except links with names that readers skip. Default:
    /// none, for stores without links.
    async fn link_below(&self, folder: &Path) -> Result<Option<Path>> {
        let _ = folder;
        Ok(None)
    }

    /// Deletes the folders directly below `root` whose names `dead` selects, with everything in them. A process that
    /// was killed during a write leaves a partial file, which is not an object and is not listed. Default: nothing,
    /// for stores without folders.
    async fn remove_folders(&self, root: &Path, dead: &(dyn for<'a> Fn(&'a str) -> bool + Send + Sync)) -> Result<()> {
        let _ = (root, dead);
        Ok(())
    }
}

// The trait has to remain usable as `dyn WriteDurability`.
const _: fn(&dyn WriteDurability) = |_| {};

/// Durability of stores such as S3, where a successful write is durable, and of stores in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreIsDurable;

#[async_trait::async_trait]
impl WriteDurability for StoreIsDurable {
    async fn sync_file(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn sync_folder_of(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn is_immediate(&self) -> bool {
        true
    }
}

/// Durability of a local file system: syncs files and folders with fsync, which object_store 0.13 does not do.
#[derive(Debug, Clone)]
pub(crate) struct LocalDisk(Arc<LocalFileSystem>);

impl LocalDisk {
    /// Creates the durability of the files that `store` writes.
    pub(crate) fn new(store: Arc<LocalFileSystem>) -> Self {
        Self(store)
    }

    async fn sync_path(&self, path: &Path, folder: bool) -> Result<()> {
        let file =
            self.0.path_to_filesystem(path).map_err(|e| biscuit_purge::internal::store_error("sync", path, e))?;
        let synced = tokio::task::spawn_blocking(move || {
            let place = if folder { file.parent().unwrap_or(&file) } else { &file };
            std::fs::File::open(place)?.sync_all()
        });
        match synced.await.map_err(|e| Error::internal("a sync was cancelled").with_source(e))? {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let message = format!("`{path}` was deleted because another run has committed; run again");
                Err(Error::new(biscuit_core::codes::CONFLICT, message).with_source(e))
            }
            Err(e) => {
                let message = format!("cannot sync `{path}`");
                Err(Error::new(biscuit_core::codes::STORE_UNAVAILABLE, message).with_source(e))
            }
        }
    }
}

#[async_trait::async_trait]
impl WriteDurability for LocalDisk {
    async fn sync_file(&self, path: &Path) -> Result<()> {
        self.sync_path(path, false).await
    }

    async fn sync_folder_of(&self, path: &Path) -> Result<()> {
        self.sync_path(path, true).await
    }

    async fn copy(&self, from: &Path, to: &Path) -> Option<object_store::Result<()>> {
        let places = self.0.path_to_filesystem(from).and_then(|from| Ok((from, self.0.path_to_filesystem(to)?)));
        let (from, to) = match places {
            Ok(places) => places,
            Err(e) => return Some(Err(e)),
        };
        let path = from.display().to_string();
        let copied = tokio::task::spawn_blocking(move || {
            to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            reflink_copy::reflink_or_copy(&from, &to).map(drop)
        });
        let generic = |source| object_store::Error::Generic { store: "LocalDisk", source };
        Some(match copied.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => {
                Err(object_store::Error::NotFound { path, source: e.into() })
            }
            Ok(Err(e)) => Err(generic(e.into())),
            Err(e) => Err(generic(e.into())),
        })
    }

    async fn is_spelled_so(&self, path: &Path, root: &Path) -> Result<bool> {
        let place = |path: &Path| {
            self.0.path_to_filesystem(path).map_err(|e| biscuit_purge::internal::store_error("check", path, e))
        };
        let (path, root) = (place(path)?, place(root)?);
        let relative =
            |path: &std::path::Path, root: &std::path::Path| path.strip_prefix(root).ok().map(ToOwned::to_owned);
        // `canonicalize` returns the names as the file system stores them. Both sides are taken relative to the root,
        // because a link above the table may change the beginning of the path.
        let real = tokio::task::spawn_blocking(move || {
            let real = relative(&path.canonicalize().ok()?, &root.canonicalize().ok()?)?;
            Some(real == relative(&path, &root)?)
        });
        // If the file was deleted since, its spelling is unknown and counts as right.
        Ok(real.await.map_err(|e| Error::internal("a check of a name was cancelled").with_source(e))?.unwrap_or(true))
    }

    async fn link_below(&self, folder: &Path) -> Result<Option<Path>> {
        let root =
            self.0.path_to_filesystem(folder).map_err(|e| biscuit_purge::internal::store_error("list", folder, e))?;
        let find = tokio::task::spawn_blocking(move || Ok(find_link(&root)?.map(|link| (root, link))));
        let failed = |e: io::Error| {
            Error::new(biscuit_core::codes::STORE_UNAVAILABLE, format!("cannot list `{folder}`")).with_source(e)
        };
        let found = find.await.map_err(|e| Error::internal("a search for links was cancelled").with_source(e))?;
        let relative = |(root, link): (std::path::PathBuf, std::path::PathBuf)| {
            let parts = link.strip_prefix(&root).map(std::path::Path::components).into_iter().flatten();
            folder.parts().chain(parts.map(|c| c.as_os_str().to_string_lossy().into_owned().into())).collect()
        };
        Ok(found.map_err(failed)?.map(relative))
    }

    async fn remove_folders(&self, root: &Path, dead: &(dyn for<'a> Fn(&'a str) -> bool + Send + Sync)) -> Result<()> {
        let folder =
            self.0.path_to_filesystem(root).map_err(|e| biscuit_purge::internal::store_error("clean", root, e))?;
        let failed = |e: io::Error| {
            Error::new(biscuit_core::codes::STORE_UNAVAILABLE, format!("cannot clean `{root}`")).with_source(e)
        };
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_str().is_some_and(dead) {
                continue;
            }
            match std::fs::remove_dir_all(entry.path()) {
                // Two runs may clean up at the same time, and a run that has lost may still write into its folder.
                // What remains is deleted by a later run.
                Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    return Err(failed(e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Finds the first symbolic link in a tree, without following links. Files and folders that are deleted during the
/// walk are skipped.
fn find_link(root: &std::path::Path) -> io::Result<Option<std::path::PathBuf>> {
    let gone = |e: &io::Error| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    match std::fs::symlink_metadata(root) {
        Ok(found) if found.is_symlink() => return Ok(Some(root.to_owned())),
        Ok(found) if !found.is_dir() => return Ok(None),
        Ok(_) => {}
        Err(e) if gone(&e) => return Ok(None),
        Err(e) => return Err(e),
    }
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if gone(&e) => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            // Files below a hidden name are not part of the table, wherever a link leads.
            let name = name.to_string_lossy();
            if name.starts_with('.') || (name.starts_with('_') && !name.contains('=')) {
                continue;
            }
            if kind.is_symlink() {
                return Ok(Some(entry.path()));
            }
            if kind.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(None)
}

/// A store together with the durability of its writes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TableStorage {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Durability of writes to the store.
    pub durability: Arc<dyn WriteDurability>,
}

impl TableStorage {
    /// Creates the storage of a store whose writes have this durability.
    pub fn new(store: Arc<dyn ObjectStore>, durability: Arc<dyn WriteDurability>) -> Self {
        Self { store, durability }
    }

    /// Creates the storage of a store where a successful write is durable, such as S3.
    pub fn durable(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, durability: Arc::new(StoreIsDurable) }
    }

    /// Creates the storage of a local file system.
    pub fn local(store: Arc<LocalFileSystem>) -> Self {
        Self { durability: Arc::new(LocalDisk::new(store.clone())), store }
    }

    /// Returns this storage with another store and the same durability, for stores that wrap this one in tests.
    #[must_use]
    pub fn with_store(&self, store: Arc<dyn ObjectStore>) -> Self {
        Self { store, durability: self.durability.clone() }
    }
}
