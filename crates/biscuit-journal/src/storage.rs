use std::fmt;
use std::sync::Arc;

use biscuit_core::{Error, ErrorKind, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

/// Makes what was written survive a loss of power.
#[async_trait::async_trait]
pub trait Durability: fmt::Debug + Send + Sync {
    /// Returns when the content of this object is durable.
    async fn sync_file(&self, path: &Path) -> Result<()>;

    /// Returns when the names in the folder that holds this object are durable.
    async fn sync_folder_of(&self, path: &Path) -> Result<()>;
}

const _: fn(&dyn Durability) = |_| {};

/// For stores whose answer means that the write is durable, as S3's does; and for memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreIsDurable;

#[async_trait::async_trait]
impl Durability for StoreIsDurable {
    async fn sync_file(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn sync_folder_of(&self, _: &Path) -> Result<()> {
        Ok(())
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
        synced.await.map_err(|e| Error::internal("a sync was cut off").with_source(e))?.map_err(|e| {
            Error::new(ErrorKind::Unavailable, "StoreUnavailable", format!("cannot sync `{path}`")).with_source(e)
        })
    }
}

#[async_trait::async_trait]
impl Durability for LocalDisk {
    async fn sync_file(&self, path: &Path) -> Result<()> {
        self.sync(path, false).await
    }

    async fn sync_folder_of(&self, path: &Path) -> Result<()> {
        self.sync(path, true).await
    }
}

/// A store and how writes to it become durable.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// How writes to it become durable.
    pub durability: Arc<dyn Durability>,
}

impl Storage {
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
