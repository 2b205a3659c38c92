//! The quarantine: invalid records with their reasons, in state files of the table.

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_journal::{CommitExtras, Journal, TableHead};
use serde::{Deserialize, Serialize};

/// Effect of a run on the quarantine of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QuarantineChange<'a> {
    /// Quarantines the invalid records of the run in addition to those that are there.
    Add,
    /// Retries these quarantined records: those that are valid now leave the quarantine.
    Take(&'a [RefusedRecord]),
}

/// Beginning of the names of quarantine files; the version follows. They contain one JSON object per line.
const QUARANTINE: &str = "quarantine-";
/// Number of files from which a run merges all of them into one.
const MAX_FILES: usize = 32;

/// A record in the quarantine of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuarantinedRecord {
    /// Version in which the record was quarantined.
    pub version: u64,
    /// The refused record, and the reason.
    pub refused: RefusedRecord,
}

#[derive(Serialize, Deserialize)]
struct QuarantineLine {
    version: u64,
    file: String,
    row: u64,
    code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    /// The original record as Base64, if it is not UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
}

fn damaged_quarantine() -> Error {
    Error::new(biscuit_journal::codes::DIVERGED, "the quarantine cannot be read")
}

fn to_line(q: &QuarantinedRecord) -> Result<String> {
    let RefusedRecord { file, row, code, column, message, raw } = q.refused.clone();
    let (raw, raw_base64) = match String::from_utf8(raw) {
        Ok(text) => (Some(text), None),
        Err(e) => (None, Some(STANDARD.encode(e.into_bytes()))),
    };
    let line = QuarantineLine { version: q.version, file, row, code, column, message, raw, raw_base64 };
    serde_json::to_string(&line)
        .map_err(|e| Error::internal("a quarantined record could not be serialised").with_source(e))
}

fn from_line(line: &str) -> Result<QuarantinedRecord> {
    let l: QuarantineLine = serde_json::from_str(line).map_err(|e| damaged_quarantine().with_source(e))?;
    let raw = match (l.raw, l.raw_base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(text)) => STANDARD.decode(text).map_err(|e| damaged_quarantine().with_source(e))?,
        (None, None) => vec![],
    };
    let refused = RefusedRecord { file: l.file, row: l.row, code: l.code, column: l.column, message: l.message, raw };
    Ok(QuarantinedRecord { version: l.version, refused })
}

/// The quarantine of one version of a table.
#[derive(Debug, Default)]
pub(crate) struct QuarantineFile {
    names: Vec<String>,
    records: Vec<QuarantinedRecord>,
}

impl QuarantineFile {
    pub(crate) async fn load(journal: &Journal, head: &TableHead) -> Result<Self> {
        let mut all = Self::default();
        for (name, file) in head.state.iter().filter(|(n, _)| n.starts_with(QUARANTINE)) {
            let bytes = journal.read_state(head, file).await?;
            let text = std::str::from_utf8(&bytes).map_err(|e| damaged_quarantine().with_source(e))?;
            for line in text.lines() {
                all.records.push(from_line(line)?);
            }
            all.names.push(name.clone());
        }
        Ok(all)
    }

    /// Adds records to the quarantine. Records that are there already, for example from an earlier attempt, are not
    /// added again.
    pub(crate) fn add_records(self, refused: Vec<RefusedRecord>, version: u64) -> Result<CommitExtras> {
        let known: HashSet<(&str, u64, &[u8])> = self.records.iter().map(|q| record_identity(&q.refused)).collect();
        let mut new: BTreeMap<(String, u64, Vec<u8>), QuarantinedRecord> = BTreeMap::new();
        for refused in refused.into_iter().filter(|r| !known.contains(&record_identity(r))) {
            let (file, row, raw) = record_identity(&refused);
            new.entry((file.to_owned(), row, raw.to_vec())).or_insert(QuarantinedRecord { version, refused });
        }
        if new.is_empty() {
            return Ok(CommitExtras::default());
        }
        let (drop, mut all) = if self.names.len() < MAX_FILES { (vec![], vec![]) } else { (self.names, self.records) };
        all.extend(new.into_values());
        update(drop, &all, version)
    }

    /// Removes the records that were retried and not refused again.
    pub(crate) fn remove_retried(
        self,
        tried: &[RefusedRecord],
        refused: &[RefusedRecord],
        version: u64,
    ) -> Result<CommitExtras> {
        let tried: HashSet<(&str, u64, &[u8])> = tried.iter().map(record_identity).collect();
        let again: HashSet<(&str, u64, &[u8])> = refused.iter().map(record_identity).collect();
        let stays = |q: &&QuarantinedRecord| {
            let identity = record_identity(&q.refused);
            !tried.contains(&identity) || again.contains(&identity)
        };
        let left: Vec<QuarantinedRecord> = self.records.iter().filter(stays).cloned().collect();
        if left.len() == self.records.len() {
            return Ok(CommitExtras::default());
        }
        update(self.names, &left, version)
    }
}

/// Returns what identifies a record: file, row and original form. The reason may change between attempts.
fn record_identity(r: &RefusedRecord) -> (&str, u64, &[u8]) {
    (&r.file, r.row, &r.raw)
}

/// Removes the files with these names, and writes the records as the file of `version`; without records, no file.
fn update(drop: Vec<String>, records: &[QuarantinedRecord], version: u64) -> Result<CommitExtras> {
    let mut extras = CommitExtras::default();
    drop.into_iter().for_each(|name| extras.remove_state(name));
    if !records.is_empty() {
        let mut text = String::new();
        for q in records {
            text.push_str(&to_line(q)?);
            text.push('\n');
        }
        extras.put_state(format!("{QUARANTINE}{version:020}"), text.into());
    }
    Ok(extras)
}

/// Returns the state files that a commit on top of `head` has to write and to remove so that `refused` is in the
/// quarantine. Records that are there already are not added again.
///
/// # Errors
/// The errors of the journal.
pub async fn quarantine_records(
    journal: &Journal,
    head: &TableHead,
    refused: Vec<RefusedRecord>,
) -> Result<CommitExtras> {
    if refused.is_empty() {
        return Ok(CommitExtras::default());
    }
    QuarantineFile::load(journal, head).await?.add_records(refused, head.version + 1)
}

/// Removes records from the quarantine of a table for good. Returns the version without them.
///
/// # Errors
/// `Conflict` if another run committed first; `NoFileKeys` for external files that are encrypted as a whole; the
/// errors of the journal.
pub async fn discard(dataset: &Dataset, records: &[RefusedRecord]) -> Result<u64> {
    let (journal, snapshot) = (dataset.journal(), dataset.observe().await?);
    let head = &snapshot.observed.head;
    let change = QuarantineFile::load(journal, head).await?.remove_retried(records, &[], head.version + 1)?;
    if change.is_empty() {
        return Ok(head.version);
    }
    // Every commit adopts external files.
    let snapshot = snapshot.with_encryption_of_files(&[]).await?;
    let mut table_commit = journal.begin_commit(&snapshot.observed);
    let (name, encrypted) = snapshot.encrypted_property();
    table_commit.with_property(name, encrypted);
    table_commit.with_extras(change).await?;
    table_commit.with_report(serde_json::json!({"discarded": records.len()}));
    Ok(table_commit.commit().await?.version)
}

/// Returns the quarantined records of a table, in the order in which they were quarantined.
///
/// ```
/// use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode, discard, quarantined_records};
/// use biscuit_change::{BadRows, RowsOptions, RowsReader};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://quarantined/lake/customer")?, JournalOptions::default());
/// let options = MergeOptions::default().with_bad_rows(BadRows::Quarantine, 100.0);
/// let merge = Merge::new(dataset.clone(), MergeSpec::new(["id"], ["seq"])?, options)?;
///
/// // The second record has no key.
/// let lines = r#"{"id": 1, "seq": 1, "name": "Ann"}
/// {"id": null, "seq": 2, "name": "Bob"}"#;
/// let mut reader = RowsReader::new(RowsOptions::default().with_bad_rows(BadRows::Quarantine));
/// reader.read("customers.jsonl", lines.into())?;
/// let report = merge.run(reader.finish()?, RunMode::Commit).await?;
/// assert_eq!(report.rows.after, 1);
///
/// let records = quarantined_records(&dataset).await?;
/// assert_eq!((records[0].refused.code.as_str(), records[0].refused.row), ("NullKey", 2));
///
/// discard(&dataset, &[records[0].refused.clone()]).await?;
/// assert!(quarantined_records(&dataset).await?.is_empty());
/// # Ok(()) }
/// ```
///
/// # Errors
/// The errors of the journal.
pub async fn quarantined_records(dataset: &Dataset) -> Result<Vec<QuarantinedRecord>> {
    let read = |snapshot: TableVersion| async move {
        Ok(QuarantineFile::load(dataset.journal(), &snapshot.observed.head).await?.records)
    };
    dataset.read(read).await
}
