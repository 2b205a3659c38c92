//! Key segments: the key metadata of a table, in sorted state files.
//! Key segments form a small LSM tree: each run writes one segment with the changed keys, and the newest segment that
//! names a key is valid for it. After `MOST_SEGMENTS` segments, all of them are merged into one.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_core::Result;
use biscuit_dataset::Dataset;
use biscuit_dataset::encryption::FileEncryption;
use biscuit_dataset::internal::reader_options;
use biscuit_journal::{CommitExtras, Journal, ObservedTable, TableHead};
use biscuit_merge::internal::{KeyTable, RecordOrder, decode_tuple};
use biscuit_rewrite::ErasureSubjects;
use hashbrown::{HashMap, HashSet};
use parquet::encryption::encrypt::FileEncryptionProperties;

use crate::state::key_metadata::{KeyMetadata, KeyTimeline, decode_base64, is_of};
use crate::state::segment_file::{KeySegment, SegmentEntry, read, write};

/// Beginning of the names of key segments; the version follows. Within a segment, entries are sorted by key.
const SEGMENT: &str = "keys-";
/// Number of segments from which a run merges all of them into one.
const MOST_SEGMENTS: usize = 8;

/// Returns the name of the state file of the segment that a version writes.
fn segment_name(version: u64) -> String {
    format!("{SEGMENT}{version:020}")
}

/// The key segments of one version of a table.
#[derive(Debug)]
pub(crate) struct KeySegments {
    /// Newest first. Names end with a padded version, so names sort by version.
    files: Vec<KeySegment>,
    /// Whether the table has diverged since the segments were written. Then metadata of rows no longer counts, and
    /// each row counts by its own order, as an external row does. Tombstones still count.
    diverged: bool,
}

impl KeySegments {
    /// Loads the key segments of an observed version.
    ///
    /// # Errors
    /// The errors of [`load`](Self::load).
    pub(crate) async fn of_observed(
        journal: &Journal,
        observed: &ObservedTable,
        keys: Option<&FileEncryption>,
    ) -> Result<Self> {
        let segments = Self::load(journal, &observed.head, keys).await?;
        Ok(if observed.diverged { segments.after_divergence() } else { segments })
    }

    /// Loads the key segments of a version, all of whose metadata counts.
    ///
    /// # Errors
    /// `NoFileKeys` if they are encrypted and there are no keys for them; the errors of the journal.
    pub(crate) async fn load(journal: &Journal, head: &TableHead, keys: Option<&FileEncryption>) -> Result<Self> {
        let mut files = Vec::new();
        for (name, file) in head.state.iter().rev().filter(|(n, _)| n.starts_with(SEGMENT)) {
            let bytes = journal.read_state(head, file).await?;
            let options = reader_options(&bytes, name, keys).await?;
            files.push(KeySegment { name: name.clone(), bytes, options });
        }
        Ok(Self { files, diverged: false })
    }

    /// Returns the segments of a table that has diverged since they were written.
    pub(crate) fn after_divergence(self) -> Self {
        Self { diverged: true, ..self }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether metadata still counts.
    fn is_in_force(&self, kept: &KeyMetadata) -> bool {
        !self.diverged || kept.live.is_none()
    }

    /// Adds the metadata of all keys from number `from` on to `found`.
    pub(crate) fn find_metadata(
        &self,
        keys: &KeyTable,
        from: usize,
        found: &mut HashMap<u32, KeyTimeline>,
    ) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let new = u32::try_from(from).expect("there are fewer than 2^32 keys")..;
        let new = new.take_while(|k| (*k as usize) < keys.len());
        let mut sorted: Vec<&[u8]> = new.map(|k| keys.bytes(k)).collect();
        sorted.sort_unstable();
        let wanted = |min: &[u8], max: &[u8]| {
            let first = sorted.partition_point(|k| *k < min);
            // A statistic may be truncated. Then the greatest key only begins with it.
            sorted.get(first).is_some_and(|k| *k <= max || k.starts_with(max))
        };
        // For each key, the newest segment that names it. Entries of older segments are not valid, even if the entry
        // of the newest one is empty.
        let mut newest: HashMap<u32, usize> = HashMap::new();
        for (number, segment) in self.files.iter().enumerate() {
            read(segment, &wanted, &mut |key, period, kept| {
                let key = keys.find(key).filter(|k| *k as usize >= from);
                if let Some(k) = key.filter(|k| *newest.entry(*k).or_insert(number) == number)
                    && kept.as_ref().is_none_or(|kept| self.is_in_force(kept))
                {
                    found.entry(k).or_default().0.push((period, kept));
                }
            })?;
        }
        found.retain(|_, timeline| timeline.all().next().is_some());
        Ok(())
    }

    /// Returns the old and the new keys of all key changes in all segments. Outdated entries only connect more keys
    /// than necessary.
    pub(crate) fn linked_keys(&self) -> Result<HashSet<Vec<u8>>> {
        let (mut linked, mut failed) = (HashSet::new(), None);
        for segment in &self.files {
            read(segment, &|_, _| true, &mut |key, _, kept| {
                let to = kept.map_or(Ok(vec![]), |k| k.target_keys());
                match to {
                    Ok(to) if to.is_empty() => {}
                    Ok(to) => linked.extend(to.into_iter().chain([key.to_vec()])),
                    Err(e) => failed = Some(e),
                }
            })?;
        }
        failed.map_or(Ok(linked), Err)
    }

    /// Returns the old and the new keys of key changes whose image is a row of these subjects.
    pub(crate) fn keys_of_pending_changes(&self, subjects: &ErasureSubjects) -> Result<HashSet<Vec<u8>>> {
        let mut theirs = HashSet::new();
        for segment in &self.files {
            let mut failed = None;
            read(segment, &|_, _| true, &mut |key, _, kept| {
                for one in kept.iter().flat_map(|kept| &kept.extra.key_changes) {
                    match is_of(one, subjects) {
                        Ok(None) => {}
                        Ok(Some(to)) => theirs.extend([key.to_vec(), to]),
                        Err(e) => failed = Some(e),
                    }
                }
            })?;
            failed.map_or(Ok(()), Err)?;
        }
        Ok(theirs)
    }

    /// Returns the changes after which no state file contains the keys that `theirs` selects, and the number of keys
    /// whose metadata is removed. Outdated entries of older segments are removed as well. Returns `None` if no
    /// segment contains such a key.
    pub(crate) async fn without_keys(
        &self,
        theirs: &dyn Fn(&[u8]) -> bool,
        version: u64,
        encryption: Option<&FileEncryption>,
    ) -> Result<Option<(CommitExtras, u64)>> {
        let (mut found, mut mentioned, mut failed) = (HashSet::new(), false, None);
        for segment in &self.files {
            read(segment, &|_, _| true, &mut |key, _, kept| {
                if theirs(key) {
                    found.insert(key.to_vec());
                }
                match kept.map_or(Ok(vec![]), |kept| kept.target_keys()) {
                    Ok(to) => mentioned |= to.iter().any(|to| theirs(to)),
                    Err(e) => failed = Some(e),
                }
            })?;
        }
        failed.map_or(Ok(()), Err)?;
        if found.is_empty() && !mentioned {
            return Ok(None);
        }
        let mut rest: Vec<SegmentEntry> = Vec::new();
        for (key, mut timeline) in self.all_entries()?.into_iter().filter(|(key, _)| !found.contains(key)) {
            for kept in timeline.0.iter_mut().filter_map(|(_, kept)| kept.as_mut()) {
                kept.extra.key_changes.retain(|m| !decode_base64(&m.to).is_ok_and(|to| theirs(&to)));
            }
            rest.push((key.into(), timeline));
        }
        let seal = match encryption.filter(|encryption| encryption.encrypts()) {
            Some(encryption) => Some(encryption.whole_file_properties().await?),
            None => None,
        };
        Ok(Some((self.replaced_by(&rest, version, seal)?, found.len() as u64)))
    }

    /// Returns all valid entries in the order of their keys.
    pub(crate) fn all_entries(&self) -> Result<Vec<(Vec<u8>, KeyTimeline)>> {
        let mut entries: BTreeMap<Vec<u8>, (usize, KeyTimeline)> = BTreeMap::new();
        for (number, segment) in self.files.iter().enumerate() {
            read(segment, &|_, _| true, &mut |key, period, kept| {
                let (newest, timeline) =
                    entries.entry(key.to_vec()).or_insert_with(|| (number, KeyTimeline::default()));
                if *newest == number && kept.as_ref().is_none_or(|kept| self.is_in_force(kept)) {
                    timeline.0.push((period, kept));
                }
            })?;
        }
        let timelines = entries.into_iter().map(|(key, (_, timeline))| (key, timeline));
        Ok(timelines.filter(|(_, timeline)| timeline.all().next().is_some()).collect())
    }

    /// Returns the state files to write and to remove for changed metadata. Tombstones that a truncate covers are
    /// removed when segments are merged. For a table with encrypted columns, segments are encrypted as well, because
    /// images of key changes are rows.
    pub(crate) async fn plan_update(
        &self,
        mut changes: Vec<SegmentEntry>,
        version: u64,
        truncated: Option<&RecordOrder>,
        encryption: Option<&FileEncryption>,
    ) -> Result<CommitExtras> {
        let mut extras = CommitExtras::default();
        let encryption = encryption.filter(|encryption| encryption.encrypts());
        // Segments from before the table was encrypted may contain rows in plain text.
        let write_all =
            self.diverged || (encryption.is_some() && self.files.iter().any(|segment| !segment.is_sealed()));
        if changes.is_empty() && !write_all {
            return Ok(extras);
        }
        let seal = match encryption {
            Some(encryption) => Some(encryption.whole_file_properties().await?),
            None => None,
        };
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        if self.files.len() + 1 < MOST_SEGMENTS && !write_all {
            extras.put_state(segment_name(version), write(&changes, seal)?);
            return Ok(extras);
        }
        let mut all: BTreeMap<Arc<[u8]>, KeyTimeline> =
            self.all_entries()?.into_iter().map(|(k, t)| (k.into(), t)).collect();
        all.extend(changes);
        let covered = |k: &KeyMetadata| k.is_tombstone() && truncated.is_some_and(|t| k.base <= *t);
        let rest: Vec<SegmentEntry> =
            all.into_iter().filter(|(_, timeline)| timeline.all().any(|k| !covered(k))).collect();
        self.replaced_by(&rest, version, seal)
    }

    /// Removes all segments, and writes these entries as the only one; without entries, none.
    fn replaced_by(
        &self,
        entries: &[SegmentEntry],
        version: u64,
        seal: Option<Arc<FileEncryptionProperties>>,
    ) -> Result<CommitExtras> {
        let mut extras = CommitExtras::default();
        self.files.iter().for_each(|segment| extras.remove_state(segment.name.as_str()));
        if !entries.is_empty() {
            extras.put_state(segment_name(version), write(entries, seal)?);
        }
        Ok(extras)
    }
}

/// Key metadata, for inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredKeyMetadata {
    /// Values of the key columns as text.
    pub key: Vec<String>,
    /// Values of the order columns as text: of the delete for a tombstone, otherwise of the row. Instants are
    /// nanoseconds.
    pub order: Vec<String>,
    /// Whether the entry is a tombstone.
    pub is_tombstone: bool,
}

/// Returns the key metadata of a table, sorted by key, including tombstones. For tests and for inspection.
///
/// # Errors
/// `NoFileKeys` if the metadata is encrypted and the dataset has no keys for it; the errors of the journal.
pub async fn stored_key_metadata(dataset: &Dataset) -> Result<Vec<StoredKeyMetadata>> {
    let head = dataset.journal().head().await?;
    let all = KeySegments::load(dataset.journal(), &head, dataset.encryption()).await?.all_entries()?;
    let held = |(key, kept): (&[u8], &KeyMetadata)| {
        let order = kept.live.as_ref().unwrap_or(&kept.base);
        let columns = order.bytes().get(1..order.bytes().len().saturating_sub(1)).unwrap_or_default();
        StoredKeyMetadata { key: decode_tuple(key), order: decode_tuple(columns), is_tombstone: kept.live.is_none() }
    };
    Ok(all.iter().flat_map(|(key, timeline)| timeline.all().map(move |kept| held((key, kept)))).collect())
}
