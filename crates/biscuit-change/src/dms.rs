use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, is_not_null, nullif};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use biscuit_core::{Error, Result};
use biscuit_schema::{Contract, column_index, common_type, plain_type};
use bytes::Bytes;

use crate::cell::to_array;
use crate::changes::{ChangeBatch, Changes, Move, MoveKind};
use crate::csv_rows::{self, CsvFile, CsvForm, text_cell};
use crate::dms_file::{DmsFile, Kind};
use crate::op::Op;
use crate::refused::{BadRows, Part, Refused, sift};
use crate::row_changes::part_changes;
use crate::rows::{RowsOptions, parquet_parts};
use crate::text::{empty, text_of, wrong_type};

/// The order columns that are stored unless others are named: when the file was written, and the row in it.
const FILE: &str = "__dms_file";
const ROW: &str = "__dms_row";

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
    /// `TimestampColumnName`, if the task has it.
    pub timestamp_column: Option<String>,
    /// `CsvNullValue`. Default: `NULL`.
    pub null: String,
    /// The prefix of columns with the key before an update, if the task has a rule that adds them. Default: `BI_`.
    pub before_image: String,
    /// What happens to records that cannot be used.
    pub bad_rows: BadRows,
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
            timestamp_column: None,
            null: "NULL".to_owned(),
            before_image: "BI_".to_owned(),
            bad_rows: BadRows::Fail,
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

    /// The same options with another choice for records that cannot be used.
    pub fn with_bad_rows(mut self, bad_rows: BadRows) -> Self {
        self.bad_rows = bad_rows;
        self
    }

    fn key(&self) -> &[String] {
        match &self.contract {
            Some(contract) if self.key.is_empty() => &contract.key,
            _ => &self.key,
        }
    }

    fn declared(&self, name: &str) -> Option<DataType> {
        match (&self.contract, &self.expected) {
            (Some(contract), _) => contract.column(name).map(|c| c.column_type.arrow().clone()),
            (None, Some(schema)) => schema.field_with_name(name).ok().map(|f| plain_type(f.data_type())),
            (None, None) => None,
        }
    }
}

/// Reads files that AWS DMS wrote to S3: full loads and changes, CSV and Parquet, and transaction files.
#[derive(Debug)]
pub struct DmsReader {
    options: DmsOptions,
    /// Whether the order is the file and the row in it.
    by_place: bool,
    csv: Vec<(CsvFile, DmsFile)>,
    tables: BTreeSet<String>,
    changes: Changes,
}

impl DmsReader {
    /// A reader with these options.
    pub fn new(options: DmsOptions) -> Self {
        let declared = options.contract.as_ref().map(|c| c.order.clone()).unwrap_or_default();
        let named = if options.order.is_empty() { declared } else { options.order.clone() };
        let by_place = named.is_empty();
        let order = if by_place { vec![FILE.to_owned(), ROW.to_owned()] } else { named };
        let changes = Changes { order, key: options.key().to_vec(), ..Changes::default() };
        Self { options, by_place, csv: vec![], tables: BTreeSet::new(), changes }
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

    /// Reads a record that was put aside, as [`Refused::raw`] holds it; it keeps its place.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_record(&mut self, file: &str, row: u64, raw: Bytes) -> Result<()> {
        self.read_as(file, raw, Some(row))
    }

    fn read_as(&mut self, file: &str, bytes: Bytes, row: Option<u64>) -> Result<()> {
        if bytes.is_empty() {
            return Err(empty(file));
        }
        let named = DmsFile::of(file);
        if named.kind == Kind::Unknown && self.by_place {
            let message = "the name says neither a full load nor the time of a change file: name the order columns";
            return Err(Error::data("UnknownDmsFile", message).in_file(file));
        }
        if named.kind != Kind::Transactions && !self.is_wanted(named.schema.as_deref(), named.table.as_deref()) {
            self.changes.other_tables += 1;
            return Ok(());
        }
        let name: Arc<str> = file.into();
        if bytes.starts_with(b"PAR1") {
            for part in parquet_parts(&name, bytes, self.options.bad_rows, row)? {
                self.add(part?, &name, &named)?;
            }
            return Ok(());
        }
        let text = text_of(file, &bytes)?;
        if named.kind == Kind::Transactions {
            return self.transactions(&name, &text, named, row);
        }
        let Some(first) = csv_rows::first_record(&text) else { return Ok(()) };
        let names = self.names(&first, &named, file)?;
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
        let form = CsvForm { separator: b',', names, null: self.options.null.clone() };
        let refused = &mut self.changes.refused;
        let before = refused.len();
        let mut csv = CsvFile::parse(file, text, form, self.options.bad_rows, refused)?;
        if let Some(row) = row {
            refused[before..].iter_mut().for_each(|r| r.row = row);
            csv.rows.iter_mut().for_each(|r| r.line = row);
        }
        self.csv.push((csv, named));
        Ok(())
    }

    /// Whether a table is the one that was asked for. Without a choice all are, and several are an error in the end.
    fn is_wanted(&mut self, schema: Option<&str>, table: Option<&str>) -> bool {
        let Some(table) = table else { return true };
        let qualified = schema.map_or_else(|| table.to_owned(), |s| format!("{s}.{table}"));
        let wanted = self.options.table.as_ref().is_none_or(|t| *t == qualified || *t == table);
        if wanted {
            self.tables.insert(qualified);
        }
        wanted
    }

    /// The names of the columns of a file without a header; none for one that has a header.
    fn names(&self, first: &csv::StringRecord, named: &DmsFile, file: &str) -> Result<Option<Vec<String>>> {
        let o = &self.options;
        let columns: Vec<String> =
            o.contract.iter().flat_map(|c| &c.columns).map(|c| c.name.clone()).filter(|n| !self.is_meta(n)).collect();
        let begins = |name: &str| first.get(0) == Some(name);
        let stamp = o.timestamp_column.as_deref();
        let key = o.key();
        let has_key = !key.is_empty() && key.iter().all(|k| first.iter().any(|f| f == k));
        if begins(&o.op) || stamp.is_some_and(begins) || has_key {
            return Ok(None);
        }
        if columns.is_empty() {
            let message = "the file has no header: declare its columns in a contract";
            return Err(Error::data("UntypedRecords", message).in_file(file));
        }
        let code = |f: &str| matches!(f, "I" | "U" | "D");
        let has_op = named.kind != Kind::Load || (first.len() > columns.len() && first.get(0).is_some_and(code));
        let mut names = Vec::new();
        names.extend(has_op.then(|| o.op.clone()));
        names.extend(stamp.filter(|_| first.len() > columns.len() + names.len()).map(str::to_owned));
        names.extend(columns);
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
        for record in csv_rows::records(text, file)? {
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
    /// `SeveralTables` if the files have more than one and none was named; `WrongType`, `UnknownOp`, `NullValue` and the
    /// like, naming file, row and column.
    pub fn finish(mut self) -> Result<Changes> {
        if self.options.table.is_none() && self.tables.len() > 1 {
            let names: Vec<&str> = self.tables.iter().map(String::as_str).collect();
            let message = format!("the files have several tables, name one of {}", names.join(", "));
            return Err(Error::usage("SeveralTables", message));
        }
        let (files, named): (Vec<CsvFile>, Vec<DmsFile>) = std::mem::take(&mut self.csv).into_iter().unzip();
        let options = &self.options;
        // Operation codes and orders are read as text first.
        let order = &self.changes.order;
        let declared = |name: &str| match options.declared(name) {
            Some(t) => Some(t),
            None if name == options.op || name.starts_with('\u{0}') || order.iter().any(|o| o == name) => {
                Some(DataType::Utf8)
            }
            None if Some(name) == options.timestamp_column.as_deref() => Some(DataType::Utf8),
            None => name.strip_prefix(&options.before_image).and_then(|key| options.declared(key)),
        };
        let parts = csv_rows::parts(&files, declared, options.bad_rows, &mut self.changes.refused)?;
        for ((part, file), named) in parts.into_iter().zip(named) {
            self.add(part, &file, &named)?;
        }
        Ok(self.changes)
    }

    fn add(&mut self, part: Part, file: &Arc<str>, named: &DmsFile) -> Result<()> {
        let make = Make { options: &self.options, order: &self.changes.order, by_place: self.by_place, file, named };
        // DMS has no placeholder: a text that is one elsewhere is a value here.
        let rows = RowsOptions {
            op: Some(self.options.op.clone()),
            placeholder: Some(String::new()),
            ..RowsOptions::default()
        };
        let rows = match &self.options.contract {
            Some(contract) => rows.with_contract(contract.clone()),
            None => rows,
        };
        let mut dropped = Vec::new();
        let refused: &mut Vec<Refused> = &mut self.changes.refused;
        let made = sift(file, part, self.options.bad_rows, refused, &mut |p| make.batch(p, &rows, &mut dropped))?;
        for batch in made {
            self.changes.batches.push(batch);
        }
        for name in dropped {
            if !self.changes.dropped_columns.contains(&name) {
                self.changes.dropped_columns.push(name);
            }
        }
        Ok(())
    }
}

/// Makes change records of the rows of one file.
struct Make<'a> {
    options: &'a DmsOptions,
    order: &'a [String],
    by_place: bool,
    file: &'a Arc<str>,
    named: &'a DmsFile,
}

impl Make<'_> {
    fn batch(&self, part: &Part, rows: &RowsOptions, dropped: &mut Vec<String>) -> Result<ChangeBatch> {
        let old_keys = self.old_keys(part)?;
        let mut fields: Vec<Field> = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let schema = part.batch.schema();
        for (field, column) in schema.fields().iter().zip(part.batch.columns()) {
            let name = field.name();
            let before = name.strip_prefix(&self.options.before_image).is_some_and(|k| column_of(&part.batch, k));
            if before || name.starts_with('\u{0}') {
                continue;
            }
            let ordering = self.order.contains(name);
            if name == &self.options.op {
                columns.push(column.clone());
            } else if ordering {
                columns.push(self.ordered(column, name, part)?);
            } else if let Some(t) = self.options.declared(name) {
                columns.push(self.declared(column, &t, name, part)?);
            } else if self.options.contract.is_some() {
                if !dropped.contains(name) {
                    dropped.push(name.clone());
                }
                continue;
            } else {
                columns.push(column.clone());
            }
            fields.push(Field::new(name, columns[columns.len() - 1].data_type().clone(), true));
        }
        if self.by_place {
            let rows = part.places.len();
            let place = |p: &u64| i64::try_from(*p).unwrap_or(i64::MAX);
            columns.push(Arc::new(Int64Array::from_value(self.named.number, rows)));
            columns.push(Arc::new(part.places.iter().map(place).collect::<Int64Array>()));
            fields.extend([FILE, ROW].map(|n| Field::new(n, DataType::Int64, true)));
        }
        let size = arrow::array::RecordBatchOptions::new().with_row_count(Some(part.places.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &size)
            .map_err(|e| Error::internal("rows could not be put together").with_source(e))?;
        let (mut batch, _) = part_changes(&Part { batch, ..part.clone() }, self.file, rows)?;
        if self.named.kind == Kind::Load && !self.by_place {
            batch.rank = 0;
        }
        self.with_old_keys(batch, old_keys.as_ref())
    }

    /// An order column: whole numbers of up to 38 digits and timestamps come as text. A full load may have none; it ranks
    /// below all changes anyway.
    fn ordered(&self, column: &ArrayRef, name: &str, part: &Part) -> Result<ArrayRef> {
        let mut column = column.clone();
        let load = self.named.kind == Kind::Load;
        if load && *column.data_type() == DataType::Utf8 {
            let blank = column.as_string::<i32>().iter().map(|v| Some(v.is_some_and(str::is_empty))).collect();
            column = nullif(&column, &blank).map_err(|e| Error::internal("orders").with_source(e))?;
        }
        let t = match self.options.declared(name) {
            Some(t) => t,
            None if plain_type(column.data_type()) != DataType::Utf8 => column.data_type().clone(),
            None => {
                let text = as_text(&column)?;
                let digits = |v: &str| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit());
                match text.as_string::<i32>().iter().flatten().all(digits) {
                    true => DataType::Decimal128(38, 0),
                    false => DataType::Timestamp(TimeUnit::Microsecond, None),
                }
            }
        };
        let column = self.declared(&column, &t, name, part)?;
        if !load || column.null_count() == 0 {
            return Ok(column);
        }
        let valid = is_not_null(&column).map_err(|e| Error::internal("orders").with_source(e))?;
        let least = cast_with_options(&Int64Array::from_value(0, 1), &DataType::Int64, &CastOptions::default())
            .and_then(|zero| cast_with_options(&zero, &t, &CastOptions::default()))
            .map_err(|e| Error::internal("the least order").with_source(e))?;
        let least = arrow::compute::take(&least, &Int64Array::from_value(0, column.len()), None)
            .map_err(|e| Error::internal("the least order").with_source(e))?;
        arrow::compute::kernels::zip::zip(&valid, &column, &least)
            .map_err(|e| Error::internal("the least order").with_source(e))
    }

    /// A column in its declared type: DMS writes many types as text, and numbers and timestamps in types of its own.
    fn declared(&self, column: &ArrayRef, t: &DataType, name: &str, part: &Part) -> Result<ArrayRef> {
        let from = plain_type(column.data_type());
        if from == *t {
            return cast(column, t);
        }
        if from == DataType::Utf8 {
            let text = as_text(column)?;
            let text = text.as_string::<i32>();
            let mut cells = Vec::with_capacity(text.len());
            for (row, value) in text.iter().enumerate() {
                let cell = value.map_or(Ok(crate::cell::Cell::Null), |v| text_cell(t, v.to_owned()));
                cells.push(cell.map_err(|why| wrong_type(name, &why, self.file, part.places[row]))?);
            }
            let first = part.places.first().copied().unwrap_or_default();
            return to_array(t, &cells).map_err(|why| wrong_type(name, &why, self.file, first));
        }
        let lossless = common_type(&from, t).as_ref() == Some(t)
            || (from.is_integer() && t.is_integer())
            || matches!((&from, t), (DataType::Timestamp(..), DataType::Timestamp(..)))
            || matches!((&from, t), (DataType::Time32(_) | DataType::Time64(_), DataType::Time64(_)))
            || (*t == DataType::Utf8 && (from.is_numeric() || from == DataType::Boolean));
        if !lossless {
            let message = format!("column `{name}` is {from} and was declared as {t}");
            return Err(Error::data("WrongType", message).with_column(name).in_file(self.file));
        }
        cast(column, t).map_err(|e| {
            Error::data("WrongType", format!("column `{name}` does not fit {t}"))
                .with_column(name)
                .in_file(self.file)
                .with_source(e)
        })
    }

    /// The key before each update, where the file has it: columns with the prefix, under the names of the key.
    fn old_keys(&self, part: &Part) -> Result<Option<RecordBatch>> {
        let key = self.options.key();
        let mut columns = Vec::new();
        for name in key {
            let Some(column) = part.batch.column_by_name(&format!("{}{name}", self.options.before_image)) else {
                return Ok(None);
            };
            let now = part.batch.schema().field_with_name(name).map(|f| plain_type(f.data_type())).ok();
            let t = self.options.declared(name).or(now).unwrap_or_else(|| column.data_type().clone());
            columns.push((name.clone(), self.declared(column, &t, name, part)?));
        }
        if columns.is_empty() {
            return Ok(None);
        }
        let keys = RecordBatch::try_from_iter(columns);
        keys.map(Some).map_err(|e| Error::internal("keys could not be put together").with_source(e))
    }

    /// An update that changes the key is a delete of the old key and a create of the new one.
    fn with_old_keys(&self, mut batch: ChangeBatch, old: Option<&RecordBatch>) -> Result<ChangeBatch> {
        let Some(old) = old else { return Ok(batch) };
        let key = self.options.key();
        let failed = |e| Error::internal("a key update could not be taken apart").with_source(e);
        let mut now = Vec::with_capacity(key.len());
        for name in key {
            now.push(batch.rows.column(column_index(&batch.rows.schema(), name, &format!("`{}`", self.file))?).clone());
        }
        let changed = |row: &usize| {
            let differs = |(o, n): (&ArrayRef, &ArrayRef)| {
                o.is_valid(*row) && o.slice(*row, 1).to_data() != n.slice(*row, 1).to_data()
            };
            &*batch.codes[*row] == "u" && old.columns().iter().zip(&now).any(differs)
        };
        let moved: Vec<usize> = (0..batch.ops.len()).filter(changed).collect();
        if moved.is_empty() {
            return Ok(batch);
        }
        let schema = batch.rows.schema();
        let mut deletes = Vec::new();
        for (i, field) in schema.fields().iter().enumerate() {
            let indices: Int64Array = moved.iter().map(|&r| r as i64).collect();
            let ordering = self.order.contains(field.name());
            deletes.push(match key.iter().position(|k| k == field.name()) {
                Some(k) => arrow::compute::take(old.column(k), &indices, None).map_err(failed)?,
                None if ordering => arrow::compute::take(batch.rows.column(i), &indices, None).map_err(failed)?,
                None => new_null_array(field.data_type(), moved.len()),
            });
        }
        let deletes = RecordBatch::try_new(schema.clone(), deletes).map_err(failed)?;
        let rows = batch.ops.len();
        let new_keys = RecordBatch::try_from_iter(key.iter().cloned().zip(now)).map_err(failed)?;
        for (n, &row) in moved.iter().enumerate() {
            batch.moves.push(Move { row: rows + n, kind: MoveKind::To, key: new_keys.slice(row, 1) });
            batch.moves.push(Move { row, kind: MoveKind::From, key: old.slice(row, 1) });
        }
        let indices: Vec<u32> = (0..rows).chain(moved.iter().copied()).map(|r| r as u32).collect();
        batch.raw = batch.raw.map(|r| r.0.pick(&indices).map(crate::refused::RawRows)).transpose()?;
        batch.rows = concat_batches(&schema, [&batch.rows, &deletes]).map_err(failed)?;
        batch.ops.extend(moved.iter().map(|_| Op::Delete));
        batch.codes.extend(moved.iter().map(|_| Arc::from("d")));
        batch.places.extend(moved.iter().map(|&r| batch.places[r]).collect::<Vec<_>>());
        for given in batch.given.iter_mut().flatten() {
            *given = given.iter().chain(moved.iter().map(|_| true)).collect();
        }
        Ok(batch)
    }
}

fn column_of(batch: &RecordBatch, name: &str) -> bool {
    batch.column_by_name(name).is_some()
}

fn cast(column: &ArrayRef, t: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, t, &options).map_err(|e| Error::data("WrongType", "a value does not fit").with_source(e))
}

fn as_text(column: &ArrayRef) -> Result<ArrayRef> {
    cast(column, &DataType::Utf8)
}
