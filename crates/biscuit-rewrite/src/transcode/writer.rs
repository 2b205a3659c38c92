//! Writes the pages of a column chunk, with its statistics, column index and offset index.

use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::pages::hybrid;
use crate::transcode::bounds::{ValueBounds, lower_bound, upper_bound};
use crate::transcode::kind::{ValueKind, decode_integer};

/// A column chunk that was made page by page from another one.
#[derive(Debug)]
pub(crate) struct TranscodedChunk {
    pub(crate) bytes: Bytes,
    pub(crate) close: ColumnCloseResult,
}

pub(super) enum PageCompressor {
    None,
    Snappy(Box<snap::raw::Encoder>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl PageCompressor {
    pub(super) fn supports(codec: Compression) -> bool {
        matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_))
    }

    fn new(codec: Compression) -> Result<Self> {
        Ok(match codec {
            Compression::SNAPPY => Self::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::ZSTD(level) => Self::Zstd(zstd::bulk::Compressor::new(level.compression_level())?),
            _ => Self::None,
        })
    }

    fn compress(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        match self {
            Self::None => Ok(bytes),
            Self::Snappy(encoder) => encoder.compress_vec(&bytes).map_err(|e| ParquetError::External(Box::new(e))),
            Self::Zstd(compressor) => Ok(compressor.compress(&bytes)?),
        }
    }
}

/// Writes the pages of a chunk, and collects its metadata for the footer and the page index.
pub(super) struct ChunkWriter {
    pub(super) kind: ValueKind,
    nullable: bool,
    compressor: PageCompressor,
    codec: Compression,
    descriptor: ColumnDescPtr,
    sink: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    dictionary_offset: Option<i64>,
    data_offset: Option<i64>,
    encodings: Vec<PageEncodingStats>,
    column_index: ColumnIndexBuilder,
    offset_index: OffsetIndexBuilder,
    bounds: ValueBounds,
    /// Whether the bounds of the pages ascend so far, and the bounds of the last page.
    ascending: bool,
    last: ValueBounds,
    rows: usize,
    nulls: usize,
}

impl ChunkWriter {
    pub(super) fn new(source: &ColumnChunkMetaData, kind: ValueKind, codec: Compression) -> Result<Self> {
        let size = source.compressed_size();
        Ok(Self {
            kind,
            nullable: source.column_descr().max_def_level() == 1,
            compressor: PageCompressor::new(codec)?,
            codec,
            descriptor: source.column_descr_ptr(),
            sink: TrackedWrite::new(Vec::with_capacity(usize::try_from(size + size / 16).unwrap_or(0))),
            uncompressed: 0,
            dictionary_offset: None,
            data_offset: None,
            encodings: vec![],
            column_index: ColumnIndexBuilder::new(source.column_descr().physical_type()),
            offset_index: OffsetIndexBuilder::new(),
            bounds: ValueBounds::default(),
            ascending: true,
            last: ValueBounds::default(),
            rows: 0,
            nulls: 0,
        })
    }

    pub(super) fn write_dictionary(&mut self, values: &[Bytes]) -> Result<()> {
        let mut bytes = Vec::new();
        for value in values {
            if self.kind.width().is_none() {
                bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
            }
            bytes.extend_from_slice(value);
        }
        let (size, num_values) = (bytes.len(), u32::try_from(values.len()).unwrap_or(u32::MAX));
        let buf = self.compressor.compress(bytes)?.into();
        let page = Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        let (offset, _) = self.put_page(page, size)?;
        self.dictionary_offset = Some(offset);
        self.encodings.push(PageEncodingStats {
            page_type: PageType::DICTIONARY_PAGE,
            encoding: Encoding::PLAIN,
            count: 1,
        });
        Ok(())
    }

    /// Writes a data page. `levels` are the definition levels of its rows, if one of them is null.
    pub(super) fn write_page(
        &mut self,
        rows: usize,
        levels: Option<&[u32]>,
        values: &[u8],
        bounds: &ValueBounds,
        encoding: Encoding,
    ) -> Result<()> {
        let mut bytes = Vec::with_capacity(values.len() + 64);
        if self.nullable {
            let mut packed = Vec::new();
            match levels {
                Some(levels) => hybrid::encode(levels, 1, &mut packed),
                None => hybrid::encode(&vec![1; rows], 1, &mut packed),
            }
            bytes.extend_from_slice(&u32::try_from(packed.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(&packed);
        }
        bytes.extend_from_slice(values);
        let size = bytes.len();
        let page = Page::DataPage {
            buf: self.compressor.compress(bytes)?.into(),
            num_values: u32::try_from(rows).unwrap_or(u32::MAX),
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let (offset, length) = self.put_page(page, size)?;
        self.data_offset = self.data_offset.or(Some(offset));
        match self.encodings.last_mut().filter(|e| e.page_type == PageType::DATA_PAGE) {
            Some(pages) => pages.count += 1,
            None => self.encodings.push(PageEncodingStats { page_type: PageType::DATA_PAGE, encoding, count: 1 }),
        }
        let nulls = levels.map_or(0, |l| l.iter().filter(|l| **l == 0).count());
        self.offset_index.append_row_count(i64::try_from(rows).unwrap_or(i64::MAX));
        self.offset_index.append_offset_and_size(offset, length);
        let count = i64::try_from(nulls).unwrap_or(i64::MAX);
        match &bounds.0 {
            Some((min, max)) => {
                let (min, max) = (self.lower_bound(min), self.upper_bound(max));
                if let Some((last_min, last_max)) = &self.last.0 {
                    let less = |a: &[u8], b: &[u8]| self.kind.is_less(a, b);
                    self.ascending &= !less(&min, last_min) && !less(&max, last_max);
                }
                self.last = ValueBounds(Some((min.clone(), max.clone())));
                self.column_index.append(false, min, max, count);
            }
            None => self.column_index.append(true, vec![], vec![], count),
        }
        for value in bounds.0.iter().flat_map(|(min, max)| [min, max]) {
            self.bounds.widen(value, self.kind);
        }
        (self.rows, self.nulls) = (self.rows + rows, self.nulls + nulls);
        Ok(())
    }

    fn lower_bound(&self, value: &[u8]) -> Vec<u8> {
        match self.kind {
            ValueKind::Bytes { text } => lower_bound(value, text),
            _ => value.to_vec(),
        }
    }

    fn upper_bound(&self, value: &[u8]) -> Vec<u8> {
        match self.kind {
            ValueKind::Bytes { text } => upper_bound(value, text),
            _ => value.to_vec(),
        }
    }

    /// Writes a page, and returns its offset and its length, header included.
    fn put_page(&mut self, page: Page, uncompressed: usize) -> Result<(i64, i32)> {
        let spec = SerializedPageWriter::new(&mut self.sink).write_page(CompressedPage::new(page, uncompressed))?;
        self.uncompressed += spec.uncompressed_size;
        let number = |e: std::num::TryFromIntError| ParquetError::External(Box::new(e));
        Ok((i64::try_from(spec.offset).map_err(number)?, i32::try_from(spec.compressed_size).map_err(number)?))
    }

    fn statistics(&self) -> Statistics {
        let nulls = Some(self.nulls as u64);
        let bounds = self.bounds.0.as_ref();
        let ints = || bounds.map(|(min, max)| (decode_integer(min), decode_integer(max))).unzip();
        match self.kind {
            ValueKind::Int32 => {
                let (min, max): (Option<i64>, Option<i64>) = ints();
                Statistics::int32(min.map(|v| v as i32), max.map(|v| v as i32), None, nulls, false)
            }
            ValueKind::Int64 => {
                let (min, max) = ints();
                Statistics::int64(min, max, None, nulls, false)
            }
            ValueKind::Bytes { text } => {
                let (min, max) = bounds.map(|(min, max)| (lower_bound(min, text), upper_bound(max, text))).unzip();
                let exact = |cut: &Option<Vec<u8>>, whole: Option<&Vec<u8>>| cut.as_ref() == whole;
                let (min_exact, max_exact) = (exact(&min, bounds.map(|b| &b.0)), exact(&max, bounds.map(|b| &b.1)));
                let value = |v: Option<Vec<u8>>| v.map(ByteArray::from);
                let statistics = ValueStatistics::new(value(min), value(max), None, nulls, false);
                Statistics::ByteArray(statistics.with_min_is_exact(min_exact).with_max_is_exact(max_exact))
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<TranscodedChunk> {
        let statistics = self.statistics();
        let mut encodings: Vec<Encoding> = vec![Encoding::RLE];
        for page in &self.encodings {
            if !encodings.contains(&page.encoding) {
                encodings.push(page.encoding);
            }
        }
        let bytes: Bytes = self.sink.into_inner()?.into();
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let metadata = ColumnChunkMetaData::builder(self.descriptor)
            .set_compression(self.codec)
            .set_encodings(encodings)
            .set_page_encoding_stats(self.encodings)
            .set_num_values(number(self.rows))
            .set_total_compressed_size(number(bytes.len()))
            .set_total_uncompressed_size(number(self.uncompressed))
            .set_dictionary_page_offset(self.dictionary_offset)
            .set_data_page_offset(self.data_offset.unwrap_or(0))
            .set_statistics(statistics)
            .build()?;
        if self.ascending {
            self.column_index.set_boundary_order(BoundaryOrder::ASCENDING);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: Some(self.column_index.build()?),
            offset_index: Some(self.offset_index.build()),
        };
        Ok(TranscodedChunk { bytes, close })
    }
}
