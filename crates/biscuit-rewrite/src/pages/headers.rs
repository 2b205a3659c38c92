use parquet::file::page_index::offset_index::{OffsetIndexMetaData, PageLocation};

/// Finds the pages of a column chunk by their headers, which are Thrift's compact protocol as in parquet.thrift: what an
/// offset index says, for a chunk whose file has none. `bytes` is the chunk, `start` its place in the file, `rows` the
/// rows of the row group. None where pages do not say how many rows they have: in repeated columns.
pub(crate) fn offset_index(bytes: &[u8], start: u64, rows: i64, repeated: bool) -> Option<OffsetIndexMetaData> {
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
            first_row_index += match (header.rows, repeated) {
                (Some(rows), _) => i64::from(rows),
                (None, false) => i64::from(values),
                // One page is the whole chunk, whatever it holds.
                (None, true) if end == bytes.len() && page_locations.len() == 1 => rows,
                (None, true) => return None,
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
    /// Values of a data page; none of another page.
    values: Option<i32>,
    /// Rows, which only data pages of version 2 say.
    rows: Option<i32>,
}

struct HeaderInput<'a> {
    bytes: &'a [u8],
    at: usize,
}

const STRUCT: u8 = 12;

impl HeaderInput<'_> {
    fn page_header(&mut self) -> Option<PageHeader> {
        let (mut header, mut field) = (PageHeader::default(), 0);
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (3, 5) => header.compressed = self.int()?,
                (5, STRUCT) => header.values = self.numbers()?[0],
                (8, STRUCT) => {
                    let numbers = self.numbers()?;
                    (header.values, header.rows) = (numbers[0], numbers[2]);
                }
                _ => self.skip(kind, 0)?,
            }
        }
        (header.compressed >= 0).then_some(header)
    }

    /// The first three fields of a struct, where they are 32-bit integers; what follows is passed over.
    fn numbers(&mut self) -> Option<[Option<i32>; 3]> {
        let (mut numbers, mut field) = ([None; 3], 0);
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (1..=3, 5) => numbers[usize::from(field) - 1] = Some(self.int()?),
                _ => self.skip(kind, 0)?,
            }
        }
        Some(numbers)
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// The type of the next field; none at the end of the struct.
    fn field(&mut self, number: &mut u8) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *number = match byte >> 4 {
            0 => u8::try_from(self.int()?).ok()?,
            delta => number.checked_add(delta)?,
        };
        Some(Some(byte & 0x0f))
    }

    fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }

    fn int(&mut self) -> Option<i32> {
        let zigzag = self.varint()?;
        i32::try_from((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)).ok()
    }

    fn forward(&mut self, bytes: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        // Headers are flat; what nests deeper is none.
        if depth > 8 {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.forward(1),
            4..=6 => self.varint().map(drop),
            7 => self.forward(8),
            8 => {
                let length = self.varint()?;
                self.forward(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let length = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                // Booleans in lists take a byte each.
                (0..length).try_for_each(|_| {
                    if byte & 0x0f <= 2 { self.forward(1) } else { self.skip(byte & 0x0f, depth + 1) }
                })
            }
            STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
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

    /// A header: type 0, sizes 20 and 4, a data page of 3 values with its statistics; then the page.
    const DATA: &[u8] = &[
        0x15, 0, 0x15, 40, 0x15, 8, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0x1c, 0x18, 1, b'a', 0, 0, 0, 9, 9, 9, 9,
    ];
    /// A dictionary page of 2 bytes.
    const DICTIONARY: &[u8] = &[0x15, 4, 0x15, 4, 0x15, 4, 0x4c, 0x15, 2, 0x15, 0, 0, 0, 7, 7];

    #[test]
    fn pages_are_found_behind_the_dictionary() {
        let chunk = [DICTIONARY, DATA, DATA].concat();
        let index = offset_index(&chunk, 1000, 6, false).expect("an index");
        let found: Vec<_> =
            index.page_locations().iter().map(|p| (p.offset, p.compressed_page_size, p.first_row_index)).collect();
        let (first, len) = (1000 + DICTIONARY.len() as i64, DATA.len() as i32);
        assert_eq!(found, [(first, len, 0), (first + i64::from(len), len, 3)]);
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        let chunk = [DATA, DATA].concat();
        assert!(offset_index(&chunk, 0, 7, false).is_none(), "rows that do not add up");
        assert!(offset_index(&chunk, 0, 6, true).is_none(), "repeated values in two pages");
        assert!(offset_index(DATA, 0, 2, true).is_some(), "repeated values in one page");
        for cut in 1..DATA.len() {
            assert!(offset_index(&DATA[..cut], 0, 3, false).is_none(), "cut at {cut}");
        }
    }
}
