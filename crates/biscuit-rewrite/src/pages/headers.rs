//! Derives the offset index of a column chunk from the headers of its pages.

use parquet::file::page_index::offset_index::{OffsetIndexMetaData, PageLocation};

/// Number of values that a row has in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValuesPerRow {
    One,
    /// Any number of values, in a repeated column.
    Any,
}

/// Finds the pages of a column chunk by their headers, and returns the offset index of a chunk whose file has none.
///
/// Page headers are structs in Thrift's compact protocol, as defined in parquet.thrift. `bytes` is the chunk, `start`
/// its offset in the file, `rows` the number of rows of the row group. Returns `None` if the pages do not contain
/// their number of rows, which is possible in repeated columns.
pub(crate) fn offset_index(bytes: &[u8], start: u64, rows: i64, per_row: ValuesPerRow) -> Option<OffsetIndexMetaData> {
    let (mut at, mut first_row_index) = (0, 0_i64);
    let mut page_locations = Vec::new();
    while at < bytes.len() {
        let mut input = HeaderInput { bytes, at };
        let header = input.page_header()?;
        let end = input.at.checked_add(usize::try_from(header.compressed).ok()?)?;
        if end > bytes.len() {
            return None;
        }
        if let Some(values) = header.values {
            page_locations.push(PageLocation {
                offset: i64::try_from(start).ok()? + i64::try_from(at).ok()?,
                compressed_page_size: i32::try_from(end - at).ok()?,
                first_row_index,
            });
            first_row_index += match (header.rows, per_row) {
                (Some(rows), _) => i64::from(rows),
                (None, ValuesPerRow::One) => i64::from(values),
                // A single page has all rows of the row group.
                (None, ValuesPerRow::Any) if end == bytes.len() && page_locations.len() == 1 => rows,
                (None, ValuesPerRow::Any) => return None,
            };
        }
        at = end;
    }
    (first_row_index == rows && !page_locations.is_empty())
        .then_some(OffsetIndexMetaData { page_locations, unencoded_byte_array_data_bytes: None })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct PageHeader {
    compressed: i32,
    /// Number of values of a data page; `None` for another kind of page.
    values: Option<i32>,
    /// Number of rows, which only data pages of version 2 contain.
    rows: Option<i32>,
}

struct HeaderInput<'a> {
    bytes: &'a [u8],
    at: usize,
}

const STRUCT: u8 = 12;

impl HeaderInput<'_> {
    fn page_header(&mut self) -> Option<PageHeader> {
        // Fields of PageHeader in parquet.thrift: 3 is compressed_page_size, 5 is data_page_header, 8 is
        // data_page_header_v2. In the latter two, field 1 is num_values; in version 2, field 3 is num_rows.
        let (mut header, mut field) = (PageHeader::default(), 0);
        while let Some(kind) = self.read_field(&mut field)? {
            match (field, kind) {
                (3, 5) => header.compressed = self.read_int()?,
                (5, STRUCT) => header.values = self.read_numbers()?[0],
                (8, STRUCT) => {
                    let numbers = self.read_numbers()?;
                    (header.values, header.rows) = (numbers[0], numbers[2]);
                }
                _ => self.skip_value(kind, 0)?,
            }
        }
        (header.compressed >= 0).then_some(header)
    }

    /// Reads the first three fields of a struct if they are 32-bit integers, and skips the others.
    fn read_numbers(&mut self) -> Option<[Option<i32>; 3]> {
        let (mut numbers, mut field) = ([None; 3], 0);
        while let Some(kind) = self.read_field(&mut field)? {
            match (field, kind) {
                (1..=3, 5) => numbers[usize::from(field) - 1] = Some(self.read_int()?),
                _ => self.skip_value(kind, 0)?,
            }
        }
        Some(numbers)
    }

    fn read_byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Reads the header of the next field and returns its type; `None` inside at the end of the struct. `number` is
    /// updated: the high four bits are the difference to the last field number, or 0 if the number follows as an
    /// integer.
    fn read_field(&mut self, number: &mut u8) -> Option<Option<u8>> {
        let byte = self.read_byte()?;
        if byte == 0 {
            return Some(None);
        }
        *number = match byte >> 4 {
            0 => u8::try_from(self.read_int()?).ok()?,
            delta => number.checked_add(delta)?,
        };
        Some(Some(byte & 0x0f))
    }

    fn read_varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.read_byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }

    fn read_int(&mut self) -> Option<i32> {
        let zigzag = self.read_varint()?;
        i32::try_from((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)).ok()
    }

    fn skip_bytes(&mut self, bytes: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn skip_value(&mut self, kind: u8, depth: u8) -> Option<()> {
        // Headers are not nested deeper than this. The limit protects the stack from damaged files.
        if depth > 8 {
            return None;
        }
        // Type codes of the compact protocol: 1 and 2 are booleans, 3 a byte, 4 to 6 integers, 7 a double, 8 bytes,
        // 9 a list, 10 a set, 12 a struct.
        match kind {
            1 | 2 => Some(()),
            3 => self.skip_bytes(1),
            4..=6 => self.read_varint().map(drop),
            7 => self.skip_bytes(8),
            8 => {
                let length = self.read_varint()?;
                self.skip_bytes(length)
            }
            9 | 10 => {
                let byte = self.read_byte()?;
                let length = if byte >> 4 == 15 { self.read_varint()? } else { u64::from(byte >> 4) };
                // Unlike boolean fields, booleans in lists take one byte each.
                (0..length).try_for_each(|_| {
                    if byte & 0x0f <= 2 { self.skip_bytes(1) } else { self.skip_value(byte & 0x0f, depth + 1) }
                })
            }
            STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.read_field(&mut field)? {
                    self.skip_value(kind, depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page header (type 0, sizes 20 and 4, a data page of 3 values with statistics), followed by the page.
    const DATA: &[u8] = &[
        0x15, 0, 0x15, 40, 0x15, 8, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0x1c, 0x18, 1, b'a', 0, 0, 0, 9, 9, 9, 9,
    ];
    /// A dictionary page of 2 bytes.
    const DICTIONARY: &[u8] = &[0x15, 4, 0x15, 4, 0x15, 4, 0x4c, 0x15, 2, 0x15, 0, 0, 0, 7, 7];

    #[test]
    fn pages_are_found_after_the_dictionary() {
        let chunk = [DICTIONARY, DATA, DATA].concat();
        let index = offset_index(&chunk, 1000, 6, ValuesPerRow::One).expect("the file has an offset index");
        let found: Vec<_> =
            index.page_locations().iter().map(|p| (p.offset, p.compressed_page_size, p.first_row_index)).collect();
        let (first, len) = (1000 + DICTIONARY.len() as i64, DATA.len() as i32);
        assert_eq!(found, [(first, len, 0), (first + i64::from(len), len, 3)]);
    }

    #[test]
    fn ambiguous_pages_have_no_offset_index() {
        let chunk = [DATA, DATA].concat();
        assert!(offset_index(&chunk, 0, 7, ValuesPerRow::One).is_none(), "rows that do not add up");
        assert!(offset_index(&chunk, 0, 6, ValuesPerRow::Any).is_none(), "repeated values in two pages");
        assert!(offset_index(DATA, 0, 2, ValuesPerRow::Any).is_some(), "repeated values in one page");
        for cut in 1..DATA.len() {
            assert!(offset_index(&DATA[..cut], 0, 3, ValuesPerRow::One).is_none(), "cut at {cut}");
        }
    }
}
