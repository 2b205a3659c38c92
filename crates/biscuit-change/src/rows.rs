use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast_with_options, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_schema::{Contract, check_names, common_type, plain_type, type_name};
use bytes::Bytes;

use crate::cell::{Cell, to_array};
use crate::changes::{ChangeBatch, Changes, Completeness};
use crate::codec::Codec;
use crate::csv_rows;
use crate::infer::{infer_json, widen};
use crate::json::{self, Object};
use crate::op::{Op, ParsedOp, parse_op};
use crate::placeholder::placeholder_rows;
use crate::text::{empty, text_of, wrong_type};

/// How rows say what they change.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RowsOptions {
    /// The column of operation codes; it is not stored.
    pub op: Option<String>,
    /// The column whose truth means that the row is deleted; it is not stored.
    pub delete_column: Option<String>,
    /// Declared columns and types; columns it does not have are left out and named in the result.
    pub contract: Option<Contract>,
    /// The types that columns of JSON and CSV files are expected to have, where there is no contract.
    pub expected: Option<SchemaRef>,
}

impl RowsOptions {
    /// The same options with a column of operation codes.
    pub fn with_op(mut self, column: impl Into<String>) -> Self {
        self.op = Some(column.into());
        self
    }

    /// The same options with a delete flag.
    pub fn with_delete_column(mut self, column: impl Into<String>) -> Self {
        self.delete_column = Some(column.into());
        self
    }

    /// The same options with a contract.
    pub fn with_contract(mut self, contract: Contract) -> Self {
        self.contract = Some(contract);
        self
    }

    /// The same options with expected types.
    pub fn with_expected(mut self, schema: SchemaRef) -> Self {
        self.expected = Some(schema);
        self
    }

    fn is_input_only(&self, name: &str) -> bool {
        self.op.as_deref() == Some(name) || self.delete_column.as_deref() == Some(name)
    }

    /// The type a column of text formats has by declaration, if there is one.
    fn declared(&self, name: &str) -> Option<DataType> {
        match &self.contract {
            Some(contract) => contract.column(name).map(|c| c.column_type.arrow().clone()),
            None => {
                let schema = self.expected.as_ref()?;
                schema.field_with_name(name).ok().map(|f| plain_type(f.data_type()))
            }
        }
    }
}

/// Reads files of plain rows. Types of JSON and CSV are found over all files of the run, so `finish` does the work.
#[derive(Debug, Default)]
pub struct RowsReader {
    options: RowsOptions,
    changes: Changes,
    json: Vec<(Arc<str>, String)>,
    csv: Vec<csv_rows::CsvFile>,
}

impl RowsReader {
    /// A reader with these options.
    pub fn new(options: RowsOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Takes one file. Parquet is known by its first bytes, CSV by the ending of its name (`.csv`, `.csv.gz`, `.tsv`),
    /// everything else is JSON lines.
    ///
    /// # Errors
    /// `EmptyFile`, `UnreadableParquet`, `TruncatedInput`, `NotUtf8`, `InvalidCsv`, and those of [`row_changes`].
    pub fn read(&mut self, file: &str, bytes: Bytes) -> Result<()> {
        let name: Arc<str> = file.into();
        let plain = file.strip_suffix(".gz").unwrap_or(file).to_ascii_lowercase();
        let parquet = bytes.starts_with(b"PAR1") || plain.ends_with(".parquet");
        if bytes.is_empty() {
            Err(empty(file))
        } else if parquet {
            self.parquet(&name, bytes)
        } else if plain.ends_with(".csv") || plain.ends_with(".tsv") {
            let separator = if plain.ends_with(".tsv") { b'\t' } else { b',' };
            self.csv.push(csv_rows::CsvFile::parse(&name, &text_of(file, &bytes)?, separator)?);
            Ok(())
        } else {
            self.json.push((name, text_of(file, &bytes)?));
            Ok(())
        }
    }

    fn parquet(&mut self, file: &Arc<str>, bytes: Bytes) -> Result<()> {
        use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
        let unreadable = |e: &dyn std::fmt::Display| {
            Error::data("UnreadableParquet", format!("the file cannot be read as Parquet: {e}")).in_file(file)
        };
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)
            .and_then(|b| b.with_batch_size(65_536).build())
            .map_err(|e| unreadable(&e).with_source(e))?;
        let mut row = 1;
        for batch in reader {
            let batch = batch.map_err(|e| unreadable(&e).with_source(e))?;
            let rows = batch.num_rows() as u64;
            self.add(batch, file, (row..row + rows).collect())?;
            row += rows;
        }
        Ok(())
    }

    fn add(&mut self, batch: RecordBatch, file: &Arc<str>, places: Vec<u64>) -> Result<()> {
        if self.options.op.as_ref().is_some_and(|op| batch.column_by_name(op).is_none()) {
            self.changes.without_op += batch.num_rows() as u64;
        }
        let batch = match &self.options.contract {
            Some(contract) => to_contract(&batch, contract, &self.options, &mut self.changes.dropped_columns, file)?,
            None => batch,
        };
        let (batch, ignored) = row_changes(&batch, file, places, &self.options)?;
        self.changes.ignored += ignored;
        self.changes.batches.push(batch);
        Ok(())
    }

    /// The change records of all files, in the order in which they were read within a format.
    ///
    /// # Errors
    /// `InvalidJson`, `DuplicateColumn`, `WrongType`, and those of [`row_changes`], naming file, row and column.
    pub fn finish(mut self) -> Result<Changes> {
        self.finish_json()?;
        let files = std::mem::take(&mut self.csv);
        for (batch, file, places) in csv_rows::batches(&files, |name| self.options.declared(name))? {
            self.add(batch, &file, places)?;
        }
        Ok(self.changes)
    }

    fn finish_json(&mut self) -> Result<()> {
        let files = std::mem::take(&mut self.json);
        let mut parsed: Vec<(&Arc<str>, Vec<Line<'_>>)> = Vec::new();
        let mut columns: Vec<(String, DataType)> = Vec::new();
        for (file, text) in &files {
            let mut lines = Vec::new();
            for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
                let place = i as u64 + 1;
                // Kafka tombstones have no row in them.
                if line.trim() == "null" {
                    self.changes.ignored += 1;
                    continue;
                }
                let object = json::object_line(line, file, place)?;
                widen_columns(&mut columns, &object, &self.options, file, place)?;
                lines.push((place, object));
            }
            parsed.push((file, lines));
        }
        for (file, lines) in parsed {
            for chunk in lines.chunks(65_536) {
                let batch = json_batch(&columns, chunk, file)?;
                self.add(batch, file, chunk.iter().map(|(place, _)| *place).collect())?;
            }
        }
        Ok(())
    }
}

/// An object and the number of its line.
type Line<'a> = (u64, Object<'a>);

fn widen_columns(
    columns: &mut Vec<(String, DataType)>,
    object: &Object<'_>,
    options: &RowsOptions,
    file: &Arc<str>,
    place: u64,
) -> Result<()> {
    for (i, (name, raw)) in object.0.iter().enumerate() {
        // Lines mostly have the same columns in the same order.
        let at = match columns.get(i).is_some_and(|(n, _)| n == name) {
            true => Some(i),
            false => columns.iter().position(|(n, _)| n == name),
        };
        let declared = || options.declared(name).filter(|_| !options.is_input_only(name));
        let Some(at) = at else {
            columns.push((name.clone(), declared().unwrap_or_else(|| infer_json(raw.get()))));
            continue;
        };
        if declared().is_none() {
            let (so_far, now) = (columns[at].1.clone(), infer_json(raw.get()));
            columns[at].1 = widen(&so_far, &now).ok_or_else(|| {
                let name_of = |t: &DataType| type_name(t).unwrap_or_else(|| t.to_string());
                wrong_type(name, &format!("it is {} here and {} before", name_of(&now), name_of(&so_far)), file, place)
            })?;
        }
    }
    Ok(())
}

fn json_batch(columns: &[(String, DataType)], lines: &[Line<'_>], file: &Arc<str>) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (i, (name, t)) in columns.iter().enumerate() {
        let t = t.clone();
        let codec = Codec::Plain(t.clone());
        let mut cells = Vec::with_capacity(lines.len());
        for (place, object) in lines {
            let raw = match object.0.get(i) {
                Some((n, raw)) if n == name => Some(*raw),
                _ => object.get(name),
            };
            let cell = raw.map_or(Ok(Cell::Null), |r| codec.decode(r.get()));
            cells.push(cell.map_err(|why| wrong_type(name, &why, file, *place))?);
        }
        let place = lines.first().map_or(0, |(p, _)| *p);
        arrays.push(to_array(&t, &cells).map_err(|why| wrong_type(name, &why, file, place))?);
        fields.push(Field::new(name, t, true));
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(lines.len()));
    let schema = Arc::new(Schema::new(fields));
    check_names(&schema, &format!("`{file}`"))?;
    RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| Error::internal("JSON rows could not be put together").with_source(e))
}

/// Rows in the contract's columns and types; columns it does not have are left out and named.
pub(crate) fn to_contract(
    batch: &RecordBatch,
    contract: &Contract,
    options: &RowsOptions,
    dropped: &mut Vec<String>,
    file: &Arc<str>,
) -> Result<RecordBatch> {
    let schema = batch.schema();
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let name = field.name();
        if options.is_input_only(name) {
            fields.push(field.clone());
            columns.push(column.clone());
        } else if let Some(declared) = contract.column(name) {
            let t = declared.column_type.arrow();
            columns.push(declared_type(column, t, name, file)?);
            fields.push(Arc::new(Field::new(name, t.clone(), true)));
        } else if !dropped.contains(name) {
            dropped.push(name.clone());
        }
    }
    let row_count = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &row_count)
        .map_err(|e| Error::internal("rows could not be put in the contract's columns").with_source(e))
}

/// A column in its declared type: widened, or narrowed where every whole number fits; nothing else.
fn declared_type(column: &ArrayRef, to: &DataType, name: &str, file: &Arc<str>) -> Result<ArrayRef> {
    let from = column.data_type();
    let fits = common_type(from, to).as_ref() == Some(to) || (from.is_integer() && to.is_integer());
    let fail = || {
        let name_of = |t: &DataType| type_name(t).unwrap_or_else(|| t.to_string());
        let message = format!("column `{name}` is {} and was declared as {}", name_of(from), name_of(to));
        Error::data("WrongType", message).in_file(file)
    };
    if !fits {
        return Err(fail());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, to, &options).map_err(|e| fail().with_source(e))
}

/// Rows as change records: reads and takes away the operation column and the delete flag, finds values that were not
/// given, leaves out images before an update; answers with the records and the number left out. `places` are the row
/// numbers in the file.
///
/// # Errors
/// `UnknownOp`, `WrongType` for an operation column or delete flag of another type, `AmbiguousPlaceholder`,
/// `DuplicateColumn`, `ColumnCase`, `NullValue` for a null in a column that the contract says has none.
pub fn row_changes(
    batch: &RecordBatch,
    file: &Arc<str>,
    places: Vec<u64>,
    options: &RowsOptions,
) -> Result<(ChangeBatch, u64)> {
    check_names(&batch.schema(), &format!("`{file}`"))?;
    let mut ops = Vec::with_capacity(batch.num_rows());
    let codes = codes(batch, options.op.as_deref(), file)?;
    let deleted = delete_flags(batch, options.delete_column.as_deref(), file, &places)?;
    let mut keep: Vec<u32> = Vec::with_capacity(batch.num_rows());
    for (row, place) in places.iter().enumerate() {
        let code = codes.as_ref().filter(|c| c.is_valid(row)).map(|c| c.value(row).trim()).filter(|c| !c.is_empty());
        match parse_op(code) {
            ParsedOp::Ignored => continue,
            ParsedOp::Unknown => {
                let column = options.op.as_deref().unwrap_or_default();
                let e =
                    Error::data("UnknownOp", format!("column `{column}` holds an operation code that is not known"));
                return Err(e.at(file, *place).with_detail("op", code.unwrap_or_default()));
            }
            ParsedOp::Change(_) if deleted.as_ref().is_some_and(|d| d.value(row)) => ops.push(Op::Delete),
            ParsedOp::Change(op) => ops.push(op),
        }
        keep.push(u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
    }
    let ignored = batch.num_rows() - keep.len();
    let stored: Vec<usize> =
        (0..batch.num_columns()).filter(|&i| !options.is_input_only(batch.schema().field(i).name())).collect();
    let mut rows = batch.project(&stored).expect("indices come from this batch");
    let mut places = places;
    if ignored > 0 {
        rows = take_record_batch(&rows, &UInt32Array::from(keep.clone()))
            .map_err(|e| Error::internal("rows could not be picked").with_source(e))?;
        places = keep.iter().map(|&r| places[r as usize]).collect();
    }
    let none: Arc<str> = "".into();
    let code = |r: &u32| match codes.as_ref().filter(|c| c.is_valid(*r as usize)) {
        Some(c) => c.value(*r as usize).trim().to_lowercase().into(),
        None => none.clone(),
    };
    let codes: Vec<Arc<str>> = keep.iter().map(code).collect();
    let given = given(&rows, &ops, &codes, file, &places)?;
    if let Some(contract) = &options.contract {
        check_nulls(&rows, &ops, &given, contract, file, &places)?;
    }
    let completeness = Completeness::Full;
    let file = file.clone();
    let batch = ChangeBatch { rows, ops, codes, given, completeness, rank: 1, moves: vec![], file, places };
    Ok((batch, ignored as u64))
}

fn codes(batch: &RecordBatch, column: Option<&str>, file: &Arc<str>) -> Result<Option<StringArray>> {
    let Some((name, array)) = column.and_then(|n| Some((n, batch.column_by_name(n)?))) else { return Ok(None) };
    if !matches!(plain_type(array.data_type()), DataType::Utf8 | DataType::Null) {
        let message = format!("the operation column `{name}` is {}, not text", array.data_type());
        return Err(Error::data("WrongType", message).in_file(file));
    }
    let text = cast_with_options(array, &DataType::Utf8, &CastOptions::default())
        .map_err(|e| Error::internal("operation codes could not be read").with_source(e))?;
    Ok(Some(text.as_string::<i32>().clone()))
}

fn delete_flags(
    batch: &RecordBatch,
    column: Option<&str>,
    file: &Arc<str>,
    places: &[u64],
) -> Result<Option<BooleanArray>> {
    let Some((name, array)) = column.and_then(|n| Some((n, batch.column_by_name(n)?))) else { return Ok(None) };
    let wrong = |row: usize| wrong_type(name, "a delete flag is true or false, 1 or 0, Y or N", file, places[row]);
    let t = plain_type(array.data_type());
    let flags = match &t {
        DataType::Null => return Ok(None),
        DataType::Boolean => array.as_boolean().clone(),
        t if t.is_integer() || *t == DataType::Utf8 => {
            let text = cast_with_options(array, &DataType::Utf8, &CastOptions::default())
                .map_err(|e| Error::internal("delete flags could not be read").with_source(e))?;
            let flag = |(row, v): (usize, Option<&str>)| match v.map(str::to_lowercase).as_deref() {
                None | Some("") => Ok(false),
                Some("true" | "1" | "y" | "t" | "yes") => Ok(true),
                Some("false" | "0" | "n" | "f" | "no") => Ok(false),
                Some(_) => Err(wrong(row)),
            };
            let flags = text.as_string::<i32>().iter().enumerate().map(flag).collect::<Result<Vec<bool>>>()?;
            return Ok(Some(BooleanArray::from(flags)));
        }
        t => {
            let message = format!("the delete flag `{name}` is {t}; it is boolean, a whole number or text");
            return Err(Error::data("WrongType", message).in_file(file));
        }
    };
    // Null means not deleted.
    Ok(Some(flags.iter().map(|f| Some(f.unwrap_or(false))).collect()))
}

/// By column, which records give it: the placeholder in an update, or where there is no code, gives nothing.
fn given(
    rows: &RecordBatch,
    ops: &[Op],
    codes: &[Arc<str>],
    file: &Arc<str>,
    places: &[u64],
) -> Result<Vec<Option<BooleanBuffer>>> {
    let mut all = Vec::with_capacity(rows.num_columns());
    for (i, column) in rows.columns().iter().enumerate() {
        let mut missing: Vec<usize> = Vec::new();
        for row in placeholder_rows(column).into_iter().filter(|&r| ops[r] == Op::Upsert) {
            match codes[row].as_ref() {
                "" | "u" | "+u" => missing.push(row),
                "r" => {}
                _ => return Err(ambiguous(rows.schema().field(i).name(), file, places[row])),
            }
        }
        all.push(
            (!missing.is_empty()).then(|| BooleanBuffer::collect_bool(rows.num_rows(), |r| !missing.contains(&r))),
        );
    }
    Ok(all)
}

pub(crate) fn ambiguous(column: &str, file: &Arc<str>, row: u64) -> Error {
    let message = format!(
        "column `{column}` of a create holds the unavailable-value placeholder, and without headers it cannot be told whether it is a value"
    );
    Error::data("AmbiguousPlaceholder", message).at(file, row)
}

pub(crate) fn check_nulls(
    rows: &RecordBatch,
    ops: &[Op],
    given: &[Option<BooleanBuffer>],
    contract: &Contract,
    file: &Arc<str>,
    places: &[u64],
) -> Result<()> {
    for column in contract.columns.iter().filter(|c| !c.nullable) {
        let at = rows.schema().index_of(&column.name).ok();
        let null = |row: &usize| match at {
            None => true,
            Some(i) => rows.column(i).is_null(*row) && given[i].as_ref().is_none_or(|g| g.value(*row)),
        };
        if let Some(row) = (0..ops.len()).filter(|&r| ops[r] == Op::Upsert).find(null) {
            let message = format!("column `{}` is null, and the contract says it never is", column.name);
            return Err(Error::data("NullValue", message).at(file, places[row]));
        }
    }
    Ok(())
}
