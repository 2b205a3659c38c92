use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::reader::{Decoder, ReaderBuilder};
use biscuit_change::Refused;
use biscuit_core::{Error, Result};
use biscuit_schema::Contract;
use bytes::Bytes;

use crate::spec::CsvSpec;

/// Rows that are worked on at a time.
pub(crate) const BATCH: usize = 8192;

/// Rows that follow one another in a file, and what they were there.
pub(crate) struct Piece {
    pub(crate) batch: RecordBatch,
    /// The number of the first row or line in the file, from 1.
    pub(crate) first: u64,
    pub(crate) raw: Raw,
}

/// Rows as they were in their file.
pub(crate) enum Raw {
    Lines {
        bytes: Bytes,
        spans: Vec<(usize, usize)>,
    },
    Csv {
        header: Option<Arc<str>>,
        delimiter: u8,
    },
    /// What has no text is written as JSON.
    Rows,
}

impl Piece {
    /// A row as a file of its own, in the format it came in.
    pub(crate) fn raw(&self, row: usize) -> Vec<u8> {
        match &self.raw {
            Raw::Lines { bytes, spans } => spans.get(row).map(|(a, b)| bytes[*a..*b].to_vec()).unwrap_or_default(),
            Raw::Csv { header, delimiter } => {
                let cells = self.batch.columns().iter().map(|c| cell(c, row).unwrap_or_default());
                with_header(header.as_deref(), &line(&cells.collect(), *delimiter))
            }
            Raw::Rows => json_row(&self.batch, row),
        }
    }
}

fn cell(column: &ArrayRef, row: usize) -> Option<&str> {
    let texts = column.as_string::<i32>();
    texts.is_valid(row).then(|| texts.value(row))
}

/// A row as a line of JSON.
pub(crate) fn json_row(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    match writer.write(&batch.slice(row, 1)).and_then(|()| writer.finish()) {
        Ok(()) => writer.into_inner(),
        // A type that JSON cannot say; the place of the row is said besides.
        Err(_) => vec![],
    }
}

/// The type of which text is read first: scalars as text, exactly as they are written, and what is nested around them.
fn as_text(t: &DataType) -> DataType {
    let field =
        |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(as_text(f.data_type())).with_nullable(true));
    match t {
        DataType::List(item) => DataType::List(field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entry, sorted) => match entry.data_type() {
            DataType::Struct(kv) => {
                let key = Arc::new(Field::new(kv[0].name(), DataType::Utf8, false));
                let entries = DataType::Struct(Fields::from(vec![key, field(&kv[1])]));
                DataType::Map(Arc::new(entry.as_ref().clone().with_data_type(entries)), *sorted)
            }
            _ => t.clone(),
        },
        _ => DataType::Utf8,
    }
}

/// The columns of a contract as text, by all names that they may have.
pub(crate) fn text_schema(contract: &Contract) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::new();
    for column in &contract.columns {
        for name in std::iter::once(&column.name).chain(&column.reading.renamed_from) {
            if fields.iter().all(|f| f.name() != name) {
                fields.push(Field::new(name, as_text(column.column_type.arrow()), true));
            }
        }
    }
    Arc::new(Schema::new(fields))
}

/// Reads lines of JSON into text columns.
pub(crate) struct JsonLines {
    schema: SchemaRef,
    decoder: Decoder,
    strict: bool,
    /// Columns of the lines that the contract does not have.
    pub(crate) extra: std::collections::BTreeSet<String>,
}

impl JsonLines {
    pub(crate) fn new(schema: SchemaRef) -> Result<Self> {
        Ok(Self { decoder: decoder(&schema, true)?, schema, strict: true, extra: Default::default() })
    }

    /// Reads whole lines; `bad` gets those that are no JSON object of these columns.
    ///
    /// # Errors
    /// Those of `take` and `bad`.
    pub(crate) fn read(
        &mut self,
        file: &str,
        bytes: &Bytes,
        first: u64,
        take: &mut dyn FnMut(Piece) -> Result<()>,
        bad: &mut dyn FnMut(Refused) -> Result<()>,
    ) -> Result<()> {
        let mut spans: Vec<(usize, usize)> = Vec::with_capacity(BATCH);
        let (mut line, mut start, mut begun) = (first, 0, first);
        while start < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |i| start + i + 1);
            let blank = bytes[start..end].iter().all(u8::is_ascii_whitespace);
            if blank || spans.len() == BATCH {
                // Rows of one piece follow one another.
                self.piece(file, bytes, std::mem::take(&mut spans), begun, take, bad)?;
                begun = line;
            }
            if blank {
                begun = line + 1;
            } else {
                spans.push((start, end));
            }
            (line, start) = (line + 1, end);
        }
        self.piece(file, bytes, spans, begun, take, bad)
    }

    fn piece(
        &mut self,
        file: &str,
        bytes: &Bytes,
        spans: Vec<(usize, usize)>,
        first: u64,
        take: &mut dyn FnMut(Piece) -> Result<()>,
        bad: &mut dyn FnMut(Refused) -> Result<()>,
    ) -> Result<()> {
        let (Some((start, _)), Some((_, end))) = (spans.first().copied(), spans.last().copied()) else { return Ok(()) };
        let text = &bytes[start..end];
        if let Some(batch) = self.decode(text, spans.len())? {
            return take(Piece { batch, first, raw: Raw::Lines { bytes: bytes.clone(), spans } });
        }
        if self.strict {
            self.note_extra(bytes, &spans);
            self.strict = false;
            if let Some(batch) = self.decode(text, spans.len())? {
                return take(Piece { batch, first, raw: Raw::Lines { bytes: bytes.clone(), spans } });
            }
        }
        // Some line is none of these rows: line by line.
        for (at, (a, b)) in spans.into_iter().enumerate() {
            let row = first + at as u64;
            match self.decode(&bytes[a..b], 1)? {
                Some(batch) => {
                    take(Piece { batch, first: row, raw: Raw::Lines { bytes: bytes.clone(), spans: vec![(a, b)] } })?;
                }
                None => {
                    let e = self.what_is_wrong(&bytes[a..b]).at(file, row);
                    bad(Refused::new(file, row, &e, bytes[a..b].to_vec()))?;
                }
            }
        }
        Ok(())
    }

    /// The rows of these lines; none if they are not so many objects of these columns.
    fn decode(&mut self, text: &[u8], rows: usize) -> Result<Option<RecordBatch>> {
        let decoded = (|| {
            let mut at = 0;
            while at < text.len() {
                let read = self.decoder.decode(&text[at..])?;
                if read == 0 {
                    break;
                }
                at += read;
            }
            let batch = self.decoder.flush()?;
            Ok::<_, arrow::error::ArrowError>(batch.filter(|b| at == text.len() && b.num_rows() == rows))
        })();
        match decoded {
            Ok(Some(batch)) => Ok(Some(batch)),
            _ => {
                // What is left in it of these lines is not the next ones'.
                self.decoder = decoder(&self.schema, self.strict)?;
                Ok(None)
            }
        }
    }

    /// Remembers which columns are in the lines and not in the contract.
    fn note_extra(&mut self, bytes: &Bytes, spans: &[(usize, usize)]) {
        self.decoder = match decoder(&self.schema, false) {
            Ok(decoder) => decoder,
            Err(_) => return,
        };
        for (a, b) in spans {
            let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(&bytes[*a..*b]) else { continue };
            let unknown = object.into_iter().map(|(name, _)| name).filter(|n| self.schema.index_of(n).is_err());
            self.extra.extend(unknown);
        }
    }

    fn what_is_wrong(&self, line: &[u8]) -> Error {
        match serde_json::from_slice::<serde_json::Value>(line) {
            Err(e) => Error::data("InvalidJson", format!("the line is no JSON: {}", place_free(&e.to_string()))),
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
                        let message = format!("column `{name}` is nested otherwise than its type");
                        Error::data("WrongType", message).with_column(name)
                    }
                    None => Error::data("WrongType", "a nested column is not of its type"),
                }
            }
            Ok(_) => Error::data("InvalidJson", "the line is no JSON object"),
        }
    }
}

/// The message of a parser without its own place, which is that in the line.
fn place_free(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}

fn decoder(schema: &SchemaRef, strict: bool) -> Result<Decoder> {
    let builder = ReaderBuilder::new(schema.clone()).with_coerce_primitive(true).with_strict_mode(strict);
    let made = builder.with_batch_size(BATCH).build_decoder();
    made.map_err(|e| Error::internal("a JSON reader could not be made").with_source(e))
}

/// Reads CSV into text columns; `bad` gets records with another number of cells than the header has.
///
/// # Errors
/// `InvalidCsv` for what is no CSV, `DuplicateColumn`; those of `take` and `bad`.
pub(crate) fn csv_rows(
    file: &str,
    text: impl std::io::Read,
    spec: &CsvSpec,
    names: Option<Vec<String>>,
    take: &mut dyn FnMut(Piece) -> Result<()>,
    bad: &mut dyn FnMut(Refused) -> Result<()>,
) -> Result<()> {
    let delimiter = u8::try_from(spec.delimiter).unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(1 << 16)
        .from_reader(text);
    let failed = |e: csv::Error| {
        let message = format!("the file is no CSV: {e}");
        Error::data("InvalidCsv", message).in_file(file).with_source(e)
    };
    let mut record = csv::StringRecord::new();
    let (names, header) = match names {
        Some(names) => (names, None),
        None => {
            if !reader.read_record(&mut record).map_err(failed)? {
                return Ok(());
            }
            let names: Vec<String> = record.iter().map(|n| n.trim_start_matches('\u{feff}').to_owned()).collect();
            (names, Some(Arc::<str>::from(line(&record, delimiter))))
        }
    };
    let schema = Schema::new(names.iter().map(|n| Field::new(n, DataType::Utf8, true)).collect::<Vec<_>>());
    biscuit_schema::check_names(&schema, &format!("`{file}`"))?;
    let cells = names.iter().map(|_| StringBuilder::new()).collect();
    let mut rows = CsvRows { schema: Arc::new(schema), header, delimiter, cells, count: 0, first: 0, next: 0 };
    while reader.read_record(&mut record).map_err(failed)? {
        let at = record.position().map_or(0, csv::Position::line);
        if record.len() != rows.cells.len() {
            let message = format!("the record has {} cells, and there are {} columns", record.len(), rows.cells.len());
            let e = Error::data("WrongCells", message).at(file, at);
            bad(Refused::new(file, at, &e, with_header(rows.header.as_deref(), &line(&record, delimiter))))?;
            continue;
        }
        if rows.count == BATCH || (rows.count > 0 && rows.next != at) {
            take(rows.piece()?)?;
        }
        rows.add(&record, at, &spec.null);
    }
    if rows.count == 0 { Ok(()) } else { take(rows.piece()?) }
}

/// Records of CSV that follow one another.
struct CsvRows {
    schema: SchemaRef,
    header: Option<Arc<str>>,
    delimiter: u8,
    cells: Vec<StringBuilder>,
    count: usize,
    first: u64,
    next: u64,
}

impl CsvRows {
    fn add(&mut self, record: &csv::StringRecord, at: u64, null: &str) {
        if self.count == 0 {
            self.first = at;
        }
        for (cell, text) in self.cells.iter_mut().zip(record) {
            cell.append_option((!text.is_empty() && text != null).then_some(text));
        }
        self.count += 1;
        // A record with a line break in it has several lines.
        self.next = at + 1;
    }

    fn piece(&mut self) -> Result<Piece> {
        let arrays: Vec<ArrayRef> = self.cells.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef).collect();
        let batch = RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|e| Error::internal("rows of CSV could not be put together").with_source(e))?;
        self.count = 0;
        Ok(Piece { batch, first: self.first, raw: Raw::Csv { header: self.header.clone(), delimiter: self.delimiter } })
    }
}

fn with_header(header: Option<&str>, line: &str) -> Vec<u8> {
    let header = header.map(|h| format!("{h}\n")).unwrap_or_default();
    format!("{header}{line}\n").into_bytes()
}

/// A record as a line of CSV.
fn line(record: &csv::StringRecord, delimiter: u8) -> String {
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    let written = writer.write_record(record).and_then(|()| Ok(writer.flush()?));
    let bytes = written.ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default().trim_end_matches('\n').to_owned()
}
