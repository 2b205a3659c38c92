//! Locations: paths in a store, by URL.

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use biscuit_core::{Error, Result};
use biscuit_journal::TableStorage;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::codes;

/// A folder or a file in a store.
///
/// ```
/// use biscuit_dataset::Location;
///
/// let orders = Location::parse("memory://location/lake/orders")?;
/// let customers = Location::parse("memory://location/lake/customers/")?;
/// assert_eq!(customers.path().to_string(), "lake/customers");
/// assert!(orders.same_store(&customers));
///
/// // A plain path and a URL can name the same folder.
/// let path = Location::parse("/data/lake/../lake/orders")?;
/// assert_eq!(path.path(), Location::parse("file:///data/lake/orders")?.path());
///
/// // A table is a folder, and never the root of a store.
/// assert_eq!(Location::parse("memory://location").unwrap_err().code(), "InvalidUrl");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Location {
    storage: TableStorage,
    path: Path,
    url: String,
}

impl Location {
    /// Parses a URL: `file:///…`, `s3://bucket/…` (or `s3a`), `memory://name/…` (shared within the process), or a
    /// plain path.
    ///
    /// # Errors
    /// `InvalidUrl` for another scheme, and for the root of a store.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => return Self::local(url, std::path::Path::new(url)),
        };
        match scheme.as_str() {
            "file" => {
                let parsed = url::Url::parse(url)
                    .map_err(|e| invalid_location(url, "it is not a valid URL").with_plain_source(e))?;
                let path = parsed
                    .to_file_path()
                    .map_err(|()| invalid_location(url, "it contains a host name; write `file:///path`"))?;
                Self::local(url, &path)
            }
            "memory" => {
                let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
                Self::new(TableStorage::durable(memory_store(name)), path, url)
            }
            "s3" | "s3a" => Self::s3(url, rest),
            _ => Err(invalid_location(
                url,
                "the scheme is unknown; use `file://`, `s3://`, `s3a://`, `memory://` or a plain path",
            )),
        }
    }

    /// Creates a location in a storage that is already open. `url` is its name in messages.
    pub fn new(storage: TableStorage, path: &str, url: &str) -> Result<Self> {
        let path = Path::parse(path.trim_matches('/'))
            .map_err(|e| invalid_location(url, "its path is not valid").with_plain_source(e))?;
        if path.parts().next().is_none() {
            return Err(invalid_location(url, "it is the root of a store; name a folder"));
        }
        Ok(Self { storage, path, url: url.trim_end_matches('/').to_owned() })
    }

    /// Resolves symbolic links in a path on disk, so that a table has one name, one state root and one journal,
    /// whatever links lead to it.
    fn local(url: &str, path: &std::path::Path) -> Result<Self> {
        let absolute =
            std::path::absolute(path).map_err(|e| invalid_location(url, "it is not a path").with_plain_source(e))?;
        let real = real_path(&absolute)
            .map_err(|e| invalid_location(url, "a symbolic link in its path is broken").with_plain_source(e))?;
        let mut parts = Vec::new();
        for part in real.components() {
            if let Component::Normal(p) = part {
                parts.push(p.to_str().ok_or_else(|| invalid_location(url, "its path is not UTF-8"))?);
            }
        }
        Self::new(TableStorage::local(Arc::new(LocalFileSystem::new())), &parts.join("/"), url)
    }

    #[cfg(feature = "s3")]
    fn s3(url: &str, rest: &str) -> Result<Self> {
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        let http = std::env::var("AWS_ENDPOINT_URL").is_ok_and(|e| e.starts_with("http://"));
        let store = object_store::aws::AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_allow_http(http)
            .build()
            .map_err(|e| {
                invalid_location(url, "the S3 client cannot be created; check the AWS settings of the environment")
                    .with_plain_source(e)
            })?;
        Self::new(TableStorage::durable(Arc::new(store)), path, url)
    }

    #[cfg(not(feature = "s3"))]
    fn s3(url: &str, _: &str) -> Result<Self> {
        Err(invalid_location(url, "this build does not have the feature `s3`"))
    }

    /// Returns the storage.
    pub fn storage(&self) -> &TableStorage {
        &self.storage
    }

    /// Returns the path in the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the storage, for a storage that wraps the present one.
    #[must_use]
    pub fn with_storage(mut self, storage: TableStorage) -> Self {
        self.storage = storage;
        self
    }

    /// Returns whether both locations are in the same store: the same scheme and, on S3 and in memory, the same
    /// bucket or name.
    pub fn same_store(&self, other: &Self) -> bool {
        store_of(&self.url) == store_of(&other.url)
    }
}

/// Opens locations. A job can implement it to decide how stores are reached.
#[async_trait::async_trait]
pub trait OpenLocation: fmt::Debug + Send + Sync {
    /// Opens the location of a URL or path.
    async fn open(&self, url: &str) -> Result<Location>;
}

const _: fn(&dyn OpenLocation) = |_| {};

/// Opens locations with [`Location::parse`].
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value without fields")]
pub struct OpenByUrl;

#[async_trait::async_trait]
impl OpenLocation for OpenByUrl {
    async fn open(&self, url: &str) -> Result<Location> {
        Location::parse(url)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Resolves links and `..` of an absolute path from left to right, as the file system does. Parts that do not exist
/// remain as they are.
fn real_path(absolute: &std::path::Path) -> std::io::Result<PathBuf> {
    let mut real = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(real.pop()),
            Component::CurDir => {}
            part => real.push(part),
        }
        if real.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            real = real.canonicalize()?;
        }
    }
    Ok(real)
}

fn store_of(url: &str) -> (&str, &str) {
    match url.split_once("://") {
        None | Some(("file", _)) => ("file", ""),
        Some((scheme, rest)) => {
            (if scheme == "s3a" { "s3" } else { scheme }, rest.split_once('/').map_or(rest, |(bucket, _)| bucket))
        }
    }
}

fn memory_store(name: &str) -> Arc<InMemory> {
    static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().expect("no holder of this lock panics");
    stores.entry(name.to_owned()).or_default().clone()
}

fn invalid_location(url: &str, reason: &str) -> Error {
    Error::new(codes::INVALID_URL, format!("`{url}` cannot be used: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_and_file_urls_name_the_same_place() {
        let a = Location::parse("/tmp/lake/../lake/a b/").unwrap();
        let b = Location::parse("file:///tmp/lake/a%20b").unwrap();
        assert_eq!(a.path(), b.path());
        assert_eq!(a.path().as_ref(), "tmp/lake/a b");
        assert!(a.same_store(&b));
    }

    #[test]
    fn roots_and_unknown_schemes_are_refused() {
        for url in ["/", "memory://x", "memory://x/", "ftp://x/y", "file://host/x"] {
            assert_eq!(Location::parse(url).unwrap_err().code(), "InvalidUrl", "{url}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_link_to_a_table_is_the_table() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("data/t")).unwrap();
        std::fs::create_dir_all(at("lake")).unwrap();
        std::os::unix::fs::symlink(at("data/t"), at("lake/t")).unwrap();
        let path = |name: &str| Location::parse(at(name).to_str().unwrap()).map(|l| l.path().clone());
        assert_eq!(path("lake/t").unwrap(), path("data/t").unwrap());
        assert_eq!(path("lake/t/new/x").unwrap(), path("data/t/new/x").unwrap());
        assert_eq!(path("lake/t/../u").unwrap(), path("data/u").unwrap(), "`..` is resolved like in the file system");
        std::os::unix::fs::symlink(at("gone"), at("lake/broken")).unwrap();
        assert_eq!(path("lake/broken").unwrap_err().code(), "InvalidUrl");
    }

    #[test]
    fn memory_is_shared_by_name() {
        let a = Location::parse("memory://m1/x").unwrap();
        let b = Location::parse("memory://m1/y").unwrap();
        assert!(Arc::ptr_eq(&memory_store("m1"), &memory_store("m1")) && a.same_store(&b));
        assert!(!a.same_store(&Location::parse("memory://m2/x").unwrap()));
    }
}
