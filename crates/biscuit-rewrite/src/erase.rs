use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, OpenFile, Snapshot, refuse_raw};
use biscuit_journal::Outcome;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Schema};
use futures::StreamExt;
use serde::Serialize;

use crate::{Mode, Unit, rewrite_units, session};

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
/// `MissingColumn`; `RawLayer` for a table that is only added to; `Conflict` if another run was first; those of the store. After any of them the
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
    let table = snapshot.schema(&files)?;
    let in_path = |name: &String| snapshot.partition_columns().iter().any(|(p, _)| p == name);
    let data: Vec<_> = table.fields().iter().filter(|f| !in_path(f.name())).cloned().collect();
    let schema = Arc::new(Schema::new(data));
    if !files.is_empty() && schema.index_of(column).is_err() {
        let message = format!("there is no column `{column}` in the files of the table");
        return Err(Error::usage("MissingColumn", message).with_column(column));
    }
    let mut report = EraseReport {
        outcome: "unchanged",
        version: snapshot.observed.head.version,
        rows: files.iter().map(OpenFile::rows).sum(),
        ..EraseReport::default()
    };
    let (mut units, mut wanted) = (vec![], 0);
    let mut retired = vec![];
    for file in &files {
        let gone = numbers(file, column, values).await?;
        if gone.is_empty() {
            continue;
        }
        (report.files, report.erased) = (report.files + 1, report.erased + gone.len() as u64);
        let listed = snapshot.observed.file(&file.file.path);
        retired.push(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
        if gone.len() as u64 == file.rows() {
            continue;
        }
        wanted += file.rows() - gone.len() as u64;
        let folder = file.file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        units.push(Unit::new(file.clone(), schema.clone(), folder).with_removed(&gone));
    }
    if report.files == 0 {
        return Ok(report);
    }
    report.outcome = "planned";
    if mode == Mode::DryRun {
        return Ok(report);
    }
    let mut replace = dataset.journal().replace(&snapshot.observed);
    retired.into_iter().for_each(|listed| replace.retire(listed));
    let stager = replace.stager();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let written = match rewrite_units(units, &stager, session(cores, None)?).await {
        Ok(written) => written,
        Err(e) => {
            replace.abandon().await?;
            return Err(e);
        }
    };
    let left: u64 = written.iter().filter_map(|w| w.file.rows).sum();
    if left != wanted {
        replace.abandon().await?;
        return Err(Error::internal(format!("{left} rows were written where there are {wanted}")));
    }
    for w in written {
        report.groups_copied += w.copied;
        report.groups_encoded += w.encoded;
        replace.publish(stager.staged(w.file));
    }
    let partition_by: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
    for (name, value) in snapshot.facts(&table, &partition_by)? {
        replace.with_meta(name, value);
    }
    replace.with_report(serde_json::json!({
        "erased": {"rows": report.erased, "files": report.files},
        "rows": {"before": report.rows, "after": report.rows - report.erased},
    }));
    let committed = replace.commit().await?;
    report.version = committed.version;
    report.outcome = if committed.outcome == Outcome::Committed { "committed" } else { "unchanged" };
    report.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
    Ok(report)
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
