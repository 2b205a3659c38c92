use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use biscuit_schema::{
    ContractColumn, DebeziumSettings, EpochUnit, WireType, hex_bytes, iso_date, iso_date_time, iso_time,
};

use crate::json::object;
use crate::values::declared::{as_written as as_written_type, push_once};
use crate::values::text::InvalidValue;
use crate::values::text_value::TextValue;

/// PostgreSQL's `infinity` and `-infinity` as Debezium writes them for timestamps without a zone, in microseconds.
const INFINITY: i64 = 9_223_372_036_825_200_000;
const NEGATIVE_INFINITY: i64 = -9_223_372_036_832_400_000;

/// Digits of a number that is kept as text, zeros for its scale among them, and the greatest power of ten of one that is not. A `numeric` that
/// is declared has up to 1,000.
const MAX_DIGITS: usize = 20_000;

/// Bytes of such a number: each is more than two digits.
const MAX_DECIMAL_BYTES: usize = MAX_DIGITS * 5 / 12;

/// Bits of a value: each is a byte of text.
const MAX_BITS: u32 = 65_536;

/// How a value on the wire becomes a value of a column. Decoding takes the JSON text of the value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ValueCodec {
    /// The value as JSON writes values of this type: dates and times as ISO text, binary as base64.
    Plain(DataType),
    /// The value as text, or nested text, which is coerced to the column's type later.
    Written(DataType),
    /// Days since the epoch.
    EpochDays,
    /// A time of day in this unit.
    TimeOfDay(TimeUnit),
    /// A time in this unit as text, `HH:MM:SS[.ffffff]`, which may have a sign and more than 24 hours.
    Clock(TimeUnit),
    /// A timestamp without zone, in this unit since the epoch.
    Epoch(TimeUnit),
    /// A timestamp with zone, as ISO text or `infinity`.
    Zoned,
    /// A date, a time or a timestamp without zone as ISO text that ends in `Z` all the same.
    Iso(DataType),
    /// A decimal as base64 of its unscaled big-endian bytes, or as text or number.
    Decimal(u8, i8),
    /// A decimal of this scale, kept as text with all its digits.
    DecimalText(i8),
    /// A decimal that brings its scale: an object of `scale` and `value`, or a text, or a number; kept as text.
    VariableDecimal,
    /// Bits as base64 of little-endian bytes.
    Bits(u32),
    /// Bytes as URL-safe base64.
    Base64Url,
    /// Bytes as hexadecimal digits.
    Hex,
    /// A list.
    List(Box<ValueCodec>),
    /// A struct.
    Struct(Vec<(String, ValueCodec)>),
    /// A map with text keys.
    Map(Box<ValueCodec>),
}

impl ValueCodec {
    /// The type of the column.
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

    /// The cell of a value's JSON text.
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
                Err(_) => Err(InvalidValue::overflow("it is out of the range of dates")),
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
                let items = object::items(raw).ok_or("it is no list")?;
                Ok(TextValue::List(items.iter().map(|i| item.decode(i.get())).collect::<Result<_, _>>()?))
            }
            Self::Struct(fields) => {
                let object = object::object(raw).map_err(|_| "it is no struct")?;
                let field = |(n, c): &(String, Self)| object.get(n).map_or(Ok(TextValue::Null), |v| c.decode(v.get()));
                Ok(TextValue::Struct(fields.iter().map(field).collect::<Result<_, _>>()?))
            }
            Self::Map(value) => {
                let object = object::object(raw).map_err(|_| "it is no map")?;
                let entry = |(k, v): &(String, &serde_json::value::RawValue)| {
                    Ok((TextValue::Text(k.clone()), value.decode(v.get())?))
                };
                Ok(TextValue::Map(object.0.iter().map(entry).collect::<Result<_, InvalidValue>>()?))
            }
        }
    }

    /// Decodes what the connector sends so that a column of this type keeps all of it, also inside of lists, structs and maps. A number or a text takes
    /// MySQL's times that are not within a day, a text the decimals that have more than 38 digits; a text or nanoseconds take every digit of a time with
    /// a zone.
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
            // The text has more digits than the type that is read without a contract.
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

    /// Adds the paths of struct fields in a value that this codec does not decode.
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
                            codec.unknown_fields(value.get(), ValuePosition { name, inside: Some(&at) }, unknown)
                        }
                        None => push_once(unknown, at.path(name)),
                    }
                }
            }
            _ => {}
        }
    }

    /// The codec of a declared column, for a connector with these settings.
    pub(crate) fn declared(column: &ContractColumn, settings: &DebeziumSettings) -> Self {
        let t = column.column_type.arrow();
        // The contract's own rules for times replace the connector's settings.
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
            // Coerced from text, as plain rows are. Nested times, decimals and bytes depend on the connector's settings.
            _ if !t.is_nested() || is_one_on_the_wire(t) => Self::Written(as_written_type(t)),
            _ => Self::Plain(t.clone()),
        }
    }

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

/// Whether no setting of the connector changes how values of a type are encoded.
fn is_one_on_the_wire(t: &DataType) -> bool {
    match t {
        DataType::List(item) => is_one_on_the_wire(item.data_type()),
        DataType::Map(entries, _) => is_one_on_the_wire(entries.data_type()),
        DataType::Struct(fields) => fields.iter().all(|f| is_one_on_the_wire(f.data_type())),
        DataType::Utf8 | DataType::Boolean | DataType::Float32 | DataType::Float64 => true,
        t => t.is_integer(),
    }
}

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

fn plain(t: &DataType, raw: &str) -> Result<TextValue, InvalidValue> {
    let text = || {
        object::string(raw)
            .ok_or_else(|| InvalidValue::from(format!("it is not the text that {} is read from", name(t))))
    };
    match t {
        DataType::Null => Err("it is not null".into()),
        DataType::Boolean => match raw {
            "true" => Ok(TextValue::Bool(true)),
            "false" => Ok(TextValue::Bool(false)),
            _ => Err("it is neither true nor false".into()),
        },
        DataType::Float32 => match float(raw)? {
            v if v.is_finite() && (v as f32).is_infinite() => Err(InvalidValue::overflow("it does not fit in float")),
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
            let days = iso_date(&text()?).ok_or("it is no date; write YYYY-MM-DD")?;
            Ok(TextValue::Int(days.into()))
        }
        DataType::Time64(unit) => {
            let nanos = iso_time(&text()?).ok_or("it is no time; write HH:MM:SS")?;
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
            _ => Err("a map has entries".into()),
        },
        t if t.is_integer() => whole(raw, t),
        t => Err(format!("{t} cannot be read from JSON").into()),
    }
}

/// Parses a double; refuses whole numbers that a double cannot hold exactly.
fn exact_float(raw: &str) -> Result<f64, InvalidValue> {
    let value = float(raw)?;
    match raw.parse::<i128>() {
        Ok(whole) if value as i128 != whole => {
            Err(InvalidValue::precision_loss("it is a whole number that a double does not hold"))
        }
        _ => Ok(value),
    }
}

/// Where a value is: a column, or a field inside of one.
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

/// The cell of a value's JSON text in a type that text is read in first: scalars as they are written, bytes from base64. `dropped` gets the fields of
/// structs that the type does not have.
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
            let items = object::items(raw).ok_or("it is no list")?;
            let items = items.iter().map(|i| as_written(item.data_type(), i.get(), at, dropped));
            Ok(TextValue::List(items.collect::<Result<_, _>>()?))
        }
        DataType::Struct(fields) => {
            let object = object::object(raw).map_err(|_| "it is no struct")?;
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
            // Of several names that differ in letter case only, the exact one is read.
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
            let DataType::Struct(kv) = entry.data_type() else { return Err("a map has entries".into()) };
            let object = object::object(raw).map_err(|_| "it is no map")?;
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

/// A time since midnight. MySQL's `TIME` is one of up to 838 hours, which no time of day holds; nor is PostgreSQL's 24:00:00 one.
fn time_of_day(n: i64, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    match is_within_a_day(n, unit) {
        true => in_unit(n, unit),
        false => Err(InvalidValue::overflow("it is not within a day, and times in Parquet are")),
    }
}

/// Whether a time since midnight is before the next midnight.
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

/// `-838:59:59`, `24:00:00`, `08:00:00.5`.
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
    raw.parse().map_err(|_| "it is no whole number of 64 bits".into())
}

/// A whole number within the bounds of an integer type; `5.0` is one.
fn whole(raw: &str, t: &DataType) -> Result<TextValue, InvalidValue> {
    let value = match decimal_text(raw, 0) {
        Ok(TextValue::Decimal(value)) => value,
        Err(reason) if reason.code() == "Overflow" => return Err(reason),
        _ => return Err("it is no whole number".into()),
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
        _ if value < low || value > high => Err(format!("it does not fit in {}", name(t)).into()),
        Ok(v) => Ok(TextValue::Int(v)),
        Err(_) => Ok(TextValue::Decimal(value)),
    }
}

fn float(raw: &str) -> Result<f64, InvalidValue> {
    match object::string(raw).as_deref() {
        Some("NaN") => Ok(f64::NAN),
        Some("Infinity" | "inf" | "+Infinity") => Ok(f64::INFINITY),
        Some("-Infinity" | "-inf") => Ok(f64::NEG_INFINITY),
        Some(_) => Err("it is text, not a number".into()),
        None => match raw.parse::<f64>().map_err(|_| "it is no number")? {
            v if v.is_infinite() => Err(InvalidValue::overflow("it does not fit in double")),
            v => Ok(v),
        },
    }
}

/// A decimal that has no more digits than its column: Parquet would store the lower bytes of one that has more.
fn within(cell: TextValue, precision: u8) -> Result<TextValue, InvalidValue> {
    match &cell {
        TextValue::Decimal(d)
            if 10i128
                .checked_pow(precision.into())
                .is_some_and(|maximum| d.unsigned_abs() >= maximum.unsigned_abs()) =>
        {
            Err(InvalidValue::overflow(format!("it has more than {precision} digits")))
        }
        _ => Ok(cell),
    }
}

fn in_unit(value: i64, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    let per = if unit == TimeUnit::Millisecond { 1000 } else { 1 };
    value.checked_mul(per).map(TextValue::Int).ok_or_else(|| "it is out of range in microseconds".into())
}

fn to_unit(nanos: i128, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    let per: i128 = if unit == TimeUnit::Nanosecond { 1 } else { 1000 };
    if nanos % per != 0 {
        return Err("it has digits below the microsecond".into());
    }
    i64::try_from(nanos / per).map(TextValue::Int).map_err(|_| "it is out of range".into())
}

/// A timestamp from ISO text. Without a zone in the text, one with a zone is taken as UTC; the other way round is refused.
fn timestamp(text: &str, unit: TimeUnit, zoned: bool) -> Result<TextValue, InvalidValue> {
    let (nanos, offset) = iso_date_time(text).ok_or("it is no timestamp; write YYYY-MM-DDTHH:MM:SS")?;
    if offset.is_some() && !zoned {
        return Err("it has a zone, and its column has none".into());
    }
    to_unit(nanos - i128::from(offset.unwrap_or(0)) * 1_000_000_000, unit)
}

fn zoned(raw: &str) -> Result<TextValue, InvalidValue> {
    match object::string(raw).ok_or("it is no text")?.as_str() {
        "infinity" => Ok(TextValue::Int(INFINITY)),
        "-infinity" => Ok(TextValue::Int(NEGATIVE_INFINITY)),
        text => timestamp(text, TimeUnit::Microsecond, true),
    }
}

fn decimal(raw: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let Some(text) = object::string(raw) else { return decimal_text(raw, scale) };
    let bytes = STANDARD.decode(&text).map_err(|_| "it is no base64")?;
    match bytes.len() {
        0 => Ok(TextValue::Decimal(0)),
        1..=16 => Ok(TextValue::Decimal(from_big_endian(&bytes))),
        _ => Err(InvalidValue::overflow("it has more digits than a decimal holds")),
    }
}

/// The text of a decimal: base64 is decoded with this scale, and a number keeps its text.
fn decimal_in_full(raw: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let Some(text) = object::string(raw) else { return digits(raw).map(|_| TextValue::Text(raw.to_owned())) };
    let bytes = STANDARD.decode(&text).map_err(|_| "it is no base64")?;
    match bytes.len() {
        0..=MAX_DECIMAL_BYTES => Ok(TextValue::Text(place_point(&big_integer_text(&bytes), scale.into()))),
        _ => Err(too_many_digits()),
    }
}

fn from_big_endian(bytes: &[u8]) -> i128 {
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    i128::from_be_bytes(all)
}

fn decimal_text(text: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let (negative, digits, exponent) = digits(text)?;
    let shift = exponent + i64::from(scale);
    let kept = match usize::try_from(-shift) {
        Ok(cut) => {
            let (keep, rest) = digits.split_at(digits.len().saturating_sub(cut));
            if rest.bytes().any(|b| b != b'0') {
                return Err(format!("it has more than {scale} digits behind the point").into());
            }
            keep.to_owned()
        }
        Err(_) if shift > 76 => return Err(InvalidValue::overflow("it is out of range")),
        Err(_) => format!("{digits}{}", "0".repeat(shift as usize)),
    };
    let kept = kept.trim_start_matches('0');
    let value: i128 = if kept.is_empty() {
        0
    } else {
        kept.parse().map_err(|_| InvalidValue::overflow("it has more than 38 digits"))?
    };
    Ok(TextValue::Decimal(if negative { -value } else { value }))
}

/// A number's sign, digits and power of ten.
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
        return Err("it is no number".into());
    }
    let power = power.parse::<i64>().ok().filter(|e| e.unsigned_abs() <= MAX_DIGITS as u64);
    let power = power.ok_or_else(|| InvalidValue::overflow(format!("its power of ten is beyond {MAX_DIGITS}")))?;
    if digits.len() > MAX_DIGITS {
        return Err(too_many_digits());
    }
    Ok((negative, digits, power - fraction.len() as i64))
}

fn too_many_digits() -> InvalidValue {
    InvalidValue::overflow(format!("it is a number of more than {MAX_DIGITS} digits"))
}

fn variable_decimal(raw: &str) -> Result<TextValue, InvalidValue> {
    // PostgreSQL's numeric has these three besides numbers.
    let special = ["NaN", "Infinity", "-Infinity"].into_iter().find(|s| raw.trim_matches('"').eq_ignore_ascii_case(s));
    if let Some(special) = special {
        return Ok(TextValue::Text(special.to_owned()));
    }
    let Ok(object) = object::object(raw) else {
        let text = object::string(raw).unwrap_or_else(|| raw.to_owned());
        return digits(&text).map(|_| TextValue::Text(text));
    };
    let scale = object.get("scale").ok_or("its scale is missing")?.get();
    if !scale.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) {
        return Err("its scale is no whole number".into());
    }
    let scale = scale.parse::<i64>().ok();
    let value = object.get("value").and_then(|v| object::string(v.get())).ok_or("its value is missing")?;
    let bytes = STANDARD.decode(value).map_err(|_| "it is no base64")?;
    // Zeros behind or before the number are digits, too.
    let scale = scale.filter(|s| s.unsigned_abs() <= MAX_DIGITS as u64);
    let scale = scale.ok_or_else(|| InvalidValue::overflow(format!("its scale is beyond {MAX_DIGITS}")))?;
    if bytes.len() > MAX_DECIMAL_BYTES {
        return Err(too_many_digits());
    }
    Ok(TextValue::Text(place_point(&big_integer_text(&bytes), scale)))
}

/// The decimal digits of a big-endian two's-complement number, by repeated division by the greatest power of ten that a word holds.
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
    if negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
        // The magnitude of a power of two has one more bit than the number.
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
                .expect("a remainder below the divisor keeps the quotient in a word");
            rest = (value % u128::from(POWER)) as u64;
        }
        parts.push(rest);
    }
    let Some(first) = parts.pop() else { return "0".to_owned() };
    let mut text = format!("{}{first}", if negative { "-" } else { "" });
    parts.iter().rev().for_each(|part| write!(text, "{part:019}").expect("a String takes all"));
    text
}

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

/// The digits of `n` bits; of so many as there are bytes for, where the column has no length that anybody means.
fn bits(raw: &str, n: u32) -> Result<TextValue, InvalidValue> {
    let text = object::string(raw).ok_or("it is no text")?;
    let bytes = STANDARD.decode(text).map_err(|_| "it is no base64")?;
    let n = if n > MAX_BITS { u32::try_from(bytes.len().saturating_mul(8)).unwrap_or(u32::MAX) } else { n };
    if n > MAX_BITS {
        return Err(InvalidValue::too_large(format!("it has more than {MAX_BITS} bits")));
    }
    let bit = |i: u32| bytes.get(i as usize / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
    Ok(TextValue::Text((0..n).rev().map(|i| if bit(i) { '1' } else { '0' }).collect()))
}

fn bytes(raw: &str, decode: impl Fn(&str) -> Option<Vec<u8>>) -> Result<TextValue, InvalidValue> {
    let text = object::string(raw).ok_or("it is no text that bytes are read from")?;
    decode(&text).map(TextValue::Bytes).ok_or_else(|| "its bytes cannot be decoded".into())
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
    fn numbers_have_a_greatest_size() {
        let of = |codec: &ValueCodec, raw: String| codec.decode(&raw).map_err(|reason| reason.code());
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
    fn decimal_texts_lose_nothing() {
        assert_eq!(decimal_text("1.230", 2), Ok(TextValue::Decimal(123)));
        assert_eq!(decimal_text("1e3", 2), Ok(TextValue::Decimal(100_000)));
        assert_eq!(decimal_text("-0.05", 2), Ok(TextValue::Decimal(-5)));
        for bad in ["1.234", "", "1.2.3", "abc", "1e99", "0x10"] {
            assert!(decimal_text(bad, 2).is_err(), "{bad}");
        }
    }

    #[test]
    fn bits_come_highest_first() {
        assert_eq!(text(&ValueCodec::Bits(3), "\"Bg==\""), "110");
        assert_eq!(text(&ValueCodec::Bits(3), "\"\""), "000");
        assert_eq!(text(&ValueCodec::Bits(10), "\"AQI=\""), "1000000001");
    }

    #[test]
    fn infinity_and_years_before_christ_are_timestamps() {
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
    fn a_value_of_another_type_is_refused() {
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
