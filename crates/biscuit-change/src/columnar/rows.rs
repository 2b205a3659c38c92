//! Rows of Parquet and Avro files in storable types, and their conversion to the JSON of Kafka Connect, so that
//! envelopes in these formats are read by the same code as JSON.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type, Schema};
use arrow::util::display::array_value_to_string;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use biscuit_core::{Error, Result};
use biscuit_schema::internal::{MAX_DEPTH, UuidColumns, impossible_values, plain_type, stored_type};
use bytes::Bytes;
use serde_json::Value;

use crate::avro::chunks::AvroChunk;
use crate::avro::file::AvroFile;
use crate::codes;
use crate::columnar::parquet::ParquetRows;
use crate::debezium::connect_schema::ConnectSchema;
use crate::debezium::envelope::META;
use crate::files::decompress::DecodedRows;
use crate::records::refused::{QuarantineRule, RowsInProgress};
use crate::values::codec::ValueCodec;

/// Metadata key of the Avro schema in Avro files and in batches.
pub(crate) const AVRO_SCHEMA: &str = "avro.schema";
/// Metadata key of the Avro schema in Parquet files.
const AVRO_IN_PARQUET: &str = "parquet.avro.schema";

/// Returns whether a file is Parquet or Avro, by its first bytes.
pub(crate) fn is_columnar(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PAR1") || bytes.starts_with(b"Obj\x01")
}

/// Iterator over the rows of a file in parts.
pub(crate) type RowParts = Box<dyn Iterator<Item = Result<RowsInProgress>> + Send>;

/// Returns the rows of a Parquet or Avro file. `only` is the row number of a quarantined record that is read again.
pub(crate) fn read_parts(
    file: &Arc<str>,
    bytes: Bytes,
    quarantine_rule: &QuarantineRule,
    only: Option<u64>,
    max_decompressed: Option<u64>,
) -> Result<RowParts> {
    let (mut row, quarantine_rule) = (only.unwrap_or(1), quarantine_rule.clone());
    Ok(Box::new(FileRows::open(file, bytes, max_decompressed)?.map(move |batch| {
        let part = RowsInProgress::from_batch(batch?, row, &quarantine_rule);
        row += part.places.len() as u64;
        Ok(part)
    })))
}

/// Iterator over the rows of a Parquet or Avro file in batches of a few thousand rows, so that a file is never in
/// memory as a whole.
pub struct FileRows {
    rows: FormatRows,
    decoded: DecodedRows,
    file: Arc<str>,
}

enum FormatRows {
    Avro(Box<AvroRows>),
    Parquet(ParquetRows),
}

impl FileRows {
    /// Opens a Parquet or Avro file, told apart by the first bytes; `file` is its name in messages.
    ///
    /// Rows of Avro have plain types; rows of Parquet have the types of the file, as far as they can be stored.
    /// `max_decompressed` is the maximum number of bytes of all rows; see [`DecodedRows`] for the default.
    ///
    /// # Errors
    /// `UnreadableParquet`, `UnreadableAvro`, `TruncatedInput`, `TooDeep`, `TooManyColumns`, `TooLarge`,
    /// `UnsupportedType`. An error in a block or page is returned by the iterator in place of its rows.
    pub fn open(file: &Arc<str>, bytes: Bytes, max_decompressed: Option<u64>) -> Result<Self> {
        let decoded = DecodedRows::new(file, bytes.len() as u64, max_decompressed);
        let rows = match bytes.starts_with(b"PAR1") {
            true => FormatRows::Parquet(ParquetRows::open(file, bytes)?),
            false => FormatRows::Avro(Box::new(AvroRows::new(AvroFile::open(file, &bytes)?))),
        };
        Ok(Self { rows, decoded, file: file.clone() })
    }

    /// Opens some blocks of an Avro file.
    ///
    /// # Errors
    /// `UnreadableAvro` for a schema that the decoder does not support. An error in a block is returned by the iterator
    /// in place of its rows.
    pub fn of_chunk(chunk: AvroChunk) -> Result<Self> {
        let AvroChunk { head, blocks, begin, decoded, .. } = chunk;
        let file = head.file.clone();
        let rows = AvroRows::new(AvroFile::of_blocks(head, blocks, begin)?);
        Ok(Self { rows: FormatRows::Avro(Box::new(rows)), decoded, file })
    }
}

impl Iterator for FileRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = match &mut self.rows {
            FormatRows::Avro(rows) => rows.next(),
            FormatRows::Parquet(rows) => rows.next(),
        }?;
        Some(rows.and_then(|rows| {
            self.decoded.add(&rows)?;
            to_stored_types(&rows, &self.file)
        }))
    }
}

/// Converts rows to types that can be stored.
///
/// # Errors
/// `UnsupportedType`; `Overflow` for times outside of a day, and for decimals with more digits than their type.
pub fn to_stored_types(rows: &RecordBatch, file: &Arc<str>) -> Result<RecordBatch> {
    let (schema, mut columns, mut fields) = (rows.schema(), vec![], vec![]);
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        let unsupported = || {
            let message = format!(
                "column `{}` is {}, which cannot be stored in a table; remove the column or write it as another type",
                field.name(),
                field.data_type()
            );
            Error::new(codes::UNSUPPORTED_TYPE, message).with_column(field.name()).in_file(file)
        };
        let plain = plain_type(field.data_type());
        let stored = stored_type(field.data_type()).ok_or_else(unsupported)?;
        check_values(column, field.name(), file)?;
        // A column whose type can be stored is not converted, even if its Arrow type is not the plain one.
        let as_it_is = plain == stored;
        columns.push(if as_it_is { column.clone() } else { cast(column, &stored).map_err(|_| unsupported())? });
        fields.push(if as_it_is { field.clone() } else { Arc::new(field.as_ref().clone().with_data_type(stored)) });
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|e| Error::internal("cannot build a batch of columns").with_source(e))
}

/// Refuses times outside of a day and decimals with more digits than their type: readers refuse files with such
/// values.
fn check_values(column: &ArrayRef, name: &str, file: &Arc<str>) -> Result<()> {
    match impossible_values(column) {
        None => Ok(()),
        Some((count, what)) => {
            let message = format!("column `{name}` contains {count} {what}, which are invalid for its type");
            Err(Error::new(biscuit_schema::codes::OVERFLOW, message).with_column(name).in_file(file))
        }
    }
}

impl fmt::Debug for FileRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRows").finish_non_exhaustive()
    }
}

/// Iterator over the rows of an Avro file in plain types.
struct AvroRows {
    file: Arc<str>,
    blocks: AvroFile,
    metadata: HashMap<String, String>,
    /// Columns with UUIDs, which are text in the file and bytes after decoding.
    uuids: UuidColumns,
}

impl AvroRows {
    fn new(blocks: AvroFile) -> Self {
        let (file, schema) = (blocks.head.file.clone(), &blocks.head.schema);
        let metadata = HashMap::from([(AVRO_SCHEMA.to_owned(), schema.clone())]);
        let uuids = avro_uuids(schema);
        Self { file, blocks, metadata, uuids }
    }

    fn to_plain_types(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let batch = self.uuids.to_texts(batch)?;
        let schema = Schema::new(plain_fields(batch.schema().fields())).with_metadata(self.metadata.clone());
        let columns = batch.columns().iter().map(|c| cast(c, &plain_type(c.data_type()))).collect::<Result<_, _>>();
        columns.and_then(|c| RecordBatch::try_new(Arc::new(schema), c)).map_err(|e| {
            let message = "the file cannot be read as Avro: a value is not of its type, or a type is not supported";
            Error::new(codes::UNREADABLE_AVRO, message).in_file(&self.file).with_source(e)
        })
    }
}

impl Iterator for AvroRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.blocks.next().map(|batch| self.to_plain_types(batch?))
    }
}

/// Finds the UUIDs in an Avro schema, as paths such as `ids.[]` or `owner.id`.
fn avro_uuids(schema: &str) -> UuidColumns {
    fn find(root: &Value, schema: &Value, place: &str, depth: usize, all: &mut Vec<String>) {
        let schema = resolve_definition(root, not_null(schema));
        if depth > MAX_DEPTH {
            return;
        }
        let within = |part: &str| if place.is_empty() { part.to_owned() } else { format!("{place}.{part}") };
        match schema.get("type").and_then(Value::as_str) {
            _ if schema.get("logicalType").and_then(Value::as_str) == Some("uuid") => all.push(place.to_owned()),
            Some("record") => {
                for field in schema.get("fields").and_then(Value::as_array).into_iter().flatten() {
                    if let (Some(name), Some(t)) = (field.get("name").and_then(Value::as_str), field.get("type")) {
                        find(root, t, &within(name), depth + 1, all);
                    }
                }
            }
            Some("array") => find(root, &schema["items"], &within("[]"), depth + 1, all),
            Some("map") => find(root, &schema["values"], &within("{value}"), depth + 1, all),
            _ => {}
        }
    }
    let mut all = Vec::new();
    if let Ok(record) = serde_json::from_str::<Value>(schema) {
        find(&record, &record, "", 0, &mut all);
    }
    UuidColumns::at(all)
}

fn plain_fields(fields: &Fields) -> Vec<Field> {
    fields.iter().map(|f| Field::new(f.name(), plain_type(f.data_type()), true)).collect()
}

/// Returns the codecs that decode the JSON of [`write_row_as_json()`] again: of the columns in `after` or `before` of
/// envelopes, or of the columns of flattened records.
pub(crate) fn find_codecs(batch: &RecordBatch) -> Vec<(String, ValueCodec)> {
    let schema = batch.schema();
    let metadata = schema.metadata();
    let avro: Option<Value> =
        [AVRO_SCHEMA, AVRO_IN_PARQUET].iter().find_map(|k| metadata.get(*k)).and_then(|s| serde_json::from_str(s).ok());
    // Envelopes have a struct `after` or `before` with the columns; otherwise the rows are flattened records.
    let image = ["after", "before"].iter().find_map(|name| {
        let field = schema.field_with_name(name).ok()?;
        let DataType::Struct(fields) = field.data_type() else { return None };
        let image = avro.as_ref().and_then(|a| Some(resolve_definition(a, avro_field(a, name)?)));
        Some((fields.clone(), image))
    });
    match image {
        Some((fields, avro)) => fields.iter().map(|f| field_codec(f, avro)).collect(),
        None => {
            let own = |f: &&Arc<Field>| !f.name().starts_with(META);
            schema.fields().iter().filter(own).map(|f| field_codec(f, avro.as_ref())).collect()
        }
    }
}

fn field_codec(field: &Field, record: Option<&Value>) -> (String, ValueCodec) {
    let t = plain_type(field.data_type());
    let named = record.and_then(|r| avro_field(r, field.name())).and_then(|s| connect_codec(s, &t));
    (field.name().clone(), named.unwrap_or(ValueCodec::Plain(t)))
}

/// Returns the schema of a field of a record, without the null of an optional field.
fn avro_field<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    let record = not_null(record);
    let field =
        record.get("fields")?.as_array()?.iter().find(|f| f.get("name").and_then(Value::as_str) == Some(name))?;
    // `"type": {"type": {…}}` and `"type": {…}` are both valid.
    let t = not_null(field.get("type")?);
    Some(if t.get("type").is_some_and(|t| t.is_object() || t.is_array()) { not_null(&t["type"]) } else { t })
}

/// Resolves a schema that is the name of a type to its definition; returns any other schema unchanged.
fn resolve_definition<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let last = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
    let Some(wanted) = schema.as_str().map(last) else { return schema };
    let mut todo = vec![root];
    while let Some(at) = todo.pop() {
        if at.get("fields").is_some() && at.get("name").and_then(Value::as_str).map(last) == Some(wanted) {
            return at;
        }
        match at {
            Value::Array(options) => todo.extend(options),
            Value::Object(parts) => todo.extend(parts.values().filter(|v| v.is_object() || v.is_array())),
            _ => {}
        }
    }
    schema
}

fn not_null(schema: &Value) -> &Value {
    match schema.as_array() {
        Some(options) => options.iter().find(|o| o.as_str() != Some("null")).unwrap_or(schema),
        None => schema,
    }
}

/// Returns the codec for a type of Kafka Connect (`connect.name`, `connect.type`) that the Arrow type does not
/// express; `None` if the Arrow type is sufficient.
fn connect_codec(avro: &Value, t: &DataType) -> Option<ValueCodec> {
    let narrow = match (t, avro.get("connect.type").and_then(Value::as_str)) {
        (DataType::Int32, Some("int8")) => Some(DataType::Int8),
        (DataType::Int32, Some("int16")) => Some(DataType::Int16),
        _ => None,
    };
    let Some(name) = avro.get("connect.name").and_then(Value::as_str) else { return narrow.map(ValueCodec::Plain) };
    let kind = match t {
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Utf8 => "string",
        DataType::Binary => "bytes",
        DataType::Struct(_) => "struct",
        _ => return None,
    };
    let empty = Value::Object(serde_json::Map::new());
    let schema = serde_json::json!({
        "type": kind, "name": name, "parameters": avro.get("connect.parameters").unwrap_or(&empty), "fields": [],
    });
    let schema: ConnectSchema = serde_json::from_value(schema).ok()?;
    schema.named_codec()
}

/// Appends a row as JSON as Kafka Connect writes it, with bytes as base64 and times as ISO text.
pub(crate) fn write_row_as_json(batch: &RecordBatch, row: usize, out: &mut String) -> Result<()> {
    out.push('{');
    for (i, (field, column)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, "{comma}{}:", quote_text(field.name())).expect("writing to a String does not fail");
        write_value(column, row, out)?;
    }
    out.push('}');
    Ok(())
}

fn quote_text(t: &str) -> String {
    Value::String(t.to_owned()).to_string()
}

fn write_value(array: &ArrayRef, row: usize, out: &mut String) -> Result<()> {
    if array.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    let failed = |e: arrow::error::ArrowError| {
        Error::new(
            biscuit_schema::codes::OVERFLOW,
            "a value is out of the range of its type, for example a date or a time",
        )
        .with_source(e)
    };
    match array.data_type() {
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            out.push('{');
            for (i, (field, column)) in fields.iter().zip(columns).enumerate() {
                let comma = if i == 0 { "" } else { "," };
                write!(out, "{comma}{}:", quote_text(field.name())).expect("writing to a String does not fail");
                write_value(column, row, out)?;
            }
            out.push('}');
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            out.push('[');
            for i in 0..items.len() {
                out.push_str(if i == 0 { "" } else { "," });
                write_value(&items, i, out)?;
            }
            out.push(']');
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            out.push('{');
            for i in 0..entries.len() {
                let key = array_value_to_string(entries.column(0), i).map_err(failed)?;
                write!(out, "{}{}:", if i == 0 { "" } else { "," }, quote_text(&key))
                    .expect("writing to a String does not fail");
                write_value(entries.column(1), i, out)?;
            }
            out.push('}');
        }
        DataType::Utf8 => out.push_str(&quote_text(array.as_string::<i32>().value(row))),
        DataType::Binary => out.push_str(&quote_text(&STANDARD.encode(array.as_binary::<i32>().value(row)))),
        DataType::Float32 => write_number(f64::from(array.as_primitive::<Float32Type>().value(row)), array, row, out)?,
        DataType::Float64 => write_number(array.as_primitive::<Float64Type>().value(row), array, row, out)?,
        DataType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        t if t.is_integer() => out.push_str(&array_value_to_string(array, row).map_err(failed)?),
        // Types such as dictionaries and views are converted to plain ones first.
        t if plain_type(t) != *t => write_value(&cast(&array.slice(row, 1), &plain_type(t)).map_err(failed)?, 0, out)?,
        _ => out.push_str(&quote_text(&array_value_to_string(array, row).map_err(failed)?)),
    }
    Ok(())
}

/// Writes a floating-point number. `NaN` and infinities are not JSON numbers and are written as text.
fn write_number(value: f64, array: &ArrayRef, row: usize, out: &mut String) -> Result<()> {
    if value.is_finite() {
        let shown = array_value_to_string(array, row);
        out.push_str(&shown.map_err(|e| Error::internal("cannot format a number").with_source(e))?);
    } else {
        let name = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        out.push_str(&quote_text(name));
    }
    Ok(())
}
