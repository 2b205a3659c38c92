//! Options of a bookmark.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Criterion by which a listed object is the same as a remembered one with the same URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ObjectIdentity {
    /// Size and ETag are the same; if the store has no ETags, size and time of modification.
    #[default]
    Content,
    /// The time of modification is the same. An object that is uploaded again is read again, as in AWS Glue.
    Modified,
}

/// Handling of an object that was overwritten after it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OverwrittenPolicy {
    /// The object is read again, as a whole.
    #[default]
    Read,
    /// The object stops the run.
    Fail,
    /// The object is skipped and counted.
    Ignore,
}

/// Handling of an object that appears with a time of modification before the allowed lateness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LatePolicy {
    /// The object is reported and not read.
    #[default]
    Report,
    /// The object is read: a backfill.
    Read,
}

/// Handling of input that no longer exists: files of a replay, and files that are deleted while a run reads. In a job
/// file, `true` or `false`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "bool")]
#[non_exhaustive]
pub enum MissingObjects {
    /// The run stops.
    #[default]
    Refuse,
    /// The run continues without them.
    Allow,
}

impl From<bool> for MissingObjects {
    fn from(allow: bool) -> Self {
        if allow { Self::Allow } else { Self::Refuse }
    }
}

/// Maximum input of one run. The next runs read the objects beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct RunLimit {
    /// Maximum number of objects. Default: none.
    pub files: Option<usize>,
    /// Maximum number of bytes. A run reads at least one object, whatever its size. Default: none.
    pub bytes: Option<u64>,
}

impl RunLimit {
    /// Sets the maximum number of objects. Default: none.
    pub fn with_files(mut self, files: usize) -> Self {
        self.files = Some(files);
        self
    }

    /// Sets the maximum number of bytes. A run reads at least one object, whatever its size. Default: none.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }
}

/// Options of a bookmark; each has a default.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_bookmark::{Bookmark, BookmarkOptions, OverwrittenPolicy, ReadMode, RunLimit, SourcePlace, list};
/// use biscuit_journal::{Journal, JournalOptions, TableStorage};
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let storage = TableStorage::durable(Arc::new(InMemory::new()));
/// for key in ["raw/a.json", "raw/b.json", "raw/c.json"] {
///     storage.store.put(&Path::from(key), "{}".into()).await.unwrap();
/// }
/// let journal = Journal::new(storage.clone(), Path::from("lake/orders"), JournalOptions::default());
/// let limit = RunLimit::default().with_files(2);
/// let options = BookmarkOptions::default().with_limit(limit).with_overwritten(OverwrittenPolicy::Fail);
/// let bookmark = Bookmark::new("orders")?.with_options(options);
///
/// let state = bookmark.load(&journal, &journal.head().await?).await?;
/// let input = list(&[SourcePlace::new(&storage, "memory://lake/", "raw")?]).await?;
/// let selection = state.select(&input, &ReadMode::Advance)?;
/// assert_eq!((selection.counts.selected, selection.counts.left), (2, 1));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct BookmarkOptions {
    /// Criterion by which two objects with the same URL are the same. Default: [`ObjectIdentity::Content`].
    pub identity: ObjectIdentity,
    /// How far below the newest object that was read the time of modification of an unread object may be, on the
    /// clock of the store. None: without limit, as always on a local disk. Default: 24 hours.
    pub allowed_lateness: Option<Duration>,
    /// Handling of unread objects before the allowed lateness. Default: [`LatePolicy::Report`].
    pub late: LatePolicy,
    /// Handling of objects that were overwritten after they were read. Default: [`OverwrittenPolicy::Read`].
    pub overwritten: OverwrittenPolicy,
    /// Maximum input of one run. Default: no limit.
    pub limit: RunLimit,
    /// Number of newest runs whose objects are remembered by name, so that they can be replayed. Older runs are
    /// compacted to fingerprints. Default: 1,000.
    pub keep_runs: u64,
    /// Whether the first run may find a place without objects. Later runs always may. Default: false.
    pub allow_empty: bool,
    /// Description of how the objects are read, in any form. A run with a different description gets a warning.
    /// Default: null.
    pub reading: Value,
}

impl Default for BookmarkOptions {
    fn default() -> Self {
        Self {
            identity: ObjectIdentity::default(),
            allowed_lateness: Some(Duration::from_secs(24 * 3600)),
            late: LatePolicy::default(),
            overwritten: OverwrittenPolicy::default(),
            limit: RunLimit::default(),
            keep_runs: 1000,
            allow_empty: false,
            reading: Value::Null,
        }
    }
}

impl BookmarkOptions {
    /// Sets the criterion by which objects are the same. Default: [`ObjectIdentity::Content`].
    pub fn with_identity(mut self, identity: ObjectIdentity) -> Self {
        self.identity = identity;
        self
    }

    /// Sets the allowed lateness; none is without limit. Default: 24 hours.
    pub fn with_allowed_lateness(mut self, allowed_lateness: Option<Duration>) -> Self {
        self.allowed_lateness = allowed_lateness;
        self
    }

    /// Sets the handling of unread objects before the allowed lateness. Default: [`LatePolicy::Report`].
    pub fn with_late(mut self, late: LatePolicy) -> Self {
        self.late = late;
        self
    }

    /// Sets the handling of overwritten objects. Default: [`OverwrittenPolicy::Read`].
    pub fn with_overwritten(mut self, overwritten: OverwrittenPolicy) -> Self {
        self.overwritten = overwritten;
        self
    }

    /// Sets the maximum input of one run. Default: no limit.
    pub fn with_limit(mut self, limit: RunLimit) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the number of newest runs whose objects are remembered by name. Minimum: 1. Default: 1,000.
    pub fn with_keep_runs(mut self, runs: u64) -> Self {
        self.keep_runs = runs.max(1);
        self
    }

    /// Allows the first run to find a place without objects. Default: such a place is `NoInput`.
    pub fn with_allow_empty(mut self) -> Self {
        self.allow_empty = true;
        self
    }

    /// Sets the description of how the objects are read. Default: null.
    pub fn with_reading(mut self, reading: Value) -> Self {
        self.reading = reading;
        self
    }
}
