use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
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

/// What should be a row and is none.
pub(crate) struct BadRow {
    /// Its number as `Piece::first` counts.
    pub(crate) row: u64,
    /// Why, without the place.
    pub(crate) error: Error,
    /// What it was.
    pub(crate) raw: Vec<u8>,
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
    bad: &mut dyn FnMut(BadRow) -> Result<()>,
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
            let error = Error::data("WrongCells", message);
            bad(BadRow { row: at, error, raw: with_header(rows.header.as_deref(), &line(&record, delimiter)) })?;
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
