use std::collections::{BTreeMap, BTreeSet, VecDeque};

use biscuit_core::{CommitId, Error, Instant, Result};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::log::layout::{JournalObjectKind, journal_folder};
use crate::log::record::{
    self, CommitRecord, DoneMark, FORMAT, FileRef, JournalObject, LOST, NOT_RETIRED, RetainedFile, StateFile,
    external_content,
};
use crate::store_error;

/// Commit ids that a head remembers; older ones are in the records alone.
const REMEMBERED_COMMITS: usize = 1000;

/// Records that are asked for by name although the listing does not show them.
const MOST_UNLISTED: u64 = 1000;

/// A file that is part of the table now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveFile {
    /// Bytes.
    pub size: u64,
    /// Its ETag, once it was seen at its final name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Rows, where Biscuit wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The version that published or adopted it.
    pub since: u64,
    /// Where it still may be, relative to the state root, while its version is not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<String>,
    /// Its content, where another file had it first or somebody else wrote it: see [`TableHead::content`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A file that was part of the table, and stays in its folder for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedEntry {
    /// Bytes.
    pub size: u64,
    /// Its ETag, as observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The version that replaced it.
    pub since: u64,
    /// How long it stays at least after that was committed, in seconds.
    pub seconds: u64,
}

/// The newest committed version: what is part of the table and of its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableHead {
    format: u32,
    /// The version; 0 before the first commit.
    pub version: u64,
    /// The table's files by path, relative to the table.
    pub live: BTreeMap<String, LiveFile>,
    /// Files in the table's folder that are not part of it any more and stay for those that still read them, by path.
    #[serde(default)]
    pub retained: BTreeMap<String, RetainedEntry>,
    /// The state files by name.
    pub state: BTreeMap<String, StateFile>,
    /// Small facts by name.
    pub properties: BTreeMap<String, Value>,
    commits: VecDeque<(String, u64)>,
    /// Whether files were lost since the last version that settled it: state kept by row may not fit the rows.
    #[serde(default)]
    pub(crate) lost: bool,
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

    /// The version that carried this commit id, among the last thousand.
    pub fn committed(&self, id: &CommitId) -> Option<u64> {
        self.commits.iter().rev().find(|(c, _)| c == id.as_str()).map(|(_, v)| *v)
    }

    /// The content of a file of the table, as a name: files of one name are alike byte for byte, since the journal recorded that one
    /// was made as a copy of the other. What files say of themselves is not asked.
    pub fn content(&self, file: &FileRef) -> String {
        match self.live.get(&file.path) {
            Some(live) => live.content.clone().unwrap_or_else(|| file.path.clone()),
            None => external_content(file),
        }
    }

    /// Whether everything of this version is at its final place.
    pub fn is_finished(&self) -> bool {
        self.unfinished.is_none()
    }

    /// The state after `record`; `done` is its mark, if it has one.
    pub(crate) fn apply(&mut self, record: CommitRecord, done: Option<&DoneMark>) {
        self.version = record.version;
        let ended = |code: &str, path: &str| {
            done.is_some_and(|d| d.exceptions.iter().any(|e| e.code == code && e.path == path))
        };
        self.lost = (self.lost && !record.reconciles) || done.is_some_and(DoneMark::has_losses);
        let gone = record.remove.iter().map(|f| &f.path).filter(|p| !ended(NOT_RETIRED, p));
        for path in gone.chain(&record.missing_files) {
            self.live.remove(path);
            self.retained.remove(path);
        }
        for RetainedFile { file, seconds } in record.retain.iter().filter(|h| !ended(NOT_RETIRED, &h.file.path)) {
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

/// What a listing of the journal's folder shows.
#[derive(Debug, Default)]
pub(crate) struct JournalListing {
    pub(crate) records: BTreeSet<u64>,
    pub(crate) done: BTreeSet<u64>,
    pub(crate) checkpoint: u64,
}

impl JournalListing {
    /// The versions whose records count.
    pub(crate) fn in_force(&self) -> impl Iterator<Item = u64> {
        self.records.iter().copied().filter(|v| *v > self.checkpoint || self.done.contains(v))
    }
}

pub(crate) async fn list_entries(store: &dyn ObjectStore, state: &Path) -> Result<JournalListing> {
    let folder = journal_folder(state);
    let mut entries = JournalListing::default();
    let mut objects = store.list(Some(&folder));
    while let Some(properties) = objects.try_next().await.map_err(|e| store_error("list", &folder, e))? {
        match JournalObjectKind::parse(&properties.location) {
            Some(JournalObjectKind::Record(v)) => drop(entries.records.insert(v)),
            Some(JournalObjectKind::Done(v)) => drop(entries.done.insert(v)),
            Some(JournalObjectKind::Checkpoint(v)) => entries.checkpoint = entries.checkpoint.max(v),
            None => {}
        }
    }
    Ok(entries)
}

/// Reads the head: the newest checkpoint and the records after it. Records at or below the newest checkpoint are void
/// if they are not in it, so they are not looked at.
///
/// A listing of several pages is not of one instant: it can show a version without the mark, or the record, of the version
/// before it, which was there first. So everything up to the newest version that was listed is asked for by its name.
///
/// # Errors
/// `NotFound` for a record or mark below the newest version that is not there: it was dropped below a newer checkpoint since
/// the listing began, or it is lost.
pub(crate) async fn read_head(store: &dyn ObjectStore, state: &Path) -> Result<(TableHead, JournalListing)> {
    let entries = list_entries(store, state).await?;
    let mut head = match entries.checkpoint {
        0 => TableHead::empty(),
        v => read(store, &JournalObjectKind::Checkpoint(v).path(state)).await?,
    };
    let newest = entries.records.last().copied().unwrap_or_default();
    let is_done = |v: u64| v < newest || entries.done.contains(&v);
    let newer = entries.checkpoint + 1..=newest;
    // Few of them can be missing from the listing: a name with a number that no run gave is not to make it ask for millions.
    if newest.saturating_sub(entries.checkpoint) > entries.records.len() as u64 + MOST_UNLISTED {
        let message =
            format!("the journal `{state}` has records up to {newest}, and no checkpoint after {}", head.version);
        return Err(Error::data("Diverged", message));
    }
    let reads: Vec<_> = newer.map(|v| read_record(store, state, v, is_done(v)).boxed()).collect();
    let mut records = stream::iter(reads).buffered(16);
    while let Some((record, done)) = records.try_next().await? {
        if record.version != head.version + 1 {
            let path = JournalObjectKind::Record(head.version + 1).path(state);
            return Err(Error::data("Diverged", format!("`{path}` is the record of version {}", record.version)));
        }
        head.apply(record, done.as_ref());
    }
    drop(records);
    Ok((head, entries))
}

async fn read_record(
    store: &dyn ObjectStore,
    state: &Path,
    v: u64,
    is_done: bool,
) -> Result<(CommitRecord, Option<DoneMark>)> {
    let record = read(store, &JournalObjectKind::Record(v).path(state)).await?;
    let done = if is_done { Some(read(store, &JournalObjectKind::Done(v).path(state)).await?) } else { None };
    Ok((record, done))
}

pub(crate) async fn read<T: JournalObject>(store: &dyn ObjectStore, path: &Path) -> Result<T> {
    read_dated(store, path).await.map(|(object, _)| object)
}

/// An object of the journal, and when the store got it.
pub(crate) async fn read_dated<T: JournalObject>(store: &dyn ObjectStore, path: &Path) -> Result<(T, Instant)> {
    let got = store.get(path).await.map_err(|e| store_error("read", path, e))?;
    let at = Instant::from_micros(got.meta.last_modified.timestamp_micros());
    let bytes = got.bytes().await.map_err(|e| store_error("read", path, e))?;
    Ok((record::parse(&bytes, path.as_ref())?, at))
}
