use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_schema::{Contract, ContractColumn, MAX_FIELDS, SchemaInference, check_names};
use bytes::Bytes;

use crate::columnar::rows::{self, is_columnar};
use crate::csv::dialect::{CsvDialect, without_packing};
use crate::csv::records::{self, CsvFile, CsvForm};
use crate::debezium::placeholder::PLACEHOLDER;
use crate::files::encoding::TextEncoding;
use crate::json::object::{self, JsonObject};
use crate::records::change_records::{ChangeBatch, ChangeRecords};
use crate::records::op::OpMap;
use crate::records::refused::{BadRows, QuarantineRule, RawSource, RefusedRecord, RowsInProgress, lines, sift};
use crate::rows::changes::part_changes;
use crate::values::codec::{self, ValuePosition};
use crate::values::declared::{
    LossCounter, as_written, as_written_in, comply, declared, in_column, of_type, with_defaults,
};
use crate::values::text::{empty, is_beside_values, json_text, text_of, wrong_type};
use crate::values::text_value::{TextValue, to_array};

/// How rows say what they change.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RowsOptions {
    /// The column of operation codes; it is not stored.
    pub op: Option<String>,
    /// What operation codes say that are not those of common tools.
    pub op_map: OpMap,
    /// The column whose truth means that the row is deleted, or that has the time at which it was, if it was; it is not stored.
    pub delete_column: Option<String>,
    /// Declared columns and types; columns it does not have are left out and named in the result.
    pub contract: Option<Contract>,
    /// The types that columns of JSON and CSV files are expected to have, where there is no contract.
    pub expected: Option<SchemaRef>,
    /// What stands for a value that was not available: a text, or `hex:` and hexadecimal digits; none if it is empty. Default:
    /// [`PLACEHOLDER`](crate::PLACEHOLDER).
    pub placeholder: Option<String>,
    /// What happens to records that cannot be used.
    pub bad_rows: BadRows,
    /// Bytes that one file may have when it is unpacked or decoded. Default: 4 GiB for text, and 250 times the bytes of a packed file where that is more
    /// than 64 MiB; for rows of Parquet and Avro 2,000 times the bytes of the file where that is more than 256 MiB.
    pub max_decompressed: Option<u64>,
    /// How CSV is written.
    pub csv: CsvDialect,
    /// The encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
}

impl RowsOptions {
    /// The same options with a column of operation codes.
    pub fn with_op(mut self, column: impl Into<String>) -> Self {
        self.op = Some(column.into());
        self
    }

    /// The same options with other operation codes.
    pub fn with_op_map(mut self, map: OpMap) -> Self {
        self.op_map = map;
        self
    }

    /// The same options with a delete flag.
    pub fn with_delete_column(mut self, column: impl Into<String>) -> Self {
        self.delete_column = Some(column.into());
        self
    }

    /// The same options with a contract.
    pub fn with_contract(mut self, contract: Contract) -> Self {
        self.contract = Some(contract);
        self
    }

    /// The same options with expected types.
    pub fn with_expected(mut self, schema: SchemaRef) -> Self {
        self.expected = Some(schema);
        self
    }

    /// The same options for CSV that is written in another way.
    pub fn with_csv(mut self, dialect: CsvDialect) -> Self {
        self.csv = dialect;
        self
    }

    /// The same options for text in another encoding.
    pub fn with_encoding(mut self, encoding: TextEncoding) -> Self {
        self.encoding = Some(encoding);
        self
    }

    /// The same options with another limit for what one file is unpacked or decoded to, in bytes.
    pub fn with_max_decompressed(mut self, bytes: u64) -> Self {
        self.max_decompressed = Some(bytes);
        self
    }

    /// The same options with another choice for records that cannot be used.
    pub fn with_bad_rows(mut self, bad_rows: BadRows) -> Self {
        self.bad_rows = bad_rows;
        self
    }

    pub(crate) fn is_input_only(&self, name: &str) -> bool {
        self.op.as_deref() == Some(name) || self.delete_column.as_deref() == Some(name)
    }

    /// The column that was declared for one of the input, if there is one.
    fn declared(&self, name: &str) -> Option<ContractColumn> {
        match self.is_input_only(name) {
            true => None,
            false => declared(self.contract.as_ref(), self.expected.as_ref(), name),
        }
    }
}

/// Reads files of plain rows. Types of JSON and CSV are found over all files of the run, so `finish` does the work.
#[derive(Debug, Default)]
pub struct RowsReader {
    options: RowsOptions,
    quarantine_rule: QuarantineRule,
    changes: ChangeRecords,
    json: Vec<(Arc<str>, Arc<str>, Option<u64>)>,
    csv: Vec<CsvFile>,
}

impl RowsReader {
    /// A reader with these options.
    pub fn new(options: RowsOptions) -> Self {
        let quarantine_rule = QuarantineRule::new(options.bad_rows, options.contract.as_ref());
        Self { options, quarantine_rule, ..Self::default() }
    }

    /// Takes one file. Parquet and Avro are known by their first bytes, CSV by the ending of its name (`.csv`, `.csv.gz`, `.tsv`),
    /// everything else is JSON lines.
    ///
    /// # Errors
    /// `EmptyFile`, `UnreadableParquet`, `UnreadableAvro`, `TruncatedInput`, `NotUtf8`, `InvalidCsv`, and those of [`row_changes`](crate::row_changes).
    pub fn read(&mut self, file: &str, bytes: Bytes) -> Result<()> {
        self.read_as(file, bytes, None)
    }

    /// Takes a record that was put aside, as [`RefusedRecord::raw`] holds it; it keeps its place.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_record(&mut self, file: &str, row: u64, raw: Bytes) -> Result<()> {
        self.read_as(file, raw, Some(row))
    }

    fn read_as(&mut self, file: &str, bytes: Bytes, row: Option<u64>) -> Result<()> {
        if is_beside_values(file) {
            self.changes.passed_over.push(file.to_owned());
            return Ok(());
        }
        let name: Arc<str> = file.into();
        let plain = without_packing(file).to_ascii_lowercase();
        // What was put aside is UTF-8 already.
        let encoding = self.options.encoding.filter(|_| row.is_none());
        let columnar = is_columnar(&bytes) || plain.ends_with(".parquet") || plain.ends_with(".avro");
        if bytes.is_empty() {
            Err(empty(file))
        } else if columnar {
            for part in rows::parts(&name, bytes, self.quarantine_rule.any(), row, self.options.max_decompressed)? {
                self.add(part?, &name)?;
            }
            Ok(())
        } else if plain.ends_with(".csv") || plain.ends_with(".tsv") {
            let form = CsvForm { dialect: self.options.csv.of_file(file), names: None, null: String::new() };
            self.csv(&name, text_of(file, &bytes, self.options.max_decompressed, encoding)?, form, row)
        } else {
            self.json.push((name, json_text(file, &bytes, self.options.max_decompressed, encoding)?.into(), row));
            Ok(())
        }
    }

    /// Takes rows of a file that holds columns, which somebody else has decoded; `first` is the number of the first of them in
    /// the file, from 1.
    ///
    /// # Errors
    /// Those of [`row_changes`](crate::row_changes).
    pub fn read_batch(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        self.add(RowsInProgress::of(rows, first, self.quarantine_rule.any()), file)
    }

    /// The change records that are ready: those of files that hold columns. Those of text come with [`finish`](Self::finish).
    pub fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes.batches)
    }

    fn csv(&mut self, file: &Arc<str>, text: String, form: CsvForm, row: Option<u64>) -> Result<()> {
        let refused = &mut self.changes.refused;
        let csv = CsvFile::parse_at(file, text, form, row, &self.quarantine_rule, refused)?;
        self.csv.push(csv);
        Ok(())
    }

    fn add(&mut self, part: RowsInProgress, file: &Arc<str>) -> Result<()> {
        let (options, changes) = (&self.options, &mut self.changes);
        if options.op.as_ref().is_some_and(|op| part.batch.column_by_name(op).is_none()) {
            changes.without_op += part.batch.num_rows() as u64;
        }
        let mut make = |part: &RowsInProgress| {
            let Some(contract) = &options.contract else {
                let (batch, bad) = as_written_in(&part.batch, options.expected.as_ref(), (file, &part.places))?;
                return match bad.into_iter().next() {
                    Some((_, e)) => Err(e),
                    None => Ok((
                        part_changes(&RowsInProgress { batch, ..part.clone() }, file, options)?,
                        LossCounter::default(),
                    )),
                };
            };
            let passed = |name: &str| options.is_input_only(name);
            let mut complying = comply((&part.batch, part.is_typed), contract, &passed, (file, &part.places))?;
            if let Some((_, e)) = complying.bad.into_iter().next() {
                return Err(e);
            }
            let batch = with_defaults(&complying.rows, contract, &mut complying.lost)?;
            Ok((part_changes(&RowsInProgress { batch, ..part.clone() }, file, options)?, complying.lost))
        };
        for ((batch, ignored), lost) in sift(file, part, &self.quarantine_rule, &mut changes.refused, &mut make)? {
            changes.ignored += ignored;
            changes.batches.push(batch);
            changes.lost(lost);
        }
        Ok(())
    }

    /// The change records of all files, in the order in which they were read within a format.
    ///
    /// # Errors
    /// `InvalidJson`, `DuplicateColumn`, `WrongType`, and those of [`row_changes`](crate::row_changes), naming file, row and column.
    pub fn finish(mut self) -> Result<ChangeRecords> {
        self.finish_json()?;
        let files = std::mem::take(&mut self.csv);
        let options = &self.options;
        let parts = records::parts(&files, |name| options.declared(name), &self.quarantine_rule, &mut self.changes)?;
        for (part, file) in parts {
            self.add(part, &file)?;
        }
        Ok(self.changes)
    }

    fn finish_json(&mut self) -> Result<()> {
        let files = std::mem::take(&mut self.json);
        let mut parsed: Vec<(&Arc<str>, &Arc<str>, Vec<JsonLine<'_>>)> = Vec::new();
        let inference = SchemaInference::default().without_times();
        let mut columns = JsonColumns { inference, ..JsonColumns::default() };
        for (file, text, only) in &files {
            let mut found = Vec::new();
            for (place, span) in lines(text) {
                let (line, place) = (&text[span.clone()], only.unwrap_or(place));
                // Kafka tombstones have no row in them.
                if line.trim() == "null" {
                    self.changes.ignored += 1;
                    continue;
                }
                let object = object::object_line(line, file, place).and_then(|object| {
                    columns.widen(&object, &self.options, file, place)?;
                    Ok(object)
                });
                match object {
                    Ok(object) => found.push(JsonLine { place, span, object }),
                    Err(e) => refuse(&e, file, line, &self.quarantine_rule, &mut self.changes.refused).ok_or(e)?,
                }
            }
            parsed.push((file, text, found));
        }
        self.changes.conflicts.extend(columns.inference.conflicts().cloned());
        let columns = columns.typed();
        for (file, text, found) in parsed {
            for chunk in chunks(&found) {
                let part = json_part(&columns, chunk, (file, text), &self.quarantine_rule, &mut self.changes)?;
                self.add(part, file)?;
            }
        }
        Ok(())
    }
}

/// Puts a line aside, if that is wanted and the error is about it.
fn refuse(
    e: &Error,
    file: &str,
    line: &str,
    quarantine_rule: &QuarantineRule,
    refused: &mut Vec<RefusedRecord>,
) -> Option<()> {
    let row = e.row().filter(|_| quarantine_rule.takes(e))?;
    refused.push(RefusedRecord::new(file, row, e, format!("{line}\n").into_bytes()));
    Some(())
}

/// An object, the number of its line, and where that is in the text.
struct JsonLine<'a> {
    place: u64,
    span: Range<usize>,
    object: JsonObject<'a>,
}

/// The columns of JSON lines, as far as they are known.
#[derive(Debug, Default)]
struct JsonColumns {
    all: Vec<JsonColumn>,
    at: HashMap<String, usize>,
    /// Of those that were not declared.
    inference: SchemaInference,
}

#[derive(Debug)]
struct JsonColumn {
    name: String,
    declared: Option<ContractColumn>,
}

impl JsonColumns {
    /// Makes the columns what holds this line, too.
    fn widen(&mut self, object: &JsonObject<'_>, options: &RowsOptions, file: &Arc<str>, place: u64) -> Result<()> {
        for (i, (name, raw)) in object.0.iter().enumerate() {
            // Lines mostly have the same columns in the same order.
            let at = match self.all.get(i).is_some_and(|c| c.name == *name) {
                true => i,
                false => match self.at.get(name) {
                    Some(at) => *at,
                    None => self.add(name, options).map_err(|e| e.at(file, place))?,
                },
            };
            if self.all[at].declared.is_none() {
                self.inference.add_json_value(file, place, name, raw.get());
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, options: &RowsOptions) -> Result<usize> {
        if self.all.len() == MAX_FIELDS {
            let message = format!("the rows have more than {MAX_FIELDS} columns");
            return Err(Error::data("TooManyColumns", message));
        }
        self.at.insert(name.to_owned(), self.all.len());
        self.all.push(JsonColumn { name: name.to_owned(), declared: options.declared(name) });
        Ok(self.all.len() - 1)
    }

    /// Each by the name that lines have, and what it is.
    fn typed(self) -> Vec<(String, ContractColumn)> {
        let Self { all, inference, .. } = self;
        let column = |JsonColumn { name, declared }: JsonColumn| {
            let inferred = || of_type(&name, &inference.type_of(&name).unwrap_or(DataType::Null));
            let column = declared.unwrap_or_else(inferred);
            (name, column)
        };
        all.into_iter().map(column).collect()
    }
}

/// Lines that are one batch: of a number of rows and bytes, since an array counts the bytes of its texts with 31 bits.
fn chunks<'a, 'b>(found: &'a [JsonLine<'b>]) -> impl Iterator<Item = &'a [JsonLine<'b>]> {
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

fn json_part(
    columns: &[(String, ContractColumn)],
    found: &[JsonLine<'_>],
    (file, text): (&Arc<str>, &Arc<str>),
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
            let raw = match line.object.0.get(i) {
                Some((n, raw)) if n == name => Some(*raw),
                _ => line.object.get(name),
            };
            let at = ValuePosition { name: &column.name, inside: None };
            let cell = raw.map_or(Ok(TextValue::Null), |r| codec::as_written(&t, r.get(), at, &mut lost.dropped));
            cells.push(cell.or_else(|reason| {
                if !lost.null(column, reason.code(), raw.is_some_and(|raw| raw.get().contains(PLACEHOLDER))) {
                    bad.add(row, wrong_type(&column.name, reason, file, line.place))?;
                }
                Ok(TextValue::Null)
            })?);
        }
        let first = places.first().copied().unwrap_or_default();
        let values = to_array(&t, &cells).map_err(|reason| wrong_type(name, reason, file, first))?;
        let (array, faults) = in_column(column, &values, (file, &places), &mut lost)?;
        faults.into_iter().try_for_each(|(row, e)| bad.add(row, e))?;
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let bad = bad.bad;
    changes.lost(lost);
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(found.len()));
    let schema = Arc::new(Schema::new(fields));
    check_names(&schema, &format!("`{file}`"))?;
    let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| Error::internal("JSON rows could not be put together").with_source(e))?;
    let spans = || found.iter().map(|l| l.span.clone()).collect();
    let raws = quarantine_rule.any().then(|| RawSource::Text { text: text.clone(), header: None, spans: spans() });
    RowsInProgress { batch, places, raws, is_typed: true }.without(&bad)
}

/// Lines that are put aside, each once.
struct BadLines<'a, 'b> {
    file: &'a Arc<str>,
    text: &'a Arc<str>,
    found: &'a [JsonLine<'b>],
    quarantine_rule: &'a QuarantineRule,
    bad: Vec<bool>,
    refused: &'a mut Vec<RefusedRecord>,
}

impl BadLines<'_, '_> {
    /// # Errors
    /// The one of the line, if it is not to be put aside.
    fn add(&mut self, row: usize, e: Error) -> Result<()> {
        if !std::mem::replace(&mut self.bad[row], true) {
            let line = &self.text[self.found[row].span.clone()];
            refuse(&e, self.file, line, self.quarantine_rule, self.refused).ok_or(e)?;
        }
        Ok(())
    }
}
