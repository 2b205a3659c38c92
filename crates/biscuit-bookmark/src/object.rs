use biscuit_core::Instant;
use serde::Serialize;
use twox_hash::XxHash64;

/// An object of a source, as a listing showed it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Object {
    /// Its URL; on a local disk its absolute path.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// Its ETag, where the store has them.
    pub etag: Option<String>,
    /// When it was last modified, in microseconds since 1970 on the store's clock; 0 where the store does not say.
    pub modified: i64,
}

impl Object {
    /// When it was last modified.
    pub fn modified(&self) -> Instant {
        Instant::from_micros(self.modified)
    }

    pub(crate) fn print(&self) -> Print {
        Print { url: hash(0, self.url.as_bytes()), content: self.content(), modified: self.modified }
    }

    /// A number for the content: of size and ETag, or of size and time where the store has no ETags.
    fn content(&self) -> u64 {
        match &self.etag {
            Some(etag) => hash(self.size, etag.as_bytes()),
            None => hash(self.size, &self.modified.to_le_bytes()),
        }
    }
}

/// An object in three numbers. Two URLs share the first one by chance once in ten million sources of a million objects each, and
/// then one of them is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Print {
    pub(crate) url: u64,
    pub(crate) content: u64,
    pub(crate) modified: i64,
}

/// XXH64, which is fixed for ever.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    XxHash64::oneshot(seed, bytes)
}
