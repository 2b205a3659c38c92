//! Codecs: how each encoding of a value in change files, above all Debezium's, becomes a value of a column.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use biscuit_schema::internal::{WireType, hex_bytes, iso_date, iso_time};
use biscuit_schema::{ContractColumn, DebeziumSettings, EpochUnit};

use crate::json::object;
use crate::values::decimals::{check_precision, decimal_in_full, decimal_text, decode_decimal, variable_decimal};
use crate::values::declared::{as_written as as_written_type, push_once};
use crate::values::text::InvalidValue;
use crate::values::text_value::TextValue;
use crate::values::times::{decode_zoned, format_time, parse_timestamp, time_of_day, to_stored_unit, to_unit};

/// Maximum number of bits of a value: each bit becomes one byte of text.
const MAX_BITS: u32 = 65_536;

/// Encoding of a value on the wire. A codec decodes the JSON text of a value to a value of the column type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ValueCodec {
    /// Plain JSON form of this type: dates and times as ISO text, binary as base64.
    Plain(DataType),
    /// Text, or nested text, that is coerced to the type of the column later.
    Written(DataType),
    /// Number of days since 1970-01-01.
    EpochDays,
    /// Time of day as a number in this unit.
    TimeOfDay(TimeUnit),
    /// Time as a number in this unit, stored as text `[-]HH:MM:SS[.ffffff]`, which may have more than 24 hours.
    Clock(TimeUnit),
    /// Timestamp without zone as a number in this unit since 1970-01-01.
    Epoch(TimeUnit),
    /// Timestamp with zone as ISO text, or `infinity`.
    Zoned,
    /// Date, time or timestamp without zone as ISO text. The text may end in `Z` nevertheless.
    Iso(DataType),
    /// Decimal of this precision and scale: base64 of the unscaled big-endian bytes, or a number.
    Decimal(u8, i8),
    /// Decimal of this scale, stored as text with all its digits.
    DecimalText(i8),
    /// Decimal with a scale of its own, stored as text: an object of `scale` and `value`, or text, or a number.
    VariableDecimal,
    /// Bits as base64 of little-endian bytes.
    Bits(u32),
    /// Bytes as URL-safe base64.
    Base64Url,
    /// Bytes as hexadecimal digits.
    Hex,
    /// List of items with one codec.
    List(Box<ValueCodec>),
    /// Struct with a codec for each field.
    Struct(Vec<(String, ValueCodec)>),
    /// Map from text to values with one codec.
    Map(Box<ValueCodec>),
}

impl ValueCodec {
    /// Returns the type of the decoded column.
    pub(crate) fn data_type(&self) -> DataType {
        let unit = |u: &TimeUnit| if *u == TimeUnit::Nanosecond { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
        match self {
            Self::Plain(t) | Self::Written(t) | Self::Iso(t) => t.clone(),
            Self::EpochDays => DataType::Date32,
            Self::TimeOfDay(u) => DataType::Time64(unit(u)),
            Self::Epoch(u) => DataType::Timestamp(unit(u), None),
            Self::Zoned => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Decimal(p, s) => DataType::Decimal128(*p, *s),
            Self::DecimalText(_) | Self::VariableDecimal | Self::Bits(_) | Self::Clock(_) => DataType::Utf8,
            Self::Base64Url | Self::Hex => DataType::Binary,
            Self::List(item) => DataType::new_list_named(item.data_type()),
            Self::Struct(fields) => {
                DataType::Struct(fields.iter().map(|(n, c)| Field::new(n, c.data_type(), true)).collect())
            }
            Self::Map(value) => DataType::new_map_named(value.data_type()),
        }
    }

    /// Decodes the JSON text of a value.
    pub(crate) fn decode(&self, raw: &str) -> Result<TextValue, InvalidValue> {
        if raw == "null" {
            return Ok(TextValue::Null);
        }
        match self {
            Self::Plain(t) => decode_plain(t, raw),
            Self::Written(t) => as_written(t, raw, ValuePosition { name: "", inside: None }, &mut Vec::new()),
            Self::Iso(t) => match raw.strip_suffix("Z\"") {
                Some(text) => decode_plain(t, &format!("{text}\"")),
                None => decode_plain(t, raw),
            },
            Self::EpochDays => match i32::try_from(parse_integer(raw)?) {
                Ok(days) => Ok(TextValue::Int(days.into())),
                Err(_) => Err(InvalidValue::overflow("the value is out of the range of dates")),
            },
            Self::TimeOfDay(u) => time_of_day(parse_integer(raw)?, *u),
            Self::Clock(u) => Ok(TextValue::Text(format_time(parse_integer(raw)?, *u))),
            Self::Epoch(u) => to_stored_unit(parse_integer(raw)?, *u),
            Self::Zoned => decode_zoned(raw),
            Self::Decimal(p, s) => check_precision(decode_decimal(raw, *s)?, *p),
            Self::DecimalText(s) => decimal_in_full(raw, *s),
            Self::VariableDecimal => variable_decimal(raw),
            Self::Bits(n) => format_bits(raw, *n),
            Self::Base64Url => decode_bytes(raw, |t| URL_SAFE.decode(t).ok()),
            Self::Hex => decode_bytes(raw, hex_bytes),
            Self::List(item) => {
                let items = object::parse_items(raw).ok_or("the value is not a list")?;
                Ok(TextValue::List(items.iter().map(|i| item.decode(i.get())).collect::<Result<_, _>>()?))
            }
            Self::Struct(fields) => {
                let object = object::parse_object(raw).map_err(|_| "the value is not a struct")?;
                let field = |(n, c): &(String, Self)| object.get(n).map_or(Ok(TextValue::Null), |v| c.decode(v.get()));
                Ok(TextValue::Struct(fields.iter().map(field).collect::<Result<_, _>>()?))
            }
            Self::Map(value) => {
                let object = object::parse_object(raw).map_err(|_| "the value is not a map")?;
                let entry = |(k, v): &(String, &serde_json::value::RawValue)| {
                    Ok((TextValue::Text(k.clone()), value.decode(v.get())?))
                };
                Ok(TextValue::Map(object.0.iter().map(entry).collect::<Result<_, InvalidValue>>()?))
            }
        }
    }

    /// Changes the codec so that a column of the declared type `t` loses nothing that the connector sends, also
    /// inside of lists, structs and maps.
    ///
    /// - `bigint` and `string` hold times of MySQL that are not within a day.
    /// - `string` holds decimals with more than 38 digits.
    /// - `string` and nanoseconds hold all digits of a timestamp with zone.
    /// - `binary` is decoded from text as the settings of the connector tell.
    pub(crate) fn decode_for(&mut self, t: &DataType, settings: &DebeziumSettings) {
        match (&mut *self, t) {
            (Self::Plain(DataType::Utf8), DataType::Binary) => match settings.binary.as_str() {
                "hex" => *self = Self::Hex,
                "base64-url-safe" => *self = Self::Base64Url,
                "base64" => *self = Self::Plain(DataType::Binary),
                _ => {}
            },
            (Self::TimeOfDay(_), DataType::Int64) => *self = Self::Plain(DataType::Int64),
            (Self::TimeOfDay(unit), DataType::Utf8) => *self = Self::Clock(*unit),
            (Self::Decimal(_, scale), DataType::Utf8) => *self = Self::DecimalText(*scale),
            // The text may have more digits than the microseconds that are read without a contract.
            (Self::Zoned, DataType::Utf8 | DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
                *self = Self::Plain(DataType::Utf8);
            }
            (Self::List(item), DataType::List(field)) => item.decode_for(field.data_type(), settings),
            (Self::Map(value), DataType::Map(entry, _)) => {
                if let DataType::Struct(kv) = entry.data_type() {
                    value.decode_for(kv[1].data_type(), settings);
                }
            }
            (Self::Struct(codecs), DataType::Struct(fields)) => {
                for (name, codec) in codecs {
                    if let Some(field) = fields.iter().find(|field| field.name().eq_ignore_ascii_case(name)) {
                        codec.decode_for(field.data_type(), settings);
                    }
                }
            }
            _ => {}
        }
    }

    /// Adds the paths of the struct fields in a value that this codec does not decode.
    pub(crate) fn unknown_fields(&self, raw: &str, at: ValuePosition<'_>, unknown: &mut Vec<String>) {
        match self {
            Self::Plain(t) | Self::Written(t) if t.is_nested() => drop(as_written(t, raw, at, unknown)),
            Self::List(item) => {
                let items = object::parse_items(raw).unwrap_or_default();
                items.iter().for_each(|value| item.unknown_fields(value.get(), at, unknown));
            }
            Self::Map(of) => {
                let object = object::parse_object(raw).unwrap_or_default();
                object.0.iter().for_each(|(_, value)| of.unknown_fields(value.get(), at, unknown));
            }
            Self::Struct(fields) => {
                for (name, value) in &object::parse_object(raw).unwrap_or_default().0 {
                    match fields.iter().find(|(field, _)| field == name) {
                        Some((_, codec)) => {
                            codec.unknown_fields(value.get(), ValuePosition { name, inside: Some(&at) }, unknown);
                        }
                        None => push_once(unknown, at.path(name)),
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns the codec of a declared column for records without a schema, from a connector with these settings.
    pub(crate) fn for_column(column: &ContractColumn, settings: &DebeziumSettings) -> Self {
        let t = column.column_type.arrow();
        // `epoch` and `formats` of the contract take precedence over the settings of the connector.
        if column.reading.epoch != EpochUnit::Auto || !column.reading.formats.is_empty() {
            return Self::Written(as_written_type(t));
        }
        match (column.column_type.wire(), t) {
            (WireType::VariableDecimal, _) => Self::VariableDecimal,
            (WireType::Bits(n), _) => Self::Bits(n),
            (WireType::Digits(_), DataType::Timestamp(_, Some(_))) => Self::Zoned,
            (WireType::Digits(_), DataType::Utf8) => Self::Plain(DataType::Utf8),
            (WireType::Digits(d), _) => Self::for_time(t, d, &settings.time),
            (_, DataType::Date32) if settings.time == "isostring" => Self::Iso(DataType::Date32),
            (_, DataType::Date32) => Self::EpochDays,
            (_, DataType::Binary) => match settings.binary.as_str() {
                "hex" => Self::Hex,
                "base64-url-safe" => Self::Base64Url,
                _ => Self::Plain(DataType::Binary),
            },
            (_, DataType::Decimal128(p, s)) if settings.decimal == "precise" => Self::Decimal(*p, *s),
            // Coerced from text like plain rows. Nested times, decimals and bytes are decoded as plain JSON instead,
            // since their encoding depends on the settings of the connector.
            _ if !t.is_nested() || is_one_on_the_wire(t) => Self::Written(as_written_type(t)),
            _ => Self::Plain(t.clone()),
        }
    }

    /// Returns the codec of a time or timestamp by `time.precision.mode` and the declared number of fractional
    /// digits.
    fn for_time(t: &DataType, digits: u8, mode: &str) -> Self {
        let time = matches!(t, DataType::Time64(_));
        let unit = match mode {
            "isostring" => return Self::Iso(t.clone()),
            "connect" => TimeUnit::Millisecond,
            "microseconds" => TimeUnit::Microsecond,
            "nanoseconds" => TimeUnit::Nanosecond,
            "adaptive_time_microseconds" if time => TimeUnit::Microsecond,
            _ => match digits {
                0..=3 => TimeUnit::Millisecond,
                4..=6 => TimeUnit::Microsecond,
                _ => TimeUnit::Nanosecond,
            },
        };
        if time { Self::TimeOfDay(unit) } else { Self::Epoch(unit) }
    }
}

/// Returns whether values of a type are encoded in the same way with all settings of the connector.
fn is_one_on_the_wire(t: &DataType) -> bool {
    match t {
        DataType::List(item) => is_one_on_the_wire(item.data_type()),
        DataType::Map(entries, _) => is_one_on_the_wire(entries.data_type()),
        DataType::Struct(fields) => fields.iter().all(|f| is_one_on_the_wire(f.data_type())),
        DataType::Utf8 | DataType::Boolean | DataType::Float32 | DataType::Float64 => true,
        t => t.is_integer(),
    }
}

/// Nested types with the field names of Parquet.
trait NamedTypes {
    fn new_list_named(item: DataType) -> DataType;
    fn new_map_named(value: DataType) -> DataType;
}

impl NamedTypes for DataType {
    fn new_list_named(item: DataType) -> DataType {
        Self::List(Field::new("element", item, true).into())
    }

    fn new_map_named(value: DataType) -> DataType {
        let entry = vec![Field::new("key", Self::Utf8, false), Field::new("value", value, true)];
        Self::Map(Field::new("key_value", Self::Struct(entry.into()), false).into(), false)
    }
}

/// Decodes the plain JSON form of a value.
fn decode_plain(t: &DataType, raw: &str) -> Result<TextValue, InvalidValue> {
    let text = || {
        object::parse_string(raw)
            .ok_or_else(|| InvalidValue::from(format!("the value is not text, from which {} is read", type_name(t))))
    };
    match t {
        DataType::Null => Err("the value is not null".into()),
        DataType::Boolean => match raw {
            "true" => Ok(TextValue::Bool(true)),
            "false" => Ok(TextValue::Bool(false)),
            _ => Err("the value is neither true nor false".into()),
        },
        DataType::Float32 => match parse_float(raw)? {
            v if v.is_finite() && (v as f32).is_infinite() => {
                Err(InvalidValue::overflow("the value does not fit in float"))
            }
            v => Ok(TextValue::Float(v)),
        },
        DataType::Float64 => exact_float(raw).map(TextValue::Float),
        DataType::Decimal128(p, s) => {
            check_precision(decimal_text(&object::parse_string(raw).unwrap_or_else(|| raw.to_owned()), *s)?, *p)
        }
        DataType::Utf8 if raw.starts_with(['{', '[']) => Ok(TextValue::Text(raw.to_owned())),
        DataType::Utf8 => Ok(TextValue::Text(text()?)),
        DataType::Binary => decode_bytes(raw, |t| STANDARD.decode(t).ok()),
        DataType::Date32 => {
            let days = iso_date(&text()?).ok_or("the value is not a date; use YYYY-MM-DD")?;
            Ok(TextValue::Int(days.into()))
        }
        DataType::Time64(unit) => {
            let nanos = iso_time(&text()?).ok_or("the value is not a time; use HH:MM:SS")?;
            to_unit(nanos.into(), *unit)
        }
        DataType::Timestamp(unit, zone) => parse_timestamp(&text()?, *unit, zone.is_some()),
        DataType::List(item) => ValueCodec::List(Box::new(ValueCodec::Plain(item.data_type().clone()))).decode(raw),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| (f.name().clone(), ValueCodec::Plain(f.data_type().clone()))).collect();
            ValueCodec::Struct(fields).decode(raw)
        }
        DataType::Map(entry, _) => match entry.data_type() {
            DataType::Struct(kv) => ValueCodec::Map(Box::new(ValueCodec::Plain(kv[1].data_type().clone()))).decode(raw),
            _ => Err("the type of the map has no entries".into()),
        },
        t if t.is_integer() => decode_whole(raw, t),
        t => Err(format!("{t} cannot be read from JSON").into()),
    }
}

/// Parses a double; refuses whole numbers that a double cannot represent exactly.
fn exact_float(raw: &str) -> Result<f64, InvalidValue> {
    let value = parse_float(raw)?;
    match raw.parse::<i128>() {
        Ok(whole) if value as i128 != whole => {
            Err(InvalidValue::precision_loss("the value is a whole number that a double cannot represent exactly"))
        }
        _ => Ok(value),
    }
}

/// Position of a value: a column, or a field inside of a column, as a linked list towards the column.
#[derive(Clone, Copy)]
pub(crate) struct ValuePosition<'a> {
    pub(crate) name: &'a str,
    pub(crate) inside: Option<&'a ValuePosition<'a>>,
}

impl ValuePosition<'_> {
    fn path(&self, field: &str) -> String {
        match self.inside {
            Some(outer) => format!("{}.{field}", outer.path(self.name)),
            None => format!("{}.{field}", self.name),
        }
    }
}

/// Decodes the JSON text of a value to text that is coerced later: scalars as they are written, bytes from base64,
/// and nested types of these. Adds the paths of struct fields that the type does not have to `dropped`.
pub(crate) fn as_written(
    t: &DataType,
    raw: &str,
    at: ValuePosition<'_>,
    dropped: &mut Vec<String>,
) -> Result<TextValue, InvalidValue> {
    if raw == "null" {
        return Ok(TextValue::Null);
    }
    match t {
        DataType::Utf8 => Ok(TextValue::Text(object::parse_string(raw).unwrap_or_else(|| raw.to_owned()))),
        DataType::List(item) => {
            let items = object::parse_items(raw).ok_or("the value is not a list")?;
            let items = items.iter().map(|i| as_written(item.data_type(), i.get(), at, dropped));
            Ok(TextValue::List(items.collect::<Result<_, _>>()?))
        }
        DataType::Struct(fields) => {
            let object = object::parse_object(raw).map_err(|_| "the value is not a struct")?;
            let mut cells = Vec::with_capacity(fields.len());
            for field in fields {
                let inside = ValuePosition { name: field.name(), inside: Some(&at) };
                let like =
                    || object.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(field.name())).map(|(_, v)| *v);
                let value = object.get(field.name()).or_else(like);
                cells.push(
                    value.map_or(Ok(TextValue::Null), |v| as_written(field.data_type(), v.get(), inside, dropped))?,
                );
            }
            // If several names differ only in letter case, the field with the exact name is read and the others are
            // dropped.
            let is_known = |name: &str| {
                let like = |f: &&Arc<Field>| f.name().eq_ignore_ascii_case(name);
                fields.iter().find(like).is_some_and(|f| f.name() == name || object.get(f.name()).is_none())
            };
            for (name, _) in object.0.iter().filter(|(name, _)| !is_known(name)) {
                push_once(dropped, at.path(name));
            }
            Ok(TextValue::Struct(cells))
        }
        DataType::Map(entry, _) => {
            let DataType::Struct(kv) = entry.data_type() else {
                return Err("the type of the map has no entries".into());
            };
            let object = object::parse_object(raw).map_err(|_| "the value is not a map")?;
            let entries = object.0.iter().map(|(k, v)| {
                let value = as_written(kv[1].data_type(), v.get(), at, dropped)?;
                Ok((TextValue::Text(k.clone()), value))
            });
            Ok(TextValue::Map(entries.collect::<Result<_, InvalidValue>>()?))
        }
        t => decode_plain(t, raw),
    }
}

fn type_name(t: &DataType) -> String {
    biscuit_schema::type_name(t).unwrap_or_else(|| t.to_string())
}

fn parse_integer(raw: &str) -> Result<i64, InvalidValue> {
    raw.parse().map_err(|_| "the value is not a whole number of 64 bits".into())
}

/// Decodes a whole number within the bounds of an integer type. `5.0` is a whole number.
fn decode_whole(raw: &str, t: &DataType) -> Result<TextValue, InvalidValue> {
    let value = match decimal_text(raw, 0) {
        Ok(TextValue::Decimal(value)) => value,
        Err(reason) if reason.code() == biscuit_schema::codes::OVERFLOW => return Err(reason),
        _ => return Err("the value is not a whole number".into()),
    };
    let (low, high) = match t {
        DataType::Int8 => (i128::from(i8::MIN), i128::from(i8::MAX)),
        DataType::Int16 => (i128::from(i16::MIN), i128::from(i16::MAX)),
        DataType::Int32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        DataType::UInt8 => (0, i128::from(u8::MAX)),
        DataType::UInt16 => (0, i128::from(u16::MAX)),
        DataType::UInt32 => (0, i128::from(u32::MAX)),
        DataType::UInt64 => (0, i128::from(u64::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    match i64::try_from(value) {
        _ if value < low || value > high => Err(format!("the value does not fit in {}", type_name(t)).into()),
        Ok(v) => Ok(TextValue::Int(v)),
        Err(_) => Ok(TextValue::Decimal(value)),
    }
}

fn parse_float(raw: &str) -> Result<f64, InvalidValue> {
    match object::parse_string(raw).as_deref() {
        Some("NaN") => Ok(f64::NAN),
        Some("Infinity" | "inf" | "+Infinity") => Ok(f64::INFINITY),
        Some("-Infinity" | "-inf") => Ok(f64::NEG_INFINITY),
        Some(_) => Err("the value is text, not a number".into()),
        None => match raw.parse::<f64>().map_err(|_| "the value is not a number")? {
            v if v.is_infinite() => Err(InvalidValue::overflow("the value does not fit in double")),
            v => Ok(v),
        },
    }
}

/// Formats `n` bits, the highest first. If `n` is above the maximum, the column has no declared length (`bit
/// varying`), and all bits of the bytes are formatted.
fn format_bits(raw: &str, n: u32) -> Result<TextValue, InvalidValue> {
    let text = object::parse_string(raw).ok_or("the value is not text")?;
    let bytes = STANDARD.decode(text).map_err(|_| "the value is not base64")?;
    let n = if n > MAX_BITS { u32::try_from(bytes.len().saturating_mul(8)).unwrap_or(u32::MAX) } else { n };
    if n > MAX_BITS {
        return Err(InvalidValue::too_large(format!("the value has more than {MAX_BITS} bits")));
    }
    let bit = |i: u32| bytes.get(i as usize / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
    Ok(TextValue::Text((0..n).rev().map(|i| if bit(i) { '1' } else { '0' }).collect()))
}

fn decode_bytes(raw: &str, decode: impl Fn(&str) -> Option<Vec<u8>>) -> Result<TextValue, InvalidValue> {
    let text = object::parse_string(raw).ok_or("the value is not text, from which bytes are read")?;
    decode(&text).map(TextValue::Bytes).ok_or_else(|| "the bytes of the value cannot be decoded".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::times::INFINITY;

    fn text(codec: &ValueCodec, raw: &str) -> String {
        match codec.decode(raw) {
            Ok(TextValue::Text(t)) => t,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn variable_decimals_have_any_number_of_digits() {
        let decode = |raw| text(&ValueCodec::VariableDecimal, raw);
        assert_eq!(decode(r#"{"scale":30,"value":"/w=="}"#), "-0.000000000000000000000000000001");
        assert_eq!(
            decode(r#"{"scale":0,"value":"HWMp8cNcpL+rufVhAAAAAAA="}"#),
            "10000000000000000000000000000000000000000"
        );
        assert_eq!(
            decode(r#"{"scale":9,"value":"XODppWAV/sWq36MorjmBFQ=="}"#),
            "123456789012345678901234567890.123456789"
        );
        assert_eq!(decode(r#"{"scale":-2,"value":"AQ=="}"#), "100");
        assert_eq!(decode(r#"{"scale":3,"value":"AA=="}"#), "0.000");
        assert_eq!(decode("\"1.50\""), "1.50");
    }

    #[test]
    fn size_of_numbers_is_limited() {
        let of = |codec: &ValueCodec, raw: String| codec.decode(&raw).map_err(|reason| reason.code().name());
        let variable = |scale: &str, bytes: usize| {
            let value = STANDARD.encode(vec![0x7f; bytes]);
            of(&ValueCodec::VariableDecimal, format!(r#"{{"scale":{scale},"value":"{value}"}}"#)).map(drop)
        };
        for scale in ["20001", "65535", "-20001", "-2147483648", "-9223372036854775808", "99999999999999999999"] {
            assert_eq!(variable(scale, 1), Err("Overflow"), "{scale}");
        }
        assert_eq!((variable("20000", 1), variable("-20000", 1), variable("0", 8000)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(variable("0", 20_000), Err("Overflow"));
        for number in ["1e999999999", "-1e-9223372036854775808", "1e99999999999999999999", &"9".repeat(20_001)] {
            for codec in [ValueCodec::VariableDecimal, ValueCodec::Decimal(38, 2), ValueCodec::Plain(DataType::Int64)] {
                assert_eq!(of(&codec, number.to_owned()), Err("Overflow"), "{codec:?} of {} characters", number.len());
            }
        }
        assert_eq!(of(&ValueCodec::Decimal(38, 0), format!("\"{}\"", STANDARD.encode([1; 17]))), Err("Overflow"));
        assert_eq!(of(&ValueCodec::EpochDays, "3000000000".to_owned()), Err("Overflow"));
        let bits = |n: u32, bytes: usize| of(&ValueCodec::Bits(n), format!("\"{}\"", STANDARD.encode(vec![1; bytes])));
        assert_eq!(bits(u32::MAX, 1), Ok(TextValue::Text("00000001".to_owned())));
        assert_eq!(bits(i32::MAX as u32, 8193), Err("TooLarge"));
        assert!(bits(65_536, 8193).is_ok());
    }

    #[test]
    fn precise_decimals_are_big_endian_base64() {
        assert_eq!(ValueCodec::Decimal(12, 2).decode("\"BA1Prg==\""), Ok(TextValue::Decimal(67_981_230)));
        assert_eq!(ValueCodec::Decimal(38, 10).decode("\"/w==\""), Ok(TextValue::Decimal(-1)));
        assert_eq!(ValueCodec::Decimal(12, 2).decode("12.5"), Ok(TextValue::Decimal(1250)));
    }

    #[test]
    fn bits_are_written_highest_first() {
        assert_eq!(text(&ValueCodec::Bits(3), "\"Bg==\""), "110");
        assert_eq!(text(&ValueCodec::Bits(3), "\"\""), "000");
        assert_eq!(text(&ValueCodec::Bits(10), "\"AQI=\""), "1000000001");
    }

    #[test]
    fn infinity_and_negative_years_are_timestamps() {
        assert_eq!(ValueCodec::Zoned.decode("\"infinity\""), Ok(TextValue::Int(INFINITY)));
        assert_eq!(
            ValueCodec::Zoned.decode("\"-0043-03-15T12:00:00.000000Z\""),
            Ok(TextValue::Int(-63_517_780_800_000_000))
        );
        assert_eq!(
            ValueCodec::Epoch(TimeUnit::Millisecond).decode("1707068120011"),
            Ok(TextValue::Int(1_707_068_120_011_000))
        );
        assert!(ValueCodec::Epoch(TimeUnit::Millisecond).decode("9223372036825200000").is_err());
    }

    #[test]
    fn value_of_another_type_is_refused() {
        for (t, raw) in [
            (DataType::Int32, "3000000000"),
            (DataType::Int32, "\"7\""),
            (DataType::Int64, "1.5"),
            (DataType::Boolean, "1"),
            (DataType::Float64, "\"1.5\""),
            (DataType::Utf8, "5"),
            (DataType::Date32, "\"2022-02-30\""),
            (DataType::Date32, "19000"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "\"2024-01-01T00:00:00Z\""),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "\"2024-01-01T00:00:00.0000001\""),
            (DataType::Binary, "\"***\""),
        ] {
            assert!(decode_plain(&t, raw).is_err(), "{t} {raw}");
        }
        assert_eq!(decode_plain(&DataType::Int64, "5.0"), Ok(TextValue::Int(5)));
    }
}
