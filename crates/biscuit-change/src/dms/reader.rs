use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_schema::{Contract, ContractColumn};
use bytes::Bytes;

use crate::columnar::rows::parts;
use crate::csv::dialect::CsvDialect;
use crate::csv::records::{self, CsvFile, CsvForm};
use crate::dms::file_name::{DmsFile, DmsFileKind};
use crate::dms::rows::DmsChangeBuilder;
use crate::files::encoding::TextEncoding;
use crate::records::change_records::{ChangeBatch, ChangeRecords};
use crate::records::op::{OpMap, ParsedOp};
use crate::records::refused::{BadRows, QuarantineRule, RefusedRecord, RowsInProgress, sift};
use crate::rows::reader::RowsOptions;
use crate::tables::name::{SourceTable, check_one};
use crate::values::declared::{declared, of_type};
use crate::values::text::{empty, text_of};

/// The order columns that are stored unless others are named: when the file was written, and the row in it.
pub(crate) const FILE: &str = "__dms_file";
pub(crate) const ROW: &str = "__dms_row";

/// Choices of a DMS reader that have a default; they are the settings of the task's S3 endpoint.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DmsOptions {
    /// The table whose records are wanted, `schema.table` or `table`. Default: the one that the files have.
    pub table: Option<String>,
    /// Declared columns and types. Files without a header need it.
    pub contract: Option<Contract>,
    /// The types that columns are expected to have, where there is no contract.
    pub expected: Option<SchemaRef>,
    /// The key columns. Default: the contract's.
    pub key: Vec<String>,
    /// The columns that order the changes. Default: the contract's, else the file and the row in it, stored as `__dms_file`
    /// and `__dms_row`.
    pub order: Vec<String>,
    /// The column of operation codes. Default: `Op`.
    pub op: String,
    /// What operation codes say that are not those of common tools.
    pub op_map: OpMap,
    /// `TimestampColumnName`, if the task has it.
    pub timestamp_column: Option<String>,
    /// `CsvNullValue`. Default: `NULL`.
    pub null: String,
    /// The prefix of columns with the key before an update, if the task has a rule that adds them. Default: `BI_`.
    pub before_image: String,
    /// What happens to records that cannot be used.
    pub bad_rows: BadRows,
    /// Bytes that one file may have when it is unpacked or decoded. Default: 4 GiB for text, and 250 times the bytes of a packed file where that is more
    /// than 64 MiB; for rows of Parquet and Avro 2,000 times the bytes of the file where that is more than 256 MiB.
    pub max_decompressed: Option<u64>,
    /// How CSV is written.
    pub csv: CsvDialect,
    /// The encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
}

impl Default for DmsOptions {
    fn default() -> Self {
        Self {
            table: None,
            contract: None,
            expected: None,
            key: vec![],
            order: vec![],
            op: "Op".to_owned(),
            op_map: OpMap::default(),
            timestamp_column: None,
            null: "NULL".to_owned(),
            before_image: "BI_".to_owned(),
            bad_rows: BadRows::Fail,
            max_decompressed: None,
            csv: CsvDialect::default(),
            encoding: None,
        }
    }
}

impl DmsOptions {
    /// The same options for one table.
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// The same options with a contract.
    pub fn with_contract(mut self, contract: Contract) -> Self {
        self.contract = Some(contract);
        self
    }

    /// The same options with a key.
    pub fn with_key<S: Into<String>>(mut self, key: impl IntoIterator<Item = S>) -> Self {
        self.key = key.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with an order.
    pub fn with_order<S: Into<String>>(mut self, order: impl IntoIterator<Item = S>) -> Self {
        self.order = order.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with the name of the timestamp column.
    pub fn with_timestamp_column(mut self, name: impl Into<String>) -> Self {
        self.timestamp_column = Some(name.into());
        self
    }

    /// The same options with another text for null.
    pub fn with_null(mut self, null: impl Into<String>) -> Self {
        self.null = null.into();
        self
    }

    /// The same options for CSV that is written in another way.
    pub fn with_csv(mut self, dialect: CsvDialect) -> Self {
        self.csv = dialect;
        self
    }

    /// The same options for text in another encoding.
    pub fn with_encoding(mut self, encoding: TextEncoding) -> Self {
        self.encoding = Some(encoding);
        self
    }

    /// The same options with another limit for what one file is unpacked or decoded to, in bytes.
    pub fn with_max_decompressed(mut self, bytes: u64) -> Self {
        self.max_decompressed = Some(bytes);
        self
    }

    /// The same options with another choice for records that cannot be used.
    pub fn with_bad_rows(mut self, bad_rows: BadRows) -> Self {
        self.bad_rows = bad_rows;
        self
    }

    pub(crate) fn key(&self) -> &[String] {
        match &self.contract {
            Some(contract) if self.key.is_empty() => &contract.key,
            _ => &self.key,
        }
    }

    /// Whether a name in a file means this column: in any letter case, or as a former name in the contract.
    pub(crate) fn is_called(&self, name: &str, column: &str) -> bool {
        let declared = self.contract.as_ref().and_then(|contract| contract.column_for(name));
        name.eq_ignore_ascii_case(column) || declared.is_some_and(|declared| declared.name == column)
    }

    /// The key column whose before image a column of this name holds.
    pub(crate) fn key_before(&self, name: &str) -> Option<String> {
        let prefix = &self.before_image;
        let of = name.get(..prefix.len()).filter(|begin| !prefix.is_empty() && begin.eq_ignore_ascii_case(prefix));
        let own = &name[of?.len()..];
        self.key().iter().find(|key| self.is_called(own, key)).cloned()
    }

    pub(crate) fn declared(&self, name: &str) -> Option<ContractColumn> {
        declared(self.contract.as_ref(), self.expected.as_ref(), name)
    }
}

/// Reads files that AWS DMS wrote to S3: full loads and changes, CSV and Parquet, and transaction files.
#[derive(Debug)]
pub struct DmsReader {
    options: DmsOptions,
    quarantine_rule: QuarantineRule,
    /// Whether the order is the file and the row in it.
    by_place: bool,
    csv: Vec<(CsvFile, DmsFile)>,
    tables: BTreeSet<SourceTable>,
    changes: ChangeRecords,
}

impl DmsReader {
    /// A reader with these options.
    pub fn new(options: DmsOptions) -> Self {
        let declared = options.contract.as_ref().map(|c| c.order.clone()).unwrap_or_default();
        let named = if options.order.is_empty() { declared } else { options.order.clone() };
        let by_place = named.is_empty();
        let order = if by_place { vec![FILE.to_owned(), ROW.to_owned()] } else { named };
        let changes = ChangeRecords { order, key: options.key().to_vec(), ..ChangeRecords::default() };
        let quarantine_rule = QuarantineRule::new(options.bad_rows, options.contract.as_ref());
        Self { options, quarantine_rule, by_place, csv: vec![], tables: BTreeSet::new(), changes }
    }

    /// Reads one file: Parquet is known by its first bytes, all else is CSV, plain or gzip. What it holds is known by its
    /// name: `LOAD…` a full load, `CDC_TXN-…` transactions, `YYYYMMDD-HHMMSSmmm` changes.
    ///
    /// # Errors
    /// `UnknownDmsFile` for another name where the file's time is the order; `UntypedRecords` for a file without a header
    /// and without a contract; `InvalidCsv`, `UnreadableParquet`, `EmptyFile`, `TruncatedInput`, `NotUtf8`.
    pub fn read(&mut self, file: &str, bytes: Bytes) -> Result<()> {
        self.read_as(file, bytes, None)
    }

    /// Reads a record that was put aside, as [`RefusedRecord::raw`] holds it; it keeps its place.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_record(&mut self, file: &str, row: u64, raw: Bytes) -> Result<()> {
        self.read_as(file, raw, Some(row))
    }

    /// Takes rows of a Parquet file, which somebody else has decoded; `first` is the number of the first of them in the file,
    /// from 1.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_batch(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        let part = RowsInProgress::of(rows, first, self.quarantine_rule.any());
        match self.named(file)? {
            Some(named) => self.add(part, file, &named),
            None => Ok(()),
        }
    }

    /// Whether a file is one of the table that is wanted, by its name; one that is not is counted.
    ///
    /// # Errors
    /// `UnknownDmsFile`.
    pub fn wants(&mut self, file: &str) -> Result<bool> {
        let wanted = self.named(file)?.is_some();
        self.changes.other_tables += u64::from(!wanted);
        Ok(wanted)
    }

    /// The change records that are ready: those of Parquet files. Those of text come with [`finish`](Self::finish).
    pub fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes.batches)
    }

    /// The key columns and the order columns, as far as the options say them.
    pub fn key_and_order(&self) -> (&[String], &[String]) {
        (&self.changes.key, &self.changes.order)
    }

    /// What the name of a file says; none for one of another table.
    fn named(&mut self, file: &str) -> Result<Option<DmsFile>> {
        let named = DmsFile::of(file);
        if named.kind == DmsFileKind::Unknown && self.by_place {
            let message = "the name says neither a full load nor the time of a change file: name the order columns";
            return Err(Error::data("UnknownDmsFile", message).in_file(file));
        }
        let wanted =
            named.kind == DmsFileKind::Transactions || self.is_wanted(named.schema.as_deref(), named.table.as_deref());
        Ok(wanted.then_some(named))
    }

    fn read_as(&mut self, file: &str, bytes: Bytes, row: Option<u64>) -> Result<()> {
        if bytes.is_empty() {
            return Err(empty(file));
        }
        let Some(named) = self.named(file)? else {
            self.changes.other_tables += 1;
            return Ok(());
        };
        let name: Arc<str> = file.into();
        if bytes.starts_with(b"PAR1") {
            for part in parts(&name, bytes, self.quarantine_rule.any(), row, self.options.max_decompressed)? {
                self.add(part?, &name, &named)?;
            }
            return Ok(());
        }
        let text =
            text_of(file, &bytes, self.options.max_decompressed, self.options.encoding.filter(|_| row.is_none()))?;
        if named.kind == DmsFileKind::Transactions {
            return self.transactions(&name, &text, named, row);
        }
        let Some(first) = records::first_record(&text, self.options.csv) else { return Ok(()) };
        let names = self.names(&first, file)?;
        self.push_csv(&name, text, named, names, row)
    }

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

    /// Whether a table is the one that was asked for. Without a choice all are, and several are an error in the end.
    fn is_wanted(&mut self, schema: Option<&str>, table: Option<&str>) -> bool {
        let Some(table) = table else { return true };
        let name = SourceTable::new(schema, table);
        let wanted = self.options.table.as_ref().is_none_or(|wanted| name.is_meant_by(wanted));
        if wanted {
            self.tables.insert(name);
        }
        wanted
    }

    /// The names of the columns of a file without a header; none for one that has a header.
    fn names(&self, first: &csv::StringRecord, file: &str) -> Result<Option<Vec<String>>> {
        let o = &self.options;
        let columns: Vec<String> =
            o.contract.iter().flat_map(|c| &c.columns).map(|c| c.name.clone()).filter(|n| !self.is_meta(n)).collect();
        let is = |cell: &str, name: &str| cell.trim().eq_ignore_ascii_case(name);
        let begins = |name: &str| first.get(0).is_some_and(|cell| is(cell, name));
        let stamp = o.timestamp_column.as_deref();
        let key = o.key();
        let has_key = !key.is_empty() && key.iter().all(|k| first.iter().any(|f| is(f, k)));
        if begins(&o.op) || stamp.is_some_and(begins) || has_key {
            return Ok(None);
        }
        if columns.is_empty() {
            let message = "the file has no header: declare its columns in a contract";
            return Err(Error::data("UntypedRecords", message).in_file(file));
        }
        let code = first.get(0).is_some_and(|code| o.op_map.read(Some(code.trim())) != ParsedOp::Unknown);
        let more = first.len().saturating_sub(columns.len());
        // A task that writes inserts only has no code in its change files, either.
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

    fn is_meta(&self, name: &str) -> bool {
        let o = &self.options;
        name == o.op || Some(name) == o.timestamp_column.as_deref() || name == FILE || name == ROW
    }

    /// A transaction file holds all tables: operation, table, schema, values.
    fn transactions(&mut self, file: &Arc<str>, text: &str, named: DmsFile, row: Option<u64>) -> Result<()> {
        let Some(contract) = &self.options.contract else {
            let message = "a transaction file has no header: declare the columns of the table in a contract";
            return Err(Error::data("UntypedRecords", message).in_file(file));
        };
        let (meta_table, meta_schema) = ("\u{0}table".to_owned(), "\u{0}schema".to_owned());
        let columns = contract.columns.iter().map(|c| c.name.clone()).filter(|n| !self.is_meta(n));
        let names = [self.options.op.clone(), meta_table, meta_schema].into_iter().chain(columns).collect();
        let mut own = String::with_capacity(text.len());
        let mut places = Vec::new();
        for record in records::records(text, file, self.options.csv)? {
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
        // Lines are counted in the whole file.
        let (csv, _) = self.csv.last_mut().expect("it was pushed above");
        csv.count_in(&places, &mut self.changes.refused[before..]);
        Ok(())
    }

    /// The change records of all files.
    ///
    /// # Errors
    /// `SeveralTables` if the files have more than one, or the name that was given fits several; `WrongType`, `UnknownOp`, `NullValue` and the
    /// like, naming file, row and column.
    pub fn finish(mut self) -> Result<ChangeRecords> {
        check_one(&self.tables)?;
        let (files, named): (Vec<CsvFile>, Vec<DmsFile>) = std::mem::take(&mut self.csv).into_iter().unzip();
        let options = &self.options;
        // Operation codes and orders are read as text first.
        let order = self.changes.order.clone();
        let is_text = |name: &str| {
            let is_order = || order.iter().any(|o| o == name) || Some(name) == options.timestamp_column.as_deref();
            name == options.op || name.starts_with('\u{0}') || is_order()
        };
        let declared = |name: &str| match options.declared(name) {
            Some(column) => Some(column),
            None if is_text(name) => Some(of_type(name, &DataType::Utf8)),
            None => {
                let mut column = options.key_before(name).and_then(|key| options.declared(&key))?;
                name.clone_into(&mut column.name);
                column.reading.default = None;
                Some(column)
            }
        };
        let parts = records::parts(&files, declared, &self.quarantine_rule, &mut self.changes)?;
        for ((part, file), named) in parts.into_iter().zip(named) {
            self.add(part, &file, &named)?;
        }
        Ok(self.changes)
    }

    fn add(&mut self, part: RowsInProgress, file: &Arc<str>, named: &DmsFile) -> Result<()> {
        let make = DmsChangeBuilder {
            options: &self.options,
            order: &self.changes.order,
            by_place: self.by_place,
            file,
            named,
        };
        // DMS has no placeholder: a text that is one elsewhere is a value here.
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
        for (batch, lost) in sift(file, part, &self.quarantine_rule, refused, &mut |p| make.batch(p, &rows))? {
            self.changes.batches.push(batch);
            self.changes.lost(lost);
        }
        Ok(())
    }
}

/// A file without a header whose rows have another number of fields than the settings say.
fn fields_differ(first: &csv::StringRecord, expected: usize, o: &DmsOptions) -> Error {
    let mut message = format!("the row has {} fields, and by the contract it would have {expected}", first.len());
    if first.len() == 1 {
        message.push_str("; if the task has `CsvDelimiter`, name it with `--delimiter`");
    } else if o.timestamp_column.is_none() && first.len() > expected {
        message.push_str("; if the task has `TimestampColumnName`, name it with `--timestamp-column`");
    } else {
        message.push_str("; the contract has to name the columns of the table in their order");
    }
    Error::data("InvalidCsv", message)
}
