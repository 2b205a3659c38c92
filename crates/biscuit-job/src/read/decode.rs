//! Rows of CSV, and the batch of untyped rows that all text formats produce. A bad row is stored as it was in its
//! file, so batches keep the original text next to the columns.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_change::CsvDialect;
use biscuit_change::internal::CheckedCsv;
use biscuit_core::catch_panic;
use biscuit_core::{Error, Result};
use bytes::Bytes;

use crate::codes;
use crate::read::input::{InputFile, MAX_LINE, text_failed, too_long};
use crate::spec::CsvSpec;

/// Number of rows in a batch.
pub(crate) const BATCH: usize = 8192;

/// Consecutive rows of a file, with their original text.
pub(crate) struct RowBatch {
    pub(crate) batch: RecordBatch,
    /// Number of the first row or line in the file, from 1.
    pub(crate) first: u64,
    pub(crate) raw: UntypedRows,
}

/// Original form of the rows of a batch, for the quarantine.
pub(crate) enum UntypedRows {
    /// Lines of JSON: each span is the byte range of one row.
    Lines { bytes: Bytes, spans: Vec<(usize, usize)> },
    /// Cells are in the batch; the record is written again with the header in front of it.
    Csv { header: Option<Arc<str>>, dialect: CsvDialect },
    /// Rows of a binary format, which are written as JSON.
    Rows,
}

/// A line or record that cannot be read as a row.
pub(crate) struct BadRow {
    /// Number of the row, counted as `RowBatch::first`.
    pub(crate) row: u64,
    /// Reason, without file and row.
    pub(crate) error: Error,
    /// Original text.
    pub(crate) raw: Vec<u8>,
}

impl RowBatch {
    /// Returns one row as a file of its own, in its original format.
    pub(crate) fn raw_row(&self, row: usize) -> Vec<u8> {
        match &self.raw {
            UntypedRows::Lines { bytes, spans } => {
                spans.get(row).map(|(a, b)| bytes[*a..*b].to_vec()).unwrap_or_default()
            }
            UntypedRows::Csv { header, dialect } => {
                let cells = self.batch.columns().iter().map(|c| csv_cell(c, row).unwrap_or_default());
                with_header(header.as_deref(), &dialect.format_line(cells))
            }
            UntypedRows::Rows => json_row(&self.batch, row),
        }
    }
}

fn csv_cell(column: &ArrayRef, row: usize) -> Option<&str> {
    let texts = column.as_string::<i32>();
    texts.is_valid(row).then(|| texts.value(row))
}

/// Returns a row as a line of JSON.
pub(crate) fn json_row(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    match writer.write(&batch.slice(row, 1)).and_then(|()| writer.finish()) {
        Ok(()) => writer.into_inner(),
        // JSON cannot express the type. The quarantine still has the file and the number of the row.
        Err(_) => vec![],
    }
}

/// Text of a CSV file.
pub(crate) struct CsvText<'a, R> {
    /// Name of the file in messages.
    pub(crate) file: &'a str,
    pub(crate) text: R,
    /// Maximum bytes of a record.
    pub(crate) max_record: usize,
}

impl<'a, R> CsvText<'a, R> {
    pub(crate) fn new(file: &'a InputFile, text: R) -> Self {
        Self { file: file.name(), text, max_record: file.max_record }
    }
}

/// Where the column names of a CSV file come from.
pub(crate) enum CsvNames<'a> {
    /// From the first line. If the list is not empty, the line must contain at least one of its names.
    InHeader(&'a [&'a str]),
    /// From the contract, for files without a header.
    Given(Vec<String>),
}

/// Reads CSV into text columns. `bad` gets the records whose number of cells differs from the number of columns.
///
/// # Errors
/// `InvalidCsv` for text that is not CSV, `NoHeader`, `DuplicateColumn`, `TooManyColumns`, `TooLarge`,
/// `TruncatedInput`, and the errors of `take` and `bad`.
pub(crate) fn csv_rows(
    csv: CsvText<'_, impl std::io::Read>,
    spec: &CsvSpec,
    names: CsvNames<'_>,
    take: &mut dyn FnMut(RowBatch) -> Result<()>,
    bad: &mut dyn FnMut(BadRow) -> Result<()>,
) -> Result<()> {
    let file = csv.file;
    let dialect = spec.dialect.of_file(file);
    let mut reader = CsvRecords::new(csv, dialect);
    let mut record = csv::StringRecord::new();
    let (names, header) = match names {
        CsvNames::Given(names) => (names, None),
        CsvNames::InHeader(known) => {
            if !reader.read(&mut record)? {
                return Ok(());
            }
            // Spaces around a name are not part of the name.
            let names: Vec<String> = record.iter().map(|name| name.trim().to_owned()).collect();
            if !known.is_empty() && !names.iter().any(|name| known.iter().any(|known| known.eq_ignore_ascii_case(name)))
            {
                return Err(no_header(file, names.iter().map(String::as_str), known.iter().copied()));
            }
            (names, Some(Arc::<str>::from(dialect.format_line(&record))))
        }
    };
    let schema = Schema::new(names.iter().map(|n| Field::new(n, DataType::Utf8, true)).collect::<Vec<_>>());
    biscuit_schema::internal::check_names(&schema, &format!("`{file}`"))?;
    let cells = names.iter().map(|_| StringBuilder::new()).collect();
    let mut rows = CsvRows { schema: Arc::new(schema), header, dialect, cells, count: 0, bytes: 0, first: 0, next: 0 };
    while reader.read(&mut record)? {
        let at = reader.line_of(&record);
        if record.len() != rows.cells.len() {
            let message = format!("the record has {} cells, but there are {} columns", record.len(), rows.cells.len());
            let error = Error::new(biscuit_change::codes::INVALID_CSV, message);
            bad(BadRow { row: at, error, raw: with_header(rows.header.as_deref(), &dialect.format_line(&record)) })?;
            continue;
        }
        // A batch has only its first number: rows after a gap (a bad record or a line break inside a record) begin a
        // new batch.
        if rows.is_full() || (rows.count > 0 && rows.next != at) {
            take(rows.finish_piece()?)?;
        }
        rows.add_record(&record, at, &spec.null);
    }
    if rows.count == 0 { Ok(()) } else { take(rows.finish_piece()?) }
}

/// The records of a CSV file, each with a maximum number of bytes. Without this limit, a quote that is never closed
/// would load the rest of the file as one record.
pub(crate) struct CsvRecords<'a, R> {
    file: &'a str,
    reader: csv::Reader<CheckedCsv<CountedText<R>>>,
    /// Bytes that were read since the last record, including bytes that the CSV reader buffered ahead.
    read: Rc<Cell<usize>>,
    max_record: usize,
    /// Whether lines end in CRLF, decided by the first line.
    crlf: Rc<Cell<Option<bool>>>,
}

impl<'a, R: io::Read> CsvRecords<'a, R> {
    pub(crate) fn new(csv: CsvText<'a, R>, dialect: CsvDialect) -> Self {
        let CsvText { file, text, max_record } = csv;
        let (read, crlf) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let counted = CountedText { text, read: read.clone(), max_record, crlf: crlf.clone(), last: 0 };
        let text = CheckedCsv::new(file, counted, dialect);
        let reader = dialect.reader().buffer_capacity(1 << 16).from_reader(text);
        Self { file, reader, read, max_record, crlf }
    }

    /// Returns the line in which a record begins. At a CRLF, the reader's position is before the line feed, hence the
    /// correction.
    pub(crate) fn line_of(&self, record: &csv::StringRecord) -> u64 {
        let line = |p: &csv::Position| p.line() + u64::from(p.byte() > 0 && self.crlf.get() == Some(true));
        record.position().map_or(0, line)
    }

    /// Reads the next record. Returns false at the end of the file.
    ///
    /// # Errors
    /// `TooLarge`, `InvalidCsv`, `TruncatedInput`, and errors of the store.
    pub(crate) fn read(&mut self, record: &mut csv::StringRecord) -> Result<bool> {
        self.read.set(0);
        let line = self.reader.position().line();
        let read = catch_panic(|| self.reader.read_record(record));
        let damaged = |e| {
            Error::new(biscuit_change::codes::INVALID_CSV, "the record is not valid CSV")
                .at(self.file, line)
                .with_source(e)
        };
        read.map_err(damaged)?.map_err(|e| {
            if self.read.get() > self.max_record {
                return too_long(self.file, "record", line, self.max_record);
            }
            let message = format!("the file is not valid CSV: {e}");
            match e.into_kind() {
                csv::ErrorKind::Io(e) => text_failed(self.file, e),
                _ => Error::new(biscuit_change::codes::INVALID_CSV, message).in_file(self.file),
            }
        })
    }
}

/// Counts the bytes of a text and looks at its first line end, on the way to the CSV reader.
struct CountedText<R> {
    text: R,
    read: Rc<Cell<usize>>,
    max_record: usize,
    crlf: Rc<Cell<Option<bool>>>,
    /// Last byte of the previous read, in case a CRLF is split between two reads.
    last: u8,
}

impl<R: io::Read> io::Read for CountedText<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read.get() > self.max_record {
            return Err(io::Error::other("the record is too large"));
        }
        let n = self.text.read(into)?;
        self.read.set(self.read.get() + n);
        if self.crlf.get().is_none()
            && let Some(at) = memchr::memchr(b'\n', &into[..n])
        {
            let before = if at == 0 { self.last } else { into[at - 1] };
            self.crlf.set(Some(before == b'\r'));
        }
        self.last = into[..n].last().copied().unwrap_or(self.last);
        Ok(n)
    }
}

/// Consecutive CSV records that become a batch.
struct CsvRows {
    schema: SchemaRef,
    header: Option<Arc<str>>,
    dialect: CsvDialect,
    cells: Vec<StringBuilder>,
    count: usize,
    /// Total bytes of the cells.
    bytes: usize,
    first: u64,
    next: u64,
}

impl CsvRows {
    fn is_full(&self) -> bool {
        self.count == BATCH || self.bytes > MAX_LINE
    }

    fn add_record(&mut self, record: &csv::StringRecord, at: u64, null: &str) {
        if self.count == 0 {
            self.first = at;
        }
        for (cell, text) in self.cells.iter_mut().zip(record) {
            cell.append_option((!text.is_empty() && text != null).then_some(text));
        }
        self.count += 1;
        self.bytes += record.as_slice().len();
        // If the record contains a line break, it has more lines, and the next record starts a new batch.
        self.next = at + 1;
    }

    fn finish_piece(&mut self) -> Result<RowBatch> {
        let arrays: Vec<ArrayRef> = self.cells.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef).collect();
        let batch = RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|e| Error::internal("CSV rows could not be combined").with_source(e))?;
        (self.count, self.bytes) = (0, 0);
        Ok(RowBatch {
            batch,
            first: self.first,
            raw: UntypedRows::Csv { header: self.header.clone(), dialect: self.dialect },
        })
    }
}

/// Error for a CSV file whose first line has none of the known columns. The line may be data, so its cells are
/// details of the error, which are shown only on request.
pub(crate) fn no_header<'a>(
    file: &str,
    names: impl Iterator<Item = &'a str>,
    known: impl Iterator<Item = &'a str>,
) -> Error {
    let message = "the first line has none of the known columns: this file or an earlier one has no header or belongs to another table; read files without a header with `header = false` and a contract";
    let list = |names: &mut dyn Iterator<Item = &'a str>| names.take(10).collect::<Vec<_>>().join(", ");
    let (mut names, mut known) = (names, known);
    Error::new(codes::NO_HEADER, message)
        .at(file, 1)
        .with_detail("first line", list(&mut names))
        .with_detail("known", list(&mut known))
}

/// Returns a CSV line below its header, so that it can be read as a file.
fn with_header(header: Option<&str>, line: &str) -> Vec<u8> {
    let header = header.map(|h| format!("{h}\n")).unwrap_or_default();
    format!("{header}{line}\n").into_bytes()
}
