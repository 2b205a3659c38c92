//! The encoding of keys and orders as bytes that compare as their values do.
//! A tuple is the concatenation of its values. Each value begins with a tag of its type and marks its own end, so
//! that tuples compare value by value with a plain comparison of bytes. Key metadata, truncate marks and erased keys
//! store these bytes: the encoding must never change.

use std::sync::LazyLock;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, TimeUnit};
use biscuit_core::{Error, Result};
use biscuit_schema::internal::plain_type;
use biscuit_schema::type_name;

use crate::codes;

// Tags of types. They are stored for ever; values of different types compare by their tags.
const BOOLEAN: u8 = 0x10;
const NUMBER: u8 = 0x20;
const TEXT: u8 = 0x40;
const BINARY: u8 = 0x50;
const DATE: u8 = 0x60;
const INSTANT: u8 = 0x61;
const TIME: u8 = 0x62;

/// Purpose of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum TuplePurpose {
    /// Identifies an entity: text is compared as text.
    Key,
    /// Orders changes. Text that is an instant in the ISO format is compared as an instant, and a log sequence number
    /// of PostgreSQL as a number. Text that holds a number, or a date in another format, is refused.
    Order,
}

/// Encodes the values of some columns as one tuple. Integers and decimals of any width and scale are encoded as one
/// kind of number, and timestamps of any unit as one kind of instant.
#[derive(Debug)]
pub struct TupleEncoder {
    columns: Vec<EncodedColumn>,
    purpose: TuplePurpose,
}

#[derive(Debug)]
enum EncodedColumn {
    Boolean(BooleanArray),
    Integer(Int64Array),
    Decimal(Decimal128Array, i8),
    Text(StringArray),
    Binary(BinaryArray),
    /// Days, instants or times of day, with the tag and the number of nanoseconds in a unit.
    Time(Int64Array, u8, i64),
}

/// The reason why a value cannot be part of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The column with this index is null.
    Null(usize),
    /// The column with this index is text that holds a number, or a date in another format than ISO.
    NumberAsText(usize),
}

/// The values of a tuple with a single column, in types whose values can be compared for equality without encoding
/// them.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum SingleColumnKeys<'a> {
    /// Whole numbers.
    Integers(&'a Int64Array),
    /// Texts.
    Texts(&'a StringArray),
    /// Bytes.
    Binaries(&'a BinaryArray),
}

impl TupleEncoder {
    /// # Errors
    /// `MissingColumn`; `KeyType` or `OrderType` for floats, nested types, and other types on whose order engines
    /// disagree.
    pub fn new(batch: &RecordBatch, names: &[String], purpose: TuplePurpose, place: &str) -> Result<Self> {
        let schema = batch.schema();
        let column = |name: &String| {
            let array = batch.column(biscuit_schema::internal::column_index(&schema, name, place)?);
            EncodedColumn::new(array).ok_or_else(|| unsupported_type_error(name, array.data_type(), purpose, place))
        };
        Ok(Self { columns: names.iter().map(column).collect::<Result<_>>()?, purpose })
    }

    /// Returns the values of the only column, if these can be compared for equality without encoding them. Text of an
    /// order cannot: different texts may be the same instant.
    pub fn values(&self) -> Option<SingleColumnKeys<'_>> {
        match (self.columns.as_slice(), self.purpose) {
            ([EncodedColumn::Integer(a)], _) => Some(SingleColumnKeys::Integers(a)),
            ([EncodedColumn::Text(a)], TuplePurpose::Key) => Some(SingleColumnKeys::Texts(a)),
            ([EncodedColumn::Binary(a)], _) => Some(SingleColumnKeys::Binaries(a)),
            _ => None,
        }
    }

    /// Appends the tuple of a row to `out`. After an error, `out` holds the columns before the failing one.
    ///
    /// # Errors
    /// A null, or text that cannot order changes.
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) -> std::result::Result<(), EncodeError> {
        for (i, column) in self.columns.iter().enumerate() {
            match column {
                EncodedColumn::Integer(a) if a.is_valid(row) => encode_number(i128::from(a.value(row)), 0, out),
                EncodedColumn::Decimal(a, scale) if a.is_valid(row) => encode_number(a.value(row), *scale, out),
                EncodedColumn::Text(a) if a.is_valid(row) => match self.purpose {
                    TuplePurpose::Key => encode_escaped(TEXT, a.value(row).as_bytes(), out),
                    TuplePurpose::Order => order_text(a.value(row), out).map_err(|()| EncodeError::NumberAsText(i))?,
                },
                EncodedColumn::Binary(a) if a.is_valid(row) => encode_escaped(BINARY, a.value(row), out),
                EncodedColumn::Boolean(a) if a.is_valid(row) => out.extend([BOOLEAN, u8::from(a.value(row))]),
                EncodedColumn::Time(a, tag, nanos) if a.is_valid(row) => {
                    encode_instant(*tag, i128::from(a.value(row)) * i128::from(*nanos), out);
                }
                _ => return Err(EncodeError::Null(i)),
            }
        }
        Ok(())
    }
}

impl EncodedColumn {
    fn new(array: &ArrayRef) -> Option<Self> {
        let t = plain_type(array.data_type());
        let to = |t: DataType| cast(array, &t).ok();
        Some(match &t {
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            // Values of u64 may exceed i64. As numbers they are encoded like integers.
            DataType::UInt64 => Self::from_decimal(&to(DataType::Decimal128(20, 0))?, 0),
            t if t.is_integer() => Self::Integer(to(DataType::Int64)?.as_primitive().clone()),
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
                Self::from_decimal(&to(DataType::Decimal128(*p, *s))?, *s)
            }
            DataType::Utf8 => Self::Text(to(t)?.as_string::<i32>().clone()),
            DataType::Binary => Self::Binary(to(t)?.as_binary::<i32>().clone()),
            DataType::Date32 => Self::Time(to_integers(&cast(&to(t)?, &DataType::Int32).ok()?)?, DATE, 1),
            DataType::Timestamp(unit, _) => Self::Time(to_integers(&to(t.clone())?)?, INSTANT, nanos_per_unit(*unit)),
            DataType::Time64(unit) => Self::Time(to_integers(&to(t.clone())?)?, TIME, nanos_per_unit(*unit)),
            // A column of nulls has no type. Every row of it is refused as null.
            DataType::Null => Self::Integer(to(DataType::Int64)?.as_primitive().clone()),
            _ => return None,
        })
    }

    fn from_decimal(array: &ArrayRef, scale: i8) -> Self {
        Self::Decimal(array.as_primitive().clone(), scale)
    }
}

fn to_integers(array: &ArrayRef) -> Option<Int64Array> {
    Some(cast(array, &DataType::Int64).ok()?.as_primitive().clone())
}

fn nanos_per_unit(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

fn unsupported_type_error(name: &str, t: &DataType, purpose: TuplePurpose, place: &str) -> Error {
    let (what, code) = match purpose {
        TuplePurpose::Key => ("key", codes::KEY_TYPE),
        TuplePurpose::Order => ("order", codes::ORDER_TYPE),
    };
    let t = type_name(t).unwrap_or_else(|| t.to_string());
    let message = format!("column `{name}` of {place} has the type {t}, which cannot be part of the {what}");
    Error::new(code, message)
}

/// Appends a number as sign, power of ten, and digits without zeros at either end, so that 1, 1.0 and 1.00 are the
/// same bytes.
/// The value is 0.d₁d₂… × 10^power. Example: 1250 is `NUMBER 0x81 (128+4) 2 3 6 0`: positive, power 4, the digits 1,
/// 2, 5 each plus one, and the end 0. Digits plus one are never 0, so the end is less than every digit, and 1.2 is
/// less than 1.25.
/// All bytes of a negative number after the tag are inverted, so that the greater magnitude compares less. Zero is
/// the single byte 0x80, between the signs 0x7e and 0x81.
fn encode_number(unscaled: i128, scale: i8, out: &mut Vec<u8>) {
    out.push(NUMBER);
    if unscaled == 0 {
        out.push(0x80);
        return;
    }
    let mut digits = [0u8; 40];
    let (mut wide, mut at) = (unscaled.unsigned_abs(), digits.len());
    // Most numbers fit into 64 bits, whose division is much faster.
    while wide > u128::from(u64::MAX) {
        at -= 1;
        digits[at] = (wide % 10) as u8;
        wide /= 10;
    }
    let mut rest = wide as u64;
    while rest > 0 {
        at -= 1;
        digits[at] = (rest % 10) as u8;
        rest /= 10;
    }
    let digits = &digits[at..];
    let power = digits.len() as i32 - i32::from(scale);
    let end = digits.iter().rposition(|d| *d != 0).map_or(0, |i| i + 1);
    let flip = if unscaled < 0 { 0xff } else { 0 };
    out.push(0x81 ^ flip);
    out.push((128 + power) as u8 ^ flip);
    out.extend(digits[..end].iter().map(|d| (d + 1) ^ flip));
    out.push(flip);
}

/// Appends the tuple of a single integer.
pub fn encode_integer(integer: i64, out: &mut Vec<u8>) {
    encode_number(i128::from(integer), 0, out);
}

/// Type of a value that is encoded as its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum RawType {
    /// UTF-8 text.
    Text,
    /// Binary value.
    Binary,
}

impl RawType {
    fn tag(self) -> u8 {
        match self {
            Self::Text => TEXT,
            Self::Binary => BINARY,
        }
    }
}

/// Appends the tuple of a single text or binary value.
pub fn encode_raw(raw: &[u8], raw_type: RawType, out: &mut Vec<u8>) {
    encode_escaped(raw_type.tag(), raw, out);
}

/// Appends bytes with a marked end, so that a prefix compares less than what it is a prefix of.
/// A zero byte becomes `00 ff`, and the end is `00 00`: "a" is `61 00 00`, "a\0" is `61 00 ff 00 00`.
fn encode_escaped(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    for &b in bytes {
        out.push(b);
        if b == 0 {
            out.push(0xff);
        }
    }
    out.extend([0, 0]);
}

/// Appends nanoseconds as 16 bytes, big endian, with the sign bit inverted: negative instants compare less than
/// positive ones.
fn encode_instant(tag: u8, nanos: i128, out: &mut Vec<u8>) {
    out.push(tag);
    out.extend((nanos ^ i128::MIN).to_be_bytes());
}

/// Appends text that orders changes: as an instant, as a log sequence number, or else as text.
fn order_text(text: &str, out: &mut Vec<u8>) -> std::result::Result<(), ()> {
    let trimmed = text.trim();
    if trimmed.parse::<f64>().is_ok() {
        return Err(());
    }
    let date_like = trimmed.len() >= 10 && trimmed.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let parsed = if date_like { as_nanos(trimmed) } else { None };
    match (parsed, log_sequence_number(trimmed)) {
        (Some(n), _) => encode_instant(INSTANT, n, out),
        (None, Some(n)) => encode_number(n, 0, out),
        // A date in another format than ISO does not sort as the dates do: `12/31/2023` is greater than `01/01/2024`.
        (None, None) if is_other_date(trimmed) => return Err(()),
        (None, None) => encode_escaped(TEXT, text.as_bytes(), out),
    }
    Ok(())
}

/// Parses a log sequence number of PostgreSQL, such as `16/B374D848`: two upper-case hexadecimal numbers, of which
/// the first counts units of 2^32 bytes.
fn log_sequence_number(text: &str) -> Option<i128> {
    let (high, low) = text.split_once('/')?;
    let part = |text: &str| {
        let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_lowercase());
        u64::from_str_radix(text, 16).ok().filter(|_| is_hex)
    };
    Some((i128::from(part(high)?) << 32) + i128::from(part(low)?))
}

/// Whether a text begins with a date or time in another format than ISO: three numbers of at most four digits,
/// separated by slashes, points, dashes or colons.
fn is_other_date(text: &str) -> bool {
    let begin = text.split([' ', 'T']).next().unwrap_or(text);
    let parts: Vec<&str> = begin.split(['/', '.', '-', ':']).collect();
    parts.len() == 3
        && parts.iter().all(|part| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Parses an instant in the ISO format; without an offset it is in UTC. Returns nanoseconds since 1970.
fn as_nanos(text: &str) -> Option<i128> {
    static UTC: LazyLock<Tz> = LazyLock::new(|| "+00:00".parse().expect("this is an offset"));
    let t = string_to_datetime(&*UTC, text).ok()?;
    Some(i128::from(t.timestamp()) * 1_000_000_000 + i128::from(t.timestamp_subsec_nanos()))
}

/// Decodes a tuple that is a single integer. Returns `None` for every other tuple.
pub fn as_integer(bytes: &[u8]) -> Option<i64> {
    let (&NUMBER, rest) = bytes.split_first()? else { return None };
    if *rest.first()? == 0x80 {
        return (rest.len() == 1).then_some(0);
    }
    let flip = if rest[0] < 0x80 { 0xff } else { 0 };
    let power = usize::try_from(i32::from(rest[1] ^ flip) - 128).ok()?;
    let end = rest[2..].iter().position(|b| *b == flip)?;
    // Digits after the decimal point, or another value after this one.
    if end > power || 2 + end + 1 != rest.len() {
        return None;
    }
    let mut digits =
        rest[2..2 + end].iter().map(|b| i128::from((b ^ flip) - 1)).chain(std::iter::repeat_n(0, power - end));
    let magnitude = digits.try_fold(0_i128, |n, d| n.checked_mul(10)?.checked_add(d))?;
    i64::try_from(if flip == 0 { magnitude } else { -magnitude }).ok()
}

/// Whether a tuple is this single text or binary value.
pub(crate) fn is_raw(bytes: &[u8], raw: &[u8], raw_type: RawType) -> bool {
    let tag = raw_type.tag();
    let plain = bytes.len() == raw.len() + 3 && bytes[0] == tag && bytes[1..=raw.len()] == *raw;
    // Without a zero byte nothing is escaped: tag, bytes, and the two bytes of the end.
    if !raw.contains(&0) {
        return plain && bytes.ends_with(&[0, 0]);
    }
    let mut encoded = Vec::with_capacity(raw.len() + 8);
    encode_escaped(tag, raw, &mut encoded);
    encoded == bytes
}

/// Decodes a tuple that is a single text or binary value. Returns `None` for every other tuple.
pub(crate) fn as_raw(bytes: &[u8]) -> Option<(Vec<u8>, RawType)> {
    let (&tag, rest) = bytes.split_first()?;
    let raw_type = match tag {
        TEXT => RawType::Text,
        BINARY => RawType::Binary,
        _ => return None,
    };
    let (raw, used) = decode_escaped(rest);
    (used == rest.len()).then_some((raw, raw_type))
}

/// Divides a tuple into its values, each as a tuple of one value. Returns `None` for bytes that are not a tuple.
pub fn split_tuple(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut values = Vec::new();
    while let Some((&tag, rest)) = bytes.split_first() {
        let length = match tag {
            BOOLEAN => 1,
            NUMBER if *rest.first()? == 0x80 => 1,
            NUMBER => {
                let end = if *rest.first()? < 0x80 { 0xff } else { 0 };
                2 + rest.get(2..)?.iter().position(|b| *b == end)? + 1
            }
            TEXT | BINARY => {
                let mut at = 0;
                loop {
                    match (rest.get(at)?, rest.get(at + 1)) {
                        (0, Some(0xff)) => at += 2,
                        (0, Some(0)) => break at + 2,
                        (0, _) => return None,
                        _ => at += 1,
                    }
                }
            }
            DATE | INSTANT | TIME => 16,
            _ => return None,
        };
        let (value, others) = bytes.split_at_checked(1 + length)?;
        values.push(value);
        bytes = others;
    }
    Some(values)
}

/// Returns the values of a tuple as text, for messages that show values and for tests.
pub fn decode_tuple(mut bytes: &[u8]) -> Vec<String> {
    let mut values = Vec::new();
    while let Some((&tag, rest)) = bytes.split_first() {
        let (value, used) = match tag {
            BOOLEAN => ((rest[0] != 0).to_string(), 1),
            NUMBER => decode_number(rest),
            TEXT | BINARY => {
                let (raw, used) = decode_escaped(rest);
                (String::from_utf8_lossy(&raw).into_owned(), used)
            }
            _ => {
                let n = i128::from_be_bytes(rest[..16].try_into().expect("an instant has 16 bytes")) ^ i128::MIN;
                (n.to_string(), 16)
            }
        };
        values.push(value);
        bytes = &rest[used..];
    }
    values
}

/// Decodes a number after its tag. Returns its text and the number of bytes read.
fn decode_number(bytes: &[u8]) -> (String, usize) {
    if bytes[0] == 0x80 {
        return ("0".to_owned(), 1);
    }
    let flip = if bytes[0] < 0x80 { 0xff } else { 0 };
    let power = i32::from(bytes[1] ^ flip) - 128;
    let digits: String =
        bytes[2..].iter().map(|b| b ^ flip).take_while(|b| *b != 0).map(|b| char::from(b'0' + b - 1)).collect();
    let used = 2 + digits.len() + 1;
    let sign = if flip == 0 { "" } else { "-" };
    let text = match usize::try_from(power) {
        Ok(p) if p >= digits.len() => format!("{digits}{}", "0".repeat(p - digits.len())),
        Ok(0) | Err(_) => format!("0.{}{digits}", "0".repeat(power.unsigned_abs() as usize)),
        Ok(p) => format!("{}.{}", &digits[..p], &digits[p..]),
    };
    (format!("{sign}{text}"), used)
}

/// Decodes escaped bytes after their tag. Returns the bytes and the number of bytes read, with the end.
fn decode_escaped(bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut i = 0;
    loop {
        match (bytes[i], bytes.get(i + 1)) {
            (0, Some(0xff)) => {
                out.push(0);
                i += 2;
            }
            (0, _) => return (out, i + 2),
            (b, _) => {
                out.push(b);
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_text_is_instant_or_log_sequence_number_or_plain_text() {
        let of = |text: &str| {
            let mut out = vec![];
            order_text(text, &mut out).map(|()| out)
        };
        assert!(of("0/9ABCDEF0") < of("0/10000000F") && of("0/10000000F") == of("1/F"), "positions are numbers");
        assert!(of("0/FFFFFFFF") < of("1/0") && of("A/0") > of("9/FFFFFFFF"));
        assert!(of("2024-01-09T23:00:00+02:00") < of("2024-01-09 22:00:00Z"));
        assert!(of("a").is_ok() && of("a/b").is_ok() && of("v1.2").is_ok());
        for text in ["12/31/2023", "2024/1/9", "31.12.2023", "2024-1-9", "9:05:07", "12/31/2023 10:00", "10", "-1.5"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    fn num(unscaled: i128, scale: i8) -> Vec<u8> {
        let mut out = Vec::new();
        encode_number(unscaled, scale, &mut out);
        out
    }

    #[test]
    fn numbers_compare_by_value_at_any_width_and_scale() {
        assert_eq!(num(1, 0), num(100, 2));
        assert_eq!(num(0, 0), num(0, 5));
        let ascending = [
            (-1000, 0),
            (-101, 0),
            (-100, 0),
            (-99, 1),
            (-1, 3),
            (0, 0),
            (1, 3),
            (99, 2),
            (1, 0),
            (101, 2),
            (9, 0),
            (10, 0),
            (i128::MAX, 0),
        ];
        for pair in ascending.windows(2) {
            assert!(num(pair[0].0, pair[0].1) < num(pair[1].0, pair[1].1), "{pair:?}");
        }
    }

    #[test]
    fn text_compares_as_text_and_instants_as_instants() {
        let text = |t: &str| {
            let mut out = Vec::new();
            order_text(t, &mut out).map(|()| out)
        };
        assert!(text("a").unwrap() < text("a\0").unwrap() && text("a\0").unwrap() < text("ab").unwrap());
        assert_eq!(text("2024-01-01T01:00:00+01:00"), text("2024-01-01 00:00:00"));
        assert!(text("2024-01-01T00:00:00.000100").unwrap() < text("2024-01-01T00:00:00.000900").unwrap());
        assert_eq!(text("10"), Err(()));
        assert_eq!(text("-1.5e3"), Err(()));
    }

    #[test]
    fn integers_and_texts_are_decoded_from_tuples_of_one_value() {
        for n in [0, 1, -1, 10, 1200, -1200, i64::MAX, i64::MIN, 20, 7_000_000_000] {
            assert_eq!(as_integer(&num(i128::from(n), 0)), Some(n), "{n}");
        }
        assert_eq!(as_integer(&num(15, 1)), None);
        assert_eq!(as_integer(&num(150, 1)), Some(15));
        assert_eq!(as_integer(&num(i128::from(i64::MAX) + 1, 0)), None);
        assert_eq!(as_integer(&[num(1, 0), num(2, 0)].concat()), None);
        let (text, binary) = (RawType::Text, RawType::Binary);
        for (value, raw_type, other) in
            [("", text, binary), ("a", text, binary), ("a\0b", text, binary), ("\0", binary, text)]
        {
            let mut bytes = Vec::new();
            encode_raw(value.as_bytes(), raw_type, &mut bytes);
            assert_eq!(as_raw(&bytes), Some((value.as_bytes().to_vec(), raw_type)));
            assert!(is_raw(&bytes, value.as_bytes(), raw_type) && !is_raw(&bytes, value.as_bytes(), other));
            assert!(!is_raw(&bytes, b"b", raw_type));
            bytes.extend(num(1, 0));
            assert_eq!(as_raw(&bytes), None);
        }
    }

    #[test]
    fn tuples_are_divided_into_their_values() {
        let mut values = vec![num(-1250, 2), num(0, 0), num(7, 3), num(i128::MAX, 0), num(-1, 0)];
        for (tag, text) in [(TEXT, "a\0b"), (TEXT, ""), (BINARY, "\0"), (TEXT, "z")] {
            let mut bytes = Vec::new();
            encode_escaped(tag, text.as_bytes(), &mut bytes);
            values.push(bytes);
        }
        let mut time = Vec::new();
        encode_instant(INSTANT, -5, &mut time);
        values.extend([time, vec![BOOLEAN, 1]]);
        let tuple = values.concat();
        assert_eq!(split_tuple(&tuple).unwrap(), values);
        for end in 0..tuple.len() {
            // Truncated bytes are not a tuple, or are a tuple of fewer values.
            assert!(split_tuple(&tuple[..end]).is_none_or(|some| some == values[..some.len()]), "{end}");
        }
        assert_eq!(split_tuple(&[0x99, 1]), None);
    }

    #[test]
    fn encoded_tuples_are_decoded_as_text() {
        let mut out = Vec::new();
        encode_number(-1250, 2, &mut out);
        encode_escaped(TEXT, b"a\0b", &mut out);
        encode_number(7, 3, &mut out);
        encode_number(12_300, 0, &mut out);
        assert_eq!(decode_tuple(&out), ["-12.5", "a\0b", "0.007", "12300"]);
    }
}
