use std::fmt;
use std::io;
use std::sync::Arc;

use biscuit_core::{Error, ErrorKind, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

/// Makes what was written survive a loss of power.
#[async_trait::async_trait]
pub trait WriteDurability: fmt::Debug + Send + Sync {
    /// Returns when the content of this object is durable.
    async fn sync_file(&self, path: &Path) -> Result<()>;

    /// Returns when the names in the folder that holds this object are durable.
    async fn sync_folder_of(&self, path: &Path) -> Result<()>;

    /// Whether the store's answer to a write means that it is durable, whole. If not, an object that must never be seen
    /// in part is written and synced under another name first, and then linked to its own.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Copies a file where the store's own copy would be a further name of the same one; none where that is a file of its own.
    /// Blocks are shared where the file system can.
    async fn copy(&self, from: &Path, to: &Path) -> Option<object_store::Result<()>> {
        let _ = (from, to);
        None
    }

    /// Whether the names in a path below `root` are stored as they are spelled: some file systems take names that differ by
    /// letter case or Unicode form for one.
    async fn is_spelled_so(&self, path: &Path, root: &Path) -> Result<bool> {
        let _ = (path, root);
        Ok(true)
    }

    /// The first symbolic link at a folder or below it, links of names that readers pass over left out; none for a store
    /// that has no links.
    async fn link_below(&self, folder: &Path) -> Result<Option<Path>> {
        let _ = folder;
        Ok(None)
    }

    /// Removes the folders directly below `root` whose names `dead` picks, with all that is left in them: what a process
    /// that was killed in the middle of a write leaves is no object, and a store of objects has no folders.
    async fn remove_folders(&self, root: &Path, dead: &(dyn for<'a> Fn(&'a str) -> bool + Send + Sync)) -> Result<()> {
        let _ = (root, dead);
        Ok(())
    }
}

const _: fn(&dyn WriteDurability) = |_| {};

/// For stores whose answer means that the write is durable, as S3's does; and for memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreIsDurable;

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

/// A local file system, where files and folders are synced by fsync: object_store 0.13 does not do it.
#[derive(Debug, Clone)]
pub struct LocalDisk(Arc<LocalFileSystem>);

impl LocalDisk {
    /// Syncs what `store` writes.
    pub fn new(store: Arc<LocalFileSystem>) -> Self {
        Self(store)
    }

    async fn sync(&self, path: &Path, folder: bool) -> Result<()> {
        let file = self.0.path_to_filesystem(path).map_err(|e| biscuit_purge::store_error("sync", path, e))?;
        let synced = tokio::task::spawn_blocking(move || {
            let place = if folder { file.parent().unwrap_or(&file) } else { &file };
            std::fs::File::open(place)?.sync_all()
        });
        match synced.await.map_err(|e| Error::internal("a sync was cut off").with_source(e))? {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let message = format!("`{path}` is gone, since another run has committed; run again");
                Err(Error::conflict("Conflict", message).with_source(e))
            }
            Err(e) => {
                let message = format!("cannot sync `{path}`");
                Err(Error::new(ErrorKind::Unavailable, "StoreUnavailable", message).with_source(e))
            }
        }
    }
}

#[async_trait::async_trait]
impl WriteDurability for LocalDisk {
    async fn sync_file(&self, path: &Path) -> Result<()> {
        self.sync(path, false).await
    }

    async fn sync_folder_of(&self, path: &Path) -> Result<()> {
        self.sync(path, true).await
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
        let place =
            |path: &Path| self.0.path_to_filesystem(path).map_err(|e| biscuit_purge::store_error("look at", path, e));
        let (path, root) = (place(path)?, place(root)?);
        let relative =
            |path: &std::path::Path, root: &std::path::Path| path.strip_prefix(root).ok().map(ToOwned::to_owned);
        let real = tokio::task::spawn_blocking(move || {
            let real = relative(&path.canonicalize().ok()?, &root.canonicalize().ok()?)?;
            Some(real == relative(&path, &root)?)
        });
        // A file that is gone again cannot be asked how it is spelled.
        Ok(real.await.map_err(|e| Error::internal("a look at a name was cut off").with_source(e))?.unwrap_or(true))
    }

    async fn link_below(&self, folder: &Path) -> Result<Option<Path>> {
        let root = self.0.path_to_filesystem(folder).map_err(|e| biscuit_purge::store_error("list", folder, e))?;
        let find = tokio::task::spawn_blocking(move || Ok(find_link(&root)?.map(|link| (root, link))));
        let failed = |e: io::Error| {
            Error::new(ErrorKind::Unavailable, "StoreUnavailable", format!("cannot list `{folder}`")).with_source(e)
        };
        let found = find.await.map_err(|e| Error::internal("a look for links was cut off").with_source(e))?;
        let relative = |(root, link): (std::path::PathBuf, std::path::PathBuf)| {
            let parts = link.strip_prefix(&root).map(std::path::Path::components).into_iter().flatten();
            folder.parts().chain(parts.map(|c| c.as_os_str().to_string_lossy().into_owned().into())).collect()
        };
        Ok(found.map_err(failed)?.map(relative))
    }

    async fn remove_folders(&self, root: &Path, dead: &(dyn for<'a> Fn(&'a str) -> bool + Send + Sync)) -> Result<()> {
        let folder = self.0.path_to_filesystem(root).map_err(|e| biscuit_purge::store_error("clean", root, e))?;
        let failed = |e: io::Error| {
            Error::new(ErrorKind::Unavailable, "StoreUnavailable", format!("cannot clean `{root}`")).with_source(e)
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
                // Two runs may clean up at once, and a run that is overtaken may still write.
                Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    return Err(failed(e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Walks a tree without following links; files that come and go meanwhile are passed over.
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
            // Whatever a hidden link leads to is in no listing of the table.
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

/// A store and how writes to it become durable.
#[derive(Debug, Clone)]
pub struct TableStorage {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// How writes to it become durable.
    pub durability: Arc<dyn WriteDurability>,
}

impl TableStorage {
    /// A store whose answers mean that writes are durable.
    pub fn durable(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, durability: Arc::new(StoreIsDurable) }
    }

    /// A local file system.
    pub fn local(store: Arc<LocalFileSystem>) -> Self {
        Self { durability: Arc::new(LocalDisk::new(store.clone())), store }
    }

    /// The same storage with another store in front, as wrappers for tests need it.
    pub fn with_store(&self, store: Arc<dyn ObjectStore>) -> Self {
        Self { store, durability: self.durability.clone() }
    }
}
