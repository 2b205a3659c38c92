use std::collections::HashMap;
use std::sync::Arc;

use biscuit_core::{Error, Result, catch_panic};
use biscuit_schema::{check_parquet_footer, check_size};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::refused::{BadRows, Part};

fn unreadable(file: &str, why: &str) -> Error {
    Error::data("UnreadableParquet", format!("the file cannot be read as Parquet: {why}")).in_file(file)
}

/// Runs the decoder; a panic in it is an error, as its own are.
fn decode<T, E: std::error::Error + Send + Sync + 'static>(
    file: &str,
    decoder: impl FnOnce() -> Result<T, E>,
) -> Result<T> {
    match catch_panic(decoder) {
        // The words of the decoder may quote what is in the file.
        Ok(done) => done.map_err(|e| unreadable(file, "it is damaged, or uses what is not supported").with_source(e)),
        Err(e) => Err(unreadable(file, "it is damaged").with_source(e)),
    }
}

/// Looks at the footer before it is decoded. What has none is left to the decoder.
fn check_footer(file: &str, bytes: &Bytes) -> Result<()> {
    let Some((rest, b"PAR1")) = bytes.split_last_chunk::<4>() else { return Ok(()) };
    let Some((rest, length)) = rest.split_last_chunk::<4>() else { return Ok(()) };
    let begin = usize::try_from(u32::from_le_bytes(*length)).ok().and_then(|length| rest.len().checked_sub(length));
    let footer = rest.get(begin.ok_or_else(|| unreadable(file, "its footer is longer than it is"))?..);
    check_parquet_footer(footer.unwrap_or_default(), bytes.len() as u64).map_err(|why| unreadable(file, &why))
}

/// The rows of a Parquet file; the only one of a record that was put aside keeps its place.
pub(crate) fn parquet_parts(
    file: &Arc<str>,
    bytes: Bytes,
    bad_rows: BadRows,
    only: Option<u64>,
) -> Result<ParquetParts> {
    check_footer(file, &bytes)?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = decode(file, || ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options))?;
    check_size(builder.schema(), &format!("`{file}`"))?;
    let footer = builder.metadata().file_metadata();
    let rows = u64::try_from(footer.num_rows()).unwrap_or(0);
    let metadata: HashMap<String, String> = footer
        .key_value_metadata()
        .into_iter()
        .flatten()
        .filter(|kv| kv.key.contains("avro"))
        .filter_map(|kv| Some((kv.key.clone(), kv.value.clone()?)))
        .collect();
    let reader = decode(file, || builder.with_batch_size(65_536).build())?;
    let next = only.unwrap_or(1);
    Ok(ParquetParts { file: file.clone(), reader: Some(reader), metadata, bad_rows, next, left: rows })
}

/// The rows of a file, part by part; after an error there are no more.
pub(crate) struct ParquetParts {
    file: Arc<str>,
    reader: Option<ParquetRecordBatchReader>,
    metadata: HashMap<String, String>,
    bad_rows: BadRows,
    /// The number of the next row.
    next: u64,
    /// Rows that are still to come, by the footer.
    left: u64,
}

impl ParquetParts {
    fn read(&mut self) -> Result<Option<Part>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let other = || unreadable(&self.file, "its columns do not have the rows that its footer says");
        let Some(batch) = decode(&self.file, || reader.next().transpose())? else {
            return if self.left == 0 { Ok(None) } else { Err(other()) };
        };
        self.left = self.left.checked_sub(batch.num_rows() as u64).ok_or_else(other)?;
        let schema = batch.schema().as_ref().clone().with_metadata(self.metadata.clone());
        let batch = decode(&self.file, || batch.with_schema(Arc::new(schema)))?;
        let part = Part::of(batch, self.next, self.bad_rows);
        self.next += part.places.len() as u64;
        Ok(Some(part))
    }
}

impl Iterator for ParquetParts {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.reader = None;
        }
        next
    }
}
