use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_schema::check_names;

use crate::cell::{Cell, to_array};
use crate::codec::Codec;
use crate::infer::{infer_csv, widen};
use crate::text::wrong_type;

/// A CSV file with a header, taken apart. An empty field is null.
#[derive(Debug)]
pub(crate) struct CsvFile {
    file: Arc<str>,
    header: Vec<String>,
    rows: Vec<(u64, csv::StringRecord)>,
}

impl CsvFile {
    /// # Errors
    /// `InvalidCsv` for a row of another length than the header, or quotes that do not end.
    pub(crate) fn parse(file: &Arc<str>, text: &str, separator: u8) -> Result<Self> {
        let invalid = |e: &csv::Error| {
            let line = e.position().map_or(1, csv::Position::line);
            let what = match e.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("the row has {len} fields, the header {expected_len}")
                }
                _ => "the row is not CSV".to_owned(),
            };
            Error::data("InvalidCsv", what).at(file, line)
        };
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|e| invalid(&e))?.iter().map(str::to_owned).collect();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|e| invalid(&e))?;
            rows.push((record.position().map_or(0, csv::Position::line), record));
        }
        Ok(Self { file: file.clone(), header, rows })
    }
}

type Batch = (RecordBatch, Arc<str>, Vec<u64>);

/// The rows of all files; a column that is not declared gets the type that its values have in all of them.
pub(crate) fn batches(files: &[CsvFile], declared: impl Fn(&str) -> Option<DataType>) -> Result<Vec<Batch>> {
    let type_of = |name: &str| {
        declared(name).unwrap_or_else(|| {
            let values = files.iter().flat_map(|f| {
                let at = f.header.iter().position(|h| h == name);
                f.rows.iter().filter_map(move |(_, r)| r.get(at?)).filter(|v| !v.is_empty())
            });
            let found = values.map(infer_csv).try_fold(DataType::Null, |a, b| widen(&a, &b));
            found.unwrap_or(DataType::Utf8)
        })
    };
    files.iter().map(|f| batch(f, &type_of)).collect()
}

fn batch(f: &CsvFile, type_of: &dyn Fn(&str) -> DataType) -> Result<Batch> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (i, name) in f.header.iter().enumerate() {
        let t = type_of(name);
        let mut cells = Vec::with_capacity(f.rows.len());
        for (line, record) in &f.rows {
            let value = record.get(i).unwrap_or_default();
            cells.push(cell(&t, value).map_err(|why| wrong_type(name, &why, &f.file, *line))?);
        }
        columns.push(to_array(&t, &cells).map_err(|why| wrong_type(name, &why, &f.file, 1))?);
        fields.push(Field::new(name, t, true));
    }
    let schema = Arc::new(Schema::new(fields));
    check_names(&schema, &format!("`{}`", f.file))?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(f.rows.len()));
    let rows = RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|e| Error::internal("CSV rows could not be put together").with_source(e))?;
    Ok((rows, f.file.clone(), f.rows.iter().map(|(line, _)| *line).collect()))
}

fn cell(t: &DataType, value: &str) -> Result<Cell, String> {
    if value.is_empty() {
        return Ok(Cell::Null);
    }
    let as_json = match t {
        DataType::Utf8 => return Ok(Cell::Text(value.to_owned())),
        DataType::Boolean => value.to_lowercase(),
        t if t.is_numeric() => value.to_owned(),
        _ => serde_json::Value::String(value.to_owned()).to_string(),
    };
    Codec::Plain(t.clone()).decode(&as_json)
}
