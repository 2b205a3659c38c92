use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use biscuit_change::{RefusedRecord, TextEncoding};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::{DataFile, FileEncryption, OpenFile};
use biscuit_schema::{
    BytesInText, CheckFinding, CoercedRows, Coercion, CoercionReport, Contract, ContractCompliance, ExtraColumns,
    OnError, RefusedRow, UuidColumns,
};
use futures::StreamExt;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::read::decode::{BadRow, CsvNames, RowBatch, UntypedRows, csv_rows};
use crate::read::input::{InputFile, SLICE, lines_before, lines_in};
use crate::read::json::JsonLines;
use crate::read::path_columns::with_path_columns;
use crate::shape::treatment::TreatedSource;
use crate::spec::{SourceFormat, TextSpec};

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
pub(crate) struct SourceReader {
    pub(crate) format: SourceFormat,
    pub(crate) text: TextSpec,
    pub(crate) coercion: Coercion,
    /// What becomes of personal data.
    guard: Option<Arc<TreatedSource>>,
    /// Of Parquet files that are encrypted.
    keys: Option<FileEncryption>,
    /// The columns of the rows, behind that.
    pub(crate) schema: SchemaRef,
    found: Mutex<ReadFindings>,
    /// When the run began, for freshness.
    now: Instant,
    /// What the contract's checks have seen, for each time that the source is read: a query may read it twice.
    checks: Mutex<Vec<ContractCompliance>>,
}

/// What came up while rows were read.
#[derive(Debug, Default)]
pub(crate) struct ReadFindings {
    pub(crate) report: ReadReport,
    pub(crate) refused: Vec<RefusedRecord>,
    pub(crate) findings: Vec<CheckFinding>,
}

/// A part of a source that is read by itself.
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
            Self::Whole(file) => file.size,
            Self::Lines(_, range) => range.end - range.start,
        }
    }
}

/// The parts of a source, to be worked on by several.
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

/// Divides tasks among so many, about evenly.
pub(crate) fn divide(tasks: Vec<ReadTask>, parts: usize) -> Vec<Vec<ReadTask>> {
    let mut divided: Vec<(u64, Vec<ReadTask>)> = (0..parts.max(1)).map(|_| (0, vec![])).collect();
    for task in tasks {
        if let Some(minimum) = divided.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            minimum.0 += task.bytes();
            minimum.1.push(task);
        }
    }
    divided.into_iter().map(|(_, tasks)| tasks).collect()
}

/// Rows of a file, in the columns of the source's contract.
pub(crate) struct FileRows<'a> {
    pub(crate) file: &'a Arc<InputFile>,
    pub(crate) batch: RecordBatch,
    /// Which rows of the piece they are; none if they are all.
    kept: Option<Vec<usize>>,
    piece: &'a RowBatch,
    numbers: &'a LineNumbers<'a>,
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
        self.kept.as_ref().map_or(row, |kept| kept[row])
    }
}

/// Numbers of lines in a part of a file: what is before it is counted when it is asked for.
struct LineNumbers<'a> {
    file: &'a InputFile,
    start: u64,
    handle: &'a Handle,
    before: OnceCell<u64>,
}

impl LineNumbers<'_> {
    fn before(&self) -> u64 {
        // A number in a message is not worth failing for, and what it was counted in is read by now.
        *self.before.get_or_init(|| match self.start {
            0 => 0,
            // The line that goes on into the part is not the part's.
            start => self.handle.block_on(lines_before(self.file, start - 1)).unwrap_or(0) + 1,
        })
    }
}

impl SourceReader {
    /// How objects of this format become rows of a contract.
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

    /// The same, of rows without personal data.
    ///
    /// # Errors
    /// Those of treatments that do not go with their columns.
    pub(crate) async fn with_guard(mut self, guard: Arc<TreatedSource>) -> Result<Self> {
        self.schema = guard.schema(&self.schema).await?;
        self.guard = Some(guard);
        Ok(self)
    }

    /// Whether rows may have columns that its contract does not.
    pub(crate) fn keeps_extra(&self) -> bool {
        self.format == SourceFormat::Parquet && self.coercion.contract().extra == ExtraColumns::Keep
    }

    /// The same, with keys of encrypted Parquet files.
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
        let path = file.name.to_string();
        let data = DataFile { path, object: file.path.clone(), size: file.size, partition: vec![] };
        let open = OpenFile::open_with(file.store.clone(), data, self.keys.as_ref());
        let open = handle.block_on(open).map_err(|e| file.failed(e))?;
        self.check_encrypted(&open)?;
        let uuids = UuidColumns::of_parquet(open.metadata().schema(), open.metadata().parquet_schema());
        let mut rows = open.with_batch_rows(crate::read::decode::BATCH).stream(None)?;
        let mut first = 1;
        while let Some(batch) = handle.block_on(rows.next()) {
            let batch = uuids.texts(batch.map_err(|e| file.failed(e))?)?;
            let count = batch.num_rows() as u64;
            piece(RowBatch { batch, first, raw: UntypedRows::Rows })?;
            first += count;
        }
        Ok(())
    }

    /// What a file encrypts is not written in the clear by saying nothing.
    fn check_encrypted(&self, open: &OpenFile) -> Result<()> {
        let known = open.has_encrypted() && self.keys.is_some();
        let Some(guard) = self.guard.as_ref().filter(|_| known) else { return Ok(()) };
        let contract = self.coercion.contract();
        for path in open.encrypted() {
            let (root, rest) = path.split_at(path.find('.').unwrap_or(path.len()));
            let is = |name: &String| name.eq_ignore_ascii_case(root);
            let column = contract.columns.iter().find(|c| is(&c.name) || c.reading.renamed_from.iter().any(is));
            let name = format!("{}{rest}", column.map_or(root, |column| &column.name));
            if (column.is_some() || contract.extra == ExtraColumns::Keep) && !guard.names_all(&name) {
                let message = format!(
                    "column `{name}` is encrypted in the file, and [pii] says nothing of it; `keep` lets it through"
                );
                return Err(Error::usage("UntreatedColumn", message).with_column(name).in_file(&open.file.path));
            }
        }
        Ok(())
    }

    /// What came up; it is asked once, when everything is read.
    ///
    /// # Errors
    /// The rules of the contract that stop the run.
    pub(crate) fn found(&self) -> Result<ReadFindings> {
        let mut found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if !checks.is_empty() {
            found.findings = checks.swap_remove(0).finish()?;
        }
        Ok(found)
    }

    fn note(&self, f: impl FnOnce(&mut ReadFindings)) {
        f(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The parts of these files: large ones of lines are divided.
    pub(crate) async fn tasks(&self, files: &[Arc<InputFile>]) -> Result<Vec<ReadTask>> {
        let mut tasks = Vec::new();
        // Byte ranges can be decoded separately in UTF-8 only.
        let may_divide = self.text.encoding.is_none();
        for file in files {
            let large = may_divide && self.format == SourceFormat::Json && file.size > 2 * SLICE as u64;
            if !large || !file.has_lines().await? {
                tasks.push(ReadTask::Whole(file.clone()));
                continue;
            }
            let parts = file.size.div_ceil(SLICE as u64);
            let cut = |part: u64| file.size * part / parts;
            tasks.extend((0..parts).map(|part| ReadTask::Lines(file.clone(), cut(part)..cut(part + 1))));
        }
        Ok(tasks)
    }

    /// Reads tasks until there is none, on a blocking thread. `time` is how often the source was read before: what comes up is noted the
    /// first time.
    ///
    /// # Errors
    /// What is wrong with the rows, with file and row; those of the store and of `take`.
    pub(crate) fn work(
        &self,
        next: &mut dyn FnMut() -> Option<ReadTask>,
        handle: &Handle,
        time: usize,
        take: &mut dyn FnMut(FileRows<'_>) -> Result<()>,
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
            let mut bad = Vec::new();
            {
                let mut piece = |piece: RowBatch| self.piece(&file, &piece, &numbers, time, &mut own, take);
                let mut refuse = |row: BadRow| {
                    bad.push(row);
                    Ok(())
                };
                match &mut json {
                    Some(json) => read_json(json, &task, (handle, self.text.encoding), &mut piece, &mut refuse),
                    None if self.format == SourceFormat::Csv => self.read_csv(&file, handle, &mut piece, &mut refuse),
                    None => self.read_parquet(&file, handle, &mut piece),
                }?;
            }
            for row in bad {
                self.bad(row, &numbers, &mut own)?;
            }
            if let Some(json) = &mut json {
                let (extra, renamed) = json.found();
                if let Some(name) = extra.first().filter(|_| self.coercion.contract().extra == ExtraColumns::Refuse) {
                    let message = format!("the contract does not have `{name}`");
                    return Err(Error::data("ExtraColumns", message).with_column(name).in_file(&file.name));
                }
                own.report.coercion.dropped.extend(extra);
                own.report.coercion.renamed.extend(renamed);
            }
            if time == 0 {
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
        piece: &RowBatch,
        numbers: &LineNumbers<'_>,
        time: usize,
        own: &mut ReadFindings,
        take: &mut dyn FnMut(FileRows<'_>) -> Result<()>,
    ) -> Result<()> {
        let rows = with_path_columns(&piece.batch, self.coercion.contract(), file, piece.first);
        let coerced = rows.and_then(|rows| self.coercion.coerce(&rows, &file.name, piece.first));
        let CoercedRows { batch, kept, refused, report } = coerced.map_err(|e| match e.row() {
            Some(row) => e.relocated(&file.name, row + numbers.before()),
            None => e,
        })?;
        own.report.coercion.add(&report);
        for row in refused {
            let number = piece.first + row.row as u64 + numbers.before();
            own.refused.push(refuse(&row, file, number, piece.raw(row.row)));
        }
        let kept = kept.map(|kept| kept.values().set_indices().collect());
        let mut rows = FileRows { file, batch, kept, piece, numbers };
        self.check(&mut rows, time, own)?;
        if let Some(guard) = &self.guard {
            let place = |row: usize| (file.name.to_string(), rows.number(row));
            rows.batch = numbers.handle.block_on(guard.rows(&rows.batch, place))?;
        }
        if rows.batch.num_rows() == 0 { Ok(()) } else { take(rows) }
    }

    /// Puts rows aside that the contract's checks put aside.
    fn check(&self, rows: &mut FileRows<'_>, time: usize, own: &mut ReadFindings) -> Result<()> {
        let refused = {
            let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
            while checks.len() <= time {
                checks.push(ContractCompliance::new(self.coercion.contract(), self.now)?);
            }
            checks[time].check(&rows.batch, &|row| (rows.file.name.to_string(), rows.number(row)))?
        };
        if refused.is_empty() {
            return Ok(());
        }
        let mut keep = vec![true; rows.batch.num_rows()];
        for row in refused {
            keep[row.row] = false;
            own.refused.push(refuse(&row, rows.file, rows.number(row.row), rows.raw(row.row)));
        }
        let left: Vec<usize> = (0..keep.len()).filter(|row| keep[*row]).collect();
        rows.kept = Some(left.into_iter().map(|row| rows.input_row(row)).collect());
        rows.batch = filter_record_batch(&rows.batch, &BooleanArray::from(keep))
            .map_err(|e| Error::internal("rows could not be left out").with_source(e))?;
        Ok(())
    }

    /// A line or record that is no row.
    fn bad(&self, bad: BadRow, numbers: &LineNumbers<'_>, own: &mut ReadFindings) -> Result<()> {
        let (file, number) = (&numbers.file.name, bad.row + numbers.before());
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
            true => CsvNames::InHeader(&known),
            false => {
                let in_path = |name: &str| file.path_columns.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
                CsvNames::Given(columns.iter().map(|c| c.name.clone()).filter(|name| !in_path(name)).collect())
            }
        };
        csv_rows(&file.name, file.text(handle, self.text.encoding)?, &self.text.csv, names, piece, refuse)
    }
}

fn refuse(row: &RefusedRow, file: &InputFile, number: u64, raw: Vec<u8>) -> RefusedRecord {
    RefusedRecord::new(&file.name, number, &row.error().at(&file.name, number), raw)
}

fn read_json(
    json: &mut JsonLines,
    task: &ReadTask,
    (handle, encoding): (&Handle, Option<TextEncoding>),
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
