//! Reference to an object of a store, as it was listed.

use serde::{Deserialize, Serialize};

/// Reference to an object of a store, as it was listed: path, size and ETag.
///
/// A type that knows more of an object contains its `ObjectRef`, and says what the path is relative to: a table, a
/// folder, or the root of a store. For input of several stores the path is the URL of the object.
///
/// ```
/// use biscuit_core::ObjectRef;
///
/// let file = ObjectRef::new("day=2024-02-29/part-0.parquet", 4096, Some("\"9b2c\"".to_owned()));
/// assert_eq!((file.folder(), file.size), ("day=2024-02-29", 4096));
/// assert_eq!(ObjectRef::new("part-0.parquet", 1, None).folder(), "");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectRef {
    /// Path of the object, not encoded, or its URL.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// ETag, if the store has ETags. On S3 it includes quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl ObjectRef {
    /// Creates a reference.
    pub fn new(path: impl Into<String>, size: u64, etag: Option<String>) -> Self {
        Self { path: path.into(), size, etag }
    }

    /// Returns the same object under another path, such as a path relative to another folder.
    #[must_use]
    pub fn with_path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Folder of the object: the path up to its last `/`; empty if the path has no `/`.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}
