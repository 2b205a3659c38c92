use biscuit_core::{Instant, ObjectRef};
use twox_hash::XxHash64;

/// An object of a source, as it was listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct SourceObject {
    /// The object. Its path is its URL; on a local disk its absolute path.
    pub listed: ObjectRef,
    /// Time of the last modification in microseconds since 1970, on the clock of the store; 0 if it is unknown.
    pub modified: i64,
}

impl SourceObject {
    /// URL of the object; on a local disk its absolute path.
    pub fn url(&self) -> &str {
        &self.listed.path
    }

    /// Time of the last modification.
    pub fn modified(&self) -> Instant {
        Instant::from_micros(self.modified)
    }

    pub(crate) fn fingerprint(&self) -> ObjectFingerprint {
        let ObjectRef { path, size, etag, .. } = &self.listed;
        ObjectFingerprint::new(path.as_bytes(), *size, etag.as_deref().map(str::as_bytes), self.modified)
    }
}

/// Fingerprint of an object: hashes of its URL and of its content, and its time of modification.
///
/// Two URLs of a source share a hash by chance in one of ten million sources of a million objects each. Then one of
/// the two objects is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectFingerprint {
    pub(crate) url: u64,
    pub(crate) content: u64,
    pub(crate) modified: i64,
}

impl ObjectFingerprint {
    pub(crate) fn new(url: &[u8], size: u64, etag: Option<&[u8]>, modified: i64) -> Self {
        // The content is recognised by size and ETag, or by size and time if the store has no ETags.
        let content = hash(size, etag.unwrap_or(&modified.to_le_bytes()));
        Self { url: hash(0, url), content, modified }
    }
}

/// XXH64. State files contain its results, so this function and its seeds must never change.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    XxHash64::oneshot(seed, bytes)
}
