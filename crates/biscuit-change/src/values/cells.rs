//! Values as spans of a text, and their conversion to a column.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayBuilder, ArrayRef, BooleanBufferBuilder, Int64Builder, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;

use crate::json::scanner::string_text;
use crate::values::codec::ValueCodec;
use crate::values::text::InvalidValue;
use crate::values::text_value::{TextValue, to_array};

/// Where the JSON text of a value is. Texts of records have less than 2^32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    start: u32,
    end: u32,
}

impl Cell {
    /// No value.
    pub(crate) const NULL: Self = Self { start: u32::MAX, end: 0 };
    /// Value that the record does not contain because it did not change.
    pub(crate) const UNCHANGED: Self = Self { start: u32::MAX, end: 1 };
    /// Position in the log of a record that is older than every position.
    pub(crate) const BEFORE_ALL: Self = Self { start: u32::MAX, end: 2 };

    /// Returns the cell of a span.
    pub(crate) fn at(span: Range<usize>) -> Self {
        let position = |at: usize| u32::try_from(at).expect("a text of records has fewer than 2^32 bytes");
        Self { start: position(span.start), end: position(span.end) }
    }

    /// Returns the number of bytes of the value.
    pub(crate) fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Returns the JSON text of the value; `None` for null and for a missing value.
    pub(crate) fn raw(self, text: &str) -> Option<&str> {
        text.get(self.start as usize..self.end as usize).filter(|raw| *raw != "null")
    }
}

/// Column that was decoded from cells. An invalid value is null.
pub(crate) struct DecodedCells {
    pub(crate) array: ArrayRef,
    /// Rows with an invalid value, ascending.
    pub(crate) invalid: Vec<(usize, InvalidValue)>,
}

/// Decoder of a column. Cells are added a few hundred at a time, while their text is in the cache of the processor.
#[derive(Debug)]
pub(crate) struct CellDecoder {
    /// Type of the decoded column.
    data_type: DataType,
    values: DecodedValues,
    invalid: Vec<(usize, InvalidValue)>,
}

/// Values so far. Most columns have plain values, which are decoded without a value of its own for each of them.
#[derive(Debug)]
enum DecodedValues {
    /// Whole numbers of up to 18 digits. `is_written` is whether they are coerced from text otherwise.
    Integers {
        numbers: Int64Builder,
        is_written: bool,
    },
    Texts(TextColumn),
    Each(Vec<TextValue>),
}

/// Texts of a column.
#[derive(Debug)]
struct TextColumn {
    values: Vec<u8>,
    offsets: Vec<i32>,
    nulls: Vec<usize>,
}

impl Default for TextColumn {
    fn default() -> Self {
        Self { values: vec![], offsets: vec![0], nulls: vec![] }
    }
}

impl TextColumn {
    fn append(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.values.extend_from_slice(value.as_bytes()),
            None => self.nulls.push(self.offsets.len() - 1),
        }
        self.offsets.push(i32::try_from(self.values.len()).expect("a text of records has fewer than 2^31 bytes"));
    }

    fn finish(self) -> StringArray {
        let rows = self.offsets.len() - 1;
        let valid = (!self.nulls.is_empty()).then(|| {
            let mut valid = BooleanBufferBuilder::new(rows);
            valid.append_n(rows, true);
            self.nulls.iter().for_each(|row| valid.set_bit(*row, false));
            NullBuffer::new(valid.finish())
        });
        StringArray::new(OffsetBuffer::new(self.offsets.into()), Buffer::from_vec(self.values), valid)
    }
}

impl CellDecoder {
    /// Creates a decoder of values with this codec.
    pub(crate) fn new(codec: &ValueCodec) -> Self {
        let values = match codec {
            ValueCodec::Plain(DataType::Utf8) | ValueCodec::Written(DataType::Utf8) => {
                DecodedValues::Texts(TextColumn::default())
            }
            ValueCodec::Plain(DataType::Int64) => {
                DecodedValues::Integers { numbers: Int64Builder::new(), is_written: false }
            }
            _ => DecodedValues::Each(vec![]),
        };
        Self { data_type: codec.data_type(), values, invalid: vec![] }
    }

    /// Creates a decoder of values that are coerced to the type `to` later. Whole numbers are decoded to this type
    /// directly, as long as all of them are plain.
    pub(crate) fn of_column(codec: &ValueCodec, to: &DataType) -> Self {
        match (codec, to) {
            (ValueCodec::Written(DataType::Utf8), DataType::Int64) => {
                let values = DecodedValues::Integers { numbers: Int64Builder::new(), is_written: true };
                Self { data_type: DataType::Utf8, values, invalid: vec![] }
            }
            _ => Self::new(codec),
        }
    }

    /// Creates a decoder of values that are decoded one by one.
    pub(crate) fn each(data_type: DataType) -> Self {
        Self { data_type, values: DecodedValues::Each(vec![]), invalid: vec![] }
    }

    /// Number of cells so far.
    fn len(&self) -> usize {
        match &self.values {
            DecodedValues::Integers { numbers, .. } => numbers.len(),
            DecodedValues::Texts(texts) => texts.offsets.len() - 1,
            DecodedValues::Each(values) => values.len(),
        }
    }

    /// Decodes cells. `decode` decodes the JSON text of a value that is not a plain one.
    pub(crate) fn append(
        &mut self,
        cells: &[Cell],
        text: &str,
        decode: &mut dyn FnMut(&str) -> Result<TextValue, InvalidValue>,
    ) {
        let (first, before_all) = (self.len(), self.before_all());
        for (row, cell) in cells.iter().enumerate() {
            let raw = cell.raw(text);
            match &mut self.values {
                DecodedValues::Texts(texts) => match raw.map(|raw| (raw, string_text(raw))) {
                    Some((_, Some(value))) => texts.append(Some(&value)),
                    Some((raw, None)) => match decode(raw) {
                        Ok(TextValue::Text(value)) => texts.append(Some(&value)),
                        Ok(_) => texts.append(None),
                        Err(reason) => {
                            texts.append(None);
                            self.invalid.push((first + row, reason));
                        }
                    },
                    None => texts.append(None),
                },
                DecodedValues::Integers { numbers, .. } => match raw.map(|raw| plain_integer(raw.as_bytes())) {
                    None => numbers.append_option((*cell == Cell::BEFORE_ALL).then_some(0)),
                    Some(Some(number)) => numbers.append_value(number),
                    Some(None) => {
                        self.without_integers();
                        return self.append(&cells[row..], text, decode);
                    }
                },
                DecodedValues::Each(values) => {
                    let value = match raw {
                        Some(raw) => decode(raw),
                        None if *cell == Cell::BEFORE_ALL => Ok(before_all.clone()),
                        None => Ok(TextValue::Null),
                    };
                    values.push(value.unwrap_or_else(|reason| {
                        self.invalid.push((first + row, reason));
                        TextValue::Null
                    }));
                }
            }
        }
    }

    /// Position in the log before all others.
    fn before_all(&self) -> TextValue {
        if self.data_type == DataType::Int64 { TextValue::Int(0) } else { TextValue::Decimal(0) }
    }

    /// Continues without the assumption that all values are plain whole numbers.
    fn without_integers(&mut self) {
        if let DecodedValues::Integers { numbers, is_written } = &mut self.values {
            let numbers = numbers.finish();
            self.values = match is_written {
                true => {
                    let mut texts = TextColumn::default();
                    numbers.iter().for_each(|number| texts.append(number.map(|n| n.to_string()).as_deref()));
                    DecodedValues::Texts(texts)
                }
                false => {
                    let value = |number: Option<i64>| number.map_or(TextValue::Null, TextValue::Int);
                    DecodedValues::Each(numbers.iter().map(value).collect())
                }
            };
        }
    }

    /// Returns the column.
    ///
    /// # Errors
    /// The reason why the values together do not fit into one column.
    pub(crate) fn finish(self) -> Result<DecodedCells, InvalidValue> {
        let array: ArrayRef = match self.values {
            DecodedValues::Integers { mut numbers, .. } => Arc::new(numbers.finish()),
            DecodedValues::Texts(texts) => Arc::new(texts.finish()),
            DecodedValues::Each(values) => to_array(&self.data_type, &values)?,
        };
        Ok(DecodedCells { array, invalid: self.invalid })
    }
}

/// Parses a whole number of up to 18 digits; `None` for any other text.
fn plain_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let (mut value, mut rest) = (0_i64, digits);
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        value = value * 100_000_000 + eight_digits(*eight)?;
        rest = after;
    }
    for digit in rest {
        value = value * 10 + i64::from(char::from(*digit).to_digit(10)?);
    }
    Some(if digits.len() == text.len() { value } else { -value })
}

/// Parses eight digits at once: pairs of neighbours are combined in all lanes of a word, three times.
fn eight_digits(text: [u8; 8]) -> Option<i64> {
    let word = u64::from_le_bytes(text);
    let digits = word.wrapping_sub(0x3030_3030_3030_3030);
    // A byte above `9` sets the high bit after adding 0x76, a byte below `0` has it after the subtraction.
    if (digits | digits.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let eight = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff;
    i64::try_from(eight).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_integers_are_what_the_parser_of_the_standard_library_returns() {
        let mut texts: Vec<String> = (0..19).map(|digits| "1234567890123456789"[..digits].to_owned()).collect();
        texts.extend(
            ["-", "-0", "0", "+1", " 1", "1 ", "1.0", "-123456789012345678", "999999999999999999"].map(str::to_owned),
        );
        // Every byte at every position of a number.
        for at in 0..10 {
            for byte in 0..=127_u8 {
                let mut text = b"1234567890".to_vec();
                text[at] = byte;
                texts.push(String::from_utf8(text).expect("the text is ASCII"));
            }
        }
        for text in &texts {
            let expected = text.parse::<i64>().ok().filter(|_| !text.starts_with('+') && text.len() < 20);
            assert_eq!(plain_integer(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(plain_integer("\u{660}\u{661}\u{662}\u{663}".as_bytes()), None);
        assert_eq!(plain_integer(b"1234567890123456789"), None);
    }

    #[test]
    fn cells_are_decoded_like_their_json_text() {
        let text = r#"12"a""x\"y"null{"k":1}"\ud800"-7"#;
        let cell = |from: &str| {
            let start = text.find(from).expect("the value is in the text");
            Cell::at(start..start + from.len())
        };
        let decode = |codec: &ValueCodec, to: &DataType, cells: &[Cell]| {
            let mut decoder = CellDecoder::of_column(codec, to);
            // In parts, since a decoder gets a few cells at a time.
            cells.chunks(2).for_each(|cells| decoder.append(cells, text, &mut |raw| codec.decode(raw)));
            decoder.finish().expect("the values are a column")
        };
        let invalid = |decoded: DecodedCells| decoded.invalid.iter().map(|(row, _)| *row).collect::<Vec<_>>();
        let written = ValueCodec::Written(DataType::Utf8);
        let cells = [
            cell("12"),
            cell("\"a\""),
            cell(r#""x\"y""#),
            cell("null"),
            cell(r#"{"k":1}"#),
            Cell::NULL,
            Cell::UNCHANGED,
        ];
        let expected = [Some("12"), Some("a"), Some("x\"y"), None, Some(r#"{"k":1}"#), None, None];
        let expected: ArrayRef = Arc::new(StringArray::from(expected.to_vec()));
        // A column of a whole number is text from the beginning if one of its values is not plain.
        for to in [DataType::Utf8, DataType::Int64] {
            let texts = decode(&written, &to, &cells);
            assert_eq!(&texts.array, &expected);
            assert!(invalid(texts).is_empty());
        }
        let plain = [cell("12"), cell(r#""\ud800""#), cell("12")];
        let of_texts = decode(&ValueCodec::Plain(DataType::Utf8), &DataType::Utf8, &plain);
        assert_eq!(invalid(of_texts), [0, 1, 2]);
        let numbers = [cell("-7"), Cell::NULL, cell("12")];
        let expected: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![Some(-7), None, Some(12)]));
        for codec in [written, ValueCodec::Plain(DataType::Int64)] {
            assert_eq!(&decode(&codec, &DataType::Int64, &numbers).array, &expected);
        }
        let mixed =
            decode(&ValueCodec::Plain(DataType::Int64), &DataType::Int64, &[cell("-7"), cell("\"a\""), cell("12")]);
        assert_eq!(&mixed.array, &expected);
        assert_eq!(invalid(mixed), [1]);
    }
}
