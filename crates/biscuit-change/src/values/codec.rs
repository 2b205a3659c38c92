//! Codecs: how each encoding of a value in change files, above all Debezium's, becomes a value of a column.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use biscuit_schema::internal::{WireType, hex_bytes, iso_date, iso_date_time, iso_time};
use biscuit_schema::{ContractColumn, DebeziumSettings, EpochUnit};

use crate::json::object;
use crate::values::declared::{as_written as as_written_type, push_once};
use crate::values::text::InvalidValue;
use crate::values::text_value::TextValue;

/// `infinity` and `-infinity` of PostgreSQL as Debezium writes them for timestamps without a zone, in microseconds.
const INFINITY: i64 = 9_223_372_036_825_200_000;
const NEGATIVE_INFINITY: i64 = -9_223_372_036_832_400_000;

/// Maximum number of digits of a number that is stored as text, including zeros for its scale, and maximum absolute
/// power of ten of any number. A declared `numeric` of PostgreSQL has at most 1,000 digits.
const MAX_DIGITS: usize = 20_000;

/// Maximum number of bytes of such a number: a byte is about 2.4 decimal digits.
const MAX_DECIMAL_BYTES: usize = MAX_DIGITS * 5 / 12;

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
            Self::Plain(t) => plain(t, raw),
            Self::Written(t) => as_written(t, raw, ValuePosition { name: "", inside: None }, &mut Vec::new()),
            Self::Iso(t) => match raw.strip_suffix("Z\"") {
                Some(text) => plain(t, &format!("{text}\"")),
                None => plain(t, raw),
            },
            Self::EpochDays => match i32::try_from(integer(raw)?) {
                Ok(days) => Ok(TextValue::Int(days.into())),
                Err(_) => Err(InvalidValue::overflow("the value is out of the range of dates")),
            },
            Self::TimeOfDay(u) => time_of_day(integer(raw)?, *u),
            Self::Clock(u) => Ok(TextValue::Text(clock(integer(raw)?, *u))),
            Self::Epoch(u) => in_unit(integer(raw)?, *u),
            Self::Zoned => zoned(raw),
            Self::Decimal(p, s) => within(decimal(raw, *s)?, *p),
            Self::DecimalText(s) => decimal_in_full(raw, *s),
            Self::VariableDecimal => variable_decimal(raw),
            Self::Bits(n) => bits(raw, *n),
            Self::Base64Url => bytes(raw, |t| URL_SAFE.decode(t).ok()),
            Self::Hex => bytes(raw, hex_bytes),
            Self::List(item) => {
                let items = object::items(raw).ok_or("the value is not a list")?;
                Ok(TextValue::List(items.iter().map(|i| item.decode(i.get())).collect::<Result<_, _>>()?))
            }
            Self::Struct(fields) => {
                let object = object::object(raw).map_err(|_| "the value is not a struct")?;
                let field = |(n, c): &(String, Self)| object.get(n).map_or(Ok(TextValue::Null), |v| c.decode(v.get()));
                Ok(TextValue::Struct(fields.iter().map(field).collect::<Result<_, _>>()?))
            }
            Self::Map(value) => {
                let object = object::object(raw).map_err(|_| "the value is not a map")?;
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
                let items = object::items(raw).unwrap_or_default();
                items.iter().for_each(|value| item.unknown_fields(value.get(), at, unknown));
            }
            Self::Map(of) => {
                let object = object::object(raw).unwrap_or_default();
                object.0.iter().for_each(|(_, value)| of.unknown_fields(value.get(), at, unknown));
            }
            Self::Struct(fields) => {
                for (name, value) in &object::object(raw).unwrap_or_default().0 {
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
    pub(crate) fn declared(column: &ContractColumn, settings: &DebeziumSettings) -> Self {
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
            (WireType::Digits(d), _) => Self::time(t, d, &settings.time),
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
    fn time(t: &DataType, digits: u8, mode: &str) -> Self {
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
fn plain(t: &DataType, raw: &str) -> Result<TextValue, InvalidValue> {
    let text = || {
        object::string(raw)
            .ok_or_else(|| InvalidValue::from(format!("the value is not text, from which {} is read", name(t))))
    };
    match t {
        DataType::Null => Err("the value is not null".into()),
        DataType::Boolean => match raw {
            "true" => Ok(TextValue::Bool(true)),
            "false" => Ok(TextValue::Bool(false)),
            _ => Err("the value is neither true nor false".into()),
        },
        DataType::Float32 => match float(raw)? {
            v if v.is_finite() && (v as f32).is_infinite() => {
                Err(InvalidValue::overflow("the value does not fit in float"))
            }
            v => Ok(TextValue::Float(v)),
        },
        DataType::Float64 => exact_float(raw).map(TextValue::Float),
        DataType::Decimal128(p, s) => {
            within(decimal_text(&object::string(raw).unwrap_or_else(|| raw.to_owned()), *s)?, *p)
        }
        DataType::Utf8 if raw.starts_with(['{', '[']) => Ok(TextValue::Text(raw.to_owned())),
        DataType::Utf8 => Ok(TextValue::Text(text()?)),
        DataType::Binary => bytes(raw, |t| STANDARD.decode(t).ok()),
        DataType::Date32 => {
            let days = iso_date(&text()?).ok_or("the value is not a date; use YYYY-MM-DD")?;
            Ok(TextValue::Int(days.into()))
        }
        DataType::Time64(unit) => {
            let nanos = iso_time(&text()?).ok_or("the value is not a time; use HH:MM:SS")?;
            to_unit(nanos.into(), *unit)
        }
        DataType::Timestamp(unit, zone) => timestamp(&text()?, *unit, zone.is_some()),
        DataType::List(item) => ValueCodec::List(Box::new(ValueCodec::Plain(item.data_type().clone()))).decode(raw),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| (f.name().clone(), ValueCodec::Plain(f.data_type().clone()))).collect();
            ValueCodec::Struct(fields).decode(raw)
        }
        DataType::Map(entry, _) => match entry.data_type() {
            DataType::Struct(kv) => ValueCodec::Map(Box::new(ValueCodec::Plain(kv[1].data_type().clone()))).decode(raw),
            _ => Err("the type of the map has no entries".into()),
        },
        t if t.is_integer() => whole(raw, t),
        t => Err(format!("{t} cannot be read from JSON").into()),
    }
}

/// Parses a double; refuses whole numbers that a double cannot represent exactly.
fn exact_float(raw: &str) -> Result<f64, InvalidValue> {
    let value = float(raw)?;
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
        DataType::Utf8 => Ok(TextValue::Text(object::string(raw).unwrap_or_else(|| raw.to_owned()))),
        DataType::List(item) => {
            let items = object::items(raw).ok_or("the value is not a list")?;
            let items = items.iter().map(|i| as_written(item.data_type(), i.get(), at, dropped));
            Ok(TextValue::List(items.collect::<Result<_, _>>()?))
        }
        DataType::Struct(fields) => {
            let object = object::object(raw).map_err(|_| "the value is not a struct")?;
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
            let object = object::object(raw).map_err(|_| "the value is not a map")?;
            let entries = object.0.iter().map(|(k, v)| {
                let value = as_written(kv[1].data_type(), v.get(), at, dropped)?;
                Ok((TextValue::Text(k.clone()), value))
            });
            Ok(TextValue::Map(entries.collect::<Result<_, InvalidValue>>()?))
        }
        t => plain(t, raw),
    }
}

fn name(t: &DataType) -> String {
    biscuit_schema::type_name(t).unwrap_or_else(|| t.to_string())
}

/// Decodes a time since midnight. `TIME` of MySQL has up to 838 hours and PostgreSQL has 24:00:00; both are refused,
/// because a time of day must be before midnight.
fn time_of_day(n: i64, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    match is_within_a_day(n, unit) {
        true => in_unit(n, unit),
        false => Err(InvalidValue::overflow("the time is not within a day, as times in Parquet must be")),
    }
}

/// Returns whether a time since midnight is before the next midnight.
fn is_within_a_day(n: i64, unit: TimeUnit) -> bool {
    (0..86_400 * units_of_a_second(unit) as i64).contains(&n)
}

fn units_of_a_second(unit: TimeUnit) -> u64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Formats a time: `-838:59:59`, `24:00:00`, `08:00:00.5`.
fn clock(n: i64, unit: TimeUnit) -> String {
    let per = units_of_a_second(unit);
    let (seconds, part) = (n.unsigned_abs() / per, n.unsigned_abs() % per);
    let mut text =
        format!("{}{:02}:{:02}:{:02}", if n < 0 { "-" } else { "" }, seconds / 3600, seconds / 60 % 60, seconds % 60);
    if part > 0 {
        let digits = format!("{:0width$}", part, width = per.ilog10() as usize);
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

fn integer(raw: &str) -> Result<i64, InvalidValue> {
    raw.parse().map_err(|_| "the value is not a whole number of 64 bits".into())
}

/// Decodes a whole number within the bounds of an integer type. `5.0` is a whole number.
fn whole(raw: &str, t: &DataType) -> Result<TextValue, InvalidValue> {
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
        _ if value < low || value > high => Err(format!("the value does not fit in {}", name(t)).into()),
        Ok(v) => Ok(TextValue::Int(v)),
        Err(_) => Ok(TextValue::Decimal(value)),
    }
}

fn float(raw: &str) -> Result<f64, InvalidValue> {
    match object::string(raw).as_deref() {
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

/// Refuses a decimal with more digits than its column. Parquet would store only the lower bytes of such a number.
fn within(cell: TextValue, precision: u8) -> Result<TextValue, InvalidValue> {
    match &cell {
        TextValue::Decimal(d)
            if 10i128
                .checked_pow(precision.into())
                .is_some_and(|maximum| d.unsigned_abs() >= maximum.unsigned_abs()) =>
        {
            Err(InvalidValue::overflow(format!("the value has more than {precision} digits")))
        }
        _ => Ok(cell),
    }
}

/// Converts milliseconds to microseconds; other units are stored as they are.
fn in_unit(value: i64, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    let per = if unit == TimeUnit::Millisecond { 1000 } else { 1 };
    value.checked_mul(per).map(TextValue::Int).ok_or_else(|| "the value is out of range in microseconds".into())
}

/// Converts nanoseconds to the unit of a column, exactly or not at all.
fn to_unit(nanos: i128, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    let per: i128 = if unit == TimeUnit::Nanosecond { 1 } else { 1000 };
    if nanos % per != 0 {
        return Err("the value has digits below the microsecond".into());
    }
    i64::try_from(nanos / per).map(TextValue::Int).map_err(|_| "the value is out of range".into())
}

/// Parses a timestamp from ISO text. If the column has a zone and the text has none, the text is in UTC. Text with a
/// zone is refused for a column without one.
fn timestamp(text: &str, unit: TimeUnit, zoned: bool) -> Result<TextValue, InvalidValue> {
    let (nanos, offset) = iso_date_time(text).ok_or("the value is not a timestamp; use YYYY-MM-DDTHH:MM:SS")?;
    if offset.is_some() && !zoned {
        return Err("the value has a time zone, and the column has none".into());
    }
    to_unit(nanos - i128::from(offset.unwrap_or(0)) * 1_000_000_000, unit)
}

fn zoned(raw: &str) -> Result<TextValue, InvalidValue> {
    match object::string(raw).ok_or("the value is not text")?.as_str() {
        "infinity" => Ok(TextValue::Int(INFINITY)),
        "-infinity" => Ok(TextValue::Int(NEGATIVE_INFINITY)),
        text => timestamp(text, TimeUnit::Microsecond, true),
    }
}

/// Decodes a decimal: text is base64 of unscaled big-endian bytes in two's complement, anything else is a number.
fn decimal(raw: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let Some(text) = object::string(raw) else { return decimal_text(raw, scale) };
    let bytes = STANDARD.decode(&text).map_err(|_| "the value is not base64")?;
    match bytes.len() {
        0 => Ok(TextValue::Decimal(0)),
        1..=16 => Ok(TextValue::Decimal(from_big_endian(&bytes))),
        _ => Err(InvalidValue::overflow("the value has more digits than a decimal can hold")),
    }
}

/// Returns the text of a decimal: base64 is decoded with this scale, and a number keeps its text.
fn decimal_in_full(raw: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let Some(text) = object::string(raw) else { return digits(raw).map(|_| TextValue::Text(raw.to_owned())) };
    let bytes = STANDARD.decode(&text).map_err(|_| "the value is not base64")?;
    match bytes.len() {
        0..=MAX_DECIMAL_BYTES => Ok(TextValue::Text(place_point(&big_integer_text(&bytes), scale.into()))),
        _ => Err(too_many_digits()),
    }
}

/// Converts at most 16 bytes in two's complement, with sign extension.
fn from_big_endian(bytes: &[u8]) -> i128 {
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    i128::from_be_bytes(all)
}

/// Parses a decimal, exactly or not at all.
///
/// The value is `digits * 10^exponent`. The unscaled number is `digits * 10^(exponent + scale)`: for a negative
/// shift, digits are cut off, which must be zeros; for a positive one, zeros are appended. `1.230` with scale 2 has
/// the digits `1230`, exponent -3 and shift -1, and becomes 123.
fn decimal_text(text: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let (negative, digits, exponent) = digits(text)?;
    let shift = exponent + i64::from(scale);
    let kept = match usize::try_from(-shift) {
        Ok(cut) => {
            let (keep, rest) = digits.split_at(digits.len().saturating_sub(cut));
            if rest.bytes().any(|b| b != b'0') {
                return Err(format!("the value has more than {scale} digits after the decimal point").into());
            }
            keep.to_owned()
        }
        // More zeros cannot fit in 38 digits, and a huge shift must not allocate memory.
        Err(_) if shift > 76 => return Err(InvalidValue::overflow("the value is out of range")),
        Err(_) => format!("{digits}{}", "0".repeat(shift as usize)),
    };
    let kept = kept.trim_start_matches('0');
    let value: i128 = if kept.is_empty() {
        0
    } else {
        kept.parse().map_err(|_| InvalidValue::overflow("the value has more than 38 digits"))?
    };
    Ok(TextValue::Decimal(if negative { -value } else { value }))
}

/// Splits a number into sign, digits and power of ten: `-1.50e3` is (true, `150`, 1).
fn digits(text: &str) -> Result<(bool, String, i64), InvalidValue> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, power) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let all_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(&digits) || !all_digits(power.strip_prefix(['+', '-']).unwrap_or(power)) {
        return Err("the value is not a number".into());
    }
    let power = power.parse::<i64>().ok().filter(|e| e.unsigned_abs() <= MAX_DIGITS as u64);
    let power =
        power.ok_or_else(|| InvalidValue::overflow(format!("the power of ten of the value is beyond {MAX_DIGITS}")))?;
    if digits.len() > MAX_DIGITS {
        return Err(too_many_digits());
    }
    Ok((negative, digits, power - fraction.len() as i64))
}

fn too_many_digits() -> InvalidValue {
    InvalidValue::overflow(format!("the value has more than {MAX_DIGITS} digits"))
}

fn variable_decimal(raw: &str) -> Result<TextValue, InvalidValue> {
    // `numeric` of PostgreSQL has these three special values.
    let special = ["NaN", "Infinity", "-Infinity"].into_iter().find(|s| raw.trim_matches('"').eq_ignore_ascii_case(s));
    if let Some(special) = special {
        return Ok(TextValue::Text(special.to_owned()));
    }
    let Ok(object) = object::object(raw) else {
        let text = object::string(raw).unwrap_or_else(|| raw.to_owned());
        return digits(&text).map(|_| TextValue::Text(text));
    };
    let scale = object.get("scale").ok_or("the value has no scale")?.get();
    if !scale.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) {
        return Err("the scale of the value is not a whole number".into());
    }
    let scale = scale.parse::<i64>().ok();
    let value = object.get("value").and_then(|v| object::string(v.get())).ok_or("the decimal has no `value`")?;
    let bytes = STANDARD.decode(value).map_err(|_| "the value is not base64")?;
    // The scale adds up to as many zeros before or after the number, which count as digits.
    let scale = scale.filter(|s| s.unsigned_abs() <= MAX_DIGITS as u64);
    let scale =
        scale.ok_or_else(|| InvalidValue::overflow(format!("the scale of the value is beyond {MAX_DIGITS}")))?;
    if bytes.len() > MAX_DECIMAL_BYTES {
        return Err(too_many_digits());
    }
    Ok(TextValue::Text(place_point(&big_integer_text(&bytes), scale)))
}

/// Formats a big-endian number in two's complement as decimal digits: schoolbook division by 10^19, the greatest
/// power of ten in a word, until nothing remains. Each remainder is 19 digits of the result, the lowest first. Takes
/// quadratic time, which [`MAX_DECIMAL_BYTES`] bounds.
fn big_integer_text(bytes: &[u8]) -> String {
    const POWER: u64 = 10_000_000_000_000_000_000;
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let mut words: Vec<u64> = Vec::with_capacity(bytes.len() / 8 + 1);
    for chunk in bytes.rchunks(8) {
        let mut word = [fill; 8];
        word[8 - chunk.len()..].copy_from_slice(chunk);
        words.push(u64::from_be_bytes(word));
    }
    // Negate: invert all bits and add one.
    if negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
        // A carry out of the highest word happens only if all words are zero, which a negative number never is.
        words.extend(carry.then_some(1));
    }
    let mut parts = Vec::new();
    while let Some(top) = words.last() {
        if *top == 0 {
            words.pop();
            continue;
        }
        let mut rest = 0_u64;
        for word in words.iter_mut().rev() {
            let value = u128::from(rest) << 64 | u128::from(*word);
            *word = u64::try_from(value / u128::from(POWER))
                .expect("the remainder is less than the divisor, so the quotient fits in a word");
            rest = (value % u128::from(POWER)) as u64;
        }
        parts.push(rest);
    }
    let Some(first) = parts.pop() else { return "0".to_owned() };
    let mut text = format!("{}{first}", if negative { "-" } else { "" });
    parts.iter().rev().for_each(|part| write!(text, "{part:019}").expect("writing to a String does not fail"));
    text
}

/// Places the decimal point: `-125` is `-1.25` with scale 2, `-0.0125` with scale 4, and `-12500` with scale -2.
fn place_point(integer: &str, scale: i64) -> String {
    let (sign, digits) = integer.strip_prefix('-').map_or(("", integer), |d| ("-", d));
    let zeros = |n: usize| "0".repeat(n);
    match usize::try_from(scale) {
        Ok(0) => integer.to_owned(),
        Ok(scale) => {
            let padded = format!("{}{digits}", zeros((scale + 1).saturating_sub(digits.len())));
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) if digits == "0" => "0".to_owned(),
        Err(_) => format!("{sign}{digits}{}", zeros(usize::try_from(scale.unsigned_abs()).unwrap_or(0))),
    }
}

/// Formats `n` bits, the highest first. If `n` is above the maximum, the column has no declared length (`bit
/// varying`), and all bits of the bytes are formatted.
fn bits(raw: &str, n: u32) -> Result<TextValue, InvalidValue> {
    let text = object::string(raw).ok_or("the value is not text")?;
    let bytes = STANDARD.decode(text).map_err(|_| "the value is not base64")?;
    let n = if n > MAX_BITS { u32::try_from(bytes.len().saturating_mul(8)).unwrap_or(u32::MAX) } else { n };
    if n > MAX_BITS {
        return Err(InvalidValue::too_large(format!("the value has more than {MAX_BITS} bits")));
    }
    let bit = |i: u32| bytes.get(i as usize / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
    Ok(TextValue::Text((0..n).rev().map(|i| if bit(i) { '1' } else { '0' }).collect()))
}

fn bytes(raw: &str, decode: impl Fn(&str) -> Option<Vec<u8>>) -> Result<TextValue, InvalidValue> {
    let text = object::string(raw).ok_or("the value is not text, from which bytes are read")?;
    decode(&text).map(TextValue::Bytes).ok_or_else(|| "the bytes of the value cannot be decoded".into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn decimal_text_is_parsed_exactly_or_refused() {
        assert_eq!(decimal_text("1.230", 2), Ok(TextValue::Decimal(123)));
        assert_eq!(decimal_text("1e3", 2), Ok(TextValue::Decimal(100_000)));
        assert_eq!(decimal_text("-0.05", 2), Ok(TextValue::Decimal(-5)));
        for bad in ["1.234", "", "1.2.3", "abc", "1e99", "0x10"] {
            assert!(decimal_text(bad, 2).is_err(), "{bad}");
        }
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
            assert!(plain(&t, raw).is_err(), "{t} {raw}");
        }
        assert_eq!(plain(&DataType::Int64, "5.0"), Ok(TextValue::Int(5)));
    }
}
