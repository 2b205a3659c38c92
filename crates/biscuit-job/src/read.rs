use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use biscuit_change::Refused;
use biscuit_core::{Error, Result};
use biscuit_dataset::{DataFile, OpenFile};
use biscuit_schema::{Coerced, Coercion, CoercionReport, Extra, Fault, OnError};
use futures::StreamExt;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::decode::{JsonLines, Piece, Raw, csv_rows, text_schema};
use crate::input::{InputFile, SLICE, Slices, lines_before, lines_in};
use crate::spec::{CsvSpec, SourceFormat};

/// What was read of a source, and what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReadReport {
    /// Objects.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines and records that are no rows at all.
    pub invalid: u64,
    /// What became of the rows' values.
    pub coercion: CoercionReport,
}

/// How a source's objects become rows.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) format: SourceFormat,
    pub(crate) csv: CsvSpec,
    pub(crate) coercion: Coercion,
    text: SchemaRef,
    found: Mutex<Found>,
}

/// What came up while rows were read.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) report: ReadReport,
    pub(crate) refused: Vec<Refused>,
}

/// A part of a source that is read by itself.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    Whole(Arc<InputFile>),
    Lines(Arc<InputFile>, Range<u64>),
}

impl Task {
    fn file(&self) -> &Arc<InputFile> {
        match self {
            Self::Whole(file) | Self::Lines(file, _) => file,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Whole(file) => file.size,
            Self::Lines(_, range) => range.end - range.start,
        }
    }
}

/// The parts of a source, to be worked on by several.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<VecDeque<Task>>);

impl Queue {
    pub(crate) fn new(tasks: Vec<Task>) -> Self {
        Self(Mutex::new(tasks.into()))
    }

    pub(crate) fn next(&self) -> Option<Task> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Divides tasks among so many, about evenly.
pub(crate) fn divide(tasks: Vec<Task>, parts: usize) -> Vec<Vec<Task>> {
    let mut divided: Vec<(u64, Vec<Task>)> = (0..parts.max(1)).map(|_| (0, vec![])).collect();
    for task in tasks {
        if let Some(least) = divided.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            least.0 += task.bytes();
            least.1.push(task);
        }
    }
    divided.into_iter().map(|(_, tasks)| tasks).collect()
}

/// Rows of a file, in the columns of the source's contract.
pub(crate) struct FileRows<'a> {
    pub(crate) file: &'a Arc<InputFile>,
    pub(crate) batch: RecordBatch,
    kept: Option<BooleanArray>,
    piece: &'a Piece,
    numbers: &'a Numbers<'a>,
}

impl FileRows<'_> {
    /// Where a row of the batch is in the file: its number of row or line, from 1.
    pub(crate) fn number(&self, row: usize) -> u64 {
        self.piece.first + self.input_row(row) as u64 + self.numbers.before()
    }

    /// A row of the batch as it came.
    pub(crate) fn raw(&self, row: usize) -> Vec<u8> {
        self.piece.raw(self.input_row(row))
    }

    fn input_row(&self, row: usize) -> usize {
        match &self.kept {
            None => row,
            Some(kept) => kept.values().set_indices().nth(row).unwrap_or(row),
        }
    }
}

/// Numbers of lines in a part of a file: what is before it is counted when it is asked for.
struct Numbers<'a> {
    file: &'a InputFile,
    start: u64,
    handle: &'a Handle,
    before: OnceCell<u64>,
}

impl Numbers<'_> {
    fn before(&self) -> u64 {
        // A number in a message is not worth failing for, and what it was counted in is read by now.
        *self.before.get_or_init(|| match self.start {
            0 => 0,
            // The line that goes on into the part is not the part's.
            start => self.handle.block_on(lines_before(self.file, start - 1)).unwrap_or(0) + 1,
        })
    }
}

impl Reading {
    pub(crate) fn new(format: SourceFormat, csv: CsvSpec, coercion: Coercion) -> Self {
        let text = text_schema(coercion.contract());
        Self { format, csv, coercion, text, found: Mutex::default() }
    }

    /// What came up; it is asked once, when everything is read.
    pub(crate) fn found(&self) -> Found {
        std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, f: impl FnOnce(&mut Found)) {
        f(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The parts of these files: large ones of lines are divided.
    pub(crate) async fn tasks(&self, files: &[Arc<InputFile>]) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        for file in files {
            let large = self.format == SourceFormat::Json && file.size > 2 * SLICE as u64;
            if !large || crate::input::Packing::of(&file.bytes(0..4).await?) != crate::input::Packing::None {
                tasks.push(Task::Whole(file.clone()));
                continue;
            }
            let parts = file.size.div_ceil(SLICE as u64);
            let cut = |part: u64| file.size * part / parts;
            tasks.extend((0..parts).map(|part| Task::Lines(file.clone(), cut(part)..cut(part + 1))));
        }
        Ok(tasks)
    }

    /// Reads tasks until there is none, on a blocking thread. `counts` says whether what comes up is noted.
    ///
    /// # Errors
    /// What is wrong with the rows, with file and row; those of the store and of `take`.
    pub(crate) fn work(
        &self,
        next: &mut dyn FnMut() -> Option<Task>,
        handle: &Handle,
        counts: bool,
        take: &mut dyn FnMut(FileRows<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut json = match self.format {
            SourceFormat::Json => Some(JsonLines::new(self.text.clone())?),
            _ => None,
        };
        while let Some(task) = next() {
            let file = task.file().clone();
            let start = if let Task::Lines(_, range) = &task { range.start } else { 0 };
            let numbers = Numbers { file: &file, start, handle, before: OnceCell::new() };
            let mut own = Found::default();
            own.report.files = u64::from(start == 0);
            own.report.bytes = task.bytes();
            let mut bad = Vec::new();
            {
                let mut piece = |piece: Piece| self.piece(&file, &piece, &numbers, &mut own, take);
                let mut refuse = |refused: Refused| {
                    bad.push(refused);
                    Ok(())
                };
                match &mut json {
                    Some(json) => read_json(json, &task, handle, &mut piece, &mut refuse)?,
                    None if self.format == SourceFormat::Csv => {
                        self.read_csv(&file, handle, &mut piece, &mut refuse)?
                    }
                    None => read_parquet(&file, handle, &mut piece)?,
                }
            }
            for refused in bad {
                self.bad(refused, &numbers, &mut own)?;
            }
            if let Some(json) = &mut json {
                if let Some(name) = json.extra.first().filter(|_| self.coercion.contract().extra == Extra::Refuse) {
                    let message = format!("the contract does not have `{name}`");
                    return Err(Error::data("ExtraColumns", message).with_column(name).in_file(&file.name));
                }
                own.report.coercion.dropped.append(&mut json.extra);
            }
            if counts {
                self.note(|found| {
                    found.report.files += own.report.files;
                    found.report.bytes += own.report.bytes;
                    found.report.invalid += own.report.invalid;
                    found.report.coercion.add(&own.report.coercion);
                    found.refused.append(&mut own.refused);
                });
            }
        }
        Ok(())
    }

    fn piece(
        &self,
        file: &Arc<InputFile>,
        piece: &Piece,
        numbers: &Numbers<'_>,
        own: &mut Found,
        take: &mut dyn FnMut(FileRows<'_>) -> Result<()>,
    ) -> Result<()> {
        let coerced = self.coercion.coerce(&piece.batch, &file.name, piece.first);
        let coerced = match coerced {
            // The same again, for the number in the message.
            Err(e) if e.row().is_some() => {
                self.coercion.coerce(&piece.batch, &file.name, piece.first + numbers.before())
            }
            other => other,
        };
        let Coerced { batch, kept, refused, mut report } = coerced?;
        if self.format == SourceFormat::Json {
            // Names that a column had are in every line as far as the reader is concerned.
            report.missing.clear();
        }
        own.report.coercion.add(&report);
        for row in refused {
            let number = piece.first + row.row as u64 + numbers.before();
            let reason = reason(row.code);
            let e = Error::data(row.code, format!("a value of column `{}` {reason}", row.column));
            let e = e.with_column(row.column).at(&file.name, number);
            own.refused.push(Refused::new(&file.name, number, &e, piece.raw(row.row)));
        }
        if batch.num_rows() == 0 {
            return Ok(());
        }
        take(FileRows { file, batch, kept, piece, numbers })
    }

    /// A line or record that is no row.
    fn bad(&self, refused: Refused, numbers: &Numbers<'_>, own: &mut Found) -> Result<()> {
        let Refused { file, row, code, column, message, raw } = refused;
        let number = row + numbers.before();
        let plain = message.strip_suffix(&format!(" ({file}, row {row})")).unwrap_or(&message);
        let code: &'static str = match code.as_str() {
            "WrongCells" => "WrongCells",
            "WrongType" => "WrongType",
            _ => "InvalidJson",
        };
        let e = Error::data(code, plain);
        let e = match column {
            Some(column) => e.with_column(column),
            None => e,
        };
        let e = e.at(&file, number);
        if self.coercion.contract().on_error == OnError::Fail {
            return Err(e);
        }
        own.report.invalid += 1;
        own.refused.push(Refused::new(&file, number, &e, raw));
        Ok(())
    }

    fn read_csv(
        &self,
        file: &Arc<InputFile>,
        handle: &Handle,
        piece: &mut dyn FnMut(Piece) -> Result<()>,
        refuse: &mut dyn FnMut(Refused) -> Result<()>,
    ) -> Result<()> {
        let names = (!self.csv.header)
            .then(|| self.coercion.contract().columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>());
        csv_rows(&file.name, file.text(handle)?, &self.csv, names, piece, refuse)
    }
}

fn reason(code: &str) -> &'static str {
    use Fault as F;
    let all = [
        F::Unparseable,
        F::Overflow,
        F::PrecisionLoss,
        F::BadDate,
        F::BadTime,
        F::BadEpoch,
        F::NotABoolean,
        F::NotANumber,
        F::NullNotAllowed,
    ];
    all.iter().find(|f| f.code() == code).map_or("does not comply", |f| f.reason())
}

fn read_json(
    json: &mut JsonLines,
    task: &Task,
    handle: &Handle,
    piece: &mut dyn FnMut(Piece) -> Result<()>,
    refuse: &mut dyn FnMut(Refused) -> Result<()>,
) -> Result<()> {
    match task {
        Task::Lines(file, range) => {
            let bytes = handle.block_on(lines_in(file, range.clone()))?;
            json.read(&file.name, &bytes, 1, piece, refuse)
        }
        Task::Whole(file) => {
            let mut slices = Slices::new(file.text(handle)?, file.clone());
            while let Some(slice) = slices.next()? {
                json.read(&file.name, &slice.bytes, slice.first, piece, refuse)?;
            }
            Ok(())
        }
    }
}

fn read_parquet(file: &Arc<InputFile>, handle: &Handle, piece: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
    let data = DataFile { path: file.name.to_string(), object: file.path.clone(), size: file.size, partition: vec![] };
    let open = handle.block_on(OpenFile::open(file.store.clone(), data)).map_err(|e| file.failed(e))?;
    let mut rows = open.with_batch_rows(crate::decode::BATCH).stream(None)?;
    let mut first = 1;
    while let Some(batch) = handle.block_on(rows.next()) {
        let batch = batch.map_err(|e| file.failed(e))?;
        let count = batch.num_rows() as u64;
        piece(Piece { batch, first, raw: Raw::Rows })?;
        first += count;
    }
    Ok(())
}
