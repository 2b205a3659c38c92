//! Records of CSV files with their lines and spans, and their conversion to rows with typed columns.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_merge::RefusedRecord;
use biscuit_merge::internal::RawSource;
use biscuit_schema::internal::{BytesInText, MAX_FIELDS, check_names};
use biscuit_schema::{ContractColumn, SchemaInference};

use crate::codes;
use crate::csv::dialect::{CsvDialect, check_quotes};
use crate::records::change_records::ChangeRecords;
use crate::records::refused::{QuarantineRule, RowsInProgress};
use crate::values::declared::{LossCounter, RowPlaces, RowTyping, coerce_values, of_type};

/// Form of a CSV file.
#[derive(Debug, Clone)]
pub(crate) struct CsvForm {
    pub(crate) dialect: CsvDialect,
    /// Names of the columns of a file without a header.
    pub(crate) names: Option<Vec<String>>,
    /// Text for null. An empty field is null in any case, except in columns of text and bytes.
    pub(crate) null: String,
}

/// CSV file, split into rows and fields.
#[derive(Debug)]
pub(crate) struct CsvFile {
    pub(crate) file: Arc<str>,
    text: Arc<str>,
    /// Header line as it is in the file, if the file has one.
    head: Option<Arc<str>>,
    pub(crate) names: Vec<String>,
    pub(crate) rows: Vec<CsvRow>,
    null: String,
}

#[derive(Debug)]
pub(crate) struct CsvRow {
    line: u64,
    span: Range<usize>,
    pub(crate) fields: csv::StringRecord,
}

impl CsvFile {
    /// Same as [`parse`](Self::parse). `only` is the original row number if the text is a quarantined record.
    pub(crate) fn parse_at(
        file: &Arc<str>,
        text: String,
        form: CsvForm,
        only: Option<u64>,
        quarantine_rule: &QuarantineRule,
        refused: &mut Vec<RefusedRecord>,
    ) -> Result<Self> {
        let before = refused.len();
        let mut csv = Self::parse(file, text, form, quarantine_rule, refused)?;
        if let Some(row) = only {
            refused[before..].iter_mut().for_each(|r| r.row = row);
            csv.rows.iter_mut().for_each(|r| r.line = row);
        }
        Ok(csv)
    }

    /// Parses a CSV file. Rows with a wrong number of fields are quarantined if the rule takes them.
    ///
    /// # Errors
    /// `InvalidCsv` for a row with another number of fields than the header, or an unclosed quote.
    fn parse(
        file: &Arc<str>,
        text: String,
        form: CsvForm,
        quarantine_rule: &QuarantineRule,
        refused: &mut Vec<RefusedRecord>,
    ) -> Result<Self> {
        let text: Arc<str> = text.into();
        check_quotes(file, &text, form.dialect)?;
        let mut reader = form.dialect.reader().from_reader(text.as_bytes());
        let (mut names, mut head, mut rows) = (form.names, None, Vec::new());
        let mut fields = csv::StringRecord::new();
        loop {
            let from = reader.position().byte() as usize;
            let line = reader.position().line();
            let more = reader
                .read_record(&mut fields)
                .map_err(|e| Error::new(codes::INVALID_CSV, "the row is not CSV").at(file, line).with_source(e))?;
            if !more {
                break;
            }
            let line = line_of_next_record(&text, from, line);
            let span = from..reader.position().byte() as usize;
            let Some(expected) = names.as_ref().map(Vec::len) else {
                head = Some(Arc::from(&text[span]));
                if fields.len() > MAX_FIELDS {
                    let message = format!("the header has more than {MAX_FIELDS} columns");
                    return Err(Error::new(biscuit_schema::codes::TOO_MANY_COLUMNS, message).in_file(file));
                }
                // Spaces around a name are not part of the name.
                names = Some(fields.iter().map(|name| name.trim().to_owned()).collect());
                continue;
            };
            if fields.len() == expected {
                rows.push(CsvRow { line, span, fields: fields.clone() });
                continue;
            }
            let what = if head.is_some() { "the header" } else { "the table" };
            let message = format!("the row has {} fields, but {what} has {expected}", fields.len());
            let e = Error::new(codes::INVALID_CSV, message).at(file, line);
            if !quarantine_rule.covers(&e) {
                return Err(e);
            }
            let raw = RawSource::Text { text: text.clone(), header: head.clone(), spans: vec![span] };
            refused.push(RefusedRecord::new(file, line, &e, raw.get(0)?));
        }
        Ok(Self {
            file: file.clone(),
            text: text.clone(),
            head,
            names: names.unwrap_or_default(),
            rows,
            null: form.null,
        })
    }

    /// Replaces the line numbers of a copied part of a file by the lines of the whole file. `places` has the line of
    /// every row in the part, including quarantined rows.
    pub(crate) fn count_in(&mut self, places: &[u64], refused: &mut [RefusedRecord]) {
        // Sorted lines of the part: the position of a line in this list is its position in `places`.
        let mut own: Vec<u64> = self.rows.iter().map(|r| r.line).chain(refused.iter().map(|r| r.row)).collect();
        own.sort_unstable();
        let whole = |line: u64| own.binary_search(&line).ok().and_then(|i| places.get(i).copied()).unwrap_or(line);
        self.rows.iter_mut().for_each(|r| r.line = whole(r.line));
        refused.iter_mut().for_each(|r| r.row = whole(r.row));
    }

    /// Returns the value of a field; `None` for null.
    fn value<'a>(&self, row: &'a CsvRow, column: usize, is_text: bool) -> Option<&'a str> {
        let value = row.fields.get(column)?;
        let null = value == self.null || (value.is_empty() && !is_text);
        (!null).then_some(value)
    }
}

/// Converts the rows of all files. A column that is not declared gets the type of its values in all files.
pub(crate) fn convert_files(
    files: &[CsvFile],
    declared: impl Fn(&str) -> Option<ContractColumn>,
    quarantine_rule: &QuarantineRule,
    changes: &mut ChangeRecords,
) -> Result<Vec<(RowsInProgress, Arc<str>)>> {
    let mut columns: HashMap<&str, ContractColumn> = HashMap::new();
    let mut inference = SchemaInference::default().without_times();
    for name in files.iter().flat_map(|f| &f.names) {
        if columns.contains_key(name.as_str()) {
            continue;
        }
        // An undeclared column gets one type for all files, so that their batches have the same type.
        let column = declared(name).unwrap_or_else(|| {
            for f in files {
                let Some(at) = f.names.iter().position(|h| h == name) else { continue };
                for row in &f.rows {
                    inference.add_text(&f.file, row.line, name, f.value(row, at, false).unwrap_or_default());
                }
            }
            of_type(name, &inference.type_of(name).unwrap_or(DataType::Null))
        });
        columns.insert(name, column);
    }
    changes.conflicts.extend(inference.conflicts().cloned());
    files.iter().map(|f| Ok((convert_file(f, &columns, quarantine_rule, changes)?, f.file.clone()))).collect()
}

/// Converts the rows of one file, column by column.
fn convert_file(
    f: &CsvFile,
    columns: &HashMap<&str, ContractColumn>,
    quarantine_rule: &QuarantineRule,
    changes: &mut ChangeRecords,
) -> Result<RowsInProgress> {
    let spans = f.rows.iter().map(|r| r.span.clone()).collect();
    let raws = RawSource::Text { text: f.text.clone(), header: f.head.clone(), spans };
    let places: Vec<u64> = f.rows.iter().map(|r| r.line).collect();
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let (mut bad, mut lost) = (BTreeMap::new(), LossCounter::default());
    for (i, name) in f.names.iter().enumerate() {
        let column = &columns[name.as_str()];
        let is_text = matches!(column.column_type.arrow(), DataType::Utf8 | DataType::Binary);
        let cells: StringArray = f.rows.iter().map(|row| f.value(row, i, is_text)).collect();
        let (array, faults) = match column.column_type.arrow() {
            // The column has no value in any file.
            DataType::Null => (new_null_array(&DataType::Null, cells.len()), vec![]),
            _ => text_in_column(
                column,
                &(Arc::new(cells) as ArrayRef),
                RowPlaces { file: &f.file, places: &places },
                &mut lost,
            )?,
        };
        for (row, e) in faults {
            bad.entry(row).or_insert(e);
        }
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let mut is_bad = vec![false; f.rows.len()];
    for (row, e) in bad {
        if !quarantine_rule.covers(&e) {
            return Err(e);
        }
        changes.refused.push(RefusedRecord::new(&f.file, places[row], &e, raws.get(row)?));
        is_bad[row] = true;
    }
    changes.add_losses(lost);
    let schema = Arc::new(Schema::new(fields));
    check_names(&schema, &format!("`{}`", f.file))?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(f.rows.len()));
    let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| Error::internal("cannot build a batch of CSV rows").with_source(e))?;
    let raws = quarantine_rule.may_quarantine().then_some(raws);
    RowsInProgress { batch, places, raws, typing: RowTyping::Coerced }.without_rows(&is_bad)
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

/// Returns all records of a text.
pub(crate) fn parse_records(text: &str, file: &Arc<str>, dialect: CsvDialect) -> Result<Vec<CsvRecord>> {
    check_quotes(file, text, dialect)?;
    let mut reader = dialect.reader().from_reader(text.as_bytes());
    let mut all = Vec::new();
    loop {
        let (from, line) = (reader.position().byte() as usize, reader.position().line());
        let mut fields = csv::StringRecord::new();
        let more = reader
            .read_record(&mut fields)
            .map_err(|e| Error::new(codes::INVALID_CSV, "the row is not CSV").at(file, line).with_source(e))?;
        if !more {
            return Ok(all);
        }
        let line = line_of_next_record(text, from, line);
        all.push((fields, from..reader.position().byte() as usize, line));
    }
}
