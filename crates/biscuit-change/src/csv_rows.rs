use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_schema::{MAX_FIELDS, check_names};

use crate::cell::{Cell, to_array};
use crate::codec::Codec;
use crate::csv_dialect::{CsvDialect, check_quotes};
use crate::infer::{infer_csv, widen};
use crate::refused::{BadRows, Part, Raws, Refused};
use crate::text::{Why, wrong_type};

/// How a CSV file is written.
#[derive(Debug, Clone)]
pub(crate) struct CsvForm {
    pub(crate) dialect: CsvDialect,
    /// The names of the columns, in files without a header.
    pub(crate) names: Option<Vec<String>>,
    /// What stands for null; an empty field of a column that holds neither text nor bytes is null in any case.
    pub(crate) null: String,
}

/// A CSV file taken apart.
#[derive(Debug)]
pub(crate) struct CsvFile {
    pub(crate) file: Arc<str>,
    text: Arc<str>,
    /// The header as it stands in the file, if it has one.
    head: Option<Arc<str>>,
    pub(crate) names: Vec<String>,
    pub(crate) rows: Vec<Row>,
    null: String,
}

#[derive(Debug)]
pub(crate) struct Row {
    line: u64,
    span: Range<usize>,
    pub(crate) fields: csv::StringRecord,
}

impl CsvFile {
    /// As [`parse`](Self::parse); `only` is the place of a record that was put aside and is the only one of its text.
    pub(crate) fn parse_at(
        file: &Arc<str>,
        text: String,
        form: CsvForm,
        only: Option<u64>,
        bad_rows: BadRows,
        refused: &mut Vec<Refused>,
    ) -> Result<Self> {
        let before = refused.len();
        let mut csv = Self::parse(file, text, form, bad_rows, refused)?;
        if let Some(row) = only {
            refused[before..].iter_mut().for_each(|r| r.row = row);
            csv.rows.iter_mut().for_each(|r| r.line = row);
        }
        Ok(csv)
    }

    /// # Errors
    /// `InvalidCsv` for a row of another length than the header, or quotes that do not end.
    fn parse(
        file: &Arc<str>,
        text: String,
        form: CsvForm,
        bad_rows: BadRows,
        refused: &mut Vec<Refused>,
    ) -> Result<Self> {
        let text: Arc<str> = text.into();
        check_quotes(file, &text, form.dialect)?;
        let mut reader = form.dialect.reader().from_reader(text.as_bytes());
        let (mut names, mut head, mut rows) = (form.names, None, Vec::new());
        let mut fields = csv::StringRecord::new();
        loop {
            let from = reader.position().byte() as usize;
            let line = reader.position().line();
            let more = reader
                .read_record(&mut fields)
                .map_err(|e| Error::data("InvalidCsv", "the row is not CSV").at(file, line).with_source(e))?;
            if !more {
                break;
            }
            let line = fields.position().map_or(line, csv::Position::line);
            let span = from..reader.position().byte() as usize;
            let Some(expected) = names.as_ref().map(Vec::len) else {
                head = Some(Arc::from(&text[span]));
                if fields.len() > MAX_FIELDS {
                    let message = format!("the header has more than {MAX_FIELDS} columns");
                    return Err(Error::data("TooManyColumns", message).in_file(file));
                }
                names = Some(fields.iter().map(str::to_owned).collect());
                continue;
            };
            if fields.len() == expected {
                rows.push(Row { line, span, fields: fields.clone() });
                continue;
            }
            let what = if head.is_some() { "the header" } else { "the table" };
            let message = format!("the row has {} fields, {what} {expected}", fields.len());
            let e = Error::data("InvalidCsv", message).at(file, line);
            if bad_rows == BadRows::Fail {
                return Err(e);
            }
            let raw = Raws::Text { text: text.clone(), header: head.clone(), spans: vec![span] };
            refused.push(Refused::new(file, line, &e, raw.get(0)?));
        }
        Ok(Self {
            file: file.clone(),
            text: text.clone(),
            head,
            names: names.unwrap_or_default(),
            rows,
            null: form.null,
        })
    }

    /// Counts the rows of a part of a file as they are counted in the whole of it: `places` has the line of every row,
    /// those that were put aside among them.
    pub(crate) fn count_in(&mut self, places: &[u64], refused: &mut [Refused]) {
        let mut own: Vec<u64> = self.rows.iter().map(|r| r.line).chain(refused.iter().map(|r| r.row)).collect();
        own.sort_unstable();
        let whole = |line: u64| own.binary_search(&line).ok().and_then(|i| places.get(i).copied()).unwrap_or(line);
        self.rows.iter_mut().for_each(|r| r.line = whole(r.line));
        refused.iter_mut().for_each(|r| r.row = whole(r.row));
    }

    fn value(&self, row: &Row, column: usize, is_text: bool) -> Option<String> {
        let value = row.fields.get(column)?;
        let null = value == self.null || (value.is_empty() && !is_text);
        (!null).then(|| value.to_owned())
    }
}

/// The rows of all files; a column that is not declared gets the type that its values have in all of them.
pub(crate) fn parts(
    files: &[CsvFile],
    declared: impl Fn(&str) -> Option<DataType>,
    bad_rows: BadRows,
    refused: &mut Vec<Refused>,
) -> Result<Vec<(Part, Arc<str>)>> {
    let type_of = |name: &str| {
        declared(name).unwrap_or_else(|| {
            let values = files.iter().flat_map(|f| {
                let at = f.names.iter().position(|h| h == name);
                f.rows.iter().filter_map(move |r| f.value(r, at?, false))
            });
            let found = values.map(|v| infer_csv(&v)).try_fold(DataType::Null, |a, b| widen(&a, &b));
            found.unwrap_or(DataType::Utf8)
        })
    };
    files.iter().map(|f| Ok((part(f, &type_of, bad_rows, refused)?, f.file.clone()))).collect()
}

fn part(
    f: &CsvFile,
    type_of: &dyn Fn(&str) -> DataType,
    bad_rows: BadRows,
    refused: &mut Vec<Refused>,
) -> Result<Part> {
    let spans = f.rows.iter().map(|r| r.span.clone()).collect();
    let raws = Raws::Text { text: f.text.clone(), header: f.head.clone(), spans };
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut bad = vec![false; f.rows.len()];
    for (i, name) in f.names.iter().enumerate() {
        let t = type_of(name);
        let is_text = matches!(t, DataType::Utf8 | DataType::Binary);
        let mut cells = Vec::with_capacity(f.rows.len());
        for (at, row) in f.rows.iter().enumerate() {
            cells.push(match f.value(row, i, is_text).map_or(Ok(Cell::Null), |v| text_cell(&t, v)) {
                Ok(cell) => cell,
                Err(why) => {
                    let e = wrong_type(name, why, &f.file, row.line);
                    if bad_rows == BadRows::Fail {
                        return Err(e);
                    }
                    if !std::mem::replace(&mut bad[at], true) {
                        refused.push(Refused::new(&f.file, row.line, &e, raws.get(at)?));
                    }
                    Cell::Null
                }
            });
        }
        columns.push(to_array(&t, &cells).map_err(|why| wrong_type(name, why, &f.file, 1))?);
        fields.push(Field::new(name, t, true));
    }
    let schema = Arc::new(Schema::new(fields));
    check_names(&schema, &format!("`{}`", f.file))?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(f.rows.len()));
    let batch = RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|e| Error::internal("CSV rows could not be put together").with_source(e))?;
    let places = f.rows.iter().map(|r| r.line).collect();
    let raws = (bad_rows == BadRows::Quarantine).then_some(raws);
    Part { batch, places, raws }.without(&bad)
}

/// A value of a type from the text of a field: bytes are hexadecimal digits or base64.
pub(crate) fn text_cell(t: &DataType, value: String) -> Result<Cell, Why> {
    let as_json = match t {
        DataType::Utf8 => return Ok(Cell::Text(value)),
        DataType::Binary => {
            if let Some(bytes) = crate::codec::unhex(&value) {
                return Ok(Cell::Bytes(bytes));
            }
            serde_json::Value::String(value).to_string()
        }
        DataType::Boolean => match value.to_lowercase().as_str() {
            "true" | "t" | "1" => return Ok(Cell::Bool(true)),
            "false" | "f" | "0" => return Ok(Cell::Bool(false)),
            _ => value,
        },
        t if t.is_numeric() => value,
        _ => serde_json::Value::String(value).to_string(),
    };
    Codec::Plain(t.clone()).decode(&as_json)
}

/// The first record of a text; none if it has none.
pub(crate) fn first_record(text: &str, dialect: CsvDialect) -> Option<csv::StringRecord> {
    let mut reader = dialect.reader().from_reader(text.as_bytes());
    let mut fields = csv::StringRecord::new();
    reader.read_record(&mut fields).ok().filter(|more| *more).map(|_| fields)
}

/// A record, where it is in the text, and its line.
type Record = (csv::StringRecord, Range<usize>, u64);

/// The records of a text.
pub(crate) fn records(text: &str, file: &Arc<str>, dialect: CsvDialect) -> Result<Vec<Record>> {
    check_quotes(file, text, dialect)?;
    let mut reader = dialect.reader().from_reader(text.as_bytes());
    let mut all = Vec::new();
    loop {
        let (from, line) = (reader.position().byte() as usize, reader.position().line());
        let mut fields = csv::StringRecord::new();
        let more = reader
            .read_record(&mut fields)
            .map_err(|e| Error::data("InvalidCsv", "the row is not CSV").at(file, line).with_source(e))?;
        if !more {
            return Ok(all);
        }
        let line = fields.position().map_or(line, csv::Position::line);
        all.push((fields, from..reader.position().byte() as usize, line));
    }
}
