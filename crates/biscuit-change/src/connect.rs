use arrow::datatypes::{DataType, TimeUnit};
use biscuit_core::{Error, Result};
use biscuit_schema::MAX_FIELDS;
use serde::Deserialize;

use crate::codec::Codec;

/// A schema as Kafka Connect's JSON converter embeds it.
#[derive(Debug, Deserialize)]
pub(crate) struct ConnectSchema {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) field: Option<String>,
    name: Option<String>,
    #[serde(default)]
    parameters: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) fields: Vec<ConnectSchema>,
    items: Option<Box<ConnectSchema>>,
    values: Option<Box<ConnectSchema>>,
}

impl ConnectSchema {
    /// The field of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.fields.iter().find(|f| f.field.as_deref() == Some(name))
    }

    /// The names and codecs of a struct's fields.
    ///
    /// # Errors
    /// `UnknownType`, `TooManyColumns`.
    pub(crate) fn columns(&self) -> Result<Vec<(String, Codec)>> {
        if self.size() > MAX_FIELDS {
            let message = format!("the embedded schema has more than {MAX_FIELDS} columns and nested fields");
            return Err(Error::data("TooManyColumns", message));
        }
        let column = |f: &Self| {
            let name = f.field.clone().unwrap_or_default();
            let codec = f.codec().map_err(|t| {
                Error::data("UnknownType", format!("column `{name}` has the type `{t}`, which is not known here"))
            })?;
            Ok((name, codec))
        };
        self.fields.iter().map(column).collect()
    }

    /// Fields, with those within them; nested as deep as a line may be.
    fn size(&self) -> usize {
        let within = self.fields.iter().chain(self.items.as_deref()).chain(self.values.as_deref());
        within.map(|part| 1 + part.size()).sum()
    }

    fn parameter<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.parameters.get(name)?.parse().ok()
    }

    /// The codec that the name of the type says.
    pub(crate) fn named_codec(&self) -> Option<Codec> {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond};
        match self.name.as_deref()? {
            "org.apache.kafka.connect.data.Decimal" => {
                let scale: i8 = self.parameter("scale").filter(|s: &i8| s.unsigned_abs() <= 38)?;
                let precision: Option<u8> = self.parameter("connect.decimal.precision");
                let fits = |p: &u8| (1..=38).contains(p) && i16::from(scale) <= i16::from(*p);
                Some(Codec::Decimal(precision.filter(fits).unwrap_or(38), scale))
            }
            "io.debezium.data.VariableScaleDecimal" => Some(Codec::VariableDecimal),
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Some(Codec::EpochDays),
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Some(Codec::TimeOfDay(Millisecond)),
            "io.debezium.time.MicroTime" => Some(Codec::TimeOfDay(Microsecond)),
            "io.debezium.time.NanoTime" => Some(Codec::TimeOfDay(Nanosecond)),
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Some(Codec::Epoch(Millisecond)),
            "io.debezium.time.MicroTimestamp" => Some(Codec::Epoch(Microsecond)),
            "io.debezium.time.NanoTimestamp" => Some(Codec::Epoch(Nanosecond)),
            "io.debezium.time.ZonedTimestamp" => Some(Codec::Zoned),
            "io.debezium.time.IsoDate" => Some(Codec::Iso(DataType::Date32)),
            "io.debezium.time.IsoTime" => Some(Codec::Iso(DataType::Time64(Microsecond))),
            "io.debezium.time.IsoTimestamp" => Some(Codec::Iso(DataType::Timestamp(Microsecond, None))),
            "io.debezium.data.Bits" => Some(Codec::Bits(self.parameter("length")?)),
            _ => None,
        }
    }

    fn codec(&self) -> Result<Codec, String> {
        match (&self.name, self.named_codec()) {
            (_, Some(codec)) => return Ok(codec),
            // A decimal without its scale is no decimal, nor is one of a scale that none has.
            (Some(name), None)
                if name == "org.apache.kafka.connect.data.Decimal" || name == "io.debezium.data.Bits" =>
            {
                return Err(name.clone());
            }
            _ => {}
        }
        Ok(match self.kind.as_str() {
            "boolean" => Codec::Plain(DataType::Boolean),
            "int8" => Codec::Plain(DataType::Int8),
            "int16" => Codec::Plain(DataType::Int16),
            "int32" => Codec::Plain(DataType::Int32),
            "int64" => Codec::Plain(DataType::Int64),
            "float" | "float32" => Codec::Plain(DataType::Float32),
            "double" | "float64" => Codec::Plain(DataType::Float64),
            "string" => Codec::Plain(DataType::Utf8),
            "bytes" => Codec::Plain(DataType::Binary),
            "array" => Codec::List(Box::new(self.items.as_ref().ok_or("array")?.codec()?)),
            "map" => Codec::Map(Box::new(self.values.as_ref().ok_or("map")?.codec()?)),
            "struct" => {
                let field = |f: &Self| Ok((f.field.clone().unwrap_or_default(), f.codec()?));
                Codec::Struct(self.fields.iter().map(field).collect::<Result<_, String>>()?)
            }
            other => return Err(other.to_owned()),
        })
    }
}
