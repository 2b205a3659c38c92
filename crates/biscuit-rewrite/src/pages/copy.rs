//! The metadata that a copied row group needs in the new footer: page indexes and bloom filters.

use biscuit_core::Result;
use biscuit_dataset::OpenFile;
use biscuit_dataset::internal::parquet_error;
use bytes::Bytes;
use parquet::basic::Type;
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::statistics::Statistics;

use crate::encode::group_bytes::GroupBytes;
use crate::pages::headers::{ValuesPerRow, offset_index};

/// Number of bytes to fetch for a bloom filter whose length the footer does not contain: 128 MiB, more than any
/// writer makes, and its header.
const LARGEST_FILTER: u64 = (128 << 20) + 64;

/// Metadata of a source file that is carried over to the new file, in addition to its chunks.
#[derive(Debug)]
pub(crate) struct CarriedMetadata {
    /// Footer with page indexes, if every chunk of the file has an offset index.
    indexes: Option<ParquetMetaData>,
}

impl CarriedMetadata {
    /// Reads the page indexes if the file has an index for every chunk. An incomplete page index is ignored, since
    /// the Parquet library does not write files with one.
    pub(crate) async fn read(file: &OpenFile) -> Result<Self> {
        let metadata = file.metadata().metadata();
        let chunks = || metadata.row_groups().iter().flat_map(|g| g.columns());
        let complete = chunks().all(|c| c.offset_index_offset().is_some() && c.offset_index_length().is_some());
        let indexes = if complete && chunks().next().is_some() { Some(file.page_indexes().await?) } else { None };
        Ok(Self { indexes })
    }

    /// Returns the metadata of a copied row group. Returns `None` if there is no offset index for a chunk; the row
    /// group must then be encoded, since one chunk without an index would remove the page index of the whole file.
    pub(crate) fn copied_metadata(
        &self,
        file: &OpenFile,
        group: usize,
        bytes: &GroupBytes,
        blooms: Vec<Option<Sbbf>>,
    ) -> Result<Option<Vec<ColumnCloseResult>>> {
        let metadata = file.metadata().metadata();
        let (group_metadata, mut closes) = (metadata.row_group(group), Vec::new());
        for ((leaf, chunk), bloom_filter) in group_metadata.columns().iter().enumerate().zip(blooms) {
            let Some((offset_index, column_index)) = self.copied_index(file, group, leaf, bytes)? else {
                return Ok(None);
            };
            closes.push(ColumnCloseResult {
                bytes_written: u64::try_from(chunk.compressed_size()).unwrap_or(0),
                rows_written: u64::try_from(group_metadata.num_rows()).unwrap_or(0),
                metadata: chunk.clone(),
                bloom_filter,
                column_index,
                offset_index: Some(offset_index),
            });
        }
        Ok(Some(closes))
    }

    fn copied_index(
        &self,
        file: &OpenFile,
        group: usize,
        leaf: usize,
        bytes: &GroupBytes,
    ) -> Result<Option<(OffsetIndexMetaData, Option<ColumnIndexMetaData>)>> {
        if let Some(indexes) = &self.indexes
            && let Some(offsets) = indexes.offset_index().and_then(|all| all.get(group)).and_then(|g| g.get(leaf))
        {
            let column = indexes.column_index().and_then(|all| all.get(group)).and_then(|g| g.get(leaf)).cloned();
            let column = column.filter(|index| !matches!(index, ColumnIndexMetaData::NONE));
            return Ok(Some((offsets.clone(), column)));
        }
        // The file has no page index: derive the offset index from the headers of the pages.
        let group = file.metadata().metadata().row_group(group);
        let chunk = group.column(leaf);
        let (start, length) = chunk.byte_range();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let content: Bytes = bytes.get_bytes(start, length).map_err(|e| parquet_error(file.path(), e))?;
        let repeated = chunk.column_descr().max_rep_level() > 0;
        let per_row = if repeated { ValuesPerRow::Any } else { ValuesPerRow::One };
        let Some(offsets) = offset_index(&content, start, group.num_rows(), per_row) else {
            return Ok(None);
        };
        let one_page = offsets.page_locations().len() == 1;
        let column = if one_page { column_index(chunk, group.num_rows()) } else { None };
        Ok(Some((offsets, column)))
    }
}

/// Returns the column index of a chunk with one page: the statistics of the page are those of the chunk.
fn column_index(chunk: &ColumnChunkMetaData, rows: i64) -> Option<ColumnIndexMetaData> {
    let statistics = chunk.statistics()?;
    let nulls = i64::try_from(statistics.null_count_opt()?).ok()?;
    // The deprecated statistics have no defined order, and INT96 has none either.
    if statistics.is_min_max_deprecated() || chunk.column_descr().physical_type() == Type::INT96 {
        return None;
    }
    let all_null = nulls == rows;
    let (min, max) = match (statistics.min_bytes_opt(), statistics.max_bytes_opt()) {
        (Some(min), Some(max)) if !all_null => (min.to_vec(), max.to_vec()),
        _ if all_null => (vec![], vec![]),
        _ => return None,
    };
    // A bound that is NaN does not bound the other values.
    if matches!(statistics, Statistics::Float(_) | Statistics::Double(_)) && has_nan(statistics) {
        return None;
    }
    let mut builder = ColumnIndexBuilder::new(chunk.column_descr().physical_type());
    builder.append(all_null, min, max, nulls);
    builder.build().ok()
}

fn has_nan(statistics: &Statistics) -> bool {
    match statistics {
        Statistics::Float(s) => s.min_opt().is_some_and(|v| v.is_nan()) || s.max_opt().is_some_and(|v| v.is_nan()),
        Statistics::Double(s) => s.min_opt().is_some_and(|v| v.is_nan()) || s.max_opt().is_some_and(|v| v.is_nan()),
        _ => false,
    }
}

/// Returns the bloom filters of a row group, by leaf column.
pub(crate) async fn read_bloom_filters(file: &OpenFile, group: usize) -> Result<Vec<Option<Sbbf>>> {
    let columns = file.metadata().metadata().row_group(group).columns();
    let range = |c: &ColumnChunkMetaData| {
        let start = u64::try_from(c.bloom_filter_offset()?).ok()?;
        let length = c.bloom_filter_length().and_then(|l| u64::try_from(l).ok());
        let end = start.checked_add(length.unwrap_or(LARGEST_FILTER))?.min(file.size());
        (start < end).then_some(start..end)
    };
    let ranges: Vec<_> = columns.iter().filter_map(range).collect();
    if ranges.is_empty() {
        return Ok(vec![None; columns.len()]);
    }
    let bytes = GroupBytes::fetch_ranges(file, ranges).await?;
    let read = |c: &ColumnChunkMetaData| match range(c) {
        Some(_) => Sbbf::read_from_column_chunk(c, &bytes).map_err(|e| parquet_error(file.path(), e)),
        None => Ok(None),
    };
    columns.iter().map(read).collect()
}
