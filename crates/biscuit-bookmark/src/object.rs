use biscuit_core::Instant;
use serde::Serialize;
use twox_hash::XxHash64;

/// An object of a source, as a listing showed it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SourceObject {
    /// Its URL; on a local disk its absolute path.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// Its ETag, where the store has them.
    pub etag: Option<String>,
    /// When it was last modified, in microseconds since 1970 on the store's clock; 0 where the store does not say.
    pub modified: i64,
}

impl SourceObject {
    /// When it was last modified.
    pub fn modified(&self) -> Instant {
        Instant::from_micros(self.modified)
    }

    pub(crate) fn fingerprint(&self) -> ObjectFingerprint {
        ObjectFingerprint::of(self.url.as_bytes(), self.size, self.etag.as_deref().map(str::as_bytes), self.modified)
    }
}

/// An object in three numbers. Two URLs share the first one by chance once in ten million sources of a million objects each, and
/// then one of them is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectFingerprint {
    pub(crate) url: u64,
    pub(crate) content: u64,
    pub(crate) modified: i64,
}

impl ObjectFingerprint {
    pub(crate) fn of(url: &[u8], size: u64, etag: Option<&[u8]>, modified: i64) -> Self {
        // Of size and ETag, or of size and time where the store has no ETags.
        let content = hash(size, etag.unwrap_or(&modified.to_le_bytes()));
        Self { url: hash(0, url), content, modified }
    }
}

/// XXH64, which is fixed for ever.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    XxHash64::oneshot(seed, bytes)
}
