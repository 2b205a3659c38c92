use std::fmt;

use biscuit_core::Instant;
use object_store::ObjectMeta;
use object_store::path::Path;

/// Which state of an object an entry of a listing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum VersionKind {
    /// The object as it is now.
    #[default]
    Current,
    /// An older version, in a bucket that keeps them.
    Noncurrent,
    /// The mark of a delete, in a bucket that keeps versions.
    DeleteMarker,
}

/// An object, or a version of one, as a listing showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedObject {
    /// Its whole name in the bucket, or its path from the root of the store; as it is, not encoded.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its ETag, where the store has them. S3 puts it between quotes.
    pub etag: Option<String>,
    /// Its version, where that very version is meant and not what the key names now.
    pub version: Option<String>,
    /// When it was last modified, on the store's clock: in whole seconds on S3, and for a multipart upload when it began.
    pub modified: Option<Instant>,
    /// Its storage class, where the listing says one: `STANDARD`, `GLACIER`.
    pub storage_class: Option<String>,
    /// Whether it is the object as it is now.
    pub form: VersionKind,
}

impl ListedObject {
    /// An object of which key, size and ETag are known.
    pub fn new(key: impl Into<String>, size: u64, etag: Option<String>) -> Self {
        Self {
            key: key.into(),
            size,
            etag,
            version: None,
            modified: None,
            storage_class: None,
            form: VersionKind::Current,
        }
    }

    /// Whether this is a key that the crate's paths cannot say: an empty segment, `.`, `..`, or one that ends with `/`.
    pub(crate) fn path(&self) -> Option<Path> {
        Path::parse(&self.key).ok().filter(|path| path.as_ref() == self.key)
    }
}

impl From<ObjectMeta> for ListedObject {
    fn from(meta: ObjectMeta) -> Self {
        let modified = Some(Instant::from_micros(meta.last_modified.timestamp_micros()));
        Self { modified, ..Self::new(meta.location, meta.size, meta.e_tag) }
    }
}

impl fmt::Display for ListedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            None => f.write_str(&self.key),
            Some(version) => write!(f, "{} (version {version})", self.key),
        }
    }
}

/// An upload in parts that was begun and neither completed nor aborted: no listing shows it, and it is paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartUpload {
    /// The key that it would have.
    pub key: String,
    /// The store's name for it.
    pub id: String,
    /// When it began, on the store's clock.
    pub begun: Option<Instant>,
}
