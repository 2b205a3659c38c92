use biscuit_journal::internal::is_hidden;
use serde::Serialize;

/// Reason why no run reads an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IgnoredReason {
    /// It is a marker, a checksum, a staged file, or another object with a segment that begins with `_` or `.`.
    Hidden,
    /// It is empty.
    Empty,
    /// It is in an archive storage class and cannot be read before it is restored.
    Archived,
}

impl IgnoredReason {
    /// Name of the reason in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Empty => "empty",
            Self::Archived => "archived",
        }
    }
}

/// Returns the reason why an object is ignored, from its path below the source, its size and its storage class.
pub(crate) fn ignored_reason(relative: &str, size: u64, storage_class: Option<&str>) -> Option<IgnoredReason> {
    if is_hidden(relative) || relative.contains("_$folder$/") {
        return Some(IgnoredReason::Hidden);
    }
    if size == 0 {
        return Some(IgnoredReason::Empty);
    }
    // Objects in GLACIER_IR can be read without a restore.
    matches!(storage_class, Some("GLACIER" | "DEEP_ARCHIVE")).then_some(IgnoredReason::Archived)
}
