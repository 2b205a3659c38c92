//! Columns of a contract from an Avro schema.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use biscuit_core::{Error, Result, remove_quoted_text};
use serde_json::Value;

use crate::codes;
use crate::contract::column::ContractColumn;
use crate::types::column_type::ColumnType;
use crate::types::limits::check_type_size;
use crate::types::limits::too_deep;

/// Arrow type of an Avro type, and whether it is nullable.
type AvroType = (DataType, bool);

/// A record as its Avro schema declares it.
pub(crate) struct AvroRecord {
    pub(crate) columns: Vec<ContractColumn>,
    pub(crate) comment: Option<String>,
    /// Name of the record, with its namespace.
    pub(crate) table: String,
}

/// Reads a record from its schema.
///
/// # Errors
/// `InvalidAvro`, `SchemaTooLarge`.
pub(crate) fn read_record(text: &str) -> Result<AvroRecord> {
    let schema: Value = serde_json::from_str(text).map_err(|e| match e.to_string() {
        reason if reason.starts_with("recursion limit") => {
            Error::new(codes::SCHEMA_TOO_LARGE, too_deep("the Avro schema").message())
        }
        reason => invalid_schema(&remove_quoted_text(&reason)).with_source(e),
    })?;
    if schema["type"] != "record" {
        return Err(invalid_schema("it is not a record"));
    }
    let mut names = AvroNames { known: HashMap::new() };
    let namespace = schema["namespace"].as_str().unwrap_or_default().to_owned();
    let mut columns = Vec::new();
    for field in fields_of(&schema)? {
        let name = name_of(field)?;
        let (t, nullable) = names.read(&field["type"], &namespace).map_err(|e| match e.error_code() {
            codes::INVALID_AVRO => invalid_schema(&format!("field `{name}`: {}", e.message())).with_column(name),
            code => Error::new(code, e.message()).with_column(name),
        })?;
        let mut column = ContractColumn { nullable, ..ContractColumn::new(name, ColumnType::of_arrow(t)) };
        column.comment = field["doc"].as_str().map(str::to_owned);
        column.reading.default = match &field["default"] {
            Value::String(text) => Some(text.clone()),
            Value::Number(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            _ => None,
        };
        let aliases = field["aliases"].as_array().map(Vec::as_slice).unwrap_or_default();
        column.reading.renamed_from = aliases.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        columns.push(column);
    }
    let comment = schema["doc"].as_str().map(str::to_owned);
    let name = name_of(&schema)?;
    let table = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") };
    Ok(AvroRecord { columns, comment, table })
}

fn fields_of(record: &Value) -> Result<&Vec<Value>> {
    record["fields"].as_array().ok_or_else(|| invalid_schema("a record has no fields"))
}

fn name_of(value: &Value) -> Result<&str> {
    value["name"].as_str().ok_or_else(|| invalid_schema("a record or field has no name"))
}

/// Named types that were declared up to this point, by name and by full name. Avro requires a declaration before its
/// use.
struct AvroNames {
    known: HashMap<String, DataType>,
}

impl AvroNames {
    fn read(&mut self, schema: &Value, namespace: &str) -> Result<AvroType> {
        match schema {
            Value::String(name) => Ok((self.parse_simple(name, namespace)?, false)),
            Value::Array(branches) => {
                // A union of null and one type is the way of Avro to declare a nullable value.
                let rest: Vec<&Value> = branches.iter().filter(|b| *b != "null").collect();
                match rest.as_slice() {
                    [] => Err(invalid_schema("a union contains only null")),
                    [one] => Ok((self.read(one, namespace)?.0, rest.len() < branches.len())),
                    _ => Err(invalid_schema("a union of several types cannot be a column")),
                }
            }
            Value::Object(_) => Ok((self.parse_complex(schema, namespace)?, false)),
            _ => Err(invalid_schema("a type must be a name, a union or an object")),
        }
    }

    fn parse_simple(&self, name: &str, namespace: &str) -> Result<DataType> {
        Ok(match name {
            "null" => return Err(invalid_schema("the type null alone cannot be a column")),
            "boolean" => DataType::Boolean,
            "int" => DataType::Int32,
            "long" => DataType::Int64,
            "float" => DataType::Float32,
            "double" => DataType::Float64,
            "bytes" => DataType::Binary,
            "string" => DataType::Utf8,
            _ => {
                let known = self.known.get(name).or_else(|| self.known.get(&format!("{namespace}.{name}")));
                return known
                    .cloned()
                    .ok_or_else(|| invalid_schema(&format!("the type `{name}` is not declared before it is used")));
            }
        })
    }

    fn parse_complex(&mut self, schema: &Value, namespace: &str) -> Result<DataType> {
        if let Some(t) = logical_type(schema)? {
            // A `fixed` with a logical type declares a name as well.
            self.declare_name(schema, namespace, &t);
            return Ok(t);
        }
        let Some(kind) = schema["type"].as_str() else { return Ok(self.read(&schema["type"], namespace)?.0) };
        let own = schema["namespace"].as_str().unwrap_or(namespace).to_owned();
        let t = match kind {
            "record" => {
                let mut fields = Vec::new();
                for field in fields_of(schema)? {
                    let (t, _) = self.read(&field["type"], &own)?;
                    fields.push(Field::new(name_of(field)?, t, true));
                }
                DataType::Struct(Fields::from(fields))
            }
            "enum" => DataType::Utf8,
            "fixed" => DataType::Binary,
            "array" => {
                let (item, _) = self.read(&schema["items"], namespace)?;
                DataType::List(Arc::new(Field::new("element", item, true)))
            }
            "map" => {
                let (value, _) = self.read(&schema["values"], namespace)?;
                let entry =
                    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)]);
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entry), false)), false)
            }
            simple => self.parse_simple(simple, namespace)?,
        };
        // A type can refer to named types that refer to others, so the result can be exponentially larger than the
        // text. The size is checked after each step.
        check_type_size(&t, "the Avro schema")?;
        self.declare_name(schema, &own, &t);
        Ok(t)
    }

    fn declare_name(&mut self, schema: &Value, namespace: &str, t: &DataType) {
        if let Some(name) = schema["name"].as_str() {
            self.known.insert(name.to_owned(), t.clone());
            self.known.insert(format!("{namespace}.{name}"), t.clone());
        }
    }
}

/// Returns the Arrow type of a logical type, or `None` for an unknown one, which the specification tells readers to
/// ignore.
fn logical_type(schema: &Value) -> Result<Option<DataType>> {
    let Some(logical) = schema["logicalType"].as_str() else { return Ok(None) };
    let utc = || Some("UTC".into());
    Ok(Some(match logical {
        "decimal" => {
            let precision =
                schema["precision"].as_u64().and_then(|p| u8::try_from(p).ok()).filter(|p| (1..=38).contains(p));
            let scale = schema["scale"].as_u64().unwrap_or(0);
            match (precision, i8::try_from(scale)) {
                (Some(p), Ok(s)) if scale <= u64::from(p) => DataType::Decimal128(p, s),
                _ => {
                    return Err(invalid_schema(
                        "a decimal must have a precision of 1 to 38 and a scale that does not exceed it",
                    ));
                }
            }
        }
        "uuid" => DataType::Utf8,
        "date" => DataType::Date32,
        "time-millis" | "time-micros" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp-millis" | "timestamp-micros" => DataType::Timestamp(TimeUnit::Microsecond, utc()),
        "timestamp-nanos" => DataType::Timestamp(TimeUnit::Nanosecond, utc()),
        "local-timestamp-millis" | "local-timestamp-micros" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "local-timestamp-nanos" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        _ => return Ok(None),
    }))
}

fn invalid_schema(reason: &str) -> Error {
    Error::new(codes::INVALID_AVRO, format!("not an Avro schema of a table: {reason}"))
}
