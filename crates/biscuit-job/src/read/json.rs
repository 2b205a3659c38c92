//! Lines of JSON as columns of text. A whole batch of lines is decoded at once; only if that fails, lines are decoded
//! one by one to find the bad ones. The names of a column (former names, other letter case) are separate columns of
//! the decoder, merged afterwards.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{and, is_not_null};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::reader::{Decoder, ReaderBuilder};
use biscuit_core::catch_panic;
use biscuit_core::{Error, Result, remove_quoted_text};
use biscuit_schema::Contract;
use biscuit_schema::internal::{is_too_deep, name_twice, text_type, too_deep};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::read::decode::{BATCH, BadRow, RowBatch, UntypedRows};
use crate::read::json_names::JsonNames;

/// Returns the reason to refuse a line that the decoder would accept.
fn refusal_reason(line: &[u8]) -> Option<Error> {
    if is_too_deep(line) {
        return Some(too_deep("the line"));
    }
    let name = name_twice(std::str::from_utf8(line).ok()?)?;
    Some(Error::new(biscuit_schema::codes::DUPLICATE_COLUMN, format!("column `{name}` occurs twice")).with_column(name))
}

/// A column of the contract and the names that lines use for it. The first name is that of the contract.
#[derive(Debug, Clone)]
struct TextColumn {
    names: Vec<String>,
    text: DataType,
}

/// Reads lines of JSON into the columns of a contract, as text. Types are applied later, by the coercion.
pub(crate) struct JsonLines {
    columns: Vec<TextColumn>,
    /// Columns of the decoder: one for each name of each column of the contract.
    schema: SchemaRef,
    names: JsonNames,
    decoder: Decoder,
    /// Whether an unknown name makes the decoder fail. As long as no line has unknown names, this is the fast path:
    /// new names are searched only after a failure. Afterwards unknown names are expected, and every batch is
    /// searched for new ones before it is decoded.
    strict: bool,
    /// Columns, and fields of structs, that lines have and the contract does not.
    extra: BTreeSet<String>,
    /// Names in lines that differ from the name in the contract, with the name in the contract.
    renamed: BTreeMap<String, String>,
}

impl JsonLines {
    /// Creates a reader for the columns of a contract.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn new(contract: &Contract) -> Result<Self> {
        let mut taken: HashSet<&str> = contract.columns.iter().map(|c| c.name.as_str()).collect();
        let mut columns = Vec::new();
        for column in &contract.columns {
            let former = column.reading.renamed_from.iter().filter(|n| taken.insert(n)).cloned();
            let names = std::iter::once(column.name.clone()).chain(former).collect();
            columns.push(TextColumn { names, text: text_type(column.column_type.arrow(), &|_| false) });
        }
        let schema = schema(&columns);
        let (names, decoder) = (JsonNames::from_schema(&schema), new_decoder(&schema, true)?);
        Ok(Self { columns, schema, names, decoder, strict: true, extra: BTreeSet::new(), renamed: BTreeMap::new() })
    }

    /// Returns and clears the extra columns and the renamed columns that were found since the last call.
    pub(crate) fn take_findings(&mut self) -> (BTreeSet<String>, BTreeMap<String, String>) {
        (std::mem::take(&mut self.extra), std::mem::take(&mut self.renamed))
    }

    /// Reads whole lines. `bad` gets the lines that are not a JSON object with these columns.
    ///
    /// # Errors
    /// Errors of `take` and `bad`.
    pub(crate) fn read(
        &mut self,
        bytes: &Bytes,
        first: u64,
        take: &mut dyn FnMut(RowBatch) -> Result<()>,
        bad: &mut dyn FnMut(BadRow) -> Result<()>,
    ) -> Result<()> {
        let mut spans: Vec<(usize, usize)> = Vec::with_capacity(BATCH);
        let (mut line, mut start, mut begun) = (first, 0, first);
        while start < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |i| start + i + 1);
            let blank = bytes[start..end].iter().all(u8::is_ascii_whitespace);
            if blank || spans.len() == BATCH {
                // A batch has only its first line number, so a blank line ends the batch.
                self.decode_piece(bytes, std::mem::take(&mut spans), begun, take, bad)?;
                begun = line;
            }
            if blank {
                begun = line + 1;
            } else {
                spans.push((start, end));
            }
            (line, start) = (line + 1, end);
        }
        self.decode_piece(bytes, spans, begun, take, bad)
    }

    fn decode_piece(
        &mut self,
        bytes: &Bytes,
        spans: Vec<(usize, usize)>,
        first: u64,
        take: &mut dyn FnMut(RowBatch) -> Result<()>,
        bad: &mut dyn FnMut(BadRow) -> Result<()>,
    ) -> Result<()> {
        let (Some((start, _)), Some((_, end))) = (spans.first().copied(), spans.last().copied()) else { return Ok(()) };
        let raw = |spans| UntypedRows::Lines { bytes: bytes.clone(), spans };
        // The decoder skips values of columns that are not requested, so it does not notice if these are nested too
        // deeply.
        let is_refused = |(a, b): &(usize, usize)| refusal_reason(&bytes[*a..*b]).is_some();
        if !spans.iter().any(is_refused)
            && let Some(batch) = self.decode_rows(&bytes[start..end], spans.len())?
        {
            return take(RowBatch { batch, first, raw: raw(spans) });
        }
        // At least one line is bad: decode line by line to separate good and bad lines.
        for (at, (a, b)) in spans.into_iter().enumerate() {
            let (row, line) = (first + at as u64, &bytes[a..b]);
            let refused = refusal_reason(line);
            let rows = if refused.is_some() { None } else { self.decode_row(line)? };
            match rows {
                Some(batch) => take(RowBatch { batch, first: row, raw: raw(vec![(a, b)]) })?,
                None => {
                    let error = refused.unwrap_or_else(|| self.explain_line(line));
                    bad(BadRow { row, error, raw: line.to_vec() })?;
                }
            }
        }
        Ok(())
    }

    /// Decodes lines into the columns of the contract. `None` if the number of objects differs from `rows`, or an
    /// object does not have these columns.
    fn decode_rows(&mut self, text: &[u8], rows: usize) -> Result<Option<RecordBatch>> {
        if !self.strict {
            self.scan_lines(text)?;
        }
        let mut decoded = self.run_decoder(text, rows)?;
        if decoded.is_none() && self.strict && self.scan_lines(text)? {
            decoded = self.run_decoder(text, rows)?;
        }
        decoded.map(|batch| self.by_column(&batch)).transpose()
    }

    /// Decodes one line. If that fails, tries again with nested values of text columns replaced by their JSON text.
    fn decode_row(&mut self, line: &[u8]) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.decode_rows(line, 1)? {
            return Ok(Some(batch));
        }
        let Some(fitted) = std::str::from_utf8(line).ok().and_then(|line| fit_object(line, self.schema.fields()))
        else {
            return Ok(None);
        };
        self.decode_rows(fitted.as_bytes(), 1)
    }

    fn run_decoder(&mut self, text: &[u8], rows: usize) -> Result<Option<RecordBatch>> {
        let decoded = catch_panic(|| {
            let mut at = 0;
            while at < text.len() {
                let read = self.decoder.decode(&text[at..])?;
                // The decoder stops at the capacity of a batch or at an error.
                if read == 0 {
                    break;
                }
                at += read;
            }
            let batch = self.decoder.flush()?;
            Ok::<_, arrow::error::ArrowError>(batch.filter(|b| at == text.len() && b.num_rows() == rows))
        });
        match decoded.unwrap_or(Ok(None)) {
            Ok(Some(batch)) => Ok(Some(batch)),
            _ => {
                // A failed decoder contains partial rows of these lines, which must not become part of the next
                // batch.
                self.decoder = new_decoder(&self.schema, self.strict)?;
                Ok(None)
            }
        }
    }

    /// Searches the lines for names that are not in the schema. A name that differs from a column only in letter case
    /// becomes another name of that column; other names are recorded as extra. Returns true if the decoder had to
    /// change, so that decoding again may succeed.
    fn scan_lines(&mut self, lines: &[u8]) -> Result<bool> {
        let new = self.names.find_new(lines);
        let known = (self.schema.fields().len(), self.strict);
        for name in new.top {
            let is = |c: &&mut TextColumn| c.names.iter().any(|n| n.eq_ignore_ascii_case(&name));
            match self.columns.iter_mut().find(is) {
                Some(column) => column.names.push(name),
                None => drop(self.extra.insert(name)),
            }
        }
        self.extra.extend(new.nested);
        self.strict &= self.extra.is_empty();
        self.schema = schema(&self.columns);
        if known == (self.schema.fields().len(), self.strict) {
            return Ok(false);
        }
        self.names = JsonNames::from_schema(&self.schema);
        self.decoder = new_decoder(&self.schema, self.strict)?;
        Ok(true)
    }

    /// Merges the columns of all names of a column into one. If a row has values under several names, the first name
    /// wins and the other name is reported as extra.
    fn by_column(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        if batch.num_columns() == self.columns.len() {
            return Ok(batch.clone());
        }
        let mut arrays = batch.columns().iter();
        let (mut fields, mut merged) = (Vec::new(), Vec::new());
        for column in &self.columns {
            let mut all = column.names.iter().zip(&mut arrays);
            let Some((own, mut array)) = all.next().map(|(name, array)| (name, array.clone())) else { continue };
            for (name, other) in all.filter(|(_, other)| other.null_count() < other.len()) {
                let (has, others) =
                    (is_not_null(&array).map_err(internal_error)?, is_not_null(other).map_err(internal_error)?);
                if and(&has, &others).map_err(internal_error)?.true_count() > 0 {
                    self.extra.insert(name.clone());
                }
                self.renamed.insert(name.clone(), own.clone());
                array = zip(&has, &array, other).map_err(internal_error)?;
            }
            fields.push(Field::new(own, column.text.clone(), true));
            merged.push(array);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        RecordBatch::try_new_with_options(schema, merged as Vec<ArrayRef>, &options).map_err(internal_error)
    }

    /// Finds the reason why a line cannot be decoded, for the message. Values are not quoted.
    fn explain_line(&self, line: &[u8]) -> Error {
        match serde_json::from_slice::<serde_json::Value>(line) {
            Err(e) => Error::new(
                biscuit_change::codes::INVALID_JSON,
                format!("the line is not valid JSON: {}", without_position(&remove_quoted_text(&e.to_string()))),
            ),
            Ok(serde_json::Value::Object(object)) => {
                let fits = |name: &str, value: &serde_json::Value| match self.schema.field_with_name(name) {
                    Ok(f) => match f.data_type() {
                        DataType::Utf8 => !value.is_object() && !value.is_array(),
                        DataType::List(_) => value.is_array() || value.is_null(),
                        _ => value.is_object() || value.is_null(),
                    },
                    Err(_) => true,
                };
                match object.iter().find(|(name, value)| !fits(name, value)) {
                    Some((name, _)) => {
                        let message = format!("the nesting of column `{name}` does not match its type");
                        Error::new(biscuit_schema::codes::WRONG_TYPE, message).with_column(name)
                    }
                    None => {
                        Error::new(biscuit_schema::codes::WRONG_TYPE, "the nesting of a column does not match its type")
                    }
                }
            }
            Ok(_) => Error::new(biscuit_change::codes::INVALID_JSON, "the line is not a JSON object"),
        }
    }
}

/// Returns the object with nested values as JSON text where the field is text. `None` if the text is not an object.
/// Example: `{"a":{"k":1}}` with a text column `a` becomes `{"a":"{\"k\":1}"}`.
fn fit_object(object: &str, fields: &Fields) -> Option<String> {
    let values: BTreeMap<String, &RawValue> = serde_json::from_str(object).ok()?;
    let mut all = Vec::with_capacity(values.len());
    for (name, value) in values {
        let field = fields.iter().find(|f| f.name().eq_ignore_ascii_case(&name));
        let value = field.map_or_else(|| value.get().to_owned(), |field| fit_value(value.get(), field.data_type()));
        all.push(format!("{}:{value}", serde_json::Value::String(name)));
    }
    Some(format!("{{{}}}", all.join(",")))
}

fn fit_value(value: &str, t: &DataType) -> String {
    match t {
        DataType::Utf8 if value.starts_with(['{', '[']) => serde_json::Value::String(value.to_owned()).to_string(),
        DataType::Struct(fields) => fit_object(value, fields).unwrap_or_else(|| value.to_owned()),
        DataType::List(item) => match serde_json::from_str::<Vec<&RawValue>>(value) {
            Ok(items) => {
                let items: Vec<_> = items.iter().map(|v| fit_value(v.get(), item.data_type())).collect();
                format!("[{}]", items.join(","))
            }
            Err(_) => value.to_owned(),
        },
        _ => value.to_owned(),
    }
}

/// Returns the columns of the decoder: all names of all columns.
fn schema(columns: &[TextColumn]) -> SchemaRef {
    let fields = columns.iter().flat_map(|c| c.names.iter().map(|name| Field::new(name, c.text.clone(), true)));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Removes the position from a message of the JSON parser: it is relative to the line, and the error has the row in
/// the file.
fn without_position(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}

fn new_decoder(schema: &SchemaRef, strict: bool) -> Result<Decoder> {
    let builder = ReaderBuilder::new(schema.clone()).with_coerce_primitive(true).with_strict_mode(strict);
    let made = builder.with_batch_size(BATCH).build_decoder();
    made.map_err(|e| Error::internal("cannot create a JSON reader").with_source(e))
}

fn internal_error(e: arrow::error::ArrowError) -> Error {
    Error::internal("cannot merge the names of a column").with_source(e)
}
