//! Verification of a table: duplicate keys, and files that cannot be read or differ from the journal.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use biscuit_core::{Error, ErrorKind, Result};
use biscuit_dataset::{Dataset, OpenFile, TableVersion};
use biscuit_merge::internal::{TupleEncoder, TuplePurpose};
use biscuit_schema::internal::{align, impossible_values};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use hashbrown::{DefaultHashBuilder, HashMap};
use serde::Serialize;

use crate::table::stored_spec::{merged_by, period_column_of};

/// Findings of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Number of files of the table.
    pub files: u64,
    /// Number of rows that could be read.
    pub rows: u64,
    /// Whether keys were checked.
    pub keys_checked: bool,
    /// Number of keys with more than one row.
    pub duplicate_keys: u64,
    /// Differences between the journal and the folder.
    pub diverged: Vec<String>,
    /// Files that cannot be read to their end, with the reason.
    pub unreadable: Vec<String>,
    /// Problems of the layout, with which readers find no rows or wrong rows: a column that occurs twice in a path,
    /// files without columns, and files whose number of rows differs from what was written.
    pub layout: Vec<String>,
    /// Columns with values that are invalid in their type, by file: times outside of a day, or decimals with too many
    /// digits. Readers refuse these values or read something else.
    pub values: Vec<String>,
    /// External files that no commit has adopted.
    pub external: Vec<String>,
    /// Orphan files: files written by Biscuit that no version names.
    pub orphan_files: Vec<String>,
}

impl VerifyReport {
    /// Whether the rows are correct. External files and orphan files alone do not make a table unsound.
    pub fn is_sound(&self) -> bool {
        self.duplicate_keys == 0
            && [&self.diverged, &self.unreadable, &self.layout, &self.values].iter().all(|found| found.is_empty())
    }
}

/// Reads a whole table and reports keys with several rows; files that are unreadable, missing or changed; external
/// files; and orphan files. An empty `key` means the key of the table's merges. Nothing is changed.
///
/// ```
/// use biscuit_apply::verify;
/// use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://verify/lake/items")?, JournalOptions::default());
/// let rows = dataframe!("id" => [1, 2, 2], "name" => ["one", "two", "two"])?;
/// dataset.observe().await?.write(rows, WriteMode::Append, &WriteOptions::default()).await?;
///
/// let report = verify(&dataset, &["id".to_owned()]).await?;
/// assert_eq!((report.files, report.rows, report.duplicate_keys), (1, 3, 1));
/// assert!(!report.is_sound());
/// # Ok(()) }
/// ```
///
/// # Errors
/// The errors of the store; `KeyType` or `MissingColumn` for a key that cannot be checked; `NoFileKeys` if files
/// encrypt columns and there are no keys for them. Problems of the table are findings and not errors.
pub async fn verify(dataset: &Dataset, key: &[String]) -> Result<VerifyReport> {
    match dataset.read(|snapshot| verify_version(dataset, snapshot, key)).await {
        Err(e) if e.is(biscuit_journal::codes::DIVERGED) => {
            Ok(VerifyReport { diverged: vec![e.message().to_owned()], ..VerifyReport::default() })
        }
        verified => verified,
    }
}

async fn verify_version(dataset: &Dataset, snapshot: TableVersion, key: &[String]) -> Result<VerifyReport> {
    let mut found = VerifyReport::default();
    let key = match (key, merged_by(dataset).await?) {
        ([], Some((key, _))) => key,
        (key, _) => key.to_vec(),
    };
    found.keys_checked = !key.is_empty();
    // In a table of periodic snapshots, a key has one row in each period.
    let period_column = period_column_of(&snapshot.observed.head.properties).filter(|_| !key.is_empty());
    let key: Vec<String> = period_column.map(str::to_owned).into_iter().chain(key).collect();
    found.files = snapshot.files().len() as u64;
    found.external = snapshot.observed.external.iter().map(|f| f.path.clone()).collect();
    found.orphan_files = snapshot.observed.orphan_files.iter().map(|f| f.path.clone()).collect();
    let store = snapshot.store();
    let mut readable = Vec::new();
    for file in snapshot.files() {
        match OpenFile::open_with(store.clone(), file.clone(), dataset.encryption()).await {
            Ok(open) => readable.push(open),
            Err(e) if is_not_a_finding(&e) => return Err(e),
            Err(e) => found.unreadable.push(format!("{}: {}", file.path(), e.message())),
        }
    }
    let columns = snapshot.partition_columns();
    let twice = columns.iter().enumerate().find(|(i, (name, _))| columns[..*i].iter().any(|(other, _)| other == name));
    found.layout.extend(twice.map(|(_, (name, _))| format!("the partition column `{name}` occurs twice in each path")));
    let schema = snapshot.schema(&readable)?;
    let hasher = DefaultHashBuilder::default();
    // Duplicates are found by sorted hashes, which take 8 bytes for each row. Different keys may have the same hash,
    // so the few keys with equal hashes are read again and counted exactly.
    let mut hashes: Vec<u64> = Vec::new();
    for file in &readable {
        let mut impossible: BTreeMap<String, (u64, &str)> = BTreeMap::new();
        let mut look = |rows: &RecordBatch| {
            for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
                if let Some((count, what)) = impossible_values(column) {
                    impossible.entry(field.name().clone()).or_insert((0, what)).0 += count;
                }
            }
        };
        let read = visit_keys(file, &schema, &key, (&mut look, &mut |k| hashes.push(hasher.hash_one(k)))).await;
        for (column, (count, what)) in impossible {
            found.values.push(format!("{}: column `{column}` has {count} {what}", file.path()));
        }
        match read {
            Ok(rows) => {
                found.rows += rows;
                let written = snapshot.observed.head.live.get(file.path()).and_then(|live| live.rows);
                found.layout.extend(layout_of(file, rows, written));
            }
            Err(e)
                if e.is(biscuit_merge::codes::KEY_TYPE)
                    || e.is(biscuit_schema::codes::MISSING_COLUMN)
                    || is_not_a_finding(&e) =>
            {
                return Err(e);
            }
            Err(e) => found.unreadable.push(format!("{}: {}", file.path(), e.message())),
        }
    }
    hashes.sort_unstable();
    let twice: Vec<u64> = hashes.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
    if !twice.is_empty() {
        found.duplicate_keys = count_duplicates(&readable, &schema, &key, &hasher, &twice).await?;
    }
    Ok(found)
}

/// Whether an error is not about the content of a file: encryption keys are missing, the file was replaced meanwhile,
/// or the store is not available.
fn is_not_a_finding(e: &Error) -> bool {
    e.is(biscuit_dataset::codes::NO_FILE_KEYS)
        || e.is(biscuit_core::codes::NOT_FOUND)
        || e.is(biscuit_journal::codes::DIVERGED)
        || matches!(e.kind(), ErrorKind::Conflict | ErrorKind::Unavailable)
}

/// Returns the finding for a readable file with other rows than were written.
fn layout_of(file: &OpenFile, rows: u64, written: Option<u64>) -> Option<String> {
    let path = file.path();
    if file.schema().fields().is_empty() {
        return Some(format!("{path}: the file has no columns, so that readers find no rows in it"));
    }
    let written = written.filter(|written| *written != rows)?;
    Some(format!("{path}: the file has {rows} rows, and {written} were written"))
}

/// Counts keys with several rows among the keys whose hashes are equal.
async fn count_duplicates(
    files: &[OpenFile],
    schema: &SchemaRef,
    key: &[String],
    hasher: &DefaultHashBuilder,
    twice: &[u64],
) -> Result<u64> {
    let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
    for file in files {
        let mut count = |k: &[u8]| {
            if twice.binary_search(&hasher.hash_one(k)).is_ok() {
                *counts.entry(k.to_vec()).or_default() += 1;
            }
        };
        visit_keys(file, schema, key, (&mut |_| {}, &mut count)).await?;
    }
    Ok(counts.values().filter(|n| **n > 1).count() as u64)
}

/// Functions that get the rows of a file, and their keys.
type RowVisitor<'a> = (&'a mut (dyn FnMut(&RecordBatch) + Send), &'a mut (dyn FnMut(&[u8]) + Send));

/// Reads all rows of a file, and passes them and their keys on. Returns the number of rows.
async fn visit_keys(file: &OpenFile, schema: &SchemaRef, key: &[String], (look, each): RowVisitor<'_>) -> Result<u64> {
    let place = format!("`{}`", file.path());
    let mut batches = file.stream(None)?;
    let (mut rows, mut bytes) = (0, Vec::new());
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows() as u64;
        look(&batch);
        if key.is_empty() {
            continue;
        }
        let batch = align(&batch, &file.file.partition, schema, &place)?;
        let encoder = TupleEncoder::new(&batch, key, TuplePurpose::Key, &place)?;
        for row in 0..batch.num_rows() {
            bytes.clear();
            encoder.encode(row, &mut bytes).map_err(|_| {
                Error::new(biscuit_merge::codes::NULL_KEY, "a key column is null in a stored row")
                    .at(&place, row as u64 + 1)
            })?;
            each(&bytes);
        }
    }
    Ok(rows)
}
