use biscuit_journal::is_hidden;
use serde::Serialize;

/// Why an object is none that anybody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IgnoredReason {
    /// A mark, a checksum, staging, or anything else that begins with `_` or `.`.
    Hidden,
    /// It has no byte.
    Empty,
    /// It is in an archive and cannot be read before it is restored.
    Archived,
}

impl IgnoredReason {
    /// The reason as reports say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Empty => "empty",
            Self::Archived => "archived",
        }
    }
}

/// Why an object is ignored, if it is: by its path below the source, its size, and its storage class.
pub(crate) fn ignored(relative: &str, size: u64, storage_class: Option<&str>) -> Option<IgnoredReason> {
    if is_hidden(relative) || relative.contains("_$folder$/") {
        return Some(IgnoredReason::Hidden);
    }
    if size == 0 {
        return Some(IgnoredReason::Empty);
    }
    // GLACIER_IR is read at once.
    matches!(storage_class, Some("GLACIER" | "DEEP_ARCHIVE")).then_some(IgnoredReason::Archived)
}
