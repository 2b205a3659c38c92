//! Reads files that AWS DMS wrote to S3. The names of the files and the settings of the S3 endpoint determine what a
//! file contains, since DMS files have no schema.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use biscuit_merge::{ChangeBatch, ParsedOp, RefusedRecord};
use bytes::Bytes;

use crate::codes;
use crate::columnar::rows::read_parts;
use crate::csv::records::{self, CsvFile, CsvForm};
use crate::dms::file_name::{DmsFile, DmsFileKind};
use crate::dms::options::{DmsOptions, FILE, ROW};
use crate::dms::rows::DmsChangeBuilder;
use crate::records::change_records::ChangeRecords;
use crate::records::refused::{QuarantineRule, RowsInProgress, quarantine_failing_rows};
use crate::rows::reader::RowsOptions;
use crate::tables::name::{SourceTable, check_one};
use crate::values::declared::of_type;
use crate::values::text::{empty_file, text_of};

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
    options: DmsOptions,
    quarantine_rule: QuarantineRule,
    /// Whether the records are ordered by file and row.
    by_place: bool,
    csv: Vec<(CsvFile, DmsFile)>,
    tables: BTreeSet<SourceTable>,
    changes: ChangeRecords,
}

impl DmsReader {
    /// Creates a reader.
    pub fn new(options: DmsOptions) -> Self {
        let declared = options.contract.as_ref().map(|c| c.order.clone()).unwrap_or_default();
        let named = if options.order.is_empty() { declared } else { options.order.clone() };
        let by_place = named.is_empty();
        let order = if by_place { vec![FILE.to_owned(), ROW.to_owned()] } else { named };
        let changes = ChangeRecords { order, key: options.key().to_vec(), ..ChangeRecords::default() };
        let quarantine_rule = QuarantineRule::new(options.bad_rows, options.contract.as_ref());
        Self { options, quarantine_rule, by_place, csv: vec![], tables: BTreeSet::new(), changes }
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
        let part = RowsInProgress::from_batch(rows, first, &self.quarantine_rule);
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

    /// Takes the change records that are ready, which are from Parquet files. Records from CSV are returned by
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
        if named.kind == DmsFileKind::Unknown && self.by_place {
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
            for part in read_parts(&name, bytes, &self.quarantine_rule, row, self.options.max_decompressed)? {
                self.add_rows(part?, &name, &named)?;
            }
            return Ok(());
        }
        let text =
            text_of(file, &bytes, self.options.max_decompressed, self.options.encoding.filter(|_| row.is_none()))?;
        if named.kind == DmsFileKind::Transactions {
            return self.read_transactions(&name, &text, named, row);
        }
        let Some(first) = records::first_record(&text, self.options.csv) else { return Ok(()) };
        let names = self.column_names(&first, file)?;
        self.push_csv(&name, text, named, names, row)
    }

    /// Parses a CSV file and renames its columns to the names in the options and the contract, in any letter case.
    fn push_csv(
        &mut self,
        file: &Arc<str>,
        text: String,
        named: DmsFile,
        names: Option<Vec<String>>,
        row: Option<u64>,
    ) -> Result<()> {
        let form = CsvForm { dialect: self.options.csv, names, null: self.options.null.clone() };
        let refused = &mut self.changes.refused;
        let mut csv = CsvFile::parse_at(file, text, form, row, &self.quarantine_rule, refused)?;
        let o = &self.options;
        let columns = o.contract.iter().flat_map(|c| &c.columns).map(|c| c.name.as_str());
        let meta = [Some(o.op.as_str()), o.timestamp_column.as_deref()];
        let known: Vec<&str> =
            columns.chain(o.key().iter().map(String::as_str)).chain(meta.into_iter().flatten()).collect();
        for name in &mut csv.names {
            if let Some(known) = known.iter().find(|known| known.eq_ignore_ascii_case(name.trim())) {
                *name = (*known).to_owned();
            }
        }
        self.csv.push((csv, named));
        Ok(())
    }

    /// Returns whether a table is the wanted one. If no table is set, every table is wanted, and
    /// [`finish`](Self::finish) returns an error if there were several.
    fn is_wanted(&mut self, schema: Option<&str>, table: Option<&str>) -> bool {
        let Some(table) = table else { return true };
        let name = SourceTable::new(schema, table);
        let wanted = self.options.table.as_ref().is_none_or(|wanted| name.is_meant_by(wanted));
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
        let o = &self.options;
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
        if names.len() != first.len() && !self.quarantine_rule.all() {
            return Err(fields_differ(first, names.len(), o).at(file, 1));
        }
        Ok(Some(names))
    }

    /// Returns whether a column is about the record and not from the source table.
    fn is_meta(&self, name: &str) -> bool {
        let o = &self.options;
        name == o.op || Some(name) == o.timestamp_column.as_deref() || name == FILE || name == ROW
    }

    /// Reads a transaction file, which contains records of all tables: operation, table, schema, values.
    ///
    /// The records of the wanted table are copied to a text of their own, which is then read as CSV.
    fn read_transactions(&mut self, file: &Arc<str>, text: &str, named: DmsFile, row: Option<u64>) -> Result<()> {
        let Some(contract) = &self.options.contract else {
            let message = "a transaction file has no header; declare the columns of the table in a contract";
            return Err(Error::new(codes::UNTYPED_RECORDS, message).in_file(file));
        };
        // Names that no column of a table can have; these columns are removed later.
        let (meta_table, meta_schema) = ("\u{0}table".to_owned(), "\u{0}schema".to_owned());
        let columns = contract.columns.iter().map(|c| c.name.clone()).filter(|n| !self.is_meta(n));
        let names = [self.options.op.clone(), meta_table, meta_schema].into_iter().chain(columns).collect();
        let mut own = String::with_capacity(text.len());
        let mut places = Vec::new();
        for record in records::parse_records(text, file, self.options.csv)? {
            let (fields, span, line) = record;
            let (schema, table) = (fields.get(2).map(str::to_owned), fields.get(1).map(str::to_owned));
            if self.is_wanted(schema.as_deref(), table.as_deref()) {
                own.push_str(text[span].trim_end_matches(['\n', '\r']));
                own.push('\n');
                places.push(row.unwrap_or(line));
            } else {
                self.changes.other_tables += 1;
            }
        }
        let before = self.changes.refused.len();
        self.push_csv(file, own, named, Some(names), row)?;
        // The line numbers are in the copied text; convert them to the lines of the whole file.
        let (csv, _) = self.csv.last_mut().expect("the file was pushed above");
        csv.count_in(&places, &mut self.changes.refused[before..]);
        Ok(())
    }

    /// Returns the change records of all files.
    ///
    /// # Errors
    /// `SeveralTables` if the files have records of several tables, or the wanted name matches several; `WrongType`,
    /// `UnknownOp`, `NullNotAllowed` and the like, with file, row and column.
    pub fn finish(mut self) -> Result<ChangeRecords> {
        check_one(&self.tables)?;
        let (files, named): (Vec<CsvFile>, Vec<DmsFile>) = std::mem::take(&mut self.csv).into_iter().unzip();
        let options = &self.options;
        // Operation codes and order columns are read as text and converted later, by rules of their own.
        let order = self.changes.order.clone();
        let is_text = |name: &str| {
            let is_order = || order.iter().any(|o| o == name) || Some(name) == options.timestamp_column.as_deref();
            name == options.op || name.starts_with('\u{0}') || is_order()
        };
        let declared = |name: &str| match options.declared_column(name) {
            Some(column) => Some(column),
            None if is_text(name) => Some(of_type(name, &DataType::Utf8)),
            None => {
                // A before image has the type of its key column, and no default: null means that there is none.
                let mut column = options.key_before(name).and_then(|key| options.declared_column(&key))?;
                name.clone_into(&mut column.name);
                column.reading.default = None;
                Some(column)
            }
        };
        let parts = records::convert_files(&files, declared, &self.quarantine_rule, &mut self.changes)?;
        for ((part, file), named) in parts.into_iter().zip(named) {
            self.add_rows(part, &file, &named)?;
        }
        Ok(self.changes)
    }

    /// Converts rows to change records, and quarantines invalid ones if the options allow it.
    fn add_rows(&mut self, part: RowsInProgress, file: &Arc<str>, named: &DmsFile) -> Result<()> {
        let make = DmsChangeBuilder {
            options: &self.options,
            order: &self.changes.order,
            by_place: self.by_place,
            file,
            named,
        };
        // DMS writes no placeholder, so the text of Debezium's placeholder is an ordinary value.
        let rows = RowsOptions {
            op: Some(self.options.op.clone()),
            op_map: self.options.op_map.clone(),
            placeholder: Some(String::new()),
            ..RowsOptions::default()
        };
        let rows = match &self.options.contract {
            Some(contract) => rows.with_contract(contract.clone()),
            None => rows,
        };
        let refused: &mut Vec<RefusedRecord> = &mut self.changes.refused;
        for (batch, lost) in
            quarantine_failing_rows(file, part, &self.quarantine_rule, refused, &mut |p| make.build_batch(p, &rows))?
        {
            self.changes.batches.push(batch);
            self.changes.add_losses(lost);
        }
        Ok(())
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
