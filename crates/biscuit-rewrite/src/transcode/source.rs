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

/// A row that is null.
pub(super) const NULL: u32 = u32::MAX;

/// The values of a source chunk, row by row, as they are held.
pub(super) enum SourceValues {
    /// By row the number of the value; the dictionary's values, without their lengths.
    Indices(Vec<u32>, Vec<Bytes>),
    /// Plain values: by row where it ends, if they differ in length or there are nulls.
    Plain { bytes: Vec<u8>, ends: PlainValueEnds },
}

/// Where plain values end.
pub(super) enum PlainValueEnds {
    Every(usize),
    /// By row; null ends where the row before it does.
    Of(Vec<u32>),
}

impl SourceValues {
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
            let Some(data) = DataPage::of(&page, nullable, &mut levels) else {
                let Page::DictionaryPage { buf, num_values, .. } = page else { return Ok(None) };
                let Some(values) = dictionary_values(&buf, num_values as usize, kind) else { return Ok(None) };
                dictionary = Some(values);
                continue;
            };
            let read = match (&dictionary, data.encoding) {
                (Some(_), Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) => data.indices(&levels, &mut indices),
                (None, Encoding::PLAIN) => data.plain(&levels, kind, &mut plain.0, &mut plain.1),
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

/// A data page: its values, behind their levels.
struct DataPage<'a> {
    values: &'a [u8],
    rows: usize,
    encoding: Encoding,
}

impl<'a> DataPage<'a> {
    /// Takes a page apart; `levels` are left empty where no row is null. None for another page, and for one that is damaged.
    fn of(page: &'a Page, nullable: bool, levels: &mut Vec<u32>) -> Option<Self> {
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

    fn indices(&self, levels: &[u32], out: &mut Vec<u32>) -> Option<()> {
        let valid = if levels.is_empty() { self.rows } else { levels.iter().filter(|l| **l == 1).count() };
        let (width, packed) = match self.values.split_first() {
            Some((width, packed)) => (u32::from(*width), packed),
            // A page of nulls may have nothing at all.
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

    /// Appends the values as they are, and where each row ends.
    fn plain(&self, levels: &[u32], kind: ValueKind, bytes: &mut Vec<u8>, ends: &mut Vec<u32>) -> Option<()> {
        let (base, mut at) = (bytes.len(), 0);
        // Where no row is null and all are of one length, nobody asks where one ends.
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
                            let length = self.values.get(at..at + 4)?.try_into().expect("four bytes");
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
                let length = buffer.get(at..at + 4)?.try_into().expect("four bytes");
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
