//! Records of CSV files with their lines and spans, and their conversion to rows with typed columns.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, StringBuilder, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_merge::RefusedRecord;
use biscuit_merge::internal::RawSource;
use biscuit_schema::internal::{BytesInText, MAX_FIELDS, check_names};
use biscuit_schema::{ContractColumn, SchemaInference};

use crate::codes;
use crate::csv::dialect::CsvDialect;
use crate::files::chunks::TextChunk;
use crate::files::lines::too_long;
use crate::records::change_records::ChangeRecords;
use crate::records::refused::{QuarantineRule, RowsInProgress};
use crate::values::declared::{LossCounter, RowPlaces, RowTyping, coerce_values};

/// Form of a CSV file.
#[derive(Debug, Clone)]
pub(crate) struct CsvForm {
    pub(crate) dialect: CsvDialect,
    /// Names of the columns of a file without a header.
    pub(crate) names: Option<Vec<String>>,
    /// Text for null. An empty field is null in any case, except in columns of text and bytes.
    pub(crate) null: String,
}

/// Records of a part of a CSV file, with their fields by column.
#[derive(Debug)]
pub(crate) struct CsvRows {
    pub(crate) file: Arc<str>,
    text: Arc<String>,
    /// Header line as it is in the file, if the file has one.
    head: Option<Arc<str>>,
    pub(crate) names: Vec<String>,
    /// Fields of each column, without nulls.
    columns: Vec<StringArray>,
    /// Line of each record.
    pub(crate) places: Vec<u64>,
    /// Span of each record in the text.
    spans: Vec<Range<usize>>,
    null: String,
}

impl CsvRows {
    /// Parses the records of a chunk. Records with a wrong number of fields are quarantined if the rule takes them.
    ///
    /// # Errors
    /// `InvalidText`; `InvalidCsv` for a record with another number of fields than the header; `TooManyColumns`,
    /// `TooLarge`.
    pub(crate) fn parse(
        mut chunk: TextChunk,
        form: CsvForm,
        quarantine_rule: &QuarantineRule,
        refused: &mut Vec<RefusedRecord>,
    ) -> Result<Self> {
        let text = chunk.take_text()?;
        let TextChunk { file, first, head, only, max_record, .. } = chunk;
        let (mut names, mut header) = (form.names, None);
        if let (Some(head), None) = (&head, &names) {
            names = Some(header_names(head, form.dialect, &file)?);
            header = Some(head.clone());
        }
        let mut reader = form.dialect.reader().from_reader(text.as_bytes());
        let mut fields = csv::StringRecord::new();
        let mut columns = new_columns(names.as_deref());
        let (mut places, mut spans) = (Vec::new(), Vec::new());
        loop {
            let from = reader.position().byte() as usize;
            let line = reader.position().line();
            let place = |line: u64| only.unwrap_or(first + line - 1);
            let more = reader.read_record(&mut fields).map_err(|e| {
                Error::new(codes::INVALID_CSV, "the row is not CSV").at(&file, place(line)).with_source(e)
            })?;
            if !more {
                break;
            }
            let place = place(line_of_next_record(&text, from, line));
            // The reader stops before the line feed of a CRLF and before empty lines.
            let begin = from + text[from..].bytes().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let span = begin..reader.position().byte() as usize;
            let Some(expected) = names.as_ref().map(Vec::len) else {
                let head: Arc<str> = text[span].into();
                names = Some(header_names(&head, form.dialect, &file)?);
                columns = new_columns(names.as_deref());
                header = Some(head);
                continue;
            };
            let e = if fields.len() != expected {
                let what = if header.is_some() { "the header" } else { "the table" };
                let message = format!("the row has {} fields, but {what} has {expected}", fields.len());
                Error::new(codes::INVALID_CSV, message).at(&file, place)
            } else if span.len() > max_record {
                too_long(&file, place, max_record)
            } else {
                columns.iter_mut().zip(&fields).for_each(|(column, field)| column.append_value(field));
                places.push(place);
                spans.push(span);
                continue;
            };
            if !quarantine_rule.covers(&e) {
                return Err(e);
            }
            let raw = RawSource::Text { text: text.clone(), header: header.clone(), spans: vec![span] };
            refused.push(RefusedRecord::new(&file, place, &e, raw.get(0)?));
        }
        let columns = columns.into_iter().map(|mut column| column.finish()).collect();
        Ok(Self { file, text, head: header, names: names.unwrap_or_default(), columns, places, spans, null: form.null })
    }

    /// Replaces the line numbers of a copied part of a file by the lines of the whole file. `places` has the line of
    /// every record in the part, including quarantined ones.
    pub(crate) fn count_in(&mut self, places: &[u64], refused: &mut [RefusedRecord]) {
        // Sorted lines of the part: the position of a line in this list is its position in `places`.
        let mut own: Vec<u64> = self.places.iter().copied().chain(refused.iter().map(|r| r.row)).collect();
        own.sort_unstable();
        let whole = |line: u64| own.binary_search(&line).ok().and_then(|i| places.get(i).copied()).unwrap_or(line);
        self.places.iter_mut().for_each(|place| *place = whole(*place));
        refused.iter_mut().for_each(|r| r.row = whole(r.row));
    }

    /// Adds the values of a column to the inference of its type.
    pub(crate) fn infer_column(&self, column: usize, inference: &mut SchemaInference) {
        for (row, place) in self.places.iter().enumerate() {
            let value = self.columns[column].value(row);
            let value = if value == self.null { "" } else { value };
            inference.add_text(&self.file, *place, &self.names[column], value);
        }
    }

    /// Returns the values of a column. `is_text` is whether an empty field is a value.
    fn values(&self, column: usize, is_text: bool) -> StringArray {
        let texts = &self.columns[column];
        let is_valid = |row: usize| {
            let value = texts.value(row);
            value != self.null && (is_text || !value.is_empty())
        };
        let valid = NullBuffer::from_iter((0..texts.len()).map(is_valid));
        StringArray::new(texts.offsets().clone(), texts.values().clone(), Some(valid))
    }

    /// Converts the records to rows with typed columns, column by column. Columns for which `typed` returns `None` are
    /// left out.
    ///
    /// # Errors
    /// Errors of `typed`, and of records that are not quarantined; `DuplicateColumn`, `ColumnCase`.
    pub(crate) fn to_typed_rows(
        &self,
        mut typed: impl FnMut(&str) -> Result<Option<ContractColumn>>,
        quarantine_rule: &QuarantineRule,
        changes: &mut ChangeRecords,
    ) -> Result<RowsInProgress> {
        let raws = || RawSource::Text { text: self.text.clone(), header: self.head.clone(), spans: self.spans.clone() };
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        let (mut bad, mut lost) = (BTreeMap::new(), LossCounter::default());
        for (i, name) in self.names.iter().enumerate() {
            let Some(column) = typed(name)? else { continue };
            let is_text = matches!(column.column_type.arrow(), DataType::Utf8 | DataType::Binary);
            let values = self.values(i, is_text);
            let (array, faults) = match column.column_type.arrow() {
                // The column has no value in any file.
                DataType::Null => (new_null_array(&DataType::Null, values.len()), vec![]),
                _ => text_in_column(
                    &column,
                    &(Arc::new(values) as ArrayRef),
                    RowPlaces { file: &self.file, places: &self.places },
                    &mut lost,
                )?,
            };
            for (row, e) in faults {
                bad.entry(row).or_insert(e);
            }
            fields.push(Field::new(&column.name, array.data_type().clone(), true));
            arrays.push(array);
        }
        let mut is_bad = vec![false; self.places.len()];
        for (row, e) in bad {
            if !quarantine_rule.covers(&e) {
                return Err(e);
            }
            changes.refused.push(RefusedRecord::new(&self.file, self.places[row], &e, raws().get(row)?));
            is_bad[row] = true;
        }
        changes.add_losses(lost);
        let schema = Arc::new(Schema::new(fields));
        check_names(&schema, &format!("`{}`", self.file))?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.places.len()));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|e| Error::internal("cannot build a batch of CSV rows").with_source(e))?;
        let raws = quarantine_rule.may_quarantine().then(raws);
        let places = self.places.clone();
        RowsInProgress { batch, places, raws, typing: RowTyping::Coerced }.without_rows(&is_bad)
    }
}

fn new_columns(names: Option<&[String]>) -> Vec<StringBuilder> {
    names.into_iter().flatten().map(|_| StringBuilder::new()).collect()
}

/// Returns the names of the columns in a header.
fn header_names(head: &str, dialect: CsvDialect, file: &str) -> Result<Vec<String>> {
    let fields = first_record(head, dialect).unwrap_or_default();
    if fields.len() > MAX_FIELDS {
        let message = format!("the header has more than {MAX_FIELDS} columns");
        return Err(Error::new(biscuit_schema::codes::TOO_MANY_COLUMNS, message).in_file(file));
    }
    // Spaces around a name are not part of the name.
    Ok(fields.iter().map(|name| name.trim().to_owned()).collect())
}

/// Converts texts to a declared column. Bytes are written as hexadecimal digits or base64.
///
/// # Errors
/// `NoCoercion`.
pub(crate) fn text_in_column(
    column: &ContractColumn,
    texts: &ArrayRef,
    at: RowPlaces<'_>,
    lost: &mut LossCounter,
) -> Result<(ArrayRef, Vec<(usize, Error)>)> {
    let mut column = column.clone();
    column.reading.bytes_in_text = BytesInText::HexOrBase64;
    coerce_values(&column, texts, at, lost)
}

/// Returns the first record of a text, if there is one.
pub(crate) fn first_record(text: &str, dialect: CsvDialect) -> Option<csv::StringRecord> {
    let mut reader = dialect.reader().from_reader(text.as_bytes());
    let mut fields = csv::StringRecord::new();
    reader.read_record(&mut fields).ok().filter(|more| *more).map(|_| fields)
}

/// Returns the line in which the record after position `from` begins. The CSV reader stops before the line feed of a
/// CRLF and before empty lines, so the line breaks at this position have to be counted.
fn line_of_next_record(text: &str, from: usize, line: u64) -> u64 {
    let before = text.as_bytes()[from..].iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    line + before.filter(|b| **b == b'\n').count() as u64
}

/// Record, its span in the text, and its line.
type CsvRecord = (csv::StringRecord, Range<usize>, u64);

/// Returns all records of a text whose first line has the number `first`.
pub(crate) fn parse_records(text: &str, file: &Arc<str>, first: u64, dialect: CsvDialect) -> Result<Vec<CsvRecord>> {
    let mut reader = dialect.reader().from_reader(text.as_bytes());
    let mut all = Vec::new();
    loop {
        let (from, line) = (reader.position().byte() as usize, reader.position().line());
        let mut fields = csv::StringRecord::new();
        let more = reader.read_record(&mut fields).map_err(|e| {
            Error::new(codes::INVALID_CSV, "the row is not CSV").at(file, first + line - 1).with_source(e)
        })?;
        if !more {
            return Ok(all);
        }
        let line = first + line_of_next_record(text, from, line) - 1;
        all.push((fields, from..reader.position().byte() as usize, line));
    }
}
