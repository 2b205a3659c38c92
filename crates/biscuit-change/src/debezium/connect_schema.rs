//! Schemas that the JSON converter of Kafka Connect embeds in records, and the codecs of their types.

use arrow::datatypes::{DataType, TimeUnit};
use biscuit_core::{Error, Result};
use biscuit_schema::internal::MAX_FIELDS;
use serde::Deserialize;

use crate::codes;
use crate::values::codec::ValueCodec;

/// Schema as the JSON converter of Kafka Connect embeds it.
#[derive(Debug, Deserialize)]
pub(crate) struct ConnectSchema {
    #[serde(rename = "type")]
    kind: String,
    /// Name of the field that has this schema.
    pub(crate) field: Option<String>,
    /// Name of the semantic type, such as `io.debezium.time.Date`.
    name: Option<String>,
    #[serde(default)]
    parameters: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) fields: Vec<ConnectSchema>,
    items: Option<Box<ConnectSchema>>,
    values: Option<Box<ConnectSchema>>,
}

impl ConnectSchema {
    /// Returns the field with this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.fields.iter().find(|f| f.field.as_deref() == Some(name))
    }

    /// Returns the name and codec of each field of a struct.
    ///
    /// # Errors
    /// `UnsupportedType`, `TooManyColumns`.
    pub(crate) fn columns(&self) -> Result<Vec<(String, ValueCodec)>> {
        if self.count_fields() > MAX_FIELDS {
            let message = format!("the embedded schema has more than {MAX_FIELDS} columns and nested fields");
            return Err(Error::new(biscuit_schema::codes::TOO_MANY_COLUMNS, message));
        }
        let column = |f: &Self| {
            let name = f.field.clone().unwrap_or_default();
            let codec = f.codec().map_err(|t| {
                Error::new(codes::UNSUPPORTED_TYPE, format!("column `{name}` has the unknown type `{t}`"))
            })?;
            Ok((name, codec))
        };
        self.fields.iter().map(column).collect()
    }

    /// Number of fields, including nested ones. The recursion is limited by the depth of a line.
    fn count_fields(&self) -> usize {
        let within = self.fields.iter().chain(self.items.as_deref()).chain(self.values.as_deref());
        within.map(|part| 1 + part.count_fields()).sum()
    }

    fn parameter<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.parameters.get(name)?.parse().ok()
    }

    /// Returns the codec of a semantic type; `None` for a type without a name or with an unknown one.
    pub(crate) fn named_codec(&self) -> Option<ValueCodec> {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond};
        match self.name.as_deref()? {
            "org.apache.kafka.connect.data.Decimal" => {
                let scale: i8 = self.parameter("scale").filter(|s: &i8| s.unsigned_abs() <= 38)?;
                let precision: Option<u8> = self.parameter("connect.decimal.precision");
                let fits = |p: &u8| (1..=38).contains(p) && i16::from(scale) <= i16::from(*p);
                Some(ValueCodec::Decimal(precision.filter(fits).unwrap_or(38), scale))
            }
            "io.debezium.data.VariableScaleDecimal" => Some(ValueCodec::VariableDecimal),
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Some(ValueCodec::EpochDays),
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Some(ValueCodec::TimeOfDay(Millisecond)),
            "io.debezium.time.MicroTime" => Some(ValueCodec::TimeOfDay(Microsecond)),
            "io.debezium.time.NanoTime" => Some(ValueCodec::TimeOfDay(Nanosecond)),
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
                Some(ValueCodec::Epoch(Millisecond))
            }
            "io.debezium.time.MicroTimestamp" => Some(ValueCodec::Epoch(Microsecond)),
            "io.debezium.time.NanoTimestamp" => Some(ValueCodec::Epoch(Nanosecond)),
            "io.debezium.time.ZonedTimestamp" => Some(ValueCodec::Zoned),
            "io.debezium.time.IsoDate" => Some(ValueCodec::Iso(DataType::Date32)),
            "io.debezium.time.IsoTime" => Some(ValueCodec::Iso(DataType::Time64(Microsecond))),
            "io.debezium.time.IsoTimestamp" => Some(ValueCodec::Iso(DataType::Timestamp(Microsecond, None))),
            "io.debezium.data.Bits" => Some(ValueCodec::Bits(self.parameter("length")?)),
            _ => None,
        }
    }

    /// Returns the codec of the type, or the name of a type that is not known.
    fn codec(&self) -> Result<ValueCodec, String> {
        match (&self.name, self.named_codec()) {
            (_, Some(codec)) => return Ok(codec),
            // Without a valid scale or length, the bytes of these types cannot be decoded.
            (Some(name), None)
                if name == "org.apache.kafka.connect.data.Decimal" || name == "io.debezium.data.Bits" =>
            {
                return Err(name.clone());
            }
            _ => {}
        }
        Ok(match self.kind.as_str() {
            "boolean" => ValueCodec::Plain(DataType::Boolean),
            "int8" => ValueCodec::Plain(DataType::Int8),
            "int16" => ValueCodec::Plain(DataType::Int16),
            "int32" => ValueCodec::Plain(DataType::Int32),
            "int64" => ValueCodec::Plain(DataType::Int64),
            "float" | "float32" => ValueCodec::Plain(DataType::Float32),
            "double" | "float64" => ValueCodec::Plain(DataType::Float64),
            "string" => ValueCodec::Plain(DataType::Utf8),
            "bytes" => ValueCodec::Plain(DataType::Binary),
            "array" => ValueCodec::List(Box::new(self.items.as_ref().ok_or("array")?.codec()?)),
            "map" => ValueCodec::Map(Box::new(self.values.as_ref().ok_or("map")?.codec()?)),
            "struct" => {
                let field = |f: &Self| Ok((f.field.clone().unwrap_or_default(), f.codec()?));
                ValueCodec::Struct(self.fields.iter().map(field).collect::<Result<_, String>>()?)
            }
            other => return Err(other.to_owned()),
        })
    }
}
