//! Reads files of plain rows in Parquet, Avro, JSON and CSV. Columns of JSON and CSV without a declared type get one
//! type for all files of the run, so their files are read twice: for the types, and for the rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_merge::{BadRows, ChangeBatch, ChangeColumns, OpMap};
use biscuit_schema::{Contract, ContractColumn, ExtraColumns};
use bytes::Bytes;

use crate::columnar::rows::{self, is_columnar};
use crate::csv::dialect::{CsvDialect, without_packing};
use crate::csv::records::{CsvForm, CsvRows};
use crate::files::chunks::{RecordSeparation, TextChunk, TextChunks, TextSettings};
use crate::files::encoding::TextEncoding;
use crate::files::parts::{ChunkReader, TextForm, read_waiting};
use crate::json::scanner::JsonScanner;
use crate::records::change_records::ChangeRecords;
use crate::records::refused::{QuarantineRule, RowsInProgress, quarantine_failing_rows};
use crate::rows::json_rows::{JsonRows, infer_lines};
use crate::setters::{reader_setters, text_setters};
use crate::values::declared::{
    LossCounter, as_written_in, coerce_to_contract, find_declared_column, not_null_columns, of_type, with_defaults,
};
use crate::values::learned_types::LearnedTypes;
use crate::values::text::{empty_file, is_key_or_header_file};

/// Options of a [`RowsReader`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct RowsOptions {
    /// Column of operation codes, which is not stored. Default: none, so that every row is an upsert.
    pub op: Option<String>,
    /// Operation codes other than the ones of [`parse_op`](crate::parse_op).
    pub op_map: OpMap,
    /// Column with the delete flag, which is not stored: true, or the time of the delete, means that the row is
    /// deleted. Default: none.
    pub delete_column: Option<String>,
    /// Declared columns and types. Other columns are handled as `extra` of the contract tells; by default they are
    /// dropped and listed in [`ChangeRecords::dropped_columns`].
    pub contract: Option<Contract>,
    /// Types of the columns of JSON and CSV files if there is no contract, usually the schema of the table.
    pub expected: Option<SchemaRef>,
    /// Placeholder for unchanged values: a text, or `hex:` and hexadecimal digits. Empty means no placeholder.
    /// Default: [`PLACEHOLDER`](crate::PLACEHOLDER).
    pub placeholder: Option<String>,
    /// Handling of records that cannot be used. Default: the first one is an error.
    pub bad_rows: BadRows,
    /// Maximum size of one file after decompression or decoding, in bytes. A larger file is refused with `TooLarge`.
    ///
    /// Default: none for plain text; for compressed text 250 times the size of the file, or 64 MiB if that is more; for
    /// rows of Parquet and Avro 2,000 times the size of the file, or 256 MiB if that is more.
    pub max_decompressed: Option<u64>,
    /// Maximum size of one record in a text file, in bytes: a line of JSON, or a record of CSV. A larger record is
    /// refused with `TooLarge`. Default: 64 MiB. The limit cannot be raised above 1 GiB.
    pub max_record: Option<u64>,
    /// Dialect of CSV files.
    pub csv: CsvDialect,
    /// Encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
}

impl RowsOptions {
    reader_setters!();
    text_setters!();

    /// Sets the column of operation codes. A file without this column is a full load: all its rows are upserts.
    pub fn with_op(mut self, column: impl Into<String>) -> Self {
        self.op = Some(column.into());
        self
    }

    /// Sets operation codes other than the ones of [`parse_op`](crate::parse_op).
    pub fn with_op_map(mut self, map: OpMap) -> Self {
        self.op_map = map;
        self
    }

    /// Sets the column with the delete flag.
    pub fn with_delete_column(mut self, column: impl Into<String>) -> Self {
        self.delete_column = Some(column.into());
        self
    }

    /// Sets the types of the columns of JSON and CSV files. Ignored if there is a contract.
    pub fn with_expected(mut self, schema: SchemaRef) -> Self {
        self.expected = Some(schema);
        self
    }

    /// Returns the columns that say how each row changes the table, for [`row_changes`](crate::row_changes).
    pub fn change_columns(&self) -> ChangeColumns {
        let mut columns = ChangeColumns::default().with_op_map(self.op_map.clone());
        columns.op.clone_from(&self.op);
        columns.delete_column.clone_from(&self.delete_column);
        columns.placeholder.clone_from(&self.placeholder);
        columns.with_not_null(self.contract.as_ref().map(not_null_columns).unwrap_or_default())
    }

    /// Returns whether a column is read but not stored.
    pub(crate) fn is_input_only(&self, name: &str) -> bool {
        self.op.as_deref() == Some(name) || self.delete_column.as_deref() == Some(name)
    }

    /// Returns the declared column for a column of a text file, if there is one. Columns that are not stored are read
    /// as text.
    fn declared_column(&self, name: &str) -> Option<ContractColumn> {
        match self.is_input_only(name) {
            true => Some(of_type(name, &DataType::Utf8)),
            false => find_declared_column(self.contract.as_ref(), self.expected.as_ref(), name),
        }
    }
}

/// Reads files of plain rows. Without a contract, the types of JSON and CSV columns are inferred from all files of the
/// run, so their records are built by [`finish`](Self::finish).
///
/// ```
/// use biscuit_change::{ChangeOp, RowsOptions, RowsReader};
///
/// let lines = "{\"id\":1,\"op\":\"I\"}\n{\"id\":2,\"op\":\"-U\"}\n{\"id\":3,\"op\":\"D\"}\n";
/// let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
/// reader.read("a.jsonl", lines.into())?;
/// let changes = reader.finish()?;
///
/// assert_eq!(changes.batches[0].ops, [ChangeOp::Upsert, ChangeOp::Delete]);
/// assert_eq!(changes.batches[0].places, [1, 3]);
/// assert_eq!(changes.ignored, 1); // the image before an update
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct RowsReader {
    settings: Arc<RowsSettings>,
    changes: ChangeRecords,
    scanner: JsonScanner,
    types: LearnedTypes,
}

/// Settings that do not change while rows are read.
#[derive(Debug, Default)]
struct RowsSettings {
    options: RowsOptions,
    quarantine_rule: QuarantineRule,
    change_columns: ChangeColumns,
}

impl RowsReader {
    /// Creates a reader.
    pub fn new(options: RowsOptions) -> Self {
        let settings = RowsSettings {
            quarantine_rule: QuarantineRule::new(options.bad_rows, options.contract.as_ref()),
            change_columns: options.change_columns(),
            options,
        };
        Self { settings: Arc::new(settings), ..Self::default() }
    }

    /// Reads one file. Parquet and Avro are recognized by their first bytes, CSV by the extension (`.csv`, `.csv.gz`,
    /// `.tsv`); any other file is JSON.
    ///
    /// # Errors
    /// `EmptyFile`, `UnreadableParquet`, `UnreadableAvro`, `TruncatedInput`, `InvalidText`, `InvalidCsv`, and the
    /// errors of [`row_changes`](crate::row_changes).
    pub fn read(&mut self, file: &str, bytes: Bytes) -> Result<()> {
        self.read_as(file, bytes, None)
    }

    /// Reads a quarantined record again from [`RefusedRecord::raw`](crate::RefusedRecord::raw). The record keeps its
    /// row number in the original file.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub fn read_record(&mut self, file: &str, row: u64, raw: Bytes) -> Result<()> {
        self.read_as(file, raw, Some(row))
    }

    fn read_as(&mut self, file: &str, bytes: Bytes, row: Option<u64>) -> Result<()> {
        let name: Arc<str> = file.into();
        if bytes.is_empty() && !is_key_or_header_file(file) {
            return Err(empty_file(file));
        }
        let plain = without_packing(file).to_ascii_lowercase();
        if is_columnar(&bytes) || plain.ends_with(".parquet") || plain.ends_with(".avro") {
            let settings = self.settings.clone();
            let limit = settings.options.max_decompressed;
            for part in rows::read_parts(&name, bytes, &settings.quarantine_rule, row, limit)? {
                self.add_file_rows(part?, &name)?;
            }
            return Ok(());
        }
        let Some(mut form) = self.text_form(file)? else { return Ok(()) };
        // Quarantined records are UTF-8, whatever the encoding of their file was.
        form.settings.encoding = form.settings.encoding.filter(|_| row.is_none());
        let mut chunks = TextChunks::of_bytes(&name, &bytes, form.separation, &form.settings, row)?;
        while let Some(chunk) = chunks.next_chunk()? {
            match self.needs_types() {
                true => self.types.waiting.push(chunk),
                false => self.read_chunk(chunk)?,
            }
        }
        Ok(())
    }

    /// Reads rows that the caller decoded from a Parquet or Avro file; `first` is the number of the first row in the
    /// file, from 1.
    ///
    /// # Errors
    /// The errors of [`row_changes`](crate::row_changes).
    pub fn read_batch(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        self.add_file_rows(RowsInProgress::from_batch(rows, first, &self.settings.quarantine_rule), file)
    }

    /// Takes the change records that are ready. Records from text without a contract are returned by
    /// [`finish`](Self::finish).
    pub fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes.batches)
    }

    /// Returns the column that stores a column of a text file; `None` if it is dropped.
    ///
    /// # Errors
    /// `ExtraColumns`.
    fn column_of(
        settings: &RowsSettings,
        types: &LearnedTypes,
        file: &str,
        name: &str,
    ) -> Result<Option<ContractColumn>> {
        if let Some(declared) = settings.options.declared_column(name) {
            return Ok(Some(declared));
        }
        match settings.options.contract.as_ref().map(|contract| contract.extra) {
            None | Some(ExtraColumns::Keep) => Ok(Some(of_type(name, &types.type_of(name)))),
            Some(ExtraColumns::Refuse) => {
                let message = format!("the contract does not have column `{name}`");
                Err(Error::new(biscuit_schema::codes::EXTRA_COLUMNS, message).with_column(name).in_file(file))
            }
            Some(_) => Ok(None),
        }
    }

    /// Counts rows of a file without the operation column, and adds them.
    fn add_file_rows(&mut self, part: RowsInProgress, file: &Arc<str>) -> Result<()> {
        if self.settings.options.op.as_ref().is_some_and(|op| part.batch.column_by_name(op).is_none()) {
            self.changes.without_op += part.batch.num_rows() as u64;
        }
        self.add_rows(part, file)
    }

    /// Converts rows to change records, and quarantines invalid ones if the options allow it.
    fn add_rows(&mut self, part: RowsInProgress, file: &Arc<str>) -> Result<()> {
        let (settings, changes) = (self.settings.clone(), &mut self.changes);
        let options = &settings.options;
        // If a row is invalid, `sift` calls this again with parts of the rows, so the counters are updated
        // afterwards.
        let mut make = |part: &RowsInProgress| {
            let Some(contract) = &options.contract else {
                let (batch, bad) = as_written_in(&part.batch, options.expected.as_ref(), part.at(file))?;
                return match bad.into_iter().next() {
                    Some((_, e)) => Err(e),
                    None => Ok((
                        RowsInProgress { batch, ..part.clone() }.into_changes(file, &settings.change_columns)?,
                        LossCounter::default(),
                    )),
                };
            };
            let passed = |name: &str| options.is_input_only(name);
            let mut complying = coerce_to_contract(&part.batch, part.typing, contract, &passed, part.at(file))?;
            if let Some((_, e)) = complying.bad.into_iter().next() {
                return Err(e);
            }
            let batch = with_defaults(&complying.rows, contract, &mut complying.lost)?;
            let part = RowsInProgress { batch, ..part.clone() };
            Ok((part.into_changes(file, &settings.change_columns)?, complying.lost))
        };
        for ((batch, ignored), lost) in
            quarantine_failing_rows(file, part, &settings.quarantine_rule, &mut changes.refused, &mut make)?
        {
            changes.ignored += ignored;
            changes.batches.push(batch);
            changes.add_losses(lost);
        }
        Ok(())
    }

    /// Returns the change records of all files, in the order of reading. Records from text without a contract come
    /// last.
    ///
    /// # Errors
    /// `InvalidJson`, `DuplicateColumn`, `WrongType`, and the errors of [`row_changes`](crate::row_changes), with
    /// file, row and column.
    pub fn finish(mut self) -> Result<ChangeRecords> {
        let waiting = std::mem::take(&mut self.types.waiting);
        read_waiting(&mut self, waiting)?;
        Ok(self.changes)
    }

    fn csv_form(&self, dialect: CsvDialect) -> CsvForm {
        CsvForm { dialect, names: None, null: String::new() }
    }
}

impl ChunkReader for RowsReader {
    fn text_form(&mut self, file: &str) -> Result<Option<TextForm>> {
        if is_key_or_header_file(file) {
            self.changes.passed_over.push(file.to_owned());
            return Ok(None);
        }
        let options = &self.settings.options;
        let plain = without_packing(file).to_ascii_lowercase();
        let separation = match plain.ends_with(".csv") || plain.ends_with(".tsv") {
            true => RecordSeparation::Csv(options.csv.of_file(file)),
            false => RecordSeparation::Json,
        };
        let settings = TextSettings {
            encoding: options.encoding,
            max_decompressed: options.max_decompressed,
            max_record: options.max_record,
        };
        Ok(Some(TextForm { separation, settings }))
    }

    fn needs_types(&self) -> bool {
        let contract = self.settings.options.contract.as_ref();
        !self.types.are_known() && contract.is_none_or(|contract| contract.extra == ExtraColumns::Keep)
    }

    fn learn_types(&mut self, chunk: TextChunk) -> Result<()> {
        let settings = self.settings.clone();
        let is_undeclared = |name: &str| settings.options.declared_column(name).is_none();
        match chunk.separation {
            RecordSeparation::Json => infer_lines(&chunk, &mut self.scanner, &is_undeclared, &mut self.types.learning),
            RecordSeparation::Csv(dialect) => {
                // Invalid records are errors when they are read.
                let rule = QuarantineRule::new(BadRows::Quarantine, None);
                let rows = CsvRows::parse(chunk, self.csv_form(dialect), &rule, &mut vec![])?;
                for (at, _) in rows.names.iter().enumerate().filter(|(_, name)| is_undeclared(name)) {
                    rows.infer_column(at, &mut self.types.learning);
                }
                Ok(())
            }
        }
    }

    fn end_types(&mut self, learner: Self) {
        self.changes.conflicts.extend(self.types.set(learner.types.learning));
    }

    fn new_part(&self) -> Option<Self> {
        Some(Self {
            settings: self.settings.clone(),
            types: self.types.for_part(),
            scanner: self.scanner.clone(),
            ..Self::default()
        })
    }

    fn read_chunk(&mut self, chunk: TextChunk) -> Result<()> {
        let (settings, types) = (self.settings.clone(), self.types.for_part());
        let (file, rule) = (chunk.file.clone(), &settings.quarantine_rule);
        let refused = self.changes.refused.len();
        let mut dropped = Vec::new();
        let mut typed = |name: &str| {
            let column = Self::column_of(&settings, &types, &file, name)?;
            if column.is_none() {
                dropped.push(name.to_owned());
            }
            Ok(column)
        };
        match chunk.separation {
            RecordSeparation::Csv(dialect) => {
                let rows = CsvRows::parse(chunk, self.csv_form(dialect), rule, &mut self.changes.refused)?;
                let part = rows.to_typed_rows(&mut typed, rule, &mut self.changes)?;
                self.add_file_rows(part, &file)?;
            }
            RecordSeparation::Json => {
                let mut scanner = std::mem::take(&mut self.scanner);
                let mut rows = JsonRows::new(chunk)?;
                let mut lines = rows.lines();
                let op = settings.options.op.as_deref();
                while let Some(part) = lines.next_part(&mut scanner, &mut typed, op, rule, &mut self.changes)? {
                    self.add_rows(part, &file)?;
                }
                self.scanner = scanner;
            }
        }
        self.changes.add_losses(LossCounter { dropped, ..LossCounter::default() });
        self.changes.refused[refused..].sort_by_key(|record| record.row);
        Ok(())
    }

    fn read_rows(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        self.read_batch(file, rows, first)
    }

    fn add_part(&mut self, part: Self) -> Result<()> {
        self.types.learning.append(part.types.learning);
        self.changes.append(part.changes);
        Ok(())
    }

    fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes.batches)
    }
}
