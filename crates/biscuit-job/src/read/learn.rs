use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_bookmark::{SourcePlace, list};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::FileEncryption;
use biscuit_schema::{Contract, TypeConflict};
use tokio::runtime::Handle;

use crate::read::infer::{InferScope, infer};
use crate::read::input::InputFile;
use crate::read::source::{FileRows, ReadTask, SourceReader};
use crate::spec::{RulesSpec, SourceFormat, TextSpec};

/// The contract of the objects at a place, by all of them, with what they do not agree on. `keys` are those of Parquet files that are encrypted.
///
/// # Errors
/// `NotFound` if there is no object; those of files that cannot be read.
pub async fn learn(
    place: &SourcePlace,
    format: Option<SourceFormat>,
    text: &TextSpec,
    rules: Option<&RulesSpec>,
    keys: Option<&FileEncryption>,
) -> Result<(Contract, Vec<TypeConflict>)> {
    let (files, format) = files_at(place, format).await?;
    infer(&files, format, text, rules, (None, keys), InferScope::All).await
}

/// The first rows of the objects at a place, so many of each: all columns, typed as [`learn`] types them.
///
/// # Errors
/// Those of [`learn`], and of rows that cannot be read.
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
        infer(&files, format, text, Some(&RulesSpec::None), (None, keys), InferScope::Rows(rows_of_each as u64))
            .await?;
    let reading = Arc::new(SourceReader::new(format, text.clone(), &contract, now)?.with_keys(keys.cloned()));
    let mut all = vec![];
    for file in &files {
        let (reading, handle, file) = (reading.clone(), Handle::current(), file.clone());
        let read = tokio::task::spawn_blocking(move || {
            let (mut task, mut batches, mut left) = (Some(ReadTask::Whole(file)), vec![], rows_of_each);
            let mut take = |rows: FileRows<'_>| {
                let batch = rows.batch.slice(0, left.min(rows.batch.num_rows()));
                left -= batch.num_rows();
                batches.push(batch);
                // The rest is not read.
                if left == 0 { Err(Error::usage(ENOUGH, "these are enough")) } else { Ok(()) }
            };
            match reading.work(&mut || task.take(), &handle, 0, &mut take) {
                Err(e) if e.code() != ENOUGH => Err(e),
                _ => Ok(batches),
            }
        });
        all.extend(read.await.map_err(|e| Error::internal("a thread that reads was cut off").with_source(e))??);
    }
    Ok(all)
}

const ENOUGH: &str = "Enough";

/// What the objects at a place hold, by the first one's first bytes and name.
///
/// # Errors
/// `NotFound` if there is no object; `UnknownFormat`.
pub async fn format_at(place: &SourcePlace) -> Result<SourceFormat> {
    Ok(files_at(place, None).await?.1)
}

/// The objects at a place, and what they hold.
async fn files_at(place: &SourcePlace, format: Option<SourceFormat>) -> Result<(Vec<Arc<InputFile>>, SourceFormat)> {
    let input = list(std::slice::from_ref(place)).await?;
    let mut files = Vec::new();
    // What is learned first names the columns, whatever the order of a listing.
    for object in input.everything() {
        let (store, path) = input.find(&object)?;
        let file = InputFile::new(&object.url, store, path, object.size, object.etag.clone());
        files.push(Arc::new(file.with_path_columns(input.below(&object))?));
    }
    let Some(first) = files.first() else {
        return Err(Error::usage("NotFound", format!("there are no objects at `{}`", place.url())));
    };
    let format = match format {
        Some(format) => format,
        None => by_name(&first.name, &first.bytes(0..first.size.min(4)).await?)?,
    };
    Ok((files, format))
}

/// The format of a file, by its first bytes and its name.
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
        let message = format!("`{name}` does not say what it holds: name its format");
        Err(Error::usage("UnknownFormat", message).in_file(name))
    }
}
