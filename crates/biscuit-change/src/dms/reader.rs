//! Reads files that AWS DMS wrote to S3. The names of the files and the settings of the S3 endpoint determine what a
//! file contains, since DMS files have no schema.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use biscuit_merge::{ChangeBatch, ChangeColumns, ParsedOp, RefusedRecord};
use biscuit_schema::{ContractColumn, ExtraColumns};
use bytes::Bytes;

use crate::codes;
use crate::columnar::rows::read_parts;
use crate::csv::records::{self, CsvForm, CsvRows};
use crate::dms::file_name::{DmsFile, DmsFileKind};
use crate::dms::options::{DmsOptions, FILE, ROW};
use crate::dms::rows::DmsChangeBuilder;
use crate::files::chunks::{RecordSeparation, TextChunk, TextChunks, TextSettings};
use crate::files::parts::{ChunkReader, TextForm, read_waiting};
use crate::records::change_records::ChangeRecords;
use crate::records::refused::{QuarantineRule, RowsInProgress, quarantine_failing_rows};
use crate::tables::name::{SourceTable, check_one};
use crate::values::declared::{not_null_columns, of_type};
use crate::values::learned_types::LearnedTypes;
use crate::values::text::empty_file;

/// Reads files that AWS DMS wrote to S3: full loads and changes in CSV and Parquet, and transaction files.
///
/// ```
/// use biscuit_change::{ChangeOp, DmsOptions, DmsReader};
/// use biscuit_schema::Contract;
///
/// let contract = Contract::from_json(r#"{"key": ["id"], "columns": [
///     {"name": "id", "type": "int"}, {"name": "item", "type": "string"}]}"#)?;
/// let mut reader = DmsReader::new(DmsOptions::default().with_contract(contract));
/// reader.read("shop/orders/LOAD00000001.csv", "1,cup\n2,mug\n".into())?;
/// reader.read("shop/orders/20240506-130501123.csv", "U,2,jug\nD,1,cup\n".into())?;
/// let changes = reader.finish()?;
///
/// assert_eq!(changes.len(), 4);
/// assert_eq!(changes.batches[1].ops, [ChangeOp::Upsert, ChangeOp::Delete]);
/// assert_eq!(changes.order, ["__dms_file", "__dms_row"]);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug)]
pub struct DmsReader {
    settings: Arc<DmsSettings>,
    tables: BTreeSet<SourceTable>,
    changes: ChangeRecords,
    types: LearnedTypes,
}

/// Settings that do not change while files are read.
#[derive(Debug)]
struct DmsSettings {
    options: DmsOptions,
    quarantine_rule: QuarantineRule,
    change_columns: ChangeColumns,
    /// Whether the records are ordered by file and row.
    by_place: bool,
}

impl DmsReader {
    /// Creates a reader.
    pub fn new(options: DmsOptions) -> Self {
        let declared = options.contract.as_ref().map(|c| c.order.clone()).unwrap_or_default();
        let named = if options.order.is_empty() { declared } else { options.order.clone() };
        let by_place = named.is_empty();
        let order = if by_place { vec![FILE.to_owned(), ROW.to_owned()] } else { named };
        let changes = ChangeRecords { order, key: options.key().to_vec(), ..ChangeRecords::default() };
        // DMS writes no placeholder, so the text of Debezium's placeholder is an ordinary value.
        let change_columns = ChangeColumns::default()
            .with_op(&options.op)
            .with_op_map(options.op_map.clone())
            .with_placeholder("")
            .with_not_null(options.contract.as_ref().map(not_null_columns).unwrap_or_default());
        let quarantine_rule = QuarantineRule::new(options.bad_rows, options.contract.as_ref());
        Self {
            settings: Arc::new(DmsSettings { options, quarantine_rule, change_columns, by_place }),
            tables: BTreeSet::new(),
            changes,
            types: LearnedTypes::default(),
        }
    }

    /// Reads one file. Parquet is recognized by its first bytes; any other file is CSV, plain or compressed.
    ///
    /// The name tells the content: `LOAD…` is a full load, `CDC_TXN-…` contains transactions, `YYYYMMDD-HHMMSSmmm`
    /// changes.
    ///
    /// # Errors
    /// `UnknownDmsFile` for another name if the records are ordered by file; `UntypedRecords` for a file without a
    /// header if there is no contract; `InvalidCsv`, `UnreadableParquet`, `EmptyFile`, `TruncatedInput`, `InvalidText`.
    pub fn read(&mut self, file: &str, bytes: Bytes) -> Result<()> {
        self.read_as(file, bytes, None)
    }

    /// Reads a quarantined record again from [`RefusedRecord::raw`]. The record keeps its row number in the original
    /// file.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub fn read_record(&mut self, file: &str, row: u64, raw: Bytes) -> Result<()> {
        self.read_as(file, raw, Some(row))
    }

    /// Reads rows that the caller decoded from a Parquet file; `first` is the number of the first row in the file,
    /// from 1.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub fn read_batch(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        let part = RowsInProgress::from_batch(rows, first, &self.settings.quarantine_rule);
        match self.parse_name(file)? {
            Some(named) => self.add_rows(part, file, &named),
            None => Ok(()),
        }
    }

    /// Returns whether a file may contain records of the wanted table, by its name. A file of another table is
    /// counted.
    ///
    /// # Errors
    /// `UnknownDmsFile`.
    pub fn wants_file(&mut self, file: &str) -> Result<bool> {
        let wanted = self.parse_name(file)?.is_some();
        self.changes.other_tables += u64::from(!wanted);
        Ok(wanted)
    }

    /// Takes the change records that are ready. Records from CSV without a contract are returned by
    /// [`finish`](Self::finish).
    pub fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes.batches)
    }

    /// Returns the key columns and the order columns, as far as the options determine them.
    pub fn key_and_order(&self) -> (&[String], &[String]) {
        (&self.changes.key, &self.changes.order)
    }

    /// Parses the name of a file; returns `None` for a file of another table.
    fn parse_name(&mut self, file: &str) -> Result<Option<DmsFile>> {
        let named = DmsFile::parse(file);
        if named.kind == DmsFileKind::Unknown && self.settings.by_place {
            let message =
                "the name is neither a full load (`LOAD…`) nor a change file with its time; name the order columns";
            return Err(Error::new(codes::UNKNOWN_DMS_FILE, message).in_file(file));
        }
        let wanted =
            named.kind == DmsFileKind::Transactions || self.is_wanted(named.schema.as_deref(), named.table.as_deref());
        Ok(wanted.then_some(named))
    }

    fn read_as(&mut self, file: &str, bytes: Bytes, row: Option<u64>) -> Result<()> {
        if bytes.is_empty() {
            return Err(empty_file(file));
        }
        let Some(named) = self.parse_name(file)? else {
            self.changes.other_tables += 1;
            return Ok(());
        };
        let name: Arc<str> = file.into();
        if bytes.starts_with(b"PAR1") {
            let settings = self.settings.clone();
            let limit = settings.options.max_decompressed;
            for part in read_parts(&name, bytes, &settings.quarantine_rule, row, limit)? {
                self.add_rows(part?, &name, &named)?;
            }
            return Ok(());
        }
        let mut form = self.csv_form();
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

    fn csv_form(&self) -> TextForm {
        let options = &self.settings.options;
        let settings = TextSettings {
            encoding: options.encoding,
            max_decompressed: options.max_decompressed,
            max_record: options.max_record,
        };
        TextForm { separation: RecordSeparation::Csv(options.csv), settings }
    }

    /// Parses a chunk of a CSV file. Returns `None` if it has no record of the wanted table.
    fn parse_chunk(&mut self, mut chunk: TextChunk, named: &DmsFile) -> Result<Option<CsvRows>> {
        let (settings, file) = (self.settings.clone(), chunk.file.clone());
        let mut places = None;
        let names = match named.kind {
            DmsFileKind::Transactions => {
                let names = self.transaction_columns(&file)?;
                places = Some(self.select_transactions(&mut chunk)?);
                Some(names)
            }
            _ => {
                let dialect = settings.options.csv;
                let first = match &chunk.head {
                    Some(head) => records::first_record(head, dialect),
                    None => records::first_record(chunk.as_text()?, dialect),
                };
                let Some(first) = first else { return Ok(None) };
                self.column_names(&first, &file)?
            }
        };
        let form = CsvForm { dialect: settings.options.csv, names, null: settings.options.null.clone() };
        let before = self.changes.refused.len();
        let mut rows = CsvRows::parse(chunk, form, &settings.quarantine_rule, &mut self.changes.refused)?;
        if let Some(places) = places {
            // The line numbers are in the copied text; convert them to the lines of the whole file.
            rows.count_in(&places, &mut self.changes.refused[before..]);
        }
        // Columns get the names in the options and the contract, in any letter case.
        let o = &settings.options;
        let columns = o.contract.iter().flat_map(|c| &c.columns).map(|c| c.name.as_str());
        let meta = [Some(o.op.as_str()), o.timestamp_column.as_deref()];
        let known: Vec<&str> =
            columns.chain(o.key().iter().map(String::as_str)).chain(meta.into_iter().flatten()).collect();
        for name in &mut rows.names {
            if let Some(known) = known.iter().find(|known| known.eq_ignore_ascii_case(name.trim())) {
                *name = (*known).to_owned();
            }
        }
        Ok(Some(rows))
    }

    /// Returns whether a table is the wanted one. If no table is set, every table is wanted, and
    /// [`finish`](Self::finish) returns an error if there were several.
    fn is_wanted(&mut self, schema: Option<&str>, table: Option<&str>) -> bool {
        let Some(table) = table else { return true };
        let name = SourceTable::new(schema, table);
        let wanted = self.settings.options.table.as_ref().is_none_or(|wanted| name.is_meant_by(wanted));
        if wanted {
            self.tables.insert(name);
        }
        wanted
    }

    /// Returns the column names of a file without a header, or `None` for a file with a header.
    ///
    /// A row has the operation code if the endpoint writes one, then the timestamp if `TimestampColumnName` is set,
    /// then the columns of the contract. The number of fields beyond the contract tells which of the two are present.
    fn column_names(&self, first: &csv::StringRecord, file: &str) -> Result<Option<Vec<String>>> {
        let o = &self.settings.options;
        let columns: Vec<String> =
            o.contract.iter().flat_map(|c| &c.columns).map(|c| c.name.clone()).filter(|n| !self.is_meta(n)).collect();
        let is = |cell: &str, name: &str| cell.trim().eq_ignore_ascii_case(name);
        let begins = |name: &str| first.get(0).is_some_and(|cell| is(cell, name));
        let stamp = o.timestamp_column.as_deref();
        let key = o.key();
        let has_key = !key.is_empty() && key.iter().all(|k| first.iter().any(|f| is(f, k)));
        // A first row that begins with the name of a metadata column, or contains all names of the key, is a header.
        if begins(&o.op) || stamp.is_some_and(begins) || has_key {
            return Ok(None);
        }
        if columns.is_empty() {
            let message = "the file has no header; declare its columns in a contract";
            return Err(Error::new(codes::UNTYPED_RECORDS, message).in_file(file));
        }
        let code = first.get(0).is_some_and(|code| o.op_map.read(Some(code.trim())) != ParsedOp::Unknown);
        let more = first.len().saturating_sub(columns.len());
        // A task with `CdcInsertsOnly` writes no codes. With one additional field and a timestamp column set, the
        // field is the code if it is one of the known codes, and else the timestamp.
        let has_op = more > usize::from(stamp.is_some()) || (more > 0 && code);
        let has_stamp = stamp.is_some() && more > usize::from(has_op);
        let mut names = Vec::new();
        names.extend(has_op.then(|| o.op.clone()));
        names.extend(stamp.filter(|_| has_stamp).map(str::to_owned));
        names.extend(columns);
        if names.len() != first.len() && !self.settings.quarantine_rule.all() {
            return Err(fields_differ(first, names.len(), o).at(file, 1));
        }
        Ok(Some(names))
    }

    /// Returns whether a column is about the record and not from the source table.
    fn is_meta(&self, name: &str) -> bool {
        let o = &self.settings.options;
        name == o.op || Some(name) == o.timestamp_column.as_deref() || name == FILE || name == ROW
    }

    /// Returns the columns of a transaction file, which contains records of all tables: operation, table, schema,
    /// values.
    fn transaction_columns(&self, file: &str) -> Result<Vec<String>> {
        let Some(contract) = &self.settings.options.contract else {
            let message = "a transaction file has no header; declare the columns of the table in a contract";
            return Err(Error::new(codes::UNTYPED_RECORDS, message).in_file(file));
        };
        // Names that no column of a table can have; these columns are removed later.
        let (meta_table, meta_schema) = ("\u{0}table".to_owned(), "\u{0}schema".to_owned());
        let columns = contract.columns.iter().map(|c| c.name.clone()).filter(|n| !self.is_meta(n));
        Ok([self.settings.options.op.clone(), meta_table, meta_schema].into_iter().chain(columns).collect())
    }

    /// Keeps the records of the wanted table in a chunk of a transaction file. Returns their lines in the file.
    fn select_transactions(&mut self, chunk: &mut TextChunk) -> Result<Vec<u64>> {
        let text = chunk.take_text()?;
        let mut own = String::with_capacity(text.len());
        let mut places = Vec::new();
        for (fields, span, line) in records::parse_records(&text, &chunk.file, chunk.first, self.settings.options.csv)?
        {
            if self.is_wanted(fields.get(2), fields.get(1)) {
                own.push_str(text[span].trim_end_matches(['\n', '\r']));
                own.push('\n');
                places.push(chunk.only.unwrap_or(line));
            } else {
                self.changes.other_tables += 1;
            }
        }
        (chunk.text, chunk.first, chunk.only, chunk.head) = (own.into_bytes(), 1, None, None);
        Ok(places)
    }

    /// Returns the change records of all files, in the order of reading. Records from CSV without a contract come
    /// last.
    ///
    /// # Errors
    /// `SeveralTables` if the files have records of several tables, or the wanted name matches several; `WrongType`,
    /// `UnknownOp`, `NullNotAllowed` and the like, with file, row and column.
    pub fn finish(mut self) -> Result<ChangeRecords> {
        check_one(&self.tables)?;
        let waiting = std::mem::take(&mut self.types.waiting);
        read_waiting(&mut self, waiting)?;
        check_one(&self.tables)?;
        Ok(self.changes)
    }

    /// Returns the declared column of a column of a CSV file.
    fn declared_column(&self, name: &str) -> Option<ContractColumn> {
        let options = &self.settings.options;
        // Operation codes and order columns are read as text and converted later, by rules of their own.
        let is_text = || {
            let is_order = || self.changes.order.iter().any(|o| o == name);
            let is_timestamp = || Some(name) == options.timestamp_column.as_deref();
            name == options.op || name.starts_with('\u{0}') || is_order() || is_timestamp()
        };
        if let Some(column) = options.declared_column(name) {
            return Some(column);
        }
        if is_text() {
            return Some(of_type(name, &DataType::Utf8));
        }
        // A before image has the type of its key column, and no default: null means that there is none.
        let mut column = options.key_before(name).and_then(|key| options.declared_column(&key))?;
        name.clone_into(&mut column.name);
        column.reading.default = None;
        Some(column)
    }

    /// Returns whether the columns that are not declared are stored.
    fn keeps_undeclared(&self) -> bool {
        self.settings.options.contract.as_ref().is_none_or(|contract| contract.extra == ExtraColumns::Keep)
    }

    /// Returns the column of a column of a CSV file. Columns that are not stored are text.
    fn typed_column(&self, name: &str) -> ContractColumn {
        self.declared_column(name).unwrap_or_else(|| match self.keeps_undeclared() {
            true => of_type(name, &self.types.type_of(name)),
            false => of_type(name, &DataType::Utf8),
        })
    }

    /// Converts rows to change records, and quarantines invalid ones if the options allow it.
    fn add_rows(&mut self, part: RowsInProgress, file: &Arc<str>, named: &DmsFile) -> Result<()> {
        let settings = self.settings.clone();
        let make = DmsChangeBuilder {
            options: &settings.options,
            columns: &settings.change_columns,
            order: &self.changes.order,
            by_place: settings.by_place,
            file,
            named,
        };
        let refused: &mut Vec<RefusedRecord> = &mut self.changes.refused;
        let rule = &settings.quarantine_rule;
        for (batch, lost) in quarantine_failing_rows(file, part, rule, refused, &mut |p| make.build_batch(p))? {
            self.changes.batches.push(batch);
            self.changes.add_losses(lost);
        }
        Ok(())
    }
}

impl ChunkReader for DmsReader {
    fn text_form(&mut self, file: &str) -> Result<Option<TextForm>> {
        Ok(self.wants_file(file)?.then(|| self.csv_form()))
    }

    fn needs_types(&self) -> bool {
        !self.types.are_known() && self.keeps_undeclared()
    }

    fn learn_types(&mut self, chunk: TextChunk) -> Result<()> {
        let named = DmsFile::parse(&chunk.file);
        if let Some(rows) = self.parse_chunk(chunk, &named)? {
            for (at, name) in rows.names.iter().enumerate() {
                if self.declared_column(name).is_none() {
                    rows.infer_column(at, &mut self.types.learning);
                }
            }
        }
        Ok(())
    }

    fn end_types(&mut self, learner: Self) {
        self.changes.conflicts.extend(self.types.set(learner.types.learning));
    }

    fn new_part(&self) -> Option<Self> {
        Some(Self {
            settings: self.settings.clone(),
            tables: self.tables.clone(),
            changes: ChangeRecords { order: self.changes.order.clone(), ..ChangeRecords::default() },
            types: self.types.for_part(),
        })
    }

    fn read_chunk(&mut self, chunk: TextChunk) -> Result<()> {
        let (named, file) = (DmsFile::parse(&chunk.file), chunk.file.clone());
        let refused = self.changes.refused.len();
        let Some(rows) = self.parse_chunk(chunk, &named)? else { return Ok(()) };
        let columns: Vec<_> = rows.names.iter().map(|name| (name.clone(), self.typed_column(name))).collect();
        let typed = |name: &str| Ok(columns.iter().find(|(own, _)| own == name).map(|(_, column)| column.clone()));
        let part = rows.to_typed_rows(typed, &self.settings.quarantine_rule, &mut self.changes)?;
        self.add_rows(part, &file, &named)?;
        self.changes.refused[refused..].sort_by_key(|record| record.row);
        Ok(())
    }

    fn read_rows(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        self.read_batch(file, rows, first)
    }

    fn add_part(&mut self, part: Self) -> Result<()> {
        self.tables.extend(part.tables);
        self.types.learning.append(part.types.learning);
        self.changes.append(part.changes);
        Ok(())
    }

    fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes.batches)
    }
}

/// Creates the error for a file without a header whose rows have an unexpected number of fields. The message names
/// the option that is probably missing.
fn fields_differ(first: &csv::StringRecord, expected: usize, o: &DmsOptions) -> Error {
    let mut message =
        format!("the row has {} fields, but the contract and the options require {expected}", first.len());
    if first.len() == 1 {
        message.push_str("; if the endpoint sets `CsvDelimiter`, set the same with `--delimiter`");
    } else if o.timestamp_column.is_none() && first.len() > expected {
        message.push_str("; if the endpoint sets `TimestampColumnName`, set the same with `--timestamp-column`");
    } else {
        message.push_str("; declare all columns of the table in the contract, in their order");
    }
    Error::new(codes::INVALID_CSV, message)
}
