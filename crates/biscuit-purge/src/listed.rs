use std::fmt;

use biscuit_core::{Instant, ObjectRef};
use object_store::ObjectMeta;
use object_store::path::Path;

/// Kind of an entry in a listing: the object itself, or one of its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum VersionKind {
    /// The current object.
    #[default]
    Current,
    /// An older version, in a bucket with versions.
    Noncurrent,
    /// A delete marker, in a bucket with versions.
    DeleteMarker,
}

/// Entries that a listing of a folder contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(clippy::exhaustive_enums, reason = "stores match it: a listing has the current objects or all versions")]
pub enum ListedVersions {
    /// Only the current objects.
    #[default]
    Current,
    /// All versions and delete markers, in a bucket with versions.
    All,
}

/// An object, or a version of one, as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedObject {
    /// The object. Its path is the key in the bucket, or the path from the root of the store.
    pub listed: ObjectRef,
    /// Id of a version, if the entry stands for exactly that version and not for the current object of the key.
    pub version: Option<String>,
    /// Time of the last modification, on the clock of the store. On S3 it is cut to whole seconds, and for a
    /// multipart upload it is the time when the upload began.
    pub modified: Option<Instant>,
    /// Storage class, if the listing has one, such as `STANDARD` or `GLACIER`.
    pub storage_class: Option<String>,
    /// Whether the entry is the current object, an older version or a delete marker.
    pub form: VersionKind,
}

impl ListedObject {
    /// Creates an entry for the current object of a key, with the given size and ETag and nothing else.
    pub fn new(key: impl Into<String>, size: u64, etag: Option<String>) -> Self {
        ObjectRef::new(key, size, etag).into()
    }

    /// Key in the bucket, or path from the root of the store; not encoded.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.listed.path
    }

    /// Returns the key as a path of `object_store`; `None` if such a path cannot represent it: a key with an empty
    /// segment, `.` or `..`, or one that ends with `/`.
    pub(crate) fn path(&self) -> Option<Path> {
        Path::parse(self.key()).ok().filter(|path| path.as_ref() == self.key())
    }
}

impl From<ObjectRef> for ListedObject {
    fn from(listed: ObjectRef) -> Self {
        Self { listed, version: None, modified: None, storage_class: None, form: VersionKind::Current }
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
            None => f.write_str(self.key()),
            Some(version) => write!(f, "{} (version {version})", self.key()),
        }
    }
}

/// A multipart upload that was neither completed nor aborted. It is not in listings of objects, but its storage is
/// billed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "implementations of `PurgeStore` write it as a literal")]
pub struct MultipartUpload {
    /// Key of the object that the upload would create.
    pub key: String,
    /// Upload id of the store.
    pub id: String,
    /// Time when the upload began, on the clock of the store.
    pub begun: Option<Instant>,
}
