//! Reads the pages of a source chunk as dictionary indices or plain bytes, without decoding values.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::Result;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::encode::group_bytes::GroupBytes;
use crate::pages::hybrid;
use crate::transcode::kind::ValueKind;

/// Index that marks a null.
pub(super) const NULL: u32 = u32::MAX;

/// Values of a source chunk in their stored form, row by row.
pub(super) enum SourceValues {
    /// The dictionary index of each row, and the dictionary values without their lengths.
    Indices(Vec<u32>, Vec<Bytes>),
    /// Plain values, and the end of each row in `bytes`.
    Plain { bytes: Vec<u8>, ends: PlainValueEnds },
}

/// Ends of plain values.
pub(super) enum PlainValueEnds {
    /// All rows have this width, and none is null.
    Every(usize),
    /// Offset of the end of each row. A null ends where the row before it ends.
    Of(Vec<u32>),
}

impl SourceValues {
    /// Reads all pages of a chunk. Returns `None` if an encoding is not supported or the chunk is damaged; then the
    /// column is decoded by arrow-rs, which reports the damage.
    pub(super) fn read(
        source: &GroupBytes,
        chunk: &ColumnChunkMetaData,
        rows: usize,
        kind: ValueKind,
    ) -> Result<Option<Self>> {
        let mut pages = SerializedPageReader::new(Arc::new(source.clone()), chunk, rows, None)?;
        let nullable = chunk.column_descr().max_def_level() == 1;
        let mut dictionary = None;
        let (mut indices, mut levels) = (Vec::new(), Vec::new());
        let mut plain = (Vec::new(), Vec::new());
        let (mut count, mut nulls) = (0, false);
        while let Some(page) = pages.get_next_page()? {
            let Some(data) = DataPage::parse(&page, nullable, &mut levels) else {
                let Page::DictionaryPage { buf, num_values, .. } = page else { return Ok(None) };
                let Some(values) = dictionary_values(&buf, num_values as usize, kind) else { return Ok(None) };
                dictionary = Some(values);
                continue;
            };
            let read = match (&dictionary, data.encoding) {
                (Some(_), Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) => {
                    data.read_indices(&levels, &mut indices)
                }
                (None, Encoding::PLAIN) => data.read_plain(&levels, kind, &mut plain.0, &mut plain.1),
                _ => None,
            };
            if read.is_none() {
                return Ok(None);
            }
            nulls |= levels.contains(&0);
            count += data.rows;
        }
        if count != rows {
            return Ok(None);
        }
        Ok(match dictionary {
            Some(values) => {
                let known = |i: &u32| *i == NULL || (*i as usize) < values.len();
                indices.iter().all(known).then_some(Self::Indices(indices, values))
            }
            None => {
                let ends = match kind.width().filter(|_| !nulls) {
                    Some(width) => PlainValueEnds::Every(width),
                    None => PlainValueEnds::Of(plain.1),
                };
                Some(Self::Plain { bytes: plain.0, ends })
            }
        })
    }
}

/// A data page: its values, without the levels before them.
struct DataPage<'a> {
    values: &'a [u8],
    rows: usize,
    encoding: Encoding,
}

impl<'a> DataPage<'a> {
    /// Splits a data page into levels and values. `levels` remains empty if no row is null. Returns `None` for
    /// another kind of page, or if the page is damaged.
    fn parse(page: &'a Page, nullable: bool, levels: &mut Vec<u32>) -> Option<Self> {
        levels.clear();
        match page {
            Page::DataPage { buf, num_values, encoding, def_level_encoding, .. } => {
                let rows = *num_values as usize;
                let mut values = buf.as_ref();
                if nullable {
                    if *def_level_encoding != Encoding::RLE {
                        return None;
                    }
                    let (length, rest) = values.split_first_chunk::<4>()?;
                    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
                    read_levels(rest.get(..length)?, rows, levels)?;
                    values = &rest[length..];
                }
                Some(Self { values, rows, encoding: *encoding })
            }
            Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let rows = *num_values as usize;
                let (from, length) = (*rep_levels_byte_len as usize, *def_levels_byte_len as usize);
                if nullable {
                    read_levels(buf.get(from..from + length)?, rows, levels)?;
                }
                Some(Self { values: buf.get(from + length..)?, rows, encoding: *encoding })
            }
            Page::DictionaryPage { .. } => None,
        }
    }

    fn read_indices(&self, levels: &[u32], out: &mut Vec<u32>) -> Option<()> {
        let valid = if levels.is_empty() { self.rows } else { levels.iter().filter(|l| **l == 1).count() };
        let (width, packed) = match self.values.split_first() {
            Some((width, packed)) => (u32::from(*width), packed),
            // A page with nothing but nulls may have no bytes.
            None if valid == 0 => (0, &[][..]),
            None => return None,
        };
        if levels.is_empty() {
            return hybrid::decode(packed, width, self.rows, out);
        }
        let mut own = Vec::with_capacity(valid);
        hybrid::decode(packed, width, valid, &mut own)?;
        let mut own = own.into_iter();
        for level in levels {
            out.push(if *level == 1 { own.next()? } else { NULL });
        }
        Some(())
    }

    /// Appends the values of the page to `bytes`, and the end of each row to `ends`.
    fn read_plain(&self, levels: &[u32], kind: ValueKind, bytes: &mut Vec<u8>, ends: &mut Vec<u32>) -> Option<()> {
        let (base, mut at) = (bytes.len(), 0);
        // Fast path: with a fixed width and without nulls, the ends follow from the width.
        if let (Some(width), true) = (kind.width(), levels.is_empty()) {
            at = width.checked_mul(self.rows)?;
            ends.extend((1..=self.rows).map(|r| (base + r * width) as u32));
        } else {
            ends.reserve(self.rows);
            for row in 0..self.rows {
                if levels.get(row).is_none_or(|l| *l == 1) {
                    at += match kind.width() {
                        Some(width) => width,
                        None => {
                            let length = self.values.get(at..at + 4)?.try_into().expect("there are four bytes");
                            4 + u32::from_le_bytes(length) as usize
                        }
                    };
                }
                ends.push(u32::try_from(base + at).ok()?);
            }
        }
        bytes.extend_from_slice(self.values.get(..at)?);
        u32::try_from(bytes.len()).ok().map(|_| ())
    }
}

fn read_levels(bytes: &[u8], rows: usize, levels: &mut Vec<u32>) -> Option<()> {
    hybrid::decode(bytes, 1, rows, levels)?;
    if !levels.contains(&0) {
        levels.clear();
    }
    Some(())
}

fn dictionary_values(buffer: &Bytes, count: usize, kind: ValueKind) -> Option<Vec<Bytes>> {
    let (mut values, mut at) = (Vec::with_capacity(count), 0);
    for _ in 0..count {
        let length = match kind.width() {
            Some(width) => width,
            None => {
                let length = buffer.get(at..at + 4)?.try_into().expect("there are four bytes");
                at += 4;
                u32::from_le_bytes(length) as usize
            }
        };
        let end = at.checked_add(length).filter(|end| *end <= buffer.len())?;
        values.push(buffer.slice(at..end));
        at = end;
    }
    Some(values)
}
