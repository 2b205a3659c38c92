//! Options of a journal: how runs write to a table, and what they do about files that they did not expect.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether several runs may write to the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WriterPolicy {
    /// Several runs may write at the same time: the store has to prove that put-if-absent has exactly one winner.
    #[default]
    Many,
    /// Single writer: the caller promises that no other run writes. Stores that ignore put-if-absent are accepted.
    One,
}

/// Handling of external files: files in the folder of the table that another program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExternalFiles {
    /// External files are part of the table; the next commit adopts them.
    #[default]
    Adopt,
    /// External files stop the run.
    Fail,
    /// External files are neither read nor changed.
    Ignore,
}

/// Handling of a diverged table: a live file is missing or changed, Biscuit files have no journal, or staged files
/// were lost after their commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DivergedPolicy {
    /// A divergence stops the run.
    #[default]
    Fail,
    /// The files that exist are the table, and the next commit records them.
    Adopt,
}

/// Handling of a folder that contains the log of another table format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OtherTableFormats {
    /// The folder is neither read nor written: rows of files that the other log has removed would come back, and live
    /// files of the other table could be deleted.
    #[default]
    Refuse,
    /// The data files are read as they are, without regard to the other log.
    Allow,
}

/// Options of a journal; each has a default.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::{ExternalFiles, Journal, JournalOptions, TableStorage};
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let (storage, table) = (TableStorage::durable(Arc::new(InMemory::new())), Path::from("lake/orders"));
/// storage.store.put(&Path::from("lake/orders/part-0.csv"), "id\n1\n".into()).await.unwrap();
///
/// let adopting = Journal::new(storage.clone(), table.clone(), JournalOptions::default());
/// assert_eq!(adopting.observe().await?.external.len(), 1);
///
/// let options = JournalOptions::default().with_external_files(ExternalFiles::Fail);
/// let strict = Journal::new(storage, table, options);
/// assert_eq!(strict.observe().await.unwrap_err().code(), "ExternalFiles");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct JournalOptions {
    /// Whether several runs may write to the table. Default: [`WriterPolicy::Many`].
    pub writers: WriterPolicy,
    /// Handling of external files. Default: [`ExternalFiles::Adopt`].
    pub external: ExternalFiles,
    /// Handling of a diverged table. Default: [`DivergedPolicy::Fail`].
    pub diverged: DivergedPolicy,
    /// Handling of a folder with a log of Delta Lake, Iceberg, Hudi or Paimon. Default:
    /// [`OtherTableFormats::Refuse`].
    #[serde(default)]
    pub other_formats: OtherTableFormats,
    /// How long a replaced file is retained, in whole seconds, so that readers of the older version can finish.
    /// [`Journal::release_files`](crate::Journal::release_files) deletes retained files afterwards. Default: zero, the
    /// commit deletes replaced files.
    ///
    /// A reader that lists the folder without the journal sees retained files together with their replacements. Set a
    /// retention only for a table that is read through Biscuit or by the file locations of a catalog.
    #[serde(default)]
    pub retention: Duration,
    /// Whether identical files may be hard links to one file on a local disk. A program that changes such a file in
    /// place changes it under all its names. Default: false; each copy is a separate file, which shares its blocks
    /// with the source where the file system supports that (reflink).
    #[serde(default)]
    pub hard_links: bool,
    /// Number of versions from one checkpoint to the next. Default: 32.
    pub checkpoint_every: u64,
    /// Number of versions before the newest checkpoint whose records are kept for the history. Default: 10,000.
    pub keep_history: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            writers: WriterPolicy::Many,
            external: ExternalFiles::Adopt,
            diverged: DivergedPolicy::Fail,
            other_formats: OtherTableFormats::Refuse,
            retention: Duration::ZERO,
            hard_links: false,
            checkpoint_every: 32,
            keep_history: 10_000,
        }
    }
}

impl JournalOptions {
    /// Sets whether several runs may write to the table. Default: [`WriterPolicy::Many`].
    pub fn with_writers(mut self, writers: WriterPolicy) -> Self {
        self.writers = writers;
        self
    }

    /// Sets the handling of external files. Default: [`ExternalFiles::Adopt`].
    pub fn with_external_files(mut self, external: ExternalFiles) -> Self {
        self.external = external;
        self
    }

    /// Sets the handling of a diverged table. Default: [`DivergedPolicy::Fail`].
    pub fn with_diverged(mut self, diverged: DivergedPolicy) -> Self {
        self.diverged = diverged;
        self
    }

    /// Sets the handling of folders with the log of another table format. Default: [`OtherTableFormats::Refuse`].
    pub fn with_other_formats(mut self, other_formats: OtherTableFormats) -> Self {
        self.other_formats = other_formats;
        self
    }

    /// Sets how long replaced files are retained, in whole seconds: see [`retention`](Self::retention). Default:
    /// zero.
    pub fn with_retention(mut self, duration: Duration) -> Self {
        self.retention = duration;
        self
    }

    /// Allows hard links of identical files to one file: see [`hard_links`](Self::hard_links). Default: each copy is a
    /// separate file.
    pub fn with_hard_links(mut self) -> Self {
        self.hard_links = true;
        self
    }

    /// Sets the number of versions from one checkpoint to the next. Minimum: 1. Default: 32.
    pub fn with_checkpoint_every(mut self, versions: u64) -> Self {
        self.checkpoint_every = versions.max(1);
        self
    }
}
