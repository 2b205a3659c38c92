use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, OpenFile, ParquetOptions, Snapshot, refuse_raw};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;

use crate::replacing::Replacing;
use crate::{Mode, Unit, Written};

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
    /// Row groups that were copied as they were.
    pub groups_copied: u64,
    /// Row groups that were encoded.
    pub groups_encoded: u64,
    /// Files that were kept because somebody else changed them since: the run ended with exceptions.
    pub exceptions: Vec<String>,
}

/// Deletes the rows in which a column, as text, is one of these values, and writes the files that have them anew; all other files stay as they
/// are: name and ETag. What is kept of keys beside the rows is not touched, and nor are older versions of a bucket; a bloom filter that a row group had may
/// still answer "perhaps" for a value that is gone.
///
/// # Errors
/// `MissingColumn`; `NoFileKeys` for a table with encrypted columns and no keys; `RawLayer` for a table that is only added to; `Conflict` if another run was first; those of the store. After any of them the
/// table is as it was.
pub async fn erase(dataset: &Dataset, column: &str, values: &[String], mode: Mode) -> Result<EraseReport> {
    let snapshot = if mode == Mode::DryRun { dataset.view().await? } else { dataset.observe().await? };
    refuse_raw(&snapshot.observed.head, "erased from")?;
    let head = snapshot.observed.head.clone();
    let done = erase_from(dataset, &snapshot, column, values, mode).await;
    match done {
        Err(e) => Err(dataset.journal().explain(e, &head).await),
        done => done,
    }
}

async fn erase_from(
    dataset: &Dataset,
    snapshot: &Snapshot,
    column: &str,
    values: &[String],
    mode: Mode,
) -> Result<EraseReport> {
    let files = snapshot.open_files().await?;
    let (snapshot, parquet) = snapshot.clone().for_writing(&ParquetOptions::default(), &files).await?;
    let snapshot = &snapshot;
    let schema = schema_with(snapshot, &files, column)?;
    let rows: u64 = files.iter().map(OpenFile::rows).sum();
    let mut report =
        EraseReport { outcome: "unchanged", version: snapshot.observed.head.version, rows, ..EraseReport::default() };
    let (mut gone, mut units, mut left) = (vec![], vec![], 0);
    for file in &files {
        let numbers = numbers(file, column, values).await?;
        if numbers.is_empty() {
            continue;
        }
        report.erased += numbers.len() as u64;
        gone.push(file);
        // A file of nothing else has none in its place.
        if (numbers.len() as u64) < file.rows() {
            left += file.rows() - numbers.len() as u64;
            let folder = file.file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let unit = Unit::new(file.clone(), schema.clone(), folder).with_parquet(parquet.clone());
            units.push(unit.with_removed(&numbers));
        }
    }
    report.files = gone.len() as u64;
    if gone.is_empty() {
        return Ok(report);
    }
    report.outcome = "planned";
    if mode == Mode::DryRun {
        return Ok(report);
    }
    let (erased, of) = (report.erased, report.files);
    let counts = |_: &[Written]| json!({"erased": {"rows": erased, "files": of}, "rows": {"before": rows, "after": rows - erased}});
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let replacing = Replacing { snapshot, files: &files, gone, units, rows: left, report: &counts };
    let done = replacing.commit(dataset, cores, None).await?;
    report.groups_copied = done.written.iter().map(|w| w.copied).sum();
    report.groups_encoded = done.written.iter().map(|w| w.encoded).sum();
    (report.outcome, report.version, report.exceptions) = (done.outcome, done.version, done.exceptions);
    Ok(report)
}

/// The columns of the files, this one among them.
fn schema_with(snapshot: &Snapshot, files: &[OpenFile], column: &str) -> Result<SchemaRef> {
    let in_path = |name: &String| snapshot.partition_columns().iter().any(|(p, _)| p == name);
    let table = snapshot.schema(files)?;
    let data: Vec<_> = table.fields().iter().filter(|f| !in_path(f.name())).cloned().collect();
    let schema = Arc::new(Schema::new(data));
    if files.is_empty() || schema.index_of(column).is_ok() {
        return Ok(schema);
    }
    let message = format!("there is no column `{column}` in the files of the table");
    Err(Error::usage("MissingColumn", message).with_column(column))
}

/// The rows in which a column, as text, is one of these values: those that [`erase`] would take away.
///
/// # Errors
/// `MissingColumn`; those of the store.
pub async fn rows_with(dataset: &Dataset, column: &str, values: &[String]) -> Result<Vec<RecordBatch>> {
    let snapshot = dataset.view().await?;
    let files = snapshot.open_files().await?;
    schema_with(&snapshot, &files, column)?;
    let mut all = vec![];
    for file in &files {
        let numbers = numbers(file, column, values).await?;
        if !numbers.is_empty() {
            all.extend(file.stream_rows(None, &numbers)?.try_collect::<Vec<_>>().await?);
        }
    }
    Ok(all)
}

/// The rows of a file that have one of these values, by their numbers from 0. Only that column is read.
async fn numbers(file: &OpenFile, column: &str, values: &[String]) -> Result<Vec<u64>> {
    let (mut gone, mut at) = (vec![], 0);
    if file.schema().index_of(column).is_err() {
        // A file of before the column has none of them.
        return Ok(gone);
    }
    let mut rows = file.stream(Some(&[column]))?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let kind = batch.column(0).data_type();
        let text = Some(batch.column(0)).filter(|_| !kind.is_nested());
        let text = text.and_then(|text| cast_with_options(text, &DataType::LargeUtf8, &strict).ok());
        let text = text.ok_or_else(|| {
            let message = format!("column `{column}` is a {kind}, which has no text");
            Error::usage("NotText", message).with_column(column)
        })?;
        let text = text.as_string::<i64>();
        let is_one = |row: &usize| text.is_valid(*row) && values.iter().any(|value| value == text.value(*row));
        gone.extend((0..text.len()).filter(is_one).map(|row| at + row as u64));
        at += batch.num_rows() as u64;
    }
    Ok(gone)
}
