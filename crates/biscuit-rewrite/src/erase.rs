//! Erasure: deletes the rows of subjects from live files, and the retained files that contain such rows.

use std::sync::Arc;

use biscuit_core::{Error, ObjectRef, Outcome, Result};
use biscuit_dataset::internal::refuse_raw;
use biscuit_dataset::{DataFile, Dataset, OpenFile, ParquetOptions, TableVersion};
use biscuit_journal::CommitExtras;
use biscuit_schema::internal::align;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use object_store::path::Path;
use serde::Serialize;
use serde_json::json;

use crate::plan::unit::{BloomFilters, WrittenUnit};
use crate::replacing::FileReplacement;
use crate::{ErasureSubjects, RewriteUnit, RunMode};

/// Result of an erasure, or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EraseReport {
    /// `Committed`, `Unchanged`, or `Planned` for a dry run.
    pub outcome: Outcome,
    /// Newest version of the table.
    pub version: u64,
    /// Number of rows before the erasure.
    pub rows: u64,
    /// Number of rows that are erased.
    pub erased: u64,
    /// Number of live files that contain erased rows.
    pub files: u64,
    /// Number of retained files that contain erased rows. They are deleted.
    pub retained_files: u64,
    /// Number of row groups that were copied byte for byte.
    pub groups_copied: u64,
    /// Number of row groups that were encoded.
    pub groups_encoded: u64,
    /// Files that were not deleted because another program had changed them. The run ended with exceptions.
    pub exceptions: Vec<String>,
}

/// Deletes the rows of `subjects` from a table.
///
/// Files that contain such rows are written again without them; all other files keep their name and ETag. Retained
/// files that contain such rows are deleted. Key metadata of merges and state of periodic snapshots are not changed:
/// `forget` of biscuit-partition erases rows and state in one commit.
///
/// ```
/// use biscuit_core::Outcome;
/// use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use biscuit_rewrite::{ErasureSubjects, RunMode, erase};
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let table = Dataset::new(Location::parse("memory://erase/lake/customers")?, JournalOptions::default());
/// let rows = dataframe!("email" => ["ann@example.com", "bob@example.com"], "visits" => [3, 5])?;
/// table.observe().await?.write(rows, WriteMode::Append, &WriteOptions::default()).await?;
///
/// let ann = ErasureSubjects::new("email", ["ann@example.com"]);
/// let report = erase(&table, &ann, RunMode::Commit).await?;
/// assert_eq!((report.outcome, report.rows, report.erased), (Outcome::Committed, 2, 1));
/// assert_eq!(table.load(&SessionContext::new()).await?.count().await?, 1);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `NoTable` if there is no table; `UnknownColumn`; `NotText`; `NoFileKeys` for a table with encrypted columns and
/// no keys; `RawLayer` for an append-only table; `Conflict` if another run committed first; the errors of the store.
/// After an error the table is unchanged.
pub async fn erase(dataset: &Dataset, subjects: &ErasureSubjects, mode: RunMode) -> Result<EraseReport> {
    let snapshot = if mode == RunMode::DryRun { dataset.view().await? } else { dataset.observe().await? };
    SubjectRows::find(&snapshot, subjects).await?.erase(CommitExtras::default(), mode).await
}

/// The rows of subjects in the files of a table.
#[derive(Debug)]
pub struct SubjectRows {
    /// The snapshot, prepared for writing.
    snapshot: TableVersion,
    parquet: ParquetOptions,
    /// Columns of the files, without the partition columns.
    schema: SchemaRef,
    files: Vec<OpenFile>,
    /// For each file, the row numbers of the subjects, counted from 0.
    numbers: Vec<Vec<u64>>,
    /// Retained files that contain rows of the subjects, with the numbers of these rows.
    retained: Vec<(OpenFile, Vec<u64>)>,
}

impl SubjectRows {
    /// Finds the rows of `subjects` in all live and retained files of a snapshot. Reads only the column that
    /// identifies the subjects.
    ///
    /// # Errors
    /// `NoTable` if there is no table; `UnknownColumn`; `NotText`; `NoFileKeys`; `RawLayer`; the errors of the
    /// store.
    pub async fn find(snapshot: &TableVersion, subjects: &ErasureSubjects) -> Result<Self> {
        let (head, files) = (&snapshot.observed.head, &snapshot.observed.files);
        if head.version == 0 && files.is_empty() {
            let message = format!("there is no table at `{}`", snapshot.location());
            return Err(Error::new(biscuit_dataset::codes::NO_TABLE, message));
        }
        refuse_raw(head, "erased from")?;
        match Self::find_rows(snapshot, subjects).await {
            Err(e) => Err(snapshot.journal().explain_error(e, head).await),
            found => found,
        }
    }

    async fn find_rows(snapshot: &TableVersion, subjects: &ErasureSubjects) -> Result<Self> {
        let files = snapshot.open_files().await?;
        let (snapshot, parquet) = snapshot.clone().for_writing(&ParquetOptions::default(), &files).await?;
        let schema = schema_with(&snapshot, &files, subjects.column())?;
        let mut found = Self { snapshot, parquet, schema, files, numbers: vec![], retained: vec![] };
        for file in &found.files {
            found.numbers.push(find_row_numbers(file, subjects).await?);
        }
        let (snapshot, head) = (&found.snapshot, &found.snapshot.observed);
        for listed in &head.retained {
            let file = open_retained(snapshot, listed).await?;
            let numbers = find_row_numbers(&file, subjects).await?;
            if !numbers.is_empty() {
                found.retained.push((file, numbers));
            }
        }
        Ok(found)
    }

    /// Returns the number of rows of the subjects in live files.
    pub fn rows(&self) -> u64 {
        self.numbers.iter().map(|numbers| numbers.len() as u64).sum()
    }

    /// Returns the columns of the table, partition columns last.
    ///
    /// # Errors
    /// The errors of [`TableVersion::schema`].
    pub fn schema(&self) -> Result<SchemaRef> {
        self.snapshot.schema(&self.files)
    }

    /// Returns whether any live file has a bloom filter. The filters of row groups that the erasure does not touch
    /// may have been built with erased values.
    pub fn has_bloom_filters(&self) -> bool {
        let groups = self.files.iter().flat_map(|file| file.metadata().metadata().row_groups());
        groups.flat_map(|group| group.columns()).any(|column| column.bloom_filter_offset().is_some())
    }

    /// Reads the rows of the subjects from live and retained files, with all columns of the table or with `columns`.
    /// A column that a file does not have is left out of its batches.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn read(&self, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>> {
        let live = self.files.iter().zip(&self.numbers);
        let retained = self.retained.iter().map(|(file, numbers)| (file, numbers));
        let mut all = vec![];
        for (file, numbers) in live.chain(retained).filter(|(_, numbers)| !numbers.is_empty()) {
            let read = file.stream_rows(columns, numbers)?.try_collect::<Vec<_>>().await;
            let read = match read {
                Ok(read) => read,
                Err(e) => return Err(self.explain_error(e).await),
            };
            let wanted = of_file(file, columns, self.snapshot.partition_columns());
            for batch in &read {
                all.push(align(batch, &file.file.partition, &wanted, &format!("`{}`", file.path()))?);
            }
        }
        Ok(all)
    }

    async fn explain_error(&self, e: Error) -> Error {
        self.snapshot.journal().explain_error(e, &self.snapshot.observed.head).await
    }

    /// Erases the rows, and changes state files and properties in the same commit.
    ///
    /// # Errors
    /// `Conflict` if another run committed first; the errors of the store. After an error the table is unchanged.
    pub async fn erase(self, extras: CommitExtras, mode: RunMode) -> Result<EraseReport> {
        let head = self.snapshot.observed.head.clone();
        let journal = self.snapshot.journal().clone();
        match self.commit_erasure(extras, mode).await {
            Err(e) => Err(journal.explain_error(e, &head).await),
            done => done,
        }
    }

    async fn commit_erasure(&self, extras: CommitExtras, mode: RunMode) -> Result<EraseReport> {
        let (snapshot, erased) = (&self.snapshot, self.rows());
        let theirs = || self.files.iter().zip(&self.numbers).filter(|(_, numbers)| !numbers.is_empty());
        let mut report = EraseReport {
            outcome: Outcome::Unchanged,
            version: snapshot.observed.head.version,
            rows: self.files.iter().map(OpenFile::rows).sum(),
            erased,
            files: theirs().count() as u64,
            retained_files: self.retained.len() as u64,
            ..EraseReport::default()
        };
        let nothing = erased == 0 && self.retained.is_empty() && extras.is_empty();
        // A commit deletes the staged files of dead runs. If there is nothing to commit, `sweep` does it: staged
        // files may contain rows of the subjects.
        if mode == RunMode::DryRun || nothing {
            if !nothing {
                report.outcome = Outcome::Planned;
            } else if mode == RunMode::Commit {
                report.version = delete_orphans(snapshot).await?;
            }
            return Ok(report);
        }
        // Erased rows must not remain readable, so the replaced files are released without retention.
        let mut released: Vec<&ObjectRef> = self.retained.iter().map(|(file, _)| &file.file.listed).collect();
        let (mut units, mut left) = (vec![], 0);
        for (file, numbers) in theirs() {
            released.push(&file.file.listed);
            // If every row of the file is erased, no new file replaces it.
            if (numbers.len() as u64) < file.rows() {
                left += file.rows() - numbers.len() as u64;
                let folder = file.file.listed.folder();
                let unit =
                    RewriteUnit::new(file.clone(), self.schema.clone(), folder).with_parquet(self.parquet.clone());
                units.push(unit.with_bloom_filters(BloomFilters::Rebuilt).with_removed(numbers));
            }
        }
        let (rows, of, retained) = (report.rows, report.files, report.retained_files);
        let erased = json!({"rows": erased, "files": of, "retained_files": retained});
        let counts =
            |_: &[WrittenUnit]| json!({"erased": erased, "rows": {"before": rows, "after": rows - self.rows()}});
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (files, gone) = (self.files.as_slice(), vec![]);
        let replacing = FileReplacement { snapshot, files, gone, released, extras, units, rows: left, report: &counts };
        let done = replacing.commit(cores, None).await?;
        report.groups_copied = done.written.iter().map(|w| w.copied).sum();
        report.groups_encoded = done.written.iter().map(|w| w.encoded).sum();
        (report.outcome, report.version, report.exceptions) = (done.outcome, done.version, done.exceptions);
        Ok(report)
    }
}

/// Deletes the files that dead runs left, for an erasure without a commit. Returns the newest version.
async fn delete_orphans(snapshot: &TableVersion) -> Result<u64> {
    let (journal, observed) = (snapshot.journal(), &snapshot.observed);
    if !observed.orphan_files.is_empty() {
        return Ok(journal.release_files(observed, &observed.orphan_files).await?.version);
    }
    let live = |path: &Path| {
        let relative = path.prefix_match(journal.state_root()).map(|parts| Path::from_iter(parts).to_string());
        relative.is_some_and(|relative| observed.head.state.values().any(|file| file.path == relative))
    };
    // Objects below `staging` and `state` that no version names are staged files of a run that died or still runs.
    // The fence prevents such a run from committing the erased rows later.
    for folder in ["staging", "state"] {
        let root = journal.state_root().clone().join(folder);
        let objects = journal.storage().store.list(Some(&root)).try_collect::<Vec<_>>().await;
        let objects = objects.map_err(|e| biscuit_journal::store_error("list", &root, e))?;
        if objects.iter().any(|object| !live(&object.location)) {
            let recovered = journal.recover_with_fence().await?;
            return Ok(recovered.fence.unwrap_or(observed.head.version));
        }
    }
    Ok(observed.head.version)
}

async fn open_retained(snapshot: &TableVersion, listed: &ObjectRef) -> Result<OpenFile> {
    let file = DataFile::in_table(snapshot.location().path(), listed.clone())?;
    let store = snapshot.location().storage().store.clone();
    OpenFile::open_with(store, file, snapshot.dataset_encryption()).await
}

/// Returns the columns of a file and of its path, restricted to `columns`.
fn of_file(
    file: &OpenFile,
    columns: Option<&[&str]>,
    partition: &[(String, datafusion::arrow::datatypes::DataType)],
) -> SchemaRef {
    let named = |name: &str| columns.is_none_or(|columns| columns.contains(&name));
    let own = file.schema().fields().iter().filter(|f| named(f.name())).cloned();
    let path = partition.iter().filter(|(name, _)| named(name));
    let path = path.map(|(name, kind)| Arc::new(Field::new(name, kind.clone(), true)));
    Arc::new(Schema::new(own.chain(path).collect::<Vec<_>>()))
}

/// Returns the columns of the files, after a check that the table has `column`.
fn schema_with(snapshot: &TableVersion, files: &[OpenFile], column: &str) -> Result<SchemaRef> {
    let in_path = |name: &String| snapshot.partition_columns().iter().any(|(p, _)| p == name);
    let table = snapshot.schema(files)?;
    let data: Vec<_> = table.fields().iter().filter(|f| !in_path(f.name())).cloned().collect();
    let schema = Arc::new(Schema::new(data));
    if files.is_empty() || table.index_of(column).is_ok() {
        return Ok(schema);
    }
    let message = format!("the table has no column `{column}`");
    Err(Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message).with_column(column))
}

/// Returns the row numbers of the subjects in a file, counted from 0. Reads only the column that identifies the
/// subjects.
async fn find_row_numbers(file: &OpenFile, subjects: &ErasureSubjects) -> Result<Vec<u64>> {
    let (mut theirs, mut at) = (vec![], 0);
    if let Some((_, value)) = file.file.partition.iter().find(|(name, _)| name == subjects.column()) {
        // All rows of a partition have the value in the path.
        let is_theirs = value.as_ref().is_some_and(|value| subjects.contains(value));
        return Ok(if is_theirs { (0..file.rows()).collect() } else { theirs });
    }
    if file.schema().index_of(subjects.column()).is_err() {
        // The file was written before the table had the column, so that the column is null in all rows.
        return Ok(theirs);
    }
    let mut rows = file.stream(Some(&[subjects.column()]))?;
    while let Some(batch) = rows.try_next().await? {
        theirs.extend(subjects.find_rows(batch.column(0))?.into_iter().map(|row| at + row as u64));
        at += batch.num_rows() as u64;
    }
    Ok(theirs)
}
