//! Inspects objects without running a job: infers their contract, reads sample rows, detects their format.

use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_bookmark::{SourcePlace, list};
use biscuit_core::{Error, ErrorCode, ErrorKind, Instant, Result};
use biscuit_dataset::encryption::FileEncryption;
use biscuit_schema::{Contract, TypeConflict};
use tokio::runtime::Handle;

use crate::codes;
use crate::read::infer::{InferScope, infer_columns};
use crate::read::input::InputFile;
use crate::read::source::{ReadTask, SourceFileRows, SourceReader};
use crate::spec::{RulesSpec, SourceFormat, TextSpec};

/// Infers the contract of all objects at a location. Returns it with the columns for which the objects disagree.
/// `keys` decrypts encrypted Parquet files.
///
/// # Errors
/// `NoInput` if there is no object, and errors of files that cannot be read.
pub async fn learn(
    place: &SourcePlace,
    format: Option<SourceFormat>,
    text: &TextSpec,
    rules: Option<&RulesSpec>,
    keys: Option<&FileEncryption>,
) -> Result<(Contract, Vec<TypeConflict>)> {
    let (files, format) = files_at(place, format).await?;
    infer_columns(&files, format, text, rules, None, keys, InferScope::All).await
}

/// Reads the first `rows_of_each` rows of each object at a location, with all columns, typed as by [`learn`] but
/// without naming rules.
///
/// # Errors
/// Errors of [`learn`], and of rows that cannot be read.
pub async fn sample(
    place: &SourcePlace,
    format: Option<SourceFormat>,
    text: &TextSpec,
    rows_of_each: usize,
    now: Instant,
    keys: Option<&FileEncryption>,
) -> Result<Vec<RecordBatch>> {
    let (files, format) = files_at(place, format).await?;
    let (contract, _) =
        infer_columns(&files, format, text, Some(&RulesSpec::None), None, keys, InferScope::Rows(rows_of_each as u64))
            .await?;
    let reading = Arc::new(SourceReader::new(format, text.clone(), &contract, now)?.with_keys(keys.cloned()));
    let mut all = vec![];
    for file in &files {
        let (reading, handle, file) = (reading.clone(), Handle::current(), file.clone());
        let read = tokio::task::spawn_blocking(move || {
            let (mut task, mut batches, mut left) = (Some(ReadTask::Whole(file)), vec![], rows_of_each);
            let mut take = |rows: SourceFileRows<'_>| {
                let batch = rows.batch.slice(0, left.min(rows.batch.num_rows()));
                left -= batch.num_rows();
                batches.push(batch);
                // An error is the only way to stop the reader early; its code is handled below.
                if left == 0 { Err(Error::new(ENOUGH, "enough rows were read")) } else { Ok(()) }
            };
            match reading.run_tasks(&mut || task.take(), &handle, 0, &mut take) {
                Err(e) if !e.is(ENOUGH) => Err(e),
                _ => Ok(batches),
            }
        });
        all.extend(read.await.map_err(|e| Error::internal("a thread that reads was cancelled").with_source(e))??);
    }
    Ok(all)
}

/// Code of the error that stops a reader after enough rows. No caller gets it.
const ENOUGH: ErrorCode =
    ErrorCode::new("Enough", ErrorKind::Internal, "A reader was stopped because enough rows were read.", "Report it.");

/// Detects the format of the objects at a location, from the first bytes and the name of the first object.
///
/// # Errors
/// `NoInput` if there is no object; `UnknownFormat` if neither the bytes nor the name show the format.
pub async fn format_at(place: &SourcePlace) -> Result<SourceFormat> {
    Ok(files_at(place, None).await?.1)
}

/// Lists the objects at a location and decides their format.
async fn files_at(place: &SourcePlace, format: Option<SourceFormat>) -> Result<(Vec<Arc<InputFile>>, SourceFormat)> {
    let input = list(std::slice::from_ref(place)).await?;
    let mut files = Vec::new();
    // `all_objects` is ordered, so the object that decides the order of the columns does not depend on the listing.
    for object in input.all_objects() {
        let (store, path) = input.find(&object)?;
        let file = InputFile::new(object.listed.clone(), store, path);
        files.push(Arc::new(file.with_path_columns(input.path_below_place(&object))?));
    }
    let Some(first) = files.first() else {
        return Err(Error::new(
            biscuit_core::codes::NO_INPUT,
            format!("no objects at `{}`; check the path", place.url()),
        ));
    };
    let format = match format {
        Some(format) => format,
        None => by_name(first.name(), &first.read_range(0..first.size().min(4)).await?)?,
    };
    Ok((files, format))
}

/// Detects the format of a file from its first bytes and its name.
fn by_name(name: &str, head: &[u8]) -> Result<SourceFormat> {
    if matches!(head, b"PAR1" | b"PARE") {
        return Ok(SourceFormat::Parquet);
    }
    let plain = name.trim_end_matches(".gz").trim_end_matches(".zst").to_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|e| plain.ends_with(e));
    if ends(&[".json", ".jsonl", ".ndjson"]) || head.starts_with(b"{") {
        Ok(SourceFormat::Json)
    } else if ends(&[".csv", ".tsv", ".txt"]) {
        Ok(SourceFormat::Csv)
    } else {
        let message = format!("unknown format of `{name}`; name the format");
        Err(Error::new(codes::UNKNOWN_FORMAT, message).in_file(name))
    }
}
