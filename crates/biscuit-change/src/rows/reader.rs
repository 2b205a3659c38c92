//! Reads files of plain rows in Parquet, Avro, JSON and CSV. Columns of JSON and CSV without a declared type get one
//! type for all files of the run, so their rows are converted at the end.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_merge::internal::RawSource;
use biscuit_merge::{BadRows, ChangeBatch, ChangeColumns, OpMap, PLACEHOLDER, RefusedRecord};
use biscuit_schema::internal::{MAX_FIELDS, check_names};
use biscuit_schema::{Contract, ContractColumn, SchemaInference};
use bytes::Bytes;

use crate::columnar::rows::{self, is_columnar};
use crate::csv::dialect::{CsvDialect, without_packing};
use crate::csv::records::{self, CsvFile, CsvForm};
use crate::files::encoding::TextEncoding;
use crate::json::object::{self, JsonObject};
use crate::records::change_records::ChangeRecords;
use crate::records::refused::{QuarantineRule, RowsInProgress, line_spans, quarantine_failing_rows};
use crate::setters::{reader_setters, text_setters};
use crate::values::codec::{self, ValuePosition};
use crate::values::declared::{
    LossCounter, RowPlaces, RowTyping, as_written, as_written_in, coerce_to_contract, coerce_values,
    find_declared_column, not_null_columns, of_type, with_defaults,
};
use crate::values::text::{empty_file, is_key_or_header_file, json_text, text_of, wrong_type};
use crate::values::text_value::{TextValue, to_array};

/// Options of a [`RowsReader`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct RowsOptions {
    /// Column of operation codes, which is not stored. Default: none, so that every row is an upsert.
    pub op: Option<String>,
    /// Operation codes other than the ones of [`parse_op`](crate::parse_op).
    pub op_map: OpMap,
    /// Column with the delete flag, which is not stored: true, or the time of the delete, means that the row is
    /// deleted. Default: none.
    pub delete_column: Option<String>,
    /// Declared columns and types. Other columns are handled as `extra` of the contract tells; by default they are
    /// dropped and listed in [`ChangeRecords::dropped_columns`].
    pub contract: Option<Contract>,
    /// Types of the columns of JSON and CSV files if there is no contract, usually the schema of the table.
    pub expected: Option<SchemaRef>,
    /// Placeholder for unchanged values: a text, or `hex:` and hexadecimal digits. Empty means no placeholder.
    /// Default: [`PLACEHOLDER`](crate::PLACEHOLDER).
    pub placeholder: Option<String>,
    /// Handling of records that cannot be used. Default: the first one is an error.
    pub bad_rows: BadRows,
    /// Maximum size of one file after decompression or decoding, in bytes. A larger file is refused with `TooLarge`.
    ///
    /// Default for text: 4 GiB, and for compressed text also 250 times the size of the file (at least 64 MiB).
    /// Default for rows of Parquet and Avro: 2,000 times the size of the file (at least 256 MiB).
    pub max_decompressed: Option<u64>,
    /// Dialect of CSV files.
    pub csv: CsvDialect,
    /// Encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
}

impl RowsOptions {
    reader_setters!();
    text_setters!();

    /// Sets the column of operation codes. A file without this column is a full load: all its rows are upserts.
    pub fn with_op(mut self, column: impl Into<String>) -> Self {
        self.op = Some(column.into());
        self
    }

    /// Sets operation codes other than the ones of [`parse_op`](crate::parse_op).
    pub fn with_op_map(mut self, map: OpMap) -> Self {
        self.op_map = map;
        self
    }

    /// Sets the column with the delete flag.
    pub fn with_delete_column(mut self, column: impl Into<String>) -> Self {
        self.delete_column = Some(column.into());
        self
    }

    /// Sets the types of the columns of JSON and CSV files. Ignored if there is a contract.
    pub fn with_expected(mut self, schema: SchemaRef) -> Self {
        self.expected = Some(schema);
        self
    }

    /// Returns the columns that say how each row changes the table, for [`row_changes`](crate::row_changes).
    pub fn change_columns(&self) -> ChangeColumns {
        let mut columns = ChangeColumns::default().with_op_map(self.op_map.clone());
        columns.op.clone_from(&self.op);
        columns.delete_column.clone_from(&self.delete_column);
        columns.placeholder.clone_from(&self.placeholder);
        columns.with_not_null(self.contract.as_ref().map(not_null_columns).unwrap_or_default())
    }

    /// Returns whether a column is read but not stored.
    pub(crate) fn is_input_only(&self, name: &str) -> bool {
        self.op.as_deref() == Some(name) || self.delete_column.as_deref() == Some(name)
    }

    /// Returns the declared column for a column of the input, if there is one.
    fn declared_column(&self, name: &str) -> Option<ContractColumn> {
        match self.is_input_only(name) {
            true => None,
            false => find_declared_column(self.contract.as_ref(), self.expected.as_ref(), name),
        }
    }
}

/// Reads files of plain rows. The types of JSON and CSV columns are inferred from all files of the run, so their
/// records are built by [`finish`](Self::finish).
///
/// ```
/// use biscuit_change::{ChangeOp, RowsOptions, RowsReader};
///
/// let lines = "{\"id\":1,\"op\":\"I\"}\n{\"id\":2,\"op\":\"-U\"}\n{\"id\":3,\"op\":\"D\"}\n";
/// let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
/// reader.read("a.jsonl", lines.into())?;
/// let changes = reader.finish()?;
///
/// assert_eq!(changes.batches[0].ops, [ChangeOp::Upsert, ChangeOp::Delete]);
/// assert_eq!(changes.batches[0].places, [1, 3]);
/// assert_eq!(changes.ignored, 1); // the image before an update
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct RowsReader {
    options: RowsOptions,
    quarantine_rule: QuarantineRule,
    changes: ChangeRecords,
    /// Name and text of each JSON file; for a quarantined record that is read again, also its row.
    json: Vec<(Arc<str>, Arc<str>, Option<u64>)>,
    csv: Vec<CsvFile>,
}

impl RowsReader {
    /// Creates a reader.
    pub fn new(options: RowsOptions) -> Self {
        let quarantine_rule = QuarantineRule::new(options.bad_rows, options.contract.as_ref());
        Self { options, quarantine_rule, ..Self::default() }
    }

    /// Reads one file. Parquet and Avro are recognized by their first bytes, CSV by the extension (`.csv`, `.csv.gz`,
    /// `.tsv`); any other file is JSON.
    ///
    /// # Errors
    /// `EmptyFile`, `UnreadableParquet`, `UnreadableAvro`, `TruncatedInput`, `InvalidText`, `InvalidCsv`, and the
    /// errors of [`row_changes`](crate::row_changes).
    pub fn read(&mut self, file: &str, bytes: Bytes) -> Result<()> {
        self.read_as(file, bytes, None)
    }

    /// Reads a quarantined record again from [`RefusedRecord::raw`]. The record keeps its row number in the original
    /// file.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub fn read_record(&mut self, file: &str, row: u64, raw: Bytes) -> Result<()> {
        self.read_as(file, raw, Some(row))
    }

    fn read_as(&mut self, file: &str, bytes: Bytes, row: Option<u64>) -> Result<()> {
        if is_key_or_header_file(file) {
            self.changes.passed_over.push(file.to_owned());
            return Ok(());
        }
        let name: Arc<str> = file.into();
        let plain = without_packing(file).to_ascii_lowercase();
        // Quarantined records are UTF-8, whatever the encoding of their file was.
        let encoding = self.options.encoding.filter(|_| row.is_none());
        let columnar = is_columnar(&bytes) || plain.ends_with(".parquet") || plain.ends_with(".avro");
        if bytes.is_empty() {
            Err(empty_file(file))
        } else if columnar {
            for part in rows::read_parts(&name, bytes, &self.quarantine_rule, row, self.options.max_decompressed)? {
                self.add_rows(part?, &name)?;
            }
            Ok(())
        } else if plain.ends_with(".csv") || plain.ends_with(".tsv") {
            let form = CsvForm { dialect: self.options.csv.of_file(file), names: None, null: String::new() };
            self.read_csv(&name, text_of(file, &bytes, self.options.max_decompressed, encoding)?, form, row)
        } else {
            self.json.push((name, json_text(file, &bytes, self.options.max_decompressed, encoding)?.into(), row));
            Ok(())
        }
    }

    /// Reads rows that the caller decoded from a Parquet or Avro file; `first` is the number of the first row in the
    /// file, from 1.
    ///
    /// # Errors
    /// The errors of [`row_changes`](crate::row_changes).
    pub fn read_batch(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        self.add_rows(RowsInProgress::from_batch(rows, first, &self.quarantine_rule), file)
    }

    /// Takes the change records that are ready, which are from Parquet and Avro files. Records from text are returned
    /// by [`finish`](Self::finish).
    pub fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes.batches)
    }

    fn read_csv(&mut self, file: &Arc<str>, text: String, form: CsvForm, row: Option<u64>) -> Result<()> {
        let refused = &mut self.changes.refused;
        let csv = CsvFile::parse_at(file, text, form, row, &self.quarantine_rule, refused)?;
        self.csv.push(csv);
        Ok(())
    }

    /// Converts rows to change records, and quarantines invalid ones if the options allow it.
    fn add_rows(&mut self, part: RowsInProgress, file: &Arc<str>) -> Result<()> {
        let (options, changes) = (&self.options, &mut self.changes);
        if options.op.as_ref().is_some_and(|op| part.batch.column_by_name(op).is_none()) {
            changes.without_op += part.batch.num_rows() as u64;
        }
        let columns = options.change_columns();
        // If a row is invalid, `sift` calls this again with parts of the rows, so the counters are updated
        // afterwards.
        let mut make = |part: &RowsInProgress| {
            let Some(contract) = &options.contract else {
                let (batch, bad) = as_written_in(&part.batch, options.expected.as_ref(), part.at(file))?;
                return match bad.into_iter().next() {
                    Some((_, e)) => Err(e),
                    None => Ok((
                        RowsInProgress { batch, ..part.clone() }.into_changes(file, &columns)?,
                        LossCounter::default(),
                    )),
                };
            };
            let passed = |name: &str| options.is_input_only(name);
            let mut complying = coerce_to_contract(&part.batch, part.typing, contract, &passed, part.at(file))?;
            if let Some((_, e)) = complying.bad.into_iter().next() {
                return Err(e);
            }
            let batch = with_defaults(&complying.rows, contract, &mut complying.lost)?;
            Ok((RowsInProgress { batch, ..part.clone() }.into_changes(file, &columns)?, complying.lost))
        };
        for ((batch, ignored), lost) in
            quarantine_failing_rows(file, part, &self.quarantine_rule, &mut changes.refused, &mut make)?
        {
            changes.ignored += ignored;
            changes.batches.push(batch);
            changes.add_losses(lost);
        }
        Ok(())
    }

    /// Returns the change records of all files: first Parquet and Avro, then JSON, then CSV, in the order of reading
    /// within a format.
    ///
    /// # Errors
    /// `InvalidJson`, `DuplicateColumn`, `WrongType`, and the errors of [`row_changes`](crate::row_changes), with
    /// file, row and column.
    pub fn finish(mut self) -> Result<ChangeRecords> {
        self.finish_json()?;
        let files = std::mem::take(&mut self.csv);
        let options = &self.options;
        let parts = records::convert_files(
            &files,
            |name| options.declared_column(name),
            &self.quarantine_rule,
            &mut self.changes,
        )?;
        for (part, file) in parts {
            self.add_rows(part, &file)?;
        }
        Ok(self.changes)
    }

    fn finish_json(&mut self) -> Result<()> {
        // Two passes: the first parses all lines and infers the columns, the second converts the values.
        let files = std::mem::take(&mut self.json);
        let mut parsed: Vec<(&Arc<str>, &Arc<str>, Vec<JsonLine<'_>>)> = Vec::new();
        let inference = SchemaInference::default().without_times();
        let mut columns = JsonColumns { inference, ..JsonColumns::default() };
        for (file, text, only) in &files {
            let mut found = Vec::new();
            for (place, span) in line_spans(text) {
                let (line, place) = (&text[span.clone()], only.unwrap_or(place));
                // A Kafka tombstone, which has no row.
                if line.trim() == "null" {
                    self.changes.ignored += 1;
                    continue;
                }
                let object = object::object_line(line, file, place).and_then(|object| {
                    columns.add_line(&object, &self.options, file, place)?;
                    Ok(object)
                });
                match object {
                    Ok(object) => found.push(JsonLine { place, span, object }),
                    Err(e) => {
                        let refused = &mut self.changes.refused;
                        quarantine_line(&e, file, line, &self.quarantine_rule, refused).ok_or(e)?;
                    }
                }
            }
            parsed.push((file, text, found));
        }
        self.changes.conflicts.extend(columns.inference.conflicts().cloned());
        let columns = columns.into_typed();
        for (file, text, found) in parsed {
            for chunk in split_lines(&found) {
                let part = json_part(&columns, chunk, file, text, &self.quarantine_rule, &mut self.changes)?;
                self.add_rows(part, file)?;
            }
        }
        Ok(())
    }
}

/// Quarantines a line if the rule takes its error; otherwise returns `None`.
fn quarantine_line(
    e: &Error,
    file: &str,
    line: &str,
    quarantine_rule: &QuarantineRule,
    refused: &mut Vec<RefusedRecord>,
) -> Option<()> {
    let row = e.row().filter(|_| quarantine_rule.covers(e))?;
    refused.push(RefusedRecord::new(file, row, e, format!("{line}\n").into_bytes()));
    Some(())
}

/// Object of a line, with the number of the line and its span in the text.
struct JsonLine<'a> {
    place: u64,
    span: Range<usize>,
    object: JsonObject<'a>,
}

/// Columns that the JSON lines so far have, in the order in which they first occur.
#[derive(Debug, Default)]
struct JsonColumns {
    all: Vec<JsonColumn>,
    at: HashMap<String, usize>,
    /// Inferred types of the columns that are not declared.
    inference: SchemaInference,
}

#[derive(Debug)]
struct JsonColumn {
    name: String,
    declared: Option<ContractColumn>,
}

impl JsonColumns {
    /// Adds the columns and types of a line.
    fn add_line(&mut self, object: &JsonObject<'_>, options: &RowsOptions, file: &Arc<str>, place: u64) -> Result<()> {
        for (i, (name, raw)) in object.0.iter().enumerate() {
            // Fast path: most lines have the same columns in the same order.
            let at = match self.all.get(i).is_some_and(|c| c.name == *name) {
                true => i,
                false => match self.at.get(name) {
                    Some(at) => *at,
                    None => self.add_column(name, options).map_err(|e| e.at(file, place))?,
                },
            };
            if self.all[at].declared.is_none() {
                self.inference.add_json_value(file, place, name, raw.get());
            }
        }
        Ok(())
    }

    fn add_column(&mut self, name: &str, options: &RowsOptions) -> Result<usize> {
        if self.all.len() == MAX_FIELDS {
            let message = format!("the rows have more than {MAX_FIELDS} columns");
            return Err(Error::new(biscuit_schema::codes::TOO_MANY_COLUMNS, message));
        }
        self.at.insert(name.to_owned(), self.all.len());
        self.all.push(JsonColumn { name: name.to_owned(), declared: options.declared_column(name) });
        Ok(self.all.len() - 1)
    }

    /// Returns each column with its name in the lines and its declared or inferred type.
    fn into_typed(self) -> Vec<(String, ContractColumn)> {
        let Self { all, inference, .. } = self;
        let column = |JsonColumn { name, declared }: JsonColumn| {
            let inferred = || of_type(&name, &inference.type_of(&name).unwrap_or(DataType::Null));
            let column = declared.unwrap_or_else(inferred);
            (name, column)
        };
        all.into_iter().map(column).collect()
    }
}

/// Splits lines into batches with a maximum number of rows and bytes. Text arrays have offsets of 31 bits, so the
/// limit keeps them far below 2 GiB. A longer line is a batch of its own.
fn split_lines<'a, 'b>(found: &'a [JsonLine<'b>]) -> impl Iterator<Item = &'a [JsonLine<'b>]> {
    let mut rest = found;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |line: &&JsonLine<'_>| {
            bytes += line.span.len();
            bytes <= BATCH_BYTES
        };
        let rows = rest.iter().take(BATCH_ROWS).take_while(fits).count().max(1);
        let (chunk, left) = rest.split_at_checked(rows)?;
        rest = left;
        Some(chunk)
    })
}

const BATCH_ROWS: usize = 65_536;
const BATCH_BYTES: usize = 256 << 20;

/// Converts lines to rows with typed columns, column by column. Invalid lines are quarantined or become null as the
/// contract tells.
fn json_part(
    columns: &[(String, ContractColumn)],
    found: &[JsonLine<'_>],
    file: &Arc<str>,
    text: &Arc<str>,
    quarantine_rule: &QuarantineRule,
    changes: &mut ChangeRecords,
) -> Result<RowsInProgress> {
    let places: Vec<u64> = found.iter().map(|l| l.place).collect();
    let mut bad =
        BadLines { file, text, found, quarantine_rule, bad: vec![false; found.len()], refused: &mut changes.refused };
    let mut lost = LossCounter::default();
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (i, (name, column)) in columns.iter().enumerate() {
        let t = as_written(column.column_type.arrow());
        let mut cells = Vec::with_capacity(found.len());
        for (row, line) in found.iter().enumerate() {
            // Fast path: the line has its columns in the common order.
            let raw = match line.object.0.get(i) {
                Some((n, raw)) if n == name => Some(*raw),
                _ => line.object.get(name),
            };
            let at = ValuePosition { name: &column.name, inside: None };
            let cell = raw.map_or(Ok(TextValue::Null), |r| codec::as_written(&t, r.get(), at, &mut lost.dropped));
            cells.push(cell.or_else(|reason| {
                if !lost.sets_null(column, reason.code().name(), raw.is_some_and(|raw| raw.get().contains(PLACEHOLDER)))
                {
                    bad.quarantine(row, wrong_type(&column.name, reason, file, line.place))?;
                }
                Ok(TextValue::Null)
            })?);
        }
        let first = places.first().copied().unwrap_or_default();
        let values = to_array(&t, &cells).map_err(|reason| wrong_type(name, reason, file, first))?;
        let (array, faults) = coerce_values(column, &values, RowPlaces { file, places: &places }, &mut lost)?;
        faults.into_iter().try_for_each(|(row, e)| bad.quarantine(row, e))?;
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let bad = bad.bad;
    changes.add_losses(lost);
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(found.len()));
    let schema = Arc::new(Schema::new(fields));
    check_names(&schema, &format!("`{file}`"))?;
    let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| Error::internal("cannot build a batch of JSON rows").with_source(e))?;
    let spans = || found.iter().map(|l| l.span.clone()).collect();
    let raws =
        quarantine_rule.may_quarantine().then(|| RawSource::Text { text: text.clone(), header: None, spans: spans() });
    RowsInProgress { batch, places, raws, typing: RowTyping::Coerced }.without_rows(&bad)
}

/// Invalid lines, each quarantined once even if several of its values are invalid.
struct BadLines<'a, 'b> {
    file: &'a Arc<str>,
    text: &'a Arc<str>,
    found: &'a [JsonLine<'b>],
    quarantine_rule: &'a QuarantineRule,
    bad: Vec<bool>,
    refused: &'a mut Vec<RefusedRecord>,
}

impl BadLines<'_, '_> {
    /// Quarantines a line.
    ///
    /// # Errors
    /// The error `e` itself if the line is not to be quarantined.
    fn quarantine(&mut self, row: usize, e: Error) -> Result<()> {
        if !std::mem::replace(&mut self.bad[row], true) {
            let line = &self.text[self.found[row].span.clone()];
            quarantine_line(&e, self.file, line, self.quarantine_rule, self.refused).ok_or(e)?;
        }
        Ok(())
    }
}
