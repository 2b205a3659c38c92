use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_schema::{Contract, check_names, common_type, plain_type, type_name};
use bytes::Bytes;

use crate::cell::{Cell, to_array};
use crate::changes::Changes;
use crate::codec::Codec;
use crate::csv_rows;
use crate::infer::{infer_json, widen};
use crate::json::{self, Object};
use crate::row_changes::row_changes;
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

    pub(crate) fn is_input_only(&self, name: &str) -> bool {
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
