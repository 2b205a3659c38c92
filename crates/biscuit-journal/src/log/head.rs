//! The head of a table: the state after the newest version, computed from a checkpoint and the records after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use biscuit_core::{CommitId, Error, Instant, ObjectRef, Result};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes;
use crate::log::layout::{JournalObjectKind, journal_folder};
use crate::log::record::{
    self, CommitRecord, DoneMark, FORMAT, JournalObject, LOST, NOT_REMOVED, RetainedFile, StateFile, external_content,
};
use crate::store_error;

/// Number of commit ids that a head remembers. Older ones are in the records only.
const REMEMBERED_COMMITS: usize = 1000;

/// Maximum number of records that are read at the same time, each with its mark.
const READS_IN_FLIGHT: usize = 16;

/// Maximum number of records that are read by name although the listing does not show them.
const MAX_UNLISTED: u64 = 1000;

/// A live file: a file that is part of the newest version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LiveFile {
    /// Size in bytes.
    pub size: u64,
    /// ETag at the final name; `None` while the version of the file is not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Number of rows, if Biscuit wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Version that published or adopted the file.
    pub since: u64,
    /// Staged path relative to the state root, where the file may still be while its version is not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<String>,
    /// Name of the content, if the file is a copy of another file or an external file: see [`TableHead::content_name`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A retained file: a later version replaced it, and it remains in the folder for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RetainedEntry {
    /// Size in bytes.
    pub size: u64,
    /// ETag, as observed by the run that replaced the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Version that replaced the file.
    pub since: u64,
    /// Minimum time that the file is retained after the commit of that version, in seconds.
    pub seconds: u64,
}

/// The newest committed version: its live files, retained files, state files and properties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableHead {
    format: u32,
    /// Number of the version; 0 before the first commit.
    pub version: u64,
    /// Live files by path, relative to the table.
    pub live: BTreeMap<String, LiveFile>,
    /// Retained files by path, relative to the table.
    #[serde(default)]
    pub retained: BTreeMap<String, RetainedEntry>,
    /// State files by name.
    pub state: BTreeMap<String, StateFile>,
    /// Properties by name.
    pub properties: BTreeMap<String, Value>,
    /// The last commit ids with their versions, oldest first.
    commits: VecDeque<(String, u64)>,
    /// Whether a version has lost staged files and no later version has reconciled the state with the rows. Until
    /// then, state that is stored for rows (such as key metadata) may not match the rows.
    #[serde(default)]
    pub(crate) lost: bool,
    /// Record of this version while it has no done mark. A checkpoint never contains it, since only finished versions
    /// get one.
    #[serde(skip)]
    pub(crate) unfinished: Option<CommitRecord>,
}

impl JournalObject for TableHead {
    fn table_paths(&self) -> Vec<&str> {
        self.live.keys().chain(self.retained.keys()).map(String::as_str).collect()
    }

    fn state_paths(&self) -> Vec<&str> {
        let staged = self.live.values().filter_map(|f| f.staged.as_deref());
        staged.chain(self.state.values().map(|f| f.path.as_str())).collect()
    }
}

impl TableHead {
    pub(crate) fn empty() -> Self {
        Self {
            format: FORMAT,
            version: 0,
            live: BTreeMap::new(),
            retained: BTreeMap::new(),
            state: BTreeMap::new(),
            properties: BTreeMap::new(),
            commits: VecDeque::new(),
            lost: false,
            unfinished: None,
        }
    }

    /// Returns the version that was committed with this commit id, among the last 1,000 commit ids.
    pub fn version_of_commit(&self, id: &CommitId) -> Option<u64> {
        self.commits.iter().rev().find(|(c, _)| c == id.as_str()).map(|(_, v)| *v)
    }

    /// Returns a name for the content of a file of the table. Two files with the same name are identical byte for
    /// byte, because the journal recorded that one was made as a copy of the other. The content of the files is not
    /// read.
    pub fn content_name(&self, file: &ObjectRef) -> String {
        match self.live.get(&file.path) {
            Some(live) => live.content.clone().unwrap_or_else(|| file.path.clone()),
            None => external_content(file),
        }
    }

    /// Whether the version is finished: its files have their final names, and the files that it removed are deleted.
    pub fn is_finished(&self) -> bool {
        self.unfinished.is_none()
    }

    /// Advances the head by one version. `done` is the done mark of `record`, if it has one.
    ///
    /// The order matters where a path occurs twice: removals come first, so that a version may remove and adopt or
    /// publish the same path. Exceptions in the mark override the record. A file that was `NotRemoved` remains live,
    /// and a file that is `Lost` does not become live.
    pub(crate) fn apply_record(&mut self, record: CommitRecord, done: Option<&DoneMark>) {
        self.version = record.version;
        let ended = |code: &str, path: &str| {
            done.is_some_and(|d| d.exceptions.iter().any(|e| e.code == code && e.path == path))
        };
        self.lost = (self.lost && !record.reconciles) || done.is_some_and(DoneMark::has_losses);
        let gone = record.remove.iter().map(|f| &f.path).filter(|p| !ended(NOT_REMOVED, p));
        for path in gone.chain(&record.missing_files) {
            self.live.remove(path);
            self.retained.remove(path);
        }
        for RetainedFile { file, seconds } in record.retain.iter().filter(|h| !ended(NOT_REMOVED, &h.file.path)) {
            self.live.remove(&file.path);
            let (etag, since, seconds) = (file.etag.clone(), record.version, *seconds);
            self.retained.insert(file.path.clone(), RetainedEntry { size: file.size, etag, since, seconds });
        }
        for f in &record.adopt {
            let (size, etag, since, content) = (f.size, f.etag.clone(), record.version, Some(external_content(f)));
            let live = LiveFile { size, etag, rows: None, since, staged: None, content };
            self.retained.remove(&f.path);
            self.live.insert(f.path.clone(), live);
        }
        for f in record.publish.iter().filter(|f| !ended(LOST, &f.path)) {
            let live = LiveFile {
                size: f.size,
                etag: done.and_then(|d| d.etags.get(&f.path).cloned()),
                rows: f.rows,
                since: record.version,
                staged: done.is_none().then(|| f.staged.clone()),
                content: f.content.clone(),
            };
            self.live.insert(f.path.clone(), live);
        }
        for (name, file) in &record.state {
            match file {
                Some(f) => drop(self.state.insert(name.clone(), f.clone())),
                None => drop(self.state.remove(name)),
            }
        }
        for (name, value) in &record.properties {
            if value.is_null() {
                drop(self.properties.remove(name));
            } else {
                drop(self.properties.insert(name.clone(), value.clone()));
            }
        }
        if let Some(id) = &record.commit_id {
            self.commits.push_back((id.clone(), record.version));
            self.commits.drain(..self.commits.len().saturating_sub(REMEMBERED_COMMITS));
        }
        self.unfinished = done.is_none().then_some(record);
    }
}

/// Versions that a listing of the folder of the journal shows, by the kind of their objects.
#[derive(Debug, Default)]
pub(crate) struct JournalListing {
    pub(crate) records: BTreeSet<u64>,
    pub(crate) done: BTreeSet<u64>,
    /// Version of the newest checkpoint; 0 if there is none.
    pub(crate) checkpoint: u64,
}

impl JournalListing {
    /// Whether the table has no version.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.checkpoint == 0
    }

    /// Versions whose records are in force: all after the newest checkpoint, and those with a done mark below it.
    pub(crate) fn in_force(&self) -> impl Iterator<Item = u64> {
        self.records.iter().copied().filter(|v| *v > self.checkpoint || self.done.contains(v))
    }
}

pub(crate) async fn list_entries(store: &dyn ObjectStore, state: &Path) -> Result<JournalListing> {
    let folder = journal_folder(state);
    let mut entries = JournalListing::default();
    let mut objects = store.list(Some(&folder));
    while let Some(object) = objects.try_next().await.map_err(|e| store_error("list", &folder, e))? {
        match JournalObjectKind::parse(&object.location) {
            Some(JournalObjectKind::Record(v)) => drop(entries.records.insert(v)),
            Some(JournalObjectKind::Done(v)) => drop(entries.done.insert(v)),
            Some(JournalObjectKind::Checkpoint(v)) => entries.checkpoint = entries.checkpoint.max(v),
            None => {}
        }
    }
    Ok(entries)
}

/// Lists the journal and reads the head.
///
/// # Errors
/// Those of [`read_listed_head`].
pub(crate) async fn read_head(store: &dyn ObjectStore, state: &Path) -> Result<TableHead> {
    let entries = list_entries(store, state).await?;
    read_listed_head(store, state, &entries).await
}

/// Reads the head: the newest checkpoint and all records after it. Records at or below the newest checkpoint are part
/// of the checkpoint or void, so they are not read. The head is the state at the time of the listing, however long
/// the reads take: an object of the journal never changes.
///
/// A listing of several pages does not show one instant. It can show version 3 without the mark or the record of
/// version 2, although both existed before version 3. So the listing only yields the newest version. Every record up
/// to that version, and every mark below it, must exist and is read by its name.
///
/// # Errors
/// `NotFound` if a record, or a mark below the newest version, does not exist. Either it was deleted below a newer
/// checkpoint after the listing began, or it is lost.
pub(crate) async fn read_listed_head(
    store: &dyn ObjectStore,
    state: &Path,
    entries: &JournalListing,
) -> Result<TableHead> {
    let newest = entries.records.last().copied().unwrap_or_default();
    // A record is put only after the mark of the version before it, so only the newest version can lack its mark.
    let is_done = |v: u64| v < newest || entries.done.contains(&v);
    let newer = entries.checkpoint + 1..=newest;
    // A slow listing misses few records. Without a limit, a stray object such as `18446744073709551615.json` would
    // cause a read for every number below it.
    if newest.saturating_sub(entries.checkpoint) > entries.records.len() as u64 + MAX_UNLISTED {
        let message = format!(
            "the journal `{state}` has a record of version {newest}, but lacks versions after {}",
            entries.checkpoint
        );
        return Err(Error::new(codes::DIVERGED, message));
    }
    let checkpoint = async {
        match entries.checkpoint {
            0 => Ok(TableHead::empty()),
            v => read(store, &JournalObjectKind::Checkpoint(v).path(state)).await,
        }
    };
    let reads: Vec<_> = newer.map(|v| read_record(store, state, v, is_done(v)).boxed()).collect();
    let records = stream::iter(reads).buffered(READS_IN_FLIGHT).try_collect::<Vec<_>>();
    let (head, records) = futures::join!(checkpoint, records);
    let mut head = head?;
    for (record, done) in records? {
        if record.version != head.version + 1 {
            let path = JournalObjectKind::Record(head.version + 1).path(state);
            return Err(Error::new(
                codes::DIVERGED,
                format!("`{path}` contains the record of version {}", record.version),
            ));
        }
        head.apply_record(record, done.as_ref());
    }
    Ok(head)
}

async fn read_record(
    store: &dyn ObjectStore,
    state: &Path,
    v: u64,
    is_done: bool,
) -> Result<(CommitRecord, Option<DoneMark>)> {
    let record = JournalObjectKind::Record(v).path(state);
    if !is_done {
        return Ok((read(store, &record).await?, None));
    }
    let done = JournalObjectKind::Done(v).path(state);
    let (record, done) = futures::join!(read(store, &record), read(store, &done));
    Ok((record?, Some(done?)))
}

pub(crate) async fn read<T: JournalObject>(store: &dyn ObjectStore, path: &Path) -> Result<T> {
    read_dated(store, path).await.map(|(object, _)| object)
}

/// Reads an object of the journal and the time when it was written, on the clock of the store.
pub(crate) async fn read_dated<T: JournalObject>(store: &dyn ObjectStore, path: &Path) -> Result<(T, Instant)> {
    let got = store.get(path).await.map_err(|e| store_error("read", path, e))?;
    let at = Instant::from_micros(got.meta.last_modified.timestamp_micros());
    let bytes = got.bytes().await.map_err(|e| store_error("read", path, e))?;
    Ok((record::parse(&bytes, path.as_ref())?, at))
}
