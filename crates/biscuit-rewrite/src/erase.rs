use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{DataFile, Dataset, OpenFile, ParquetOptions, TableVersion, align, partition_values, refuse_raw};
use biscuit_journal::FileRef;
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use object_store::path::Path;
use serde::Serialize;
use serde_json::json;

use crate::replacing::FileReplacement;
use crate::{BloomFilters, ErasureSubjects, RewriteUnit, RunMode, WrittenUnit};

/// What an erasure did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EraseReport {
    /// `committed`, `planned` for a dry run, or `unchanged`.
    pub outcome: &'static str,
    /// The newest version.
    pub version: u64,
    /// Rows that were there.
    pub rows: u64,
    /// Rows that go.
    pub erased: u64,
    /// Files that have some of them.
    pub files: u64,
    /// Files that had been replaced, stayed in the folder for slow readers, and have some of them: they are deleted.
    pub retained_files: u64,
    /// Row groups that were copied as they were.
    pub groups_copied: u64,
    /// Row groups that were encoded.
    pub groups_encoded: u64,
    /// Files that were kept because somebody else changed them since: the run ended with exceptions.
    pub exceptions: Vec<String>,
}

/// Deletes the rows of subjects, and writes the files that have them anew; all other files stay as they are: name and ETag. Files that were
/// replaced earlier and stay for slow readers are deleted if they have some of these rows. What merges and snapshots keep besides the rows is not
/// touched: `forget` of biscuit-partition erases both in one commit.
///
/// # Errors
/// `NotFound` if there is no table; `MissingColumn`; `NotText`; `NoFileKeys` for a table with encrypted columns and no keys; `RawLayer` for a table that is only added to; `Conflict` if another run was first; those of the store. After any of them the
/// table is as it was.
pub async fn erase(dataset: &Dataset, subjects: &ErasureSubjects, mode: RunMode) -> Result<EraseReport> {
    let snapshot = if mode == RunMode::DryRun { dataset.view().await? } else { dataset.observe().await? };
    SubjectRows::of(&snapshot, subjects).await?.erase(vec![], mode).await
}

/// The rows of subjects in the files of a table.
#[derive(Debug)]
pub struct SubjectRows {
    /// As it is written to.
    snapshot: TableVersion,
    parquet: ParquetOptions,
    /// The columns of the files.
    schema: SchemaRef,
    files: Vec<OpenFile>,
    /// By file, the rows that are theirs, by their numbers from 0.
    numbers: Vec<Vec<u64>>,
    /// Files that were replaced and are still there, with their rows.
    retained: Vec<(FileRef, OpenFile, Vec<u64>)>,
}

impl SubjectRows {
    /// Looks for the rows of subjects in all files of a snapshot, those that were replaced and stay for slow readers among them. Only that column
    /// is read.
    ///
    /// # Errors
    /// `NotFound` if there is no table, `MissingColumn`, `NotText`, `NoFileKeys`, `RawLayer`, and those of the store.
    pub async fn of(snapshot: &TableVersion, subjects: &ErasureSubjects) -> Result<Self> {
        let (head, files) = (&snapshot.observed.head, &snapshot.observed.files);
        if head.version == 0 && files.is_empty() {
            let message = format!("there is no table at `{}`", snapshot.dataset().location());
            return Err(Error::usage("NotFound", message));
        }
        refuse_raw(head, "erased from")?;
        match Self::look(snapshot, subjects).await {
            Err(e) => Err(snapshot.dataset().journal().explain(e, head).await),
            found => found,
        }
    }

    async fn look(snapshot: &TableVersion, subjects: &ErasureSubjects) -> Result<Self> {
        let files = snapshot.open_files().await?;
        let (snapshot, parquet) = snapshot.clone().for_writing(&ParquetOptions::default(), &files).await?;
        let schema = schema_with(&snapshot, &files, subjects.column())?;
        let mut found = Self { snapshot, parquet, schema, files, numbers: vec![], retained: vec![] };
        for file in &found.files {
            found.numbers.push(numbers(file, subjects).await?);
        }
        let (dataset, head) = (found.snapshot.dataset(), &found.snapshot.observed);
        for listed in &head.retained {
            let file = open_retained(dataset, listed).await?;
            let numbers = numbers(&file, subjects).await?;
            if !numbers.is_empty() {
                found.retained.push((listed.clone(), file, numbers));
            }
        }
        Ok(found)
    }

    /// Rows in files of the table.
    pub fn rows(&self) -> u64 {
        self.numbers.iter().map(|numbers| numbers.len() as u64).sum()
    }

    /// The columns of the table, those of folders last.
    ///
    /// # Errors
    /// Those of [`TableVersion::schema`].
    pub fn schema(&self) -> Result<SchemaRef> {
        self.snapshot.schema(&self.files)
    }

    /// Whether row groups that are not touched have bloom filters, which may have been made with values that are gone.
    pub fn has_bloom_filters(&self) -> bool {
        let groups = self.files.iter().flat_map(|file| file.metadata().metadata().row_groups());
        groups.flat_map(|group| group.columns()).any(|column| column.bloom_filter_offset().is_some())
    }

    /// The rows themselves, of retained files as well: all columns of the table, or those named, as far as a file has them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(&self, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>> {
        let live = self.files.iter().zip(&self.numbers);
        let retained = self.retained.iter().map(|(_, file, numbers)| (file, numbers));
        let mut all = vec![];
        for (file, numbers) in live.chain(retained).filter(|(_, numbers)| !numbers.is_empty()) {
            let read = file.stream_rows(columns, numbers)?.try_collect::<Vec<_>>().await;
            let read = match read {
                Ok(read) => read,
                Err(e) => return Err(self.explained(e).await),
            };
            let wanted = of_file(file, columns, self.snapshot.partition_columns());
            for batch in &read {
                all.push(align(batch, &file.file.partition, &wanted, &format!("`{}`", file.file.path))?);
            }
        }
        Ok(all)
    }

    async fn explained(&self, e: Error) -> Error {
        self.snapshot.dataset().journal().explain(e, &self.snapshot.observed.head).await
    }

    /// Takes the rows away, and makes these state files true, of which none drops the name: as one commit.
    ///
    /// # Errors
    /// `Conflict` if another run was first; those of the store. After any of them the table is as it was.
    pub async fn erase(self, state: Vec<(String, Option<Bytes>)>, mode: RunMode) -> Result<EraseReport> {
        let head = self.snapshot.observed.head.clone();
        let journal = self.snapshot.dataset().journal().clone();
        match self.commit(state, mode).await {
            Err(e) => Err(journal.explain(e, &head).await),
            done => done,
        }
    }

    async fn commit(&self, state: Vec<(String, Option<Bytes>)>, mode: RunMode) -> Result<EraseReport> {
        let (snapshot, erased) = (&self.snapshot, self.rows());
        let theirs = || self.files.iter().zip(&self.numbers).filter(|(_, numbers)| !numbers.is_empty());
        let mut report = EraseReport {
            outcome: "unchanged",
            version: snapshot.observed.head.version,
            rows: self.files.iter().map(OpenFile::rows).sum(),
            erased,
            files: theirs().count() as u64,
            retained_files: self.retained.len() as u64,
            ..EraseReport::default()
        };
        let nothing = erased == 0 && self.retained.is_empty() && state.is_empty();
        if mode == RunMode::DryRun || nothing {
            if !nothing {
                report.outcome = "planned";
            } else if mode == RunMode::Commit {
                report.version = sweep(snapshot).await?;
            }
            return Ok(report);
        }
        let mut released: Vec<&FileRef> = self.retained.iter().map(|(listed, ..)| listed).collect();
        let (mut units, mut left) = (vec![], 0);
        for (file, numbers) in theirs() {
            let listed = snapshot.observed.file(&file.file.path);
            released.push(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
            // A file of nothing else has none in its place.
            if (numbers.len() as u64) < file.rows() {
                left += file.rows() - numbers.len() as u64;
                let folder = file.file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let unit =
                    RewriteUnit::new(file.clone(), self.schema.clone(), folder).with_parquet(self.parquet.clone());
                units.push(unit.with_bloom_filters(BloomFilters::Anew).with_removed(numbers));
            }
        }
        let (rows, of, retained) = (report.rows, report.files, report.retained_files);
        let erased = json!({"rows": erased, "files": of, "retained_files": retained});
        let counts =
            |_: &[WrittenUnit]| json!({"erased": erased, "rows": {"before": rows, "after": rows - self.rows()}});
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (files, gone) = (self.files.as_slice(), vec![]);
        let replacing = FileReplacement { snapshot, files, gone, released, state, units, rows: left, report: &counts };
        let done = replacing.commit(snapshot.dataset(), cores, None).await?;
        report.groups_copied = done.written.iter().map(|w| w.copied).sum();
        report.groups_encoded = done.written.iter().map(|w| w.encoded).sum();
        (report.outcome, report.version, report.exceptions) = (done.outcome, done.version, done.exceptions);
        Ok(report)
    }
}

/// Deletes what dead runs have left, where no commit does so by the way; gives the newest version.
async fn sweep(snapshot: &TableVersion) -> Result<u64> {
    let (journal, observed) = (snapshot.dataset().journal(), &snapshot.observed);
    if !observed.orphan_files.is_empty() {
        return Ok(journal.release(observed, &observed.orphan_files).await?.version);
    }
    let live = |path: &Path| {
        let relative = path.prefix_match(journal.state_root()).map(|parts| Path::from_iter(parts).to_string());
        relative.is_some_and(|relative| observed.head.state.values().any(|file| file.path == relative))
    };
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

async fn open_retained(dataset: &Dataset, listed: &FileRef) -> Result<OpenFile> {
    let object = format!("{}/{}", dataset.location().path(), listed.path);
    let object =
        Path::parse(object).map_err(|e| Error::data("InvalidPath", format!("`{}`", listed.path)).with_source(e))?;
    let partition = partition_values(&listed.path)?;
    let file = DataFile { path: listed.path.clone(), object, size: listed.size, partition };
    let store = dataset.location().storage().store.clone();
    OpenFile::open_with(store, file, dataset.encryption()).await
}

/// The columns of a file, or those named, and those of its path.
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

/// The columns of the files, where the table has this one.
fn schema_with(snapshot: &TableVersion, files: &[OpenFile], column: &str) -> Result<SchemaRef> {
    let in_path = |name: &String| snapshot.partition_columns().iter().any(|(p, _)| p == name);
    let table = snapshot.schema(files)?;
    let data: Vec<_> = table.fields().iter().filter(|f| !in_path(f.name())).cloned().collect();
    let schema = Arc::new(Schema::new(data));
    if files.is_empty() || table.index_of(column).is_ok() {
        return Ok(schema);
    }
    let message = format!("there is no column `{column}` in the table");
    Err(Error::usage("MissingColumn", message).with_column(column))
}

/// The rows of a file that are theirs, by their numbers from 0. Only that column is read.
async fn numbers(file: &OpenFile, subjects: &ErasureSubjects) -> Result<Vec<u64>> {
    let (mut theirs, mut at) = (vec![], 0);
    if let Some((_, value)) = file.file.partition.iter().find(|(name, _)| name == subjects.column()) {
        // All rows of a folder have the value that it names.
        let is_theirs = value.as_ref().is_some_and(|value| subjects.has(value));
        return Ok(if is_theirs { (0..file.rows()).collect() } else { theirs });
    }
    if file.schema().index_of(subjects.column()).is_err() {
        // A file of before the column has none of them.
        return Ok(theirs);
    }
    let mut rows = file.stream(Some(&[subjects.column()]))?;
    while let Some(batch) = rows.try_next().await? {
        theirs.extend(subjects.places(batch.column(0))?.into_iter().map(|row| at + row as u64));
        at += batch.num_rows() as u64;
    }
    Ok(theirs)
}
