//! Reads Parquet files in batches whose size is limited by the size of the values, with checks of damaged files
//! before the decoder sees them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_core::catch_panic;
use biscuit_core::{Error, Result};
use biscuit_schema::internal::{
    UuidColumns, check_int96, check_parquet_footer, check_size, differs_by_calendar, has_legacy_calendar,
    int96_as_micros, legacy_calendar, parquet_rows_at_a_time,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

/// Maximum number of rows in a batch.
const BATCH: usize = 65_536;

fn unreadable_file(file: &str, reason: &str) -> Error {
    Error::new(biscuit_schema::codes::UNREADABLE_PARQUET, format!("the file cannot be read as Parquet: {reason}"))
        .in_file(file)
}

/// Runs the decoder. Its errors and panics become `UnreadableParquet`.
fn run_decoder<T, E: std::error::Error + Send + Sync + 'static>(
    file: &str,
    decoder: impl FnOnce() -> Result<T, E>,
) -> Result<T> {
    match catch_panic(decoder) {
        // The message of the decoder may quote values of the file, so it is only the source of the error.
        Ok(done) => {
            done.map_err(|e| unreadable_file(file, "it is damaged or uses an unsupported feature").with_source(e))
        }
        Err(e) => Err(unreadable_file(file, "it is damaged").with_source(e)),
    }
}

/// Checks the footer before it is decoded. A file without a footer is refused by the decoder.
fn check_footer(file: &str, bytes: &Bytes) -> Result<()> {
    let Some((rest, b"PAR1")) = bytes.split_last_chunk::<4>() else { return Ok(()) };
    let Some((rest, length)) = rest.split_last_chunk::<4>() else { return Ok(()) };
    let begin = usize::try_from(u32::from_le_bytes(*length)).ok().and_then(|length| rest.len().checked_sub(length));
    let footer = rest.get(begin.ok_or_else(|| unreadable_file(file, "its footer is longer than the file"))?..);
    check_parquet_footer(footer.unwrap_or_default(), bytes.len() as u64)
        .map_err(|reason| unreadable_file(file, &reason))
}

/// Returns how many rows are decoded at a time: few enough for the row group with the largest values.
fn rows_at_a_time(file: &str, metadata: &ParquetMetaData, content: &Bytes) -> Result<usize> {
    let of_group = |group: &RowGroupMetaData| {
        let columns = group.columns().iter().map(|column| {
            let (begin, length) = column.byte_range();
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(content.len());
            (column, content.slice(at(begin)..at(begin.saturating_add(length))))
        });
        let footer = metadata.file_metadata().key_value_metadata();
        let check = || {
            columns.clone().try_for_each(|(column, pages)| check_int96(column, &pages, footer))?;
            Ok::<_, Error>(parquet_rows_at_a_time(group, columns, BATCH))
        };
        match catch_panic(check) {
            Ok(rows) => rows.map_err(|e| e.in_file(file))?.map_err(|reason| unreadable_file(file, &reason)),
            Err(e) => Err(unreadable_file(file, "it is damaged").with_source(e)),
        }
    };
    metadata.row_groups().iter().map(of_group).try_fold(BATCH, |minimum, rows| Ok(minimum.min(rows?)))
}

/// Iterator over the rows of a Parquet file in batches. Ends after the first error.
pub(crate) struct ParquetRows {
    file: Arc<str>,
    reader: Option<ParquetRecordBatchReader>,
    metadata: HashMap<String, String>,
    /// Columns with UUIDs, which are read as text.
    uuids: UuidColumns,
    /// Whether dates and times may be in the hybrid Julian calendar of Spark 2.
    legacy_calendar: bool,
    /// Number of rows that remain, according to the footer.
    left: u64,
}

impl ParquetRows {
    pub(crate) fn open(file: &Arc<str>, bytes: Bytes) -> Result<Self> {
        check_footer(file, &bytes)?;
        // The Arrow schema in the metadata is ignored: only the Parquet types are checked and trusted.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let content = bytes.clone();
        let builder = run_decoder(file, || {
            let own = ArrowReaderMetadata::load(&bytes, options.clone())?;
            // INT96 is read as microseconds: nanoseconds wrap before 1677 and after 2262.
            let own = match int96_as_micros(own.schema(), own.parquet_schema()) {
                Some(schema) => ArrowReaderMetadata::try_new(own.metadata().clone(), options.with_schema(schema))?,
                None => own,
            };
            Ok::<_, ParquetError>(ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, own))
        })?;
        check_size(builder.schema(), &format!("`{file}`"))?;
        let uuids = UuidColumns::of_parquet(builder.schema(), builder.parquet_schema());
        let footer = builder.metadata().file_metadata();
        let legacy_calendar = has_legacy_calendar(footer.key_value_metadata());
        let left = u64::try_from(footer.num_rows()).unwrap_or(0);
        let metadata: HashMap<String, String> = footer
            .key_value_metadata()
            .into_iter()
            .flatten()
            .filter(|kv| kv.key.contains("avro"))
            .filter_map(|kv| Some((kv.key.clone(), kv.value.clone()?)))
            .collect();
        let batch = rows_at_a_time(file, builder.metadata(), &content)?;
        let reader = run_decoder(file, || builder.with_batch_size(batch).build())?;
        Ok(Self { file: file.clone(), reader: Some(reader), metadata, uuids, legacy_calendar, left })
    }

    fn read(&mut self) -> Result<Option<RecordBatch>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let other =
            || unreadable_file(&self.file, "its columns do not have the number of rows that its footer declares");
        let Some(batch) = run_decoder(&self.file, || reader.next().transpose())? else {
            return if self.left == 0 { Ok(None) } else { Err(other()) };
        };
        self.left = self.left.checked_sub(batch.num_rows() as u64).ok_or_else(other)?;
        let schema = batch.schema().as_ref().clone().with_metadata(self.metadata.clone());
        let batch = run_decoder(&self.file, || batch.with_schema(Arc::new(schema)))?;
        if self.legacy_calendar {
            self.check_calendar(&batch)?;
        }
        self.uuids.to_texts(batch).map(Some)
    }
}

impl ParquetRows {
    /// Refuses dates and times of Spark 2 that are different in the calendar of Parquet.
    fn check_calendar(&self, rows: &RecordBatch) -> Result<()> {
        let schema = rows.schema();
        let mut columns = schema.fields().iter().zip(rows.columns());
        match columns.find(|(_, column)| differs_by_calendar(column)) {
            Some((field, _)) => Err(legacy_calendar(field.name()).in_file(&self.file)),
            None => Ok(()),
        }
    }
}

impl Iterator for ParquetRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read().transpose();
        // A decoder that failed or panicked must not be used again.
        if !matches!(next, Some(Ok(_))) {
            self.reader = None;
        }
        next
    }
}
