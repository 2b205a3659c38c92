//! Reads the objects of a source into rows: decode, add columns of the path, coerce to the contract, apply the checks
//! of the contract, treat personal data. Each step may refuse rows, and their numbers in the file must remain right;
//! `SourceFileRows` tracks them.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use biscuit_change::{RefusedRecord, TextEncoding};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::OpenFile;
use biscuit_dataset::encryption::FileEncryption;
use biscuit_schema::checks::CheckFinding;
use biscuit_schema::coercion::{CoercedRows, CoercionReport, RefusedRow};
use biscuit_schema::internal::BytesInText;
use biscuit_schema::internal::UuidColumns;
use biscuit_schema::{Coercion, Contract, ContractCompliance, ExtraColumns, OnError};
use futures::StreamExt;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::codes;
use crate::read::decode::{BadRow, CsvNames, CsvText, RowBatch, UntypedRows, csv_rows};
use crate::read::input::{InputFile, SLICE, lines_before, lines_in};
use crate::read::json::JsonLines;
use crate::read::path_columns::with_path_columns;
use crate::shape::treatment::TreatedSource;
use crate::spec::{CsvHeader, SourceFormat, TextSpec};

/// Counts of the rows and values that were read from a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReadReport {
    /// Number of objects.
    pub files: u64,
    /// Bytes of the objects.
    pub bytes: u64,
    /// Lines and records that could not be read as rows.
    pub invalid: u64,
    /// Values that were converted, replaced or refused, by column.
    pub coercion: CoercionReport,
}

/// Reads the objects of a source. Threads share it; each calls [`run_tasks`](Self::run_tasks).
#[derive(Debug)]
pub(crate) struct SourceReader {
    pub(crate) format: SourceFormat,
    pub(crate) text: TextSpec,
    pub(crate) coercion: Coercion,
    /// Treatment of personal data.
    guard: Option<Arc<TreatedSource>>,
    /// Keys of encrypted Parquet files.
    keys: Option<FileEncryption>,
    /// Columns of the rows after the treatment of personal data.
    pub(crate) schema: SchemaRef,
    found: Mutex<ReadFindings>,
    /// Start of the run, for checks of freshness.
    now: Instant,
    /// State of the checks of the contract, one for each time that the source is read: a query may read a source
    /// twice, and a row must not count as a duplicate of itself.
    checks: Mutex<Vec<ContractCompliance>>,
}

/// Findings of a reader.
#[derive(Debug, Default)]
pub(crate) struct ReadFindings {
    pub(crate) report: ReadReport,
    pub(crate) refused: Vec<RefusedRecord>,
    pub(crate) findings: Vec<CheckFinding>,
}

/// A part of a source that can be read independently.
#[derive(Debug, Clone)]
pub(crate) enum ReadTask {
    Whole(Arc<InputFile>),
    Lines(Arc<InputFile>, Range<u64>),
}

impl ReadTask {
    fn file(&self) -> &Arc<InputFile> {
        match self {
            Self::Whole(file) | Self::Lines(file, _) => file,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Whole(file) => file.size(),
            Self::Lines(_, range) => range.end - range.start,
        }
    }
}

/// Tasks of a source, shared by threads.
#[derive(Debug, Default)]
pub(crate) struct TaskQueue(Mutex<VecDeque<ReadTask>>);

impl TaskQueue {
    pub(crate) fn new(tasks: Vec<ReadTask>) -> Self {
        Self(Mutex::new(tasks.into()))
    }

    pub(crate) fn next(&self) -> Option<ReadTask> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Distributes tasks to `parts` lists of about the same number of bytes: a greedy partition, each task to the
/// smallest list.
pub(crate) fn divide_tasks(tasks: Vec<ReadTask>, parts: usize) -> Vec<Vec<ReadTask>> {
    let mut divided: Vec<(u64, Vec<ReadTask>)> = (0..parts.max(1)).map(|_| (0, vec![])).collect();
    for task in tasks {
        if let Some(smallest) = divided.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            smallest.0 += task.bytes();
            smallest.1.push(task);
        }
    }
    divided.into_iter().map(|(_, tasks)| tasks).collect()
}

/// Rows of a file, in the columns of the source's contract.
pub(crate) struct SourceFileRows<'a> {
    pub(crate) file: &'a Arc<InputFile>,
    pub(crate) batch: RecordBatch,
    /// Indices of the rows in `piece`. `None` if all rows remain.
    kept: Option<Vec<usize>>,
    piece: &'a RowBatch,
    numbers: &'a LineNumbers<'a>,
}

impl SourceFileRows<'_> {
    /// Returns the number of a row in the file, from 1. Lines count for text, rows for Parquet.
    pub(crate) fn row_number(&self, row: usize) -> u64 {
        self.piece.first + self.input_row(row) as u64 + self.numbers.lines_before_piece()
    }

    /// Returns the original text of a row.
    pub(crate) fn raw_row(&self, row: usize) -> Vec<u8> {
        self.piece.raw_row(self.input_row(row))
    }

    /// Returns the index of a row of `batch` in `piece`.
    fn input_row(&self, row: usize) -> usize {
        self.kept.as_ref().map_or(row, |kept| kept[row])
    }
}

/// Line numbers in a part of a file. The lines before the part are counted only if a message needs a number.
struct LineNumbers<'a> {
    file: &'a InputFile,
    start: u64,
    handle: &'a Handle,
    before: OnceCell<u64>,
}

impl LineNumbers<'_> {
    fn lines_before_piece(&self) -> u64 {
        // An error here must not hide the message that needs the number, so a failed count is taken as zero.
        *self.before.get_or_init(|| match self.start {
            0 => 0,
            // The line that continues into the part belongs to the part before it.
            start => self.handle.block_on(lines_before(self.file, start - 1)).unwrap_or(0) + 1,
        })
    }
}

impl SourceReader {
    /// Creates a reader for objects of a format with the given contract.
    ///
    /// # Errors
    /// `InvalidContract`.
    pub(crate) fn new(format: SourceFormat, text: TextSpec, contract: &Contract, now: Instant) -> Result<Self> {
        let mut read = contract.clone();
        for column in &mut read.columns {
            column.reading.bytes_in_text = match format {
                SourceFormat::Json => BytesInText::Base64,
                SourceFormat::Csv => BytesInText::HexOrBase64,
                _ => BytesInText::Own,
            };
        }
        let coercion = Coercion::new(&read)?;
        let checks = Mutex::new(vec![ContractCompliance::new(contract, now)?]);
        let schema = Arc::new(contract.to_arrow());
        Ok(Self { format, text, coercion, guard: None, keys: None, schema, found: Mutex::default(), now, checks })
    }

    /// Treats personal data in the rows.
    ///
    /// # Errors
    /// Errors of treatments that do not fit their columns.
    pub(crate) async fn with_guard(mut self, guard: Arc<TreatedSource>) -> Result<Self> {
        self.schema = guard.schema(&self.schema).await?;
        self.guard = Some(guard);
        Ok(self)
    }

    /// Returns whether rows may have columns that the contract does not.
    pub(crate) fn keeps_extra(&self) -> bool {
        self.format == SourceFormat::Parquet && self.coercion.contract().extra == ExtraColumns::Keep
    }

    /// Reads encrypted Parquet files with these keys.
    pub(crate) fn with_keys(mut self, keys: Option<FileEncryption>) -> Self {
        self.keys = keys;
        self
    }

    fn read_parquet(
        &self,
        file: &Arc<InputFile>,
        handle: &Handle,
        piece: &mut dyn FnMut(RowBatch) -> Result<()>,
    ) -> Result<()> {
        let open = handle.block_on(file.open(self.keys.as_ref()))?;
        self.check_encrypted(&open)?;
        let uuids = UuidColumns::of_parquet(open.metadata().schema(), open.metadata().parquet_schema());
        let mut rows = open.with_batch_rows(crate::read::decode::BATCH).stream(None)?;
        let mut first = 1;
        while let Some(batch) = handle.block_on(rows.next()) {
            let batch = uuids.to_texts(batch.map_err(|e| file.explain_error(e))?)?;
            let count = batch.num_rows() as u64;
            piece(RowBatch { batch, first, raw: UntypedRows::Rows })?;
            first += count;
        }
        Ok(())
    }

    /// Refuses a file with an encrypted column that `[pii]` does not mention: it would be written in plain text.
    fn check_encrypted(&self, open: &OpenFile) -> Result<()> {
        let known = open.has_encrypted() && self.keys.is_some();
        let Some(guard) = self.guard.as_ref().filter(|_| known) else { return Ok(()) };
        let contract = self.coercion.contract();
        for path in open.encrypted() {
            let (root, rest) = path.split_at(path.find('.').unwrap_or(path.len()));
            let is = |name: &String| name.eq_ignore_ascii_case(root);
            let column = contract.columns.iter().find(|c| is(&c.name) || c.reading.renamed_from.iter().any(is));
            let name = format!("{}{rest}", column.map_or(root, |column| &column.name));
            if (column.is_some() || contract.extra == ExtraColumns::Keep) && !guard.names_whole(&name) {
                let message = format!(
                    "column `{name}` is encrypted in the file and missing in [pii]; add it, with `keep` to store it in plain text"
                );
                return Err(Error::new(codes::UNTREATED_COLUMN, message).with_column(name).in_file(open.path()));
            }
        }
        Ok(())
    }

    /// Returns what was found. Call it once, after all rows were read.
    ///
    /// # Errors
    /// `NotUnique` and other rules of the contract that stop the run.
    pub(crate) fn findings(&self) -> Result<ReadFindings> {
        let mut found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if !checks.is_empty() {
            found.findings = checks.swap_remove(0).finish()?;
        }
        Ok(found)
    }

    fn record_finding(&self, f: impl FnOnce(&mut ReadFindings)) {
        f(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns the tasks for these files. Large files with one JSON value a line are split into byte ranges.
    pub(crate) async fn plan_tasks(&self, files: &[Arc<InputFile>]) -> Result<Vec<ReadTask>> {
        let mut tasks = Vec::new();
        // Only UTF-8 guarantees that the byte of a line feed is a line feed at any position.
        let may_divide = self.text.encoding.is_none();
        for file in files {
            let large = may_divide && self.format == SourceFormat::Json && file.size() > 2 * SLICE as u64;
            if !large || !file.has_lines().await? {
                tasks.push(ReadTask::Whole(file.clone()));
                continue;
            }
            let parts = file.size().div_ceil(SLICE as u64);
            let cut = |part: u64| file.size() * part / parts;
            tasks.extend((0..parts).map(|part| ReadTask::Lines(file.clone(), cut(part)..cut(part + 1))));
        }
        Ok(tasks)
    }

    /// Reads tasks until none is left, on a blocking thread. `time` is how often the source was read before: findings
    /// are recorded only the first time.
    ///
    /// # Errors
    /// Errors of the rows, with file and row; errors of the store and of `take`.
    pub(crate) fn run_tasks(
        &self,
        next: &mut dyn FnMut() -> Option<ReadTask>,
        handle: &Handle,
        time: usize,
        take: &mut dyn FnMut(SourceFileRows<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut json = match self.format {
            SourceFormat::Json => Some(JsonLines::new(self.coercion.contract())?),
            _ => None,
        };
        while let Some(task) = next() {
            let file = task.file().clone();
            let start = if let ReadTask::Lines(_, range) = &task { range.start } else { 0 };
            let numbers = LineNumbers { file: &file, start, handle, before: OnceCell::new() };
            let mut own = ReadFindings::default();
            own.report.files = u64::from(start == 0);
            own.report.bytes = task.bytes();
            // Bad rows are collected first, since `piece` borrows `own` while the task is read.
            let mut bad = Vec::new();
            {
                let mut piece = |piece: RowBatch| self.process_piece(&file, &piece, &numbers, time, &mut own, take);
                let mut refuse = |row: BadRow| {
                    bad.push(row);
                    Ok(())
                };
                match &mut json {
                    Some(json) => read_json(json, &task, handle, self.text.encoding, &mut piece, &mut refuse),
                    None if self.format == SourceFormat::Csv => self.read_csv(&file, handle, &mut piece, &mut refuse),
                    None => self.read_parquet(&file, handle, &mut piece),
                }?;
            }
            for row in bad {
                self.refuse_bad_row(row, &numbers, &mut own)?;
            }
            if let Some(json) = &mut json {
                let (extra, renamed) = json.take_findings();
                if let Some(name) = extra.first().filter(|_| self.coercion.contract().extra == ExtraColumns::Refuse) {
                    let message = format!(
                        "the contract does not have `{name}`; add the column, or set `extra` to `drop` or `keep`"
                    );
                    return Err(Error::new(biscuit_schema::codes::EXTRA_COLUMNS, message)
                        .with_column(name)
                        .in_file(file.name()));
                }
                own.report.coercion.dropped.extend(extra);
                own.report.coercion.renamed.extend(renamed);
            }
            if time == 0 {
                self.record_finding(|found| {
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

    /// Runs a batch of untyped rows through all steps and passes the rest to `take`.
    fn process_piece(
        &self,
        file: &Arc<InputFile>,
        piece: &RowBatch,
        numbers: &LineNumbers<'_>,
        time: usize,
        own: &mut ReadFindings,
        take: &mut dyn FnMut(SourceFileRows<'_>) -> Result<()>,
    ) -> Result<()> {
        let rows =
            with_path_columns(&piece.batch, self.coercion.contract(), &file.path_columns, file.name(), piece.first);
        let coerced = rows.and_then(|rows| self.coercion.coerce(&rows, file.name(), piece.first));
        let CoercedRows { batch, kept, refused, report, .. } = coerced.map_err(|e| match e.row() {
            // The coercion counts rows of the part; add the lines before the part.
            Some(row) => e.relocated(file.name(), row + numbers.lines_before_piece()),
            None => e,
        })?;
        own.report.coercion.add(&report);
        for row in refused {
            let number = piece.first + row.row as u64 + numbers.lines_before_piece();
            own.refused.push(refused_record(&row, file, number, piece.raw_row(row.row)));
        }
        let kept = kept.map(|kept| kept.values().set_indices().collect());
        let mut rows = SourceFileRows { file, batch, kept, piece, numbers };
        self.check_rows(&mut rows, time, own)?;
        if let Some(guard) = &self.guard {
            let place = |row: usize| (file.name().to_owned(), rows.row_number(row));
            rows.batch = numbers.handle.block_on(guard.treat_rows(&rows.batch, place))?;
        }
        if rows.batch.num_rows() == 0 { Ok(()) } else { take(rows) }
    }

    /// Moves rows that violate a check with the severity `quarantine` to the refused records.
    fn check_rows(&self, rows: &mut SourceFileRows<'_>, time: usize, own: &mut ReadFindings) -> Result<()> {
        let refused = {
            let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
            while checks.len() <= time {
                checks.push(ContractCompliance::new(self.coercion.contract(), self.now)?);
            }
            checks[time].check(&rows.batch, &|row| (rows.file.name().to_owned(), rows.row_number(row)))?
        };
        if refused.is_empty() {
            return Ok(());
        }
        let mut keep = vec![true; rows.batch.num_rows()];
        for row in refused {
            keep[row.row] = false;
            own.refused.push(refused_record(&row, rows.file, rows.row_number(row.row), rows.raw_row(row.row)));
        }
        let left: Vec<usize> = (0..keep.len()).filter(|row| keep[*row]).collect();
        // Compose the indices: a row of the new batch is a row of the old batch, which is a row of the piece.
        rows.kept = Some(left.into_iter().map(|row| rows.input_row(row)).collect());
        rows.batch = filter_record_batch(&rows.batch, &BooleanArray::from(keep))
            .map_err(|e| Error::internal("cannot filter rows").with_source(e))?;
        Ok(())
    }

    /// Records a line or record that is not a row, or stops the run, as the contract's `on_error` demands.
    fn refuse_bad_row(&self, bad: BadRow, numbers: &LineNumbers<'_>, own: &mut ReadFindings) -> Result<()> {
        let (file, number) = (numbers.file.name(), bad.row + numbers.lines_before_piece());
        let e = bad.error.at(file, number);
        if self.coercion.contract().on_error == OnError::Fail {
            return Err(e);
        }
        own.report.invalid += 1;
        own.refused.push(RefusedRecord::new(file, number, &e, bad.raw));
        Ok(())
    }

    fn read_csv(
        &self,
        file: &Arc<InputFile>,
        handle: &Handle,
        piece: &mut dyn FnMut(RowBatch) -> Result<()>,
        refuse: &mut dyn FnMut(BadRow) -> Result<()>,
    ) -> Result<()> {
        let columns = &self.coercion.contract().columns;
        let known: Vec<&str> = columns
            .iter()
            .flat_map(|c| std::iter::once(&c.name).chain(&c.reading.renamed_from))
            .map(String::as_str)
            .collect();
        let names = match self.text.csv.header {
            CsvHeader::Present => CsvNames::InHeader(&known),
            CsvHeader::Absent => {
                let in_path = |name: &str| file.path_columns.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
                CsvNames::Given(columns.iter().map(|c| c.name.clone()).filter(|name| !in_path(name)).collect())
            }
        };
        let text = CsvText::new(file, file.open_text(handle, self.text.encoding)?);
        csv_rows(text, &self.text.csv, names, piece, refuse)
    }
}

/// Returns the quarantine record of a refused row.
fn refused_record(row: &RefusedRow, file: &InputFile, number: u64, raw: Vec<u8>) -> RefusedRecord {
    RefusedRecord::new(file.name(), number, &row.error().at(file.name(), number), raw)
}

fn read_json(
    json: &mut JsonLines,
    task: &ReadTask,
    handle: &Handle,
    encoding: Option<TextEncoding>,
    piece: &mut dyn FnMut(RowBatch) -> Result<()>,
    refuse: &mut dyn FnMut(BadRow) -> Result<()>,
) -> Result<()> {
    match task {
        ReadTask::Lines(file, range) => {
            let bytes = handle.block_on(lines_in(file, range.clone()))?;
            json.read(&bytes, 1, piece, refuse)
        }
        ReadTask::Whole(file) => {
            let mut slices = file.json_lines(handle, encoding)?;
            while let Some(slice) = slices.next()? {
                json.read(&slice.bytes, slice.first, piece, refuse)?;
            }
            Ok(())
        }
    }
}
