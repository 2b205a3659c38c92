use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_change::{CheckedCsv, CsvDialect};
use biscuit_core::{Error, Result, catch_panic};
use bytes::Bytes;

use crate::read::infer::no_header;
use crate::read::input::{MAX_LINE, text_failed, too_long};
use crate::spec::CsvSpec;

/// Rows that are worked on at a time.
pub(crate) const BATCH: usize = 8192;

/// Rows that follow one another in a file, and what they were there.
pub(crate) struct RowBatch {
    pub(crate) batch: RecordBatch,
    /// The number of the first row or line in the file, from 1.
    pub(crate) first: u64,
    pub(crate) raw: UntypedRows,
}

/// Rows as they were in their file.
pub(crate) enum UntypedRows {
    Lines {
        bytes: Bytes,
        spans: Vec<(usize, usize)>,
    },
    Csv {
        header: Option<Arc<str>>,
        dialect: CsvDialect,
    },
    /// What has no text is written as JSON.
    Rows,
}

/// What should be a row and is none.
pub(crate) struct BadRow {
    /// Its number as `RowBatch::first` counts.
    pub(crate) row: u64,
    /// Why, without the place.
    pub(crate) error: Error,
    /// What it was.
    pub(crate) raw: Vec<u8>,
}

impl RowBatch {
    /// A row as a file of its own, in the format it came in.
    pub(crate) fn raw(&self, row: usize) -> Vec<u8> {
        match &self.raw {
            UntypedRows::Lines { bytes, spans } => {
                spans.get(row).map(|(a, b)| bytes[*a..*b].to_vec()).unwrap_or_default()
            }
            UntypedRows::Csv { header, dialect } => {
                let cells = self.batch.columns().iter().map(|c| cell(c, row).unwrap_or_default());
                with_header(header.as_deref(), &dialect.line(cells))
            }
            UntypedRows::Rows => json_row(&self.batch, row),
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

/// How the columns of CSV are called.
pub(crate) enum CsvNames<'a> {
    /// As the first line says, which has at least one of these names, if there are any.
    InHeader(&'a [&'a str]),
    Given(Vec<String>),
}

/// Reads CSV into text columns; `bad` gets records with another number of cells than the header has.
///
/// # Errors
/// `InvalidCsv` for what is no CSV, `NoHeader`, `DuplicateColumn`, `TooManyColumns`, `TooLarge`, `TruncatedInput`; those of `take` and `bad`.
pub(crate) fn csv_rows(
    file: &str,
    text: impl std::io::Read,
    spec: &CsvSpec,
    names: CsvNames<'_>,
    take: &mut dyn FnMut(RowBatch) -> Result<()>,
    bad: &mut dyn FnMut(BadRow) -> Result<()>,
) -> Result<()> {
    let dialect = spec.dialect.of_file(file);
    let mut reader = CsvRecords::new(file, text, dialect);
    let mut record = csv::StringRecord::new();
    let (names, header) = match names {
        CsvNames::Given(names) => (names, None),
        CsvNames::InHeader(known) => {
            if !reader.read(&mut record)? {
                return Ok(());
            }
            // Spaces around a name are not part of it.
            let names: Vec<String> = record.iter().map(|name| name.trim().to_owned()).collect();
            if !known.is_empty() && !names.iter().any(|name| known.iter().any(|known| known.eq_ignore_ascii_case(name)))
            {
                return Err(no_header(file, names.iter().map(String::as_str), known.iter().copied()));
            }
            (names, Some(Arc::<str>::from(dialect.line(&record))))
        }
    };
    let schema = Schema::new(names.iter().map(|n| Field::new(n, DataType::Utf8, true)).collect::<Vec<_>>());
    biscuit_schema::check_names(&schema, &format!("`{file}`"))?;
    let cells = names.iter().map(|_| StringBuilder::new()).collect();
    let mut rows = CsvRows { schema: Arc::new(schema), header, dialect, cells, count: 0, bytes: 0, first: 0, next: 0 };
    while reader.read(&mut record)? {
        let at = reader.line(&record);
        if record.len() != rows.cells.len() {
            let message = format!("the record has {} cells, and there are {} columns", record.len(), rows.cells.len());
            let error = Error::data("WrongCells", message);
            bad(BadRow { row: at, error, raw: with_header(rows.header.as_deref(), &dialect.line(&record)) })?;
            continue;
        }
        if rows.is_full() || (rows.count > 0 && rows.next != at) {
            take(rows.piece()?)?;
        }
        rows.add(&record, at, &spec.null);
    }
    if rows.count == 0 { Ok(()) } else { take(rows.piece()?) }
}

/// The records of a CSV file, none of which is larger than may be in memory: a quote without an end makes one of all that follows.
pub(crate) struct CsvRecords<'a, R> {
    file: &'a str,
    reader: csv::Reader<CheckedCsv<CountedText<R>>>,
    /// Bytes that were read since the last record, what is read ahead among them.
    read: Rc<Cell<usize>>,
    /// Whether lines end in CRLF, by the first of them.
    crlf: Rc<Cell<Option<bool>>>,
}

impl<'a, R: io::Read> CsvRecords<'a, R> {
    pub(crate) fn new(file: &'a str, text: R, dialect: CsvDialect) -> Self {
        let (read, crlf) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let counted = CountedText { text, read: read.clone(), crlf: crlf.clone(), last: 0 };
        let text = CheckedCsv::new(file, counted, dialect);
        let reader = dialect.reader().buffer_capacity(1 << 16).from_reader(text);
        Self { file, reader, read, crlf }
    }

    /// The line in which a record begins: the reader stops in front of the line feed of a CRLF.
    pub(crate) fn line(&self, record: &csv::StringRecord) -> u64 {
        let behind = |p: &csv::Position| p.line() + u64::from(p.byte() > 0 && self.crlf.get() == Some(true));
        record.position().map_or(0, behind)
    }

    /// Reads the next record; false at the end.
    ///
    /// # Errors
    /// `TooLarge`, `InvalidCsv`, `TruncatedInput`, and those of the store.
    pub(crate) fn read(&mut self, record: &mut csv::StringRecord) -> Result<bool> {
        self.read.set(0);
        let line = self.reader.position().line();
        let read = catch_panic(|| self.reader.read_record(record));
        let damaged = |e| Error::data("InvalidCsv", "the record is no CSV").at(self.file, line).with_source(e);
        read.map_err(damaged)?.map_err(|e| {
            if self.read.get() > MAX_LINE {
                return too_long(self.file, "record", line);
            }
            let message = format!("the file is no CSV: {e}");
            match e.into_kind() {
                csv::ErrorKind::Io(e) => text_failed(self.file, e),
                _ => Error::data("InvalidCsv", message).in_file(self.file),
            }
        })
    }
}

struct CountedText<R> {
    text: R,
    read: Rc<Cell<usize>>,
    crlf: Rc<Cell<Option<bool>>>,
    /// The last byte that was read.
    last: u8,
}

impl<R: io::Read> io::Read for CountedText<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read.get() > MAX_LINE {
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

/// Records of CSV that follow one another.
struct CsvRows {
    schema: SchemaRef,
    header: Option<Arc<str>>,
    dialect: CsvDialect,
    cells: Vec<StringBuilder>,
    count: usize,
    /// Bytes of the cells.
    bytes: usize,
    first: u64,
    next: u64,
}

impl CsvRows {
    fn is_full(&self) -> bool {
        self.count == BATCH || self.bytes > MAX_LINE
    }

    fn add(&mut self, record: &csv::StringRecord, at: u64, null: &str) {
        if self.count == 0 {
            self.first = at;
        }
        for (cell, text) in self.cells.iter_mut().zip(record) {
            cell.append_option((!text.is_empty() && text != null).then_some(text));
        }
        self.count += 1;
        self.bytes += record.as_slice().len();
        // A record with a line break in it has several lines.
        self.next = at + 1;
    }

    fn piece(&mut self) -> Result<RowBatch> {
        let arrays: Vec<ArrayRef> = self.cells.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef).collect();
        let batch = RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|e| Error::internal("rows of CSV could not be put together").with_source(e))?;
        (self.count, self.bytes) = (0, 0);
        Ok(RowBatch {
            batch,
            first: self.first,
            raw: UntypedRows::Csv { header: self.header.clone(), dialect: self.dialect },
        })
    }
}

fn with_header(header: Option<&str>, line: &str) -> Vec<u8> {
    let header = header.map(|h| format!("{h}\n")).unwrap_or_default();
    format!("{header}{line}\n").into_bytes()
}
