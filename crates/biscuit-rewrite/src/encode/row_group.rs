//! Encodes one row group of a new file: decodes source row groups, applies edits, adds new rows, and encodes the
//! result.

use std::cmp::Reverse;
use std::io::Write;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::OpenFile;
use biscuit_dataset::internal::{decode_parquet, parquet_error};
use biscuit_schema::internal::{check_int96, conform};
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::memory_pool::MemoryReservation;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Type;
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::reader::ChunkReader;
use parquet::file::writer::SerializedRowGroupWriter;

use crate::encode::group_bytes::GroupBytes;
use crate::pages::bloom;
use crate::plan::apply::{RowEdit, apply_edits};
use crate::transcode::TranscodedChunk;

/// Number of rows that are decoded, edited and encoded at a time.
const BATCH: usize = 8192;

/// Encoder of one row group of the new file, from source row groups and new rows.
pub(crate) struct RowGroupEncoder {
    /// Parts of the row group, in this order.
    pub(crate) parts: Vec<EncodePart>,
    /// Columns of the new file.
    pub(crate) schema: SchemaRef,
    pub(crate) factory: Arc<ArrowRowGroupWriterFactory>,
    /// Ordinal of the row group in its file, to which encrypted pages are bound. Without encryption the value has no
    /// effect.
    pub(crate) number: usize,
    /// Columns by which the rows are sorted before they are encoded. Empty: the rows keep their order.
    pub(crate) sorting: Vec<SortingColumn>,
    /// Bloom filters of the only source row group, by leaf, to which new values are added. Empty if they are not
    /// carried over.
    pub(crate) blooms: Vec<Option<Sbbf>>,
    /// Limits of the row group; beyond them another one is begun.
    pub(crate) max_rows: usize,
    pub(crate) max_bytes: usize,
    /// Properties that decide the codec of each column.
    pub(crate) properties: WriterPropertiesPtr,
}

/// Part of the row group.
pub(crate) enum EncodePart {
    /// Row group of a source.
    Group(Box<EncodeGroup>),
    /// New rows, in the columns of the new file.
    Rows(RecordBatch),
}

/// A row group of a source, with its bytes.
pub(crate) struct EncodeGroup {
    pub(crate) source: OpenFile,
    pub(crate) group: usize,
    /// Number of its first row, counted through all sources.
    pub(crate) first: u64,
    pub(crate) edits: Vec<(u64, RowEdit)>,
    /// New rows that the edits refer to, in the columns of the new file.
    pub(crate) rows: Vec<RecordBatch>,
    pub(crate) bytes: GroupBytes,
}

/// Encoded columns of one row group, by leaf.
pub(crate) type EncodedRowGroup = Vec<EncodedChunk>;

/// Some columns of the rows, encoded.
pub(crate) struct EncodedShare {
    leaves: Vec<usize>,
    /// Chunks of these leaves, for each row group that the rows make.
    groups: Vec<EncodedRowGroup>,
}

/// One encoded column chunk.
pub(crate) enum EncodedChunk {
    /// Encoded from values by arrow-rs.
    Encoded(Box<ArrowColumnChunk>),
    /// Made from the pages of the source by `transcode`.
    Own(Box<TranscodedChunk>),
}

impl EncodedChunk {
    pub(crate) fn close(&self) -> &ColumnCloseResult {
        match self {
            Self::Encoded(chunk) => chunk.close(),
            Self::Own(chunk) => &chunk.close,
        }
    }

    fn close_mut(&mut self) -> &mut ColumnCloseResult {
        match self {
            Self::Encoded(chunk) => chunk.close_mut(),
            Self::Own(chunk) => &mut chunk.close,
        }
    }

    /// Returns all bytes of the chunk, if they are in one piece of memory.
    pub(crate) fn own_bytes(&self) -> Option<Bytes> {
        match self {
            Self::Encoded(_) => None,
            Self::Own(chunk) => Some(chunk.bytes.clone()),
        }
    }

    pub(crate) fn append_to<W: Write + Send>(
        self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> parquet::errors::Result<()> {
        match self {
            Self::Encoded(chunk) => chunk.append_to_row_group(group),
            Self::Own(chunk) => group.append_column(&chunk.bytes, chunk.close),
        }
    }
}

impl RowGroupEncoder {
    /// Decodes, edits and encodes all rows in one pass. Rows beyond the limits of a row group make further ones.
    /// `own` contains, by leaf, the columns that were already made from pages.
    pub(crate) fn run(mut self, own: Vec<Option<TranscodedChunk>>) -> Result<Vec<EncodedRowGroup>> {
        let mut done = match self.encode_columns(&own)? {
            Some(mut rest) => {
                let leaf = |own: Option<TranscodedChunk>| match own {
                    Some(own) => Some(EncodedChunk::Own(Box::new(own))),
                    None => rest.next(),
                };
                vec![own.into_iter().filter_map(leaf).collect()]
            }
            // No column was made from pages, or the rows make several row groups, to whose limits the chunks from
            // pages do not conform. Encode all columns.
            None => self.encode_groups(&[])?,
        };
        self.copy_bloom_filters(&mut done)?;
        Ok(done)
    }

    /// Encodes rows as they arrive. `full` takes each finished row group, and returns whether to go on. A row group
    /// ends early when the memory pool is used up.
    pub(crate) fn run_stream(
        &self,
        rows: impl Iterator<Item = Result<RecordBatch>>,
        memory: &MemoryReservation,
        full: &mut dyn FnMut(EncodedRowGroup) -> bool,
    ) -> Result<()> {
        let mut out = self.new_output(&[]);
        for rows in rows {
            out.write(&rows?)?;
            if memory.try_resize(out.memory_size()).is_err() {
                out.close_group()?;
            }
            for chunks in out.done.drain(..) {
                if !full(chunks) {
                    return Ok(());
                }
            }
        }
        out.finish()?.into_iter().all(full);
        Ok(())
    }

    /// Returns the estimated size of the row group in bytes, from the sizes of its sources.
    pub(crate) fn estimate(&self) -> u64 {
        let size = |part: &EncodePart| match part {
            EncodePart::Rows(rows) => bytes_of(rows) as u64,
            EncodePart::Group(group) => {
                let metadata = group.source.metadata().metadata().row_group(group.group);
                u64::try_from(metadata.compressed_size()).unwrap_or(0)
            }
        };
        self.parts.iter().map(size).sum()
    }

    /// Encodes the columns that were not made from pages. Returns `None` if no column was made from pages, or if the
    /// rows make several row groups.
    fn encode_columns(&self, own: &[Option<TranscodedChunk>]) -> Result<Option<std::vec::IntoIter<EncodedChunk>>> {
        if own.iter().all(Option::is_none) {
            return Ok(None);
        }
        if own.iter().all(Option::is_some) {
            return Ok(Some(vec![].into_iter()));
        }
        let made: Vec<bool> = own.iter().map(Option::is_some).collect();
        let mut groups = self.encode_groups(&made)?;
        let one = groups.pop().filter(|_| groups.is_empty());
        Ok(one.map(IntoIterator::into_iter))
    }

    /// Divides the columns into at most `number` shares of about the same size, to be encoded side by side. Returns,
    /// for each share, by leaf whether another share has the column. The result is empty if the columns depend on one
    /// another: if rows are sorted or converted from other columns, if there are only new rows, whose row groups end by
    /// their size, or if there are too many rows for one row group.
    pub(crate) fn column_shares(&self, number: usize) -> Vec<Vec<bool>> {
        let same = |part: &EncodePart| match part {
            EncodePart::Group(group) => group.source.metadata().schema().fields() == self.schema.fields(),
            EncodePart::Rows(_) => true,
        };
        let groups = || self.parts.iter().filter_map(|p| if let EncodePart::Group(g) = p { Some(g) } else { None });
        let number = number.min(self.schema.fields().len());
        if self.rows() > self.max_rows as u64 {
            return vec![];
        }
        if number < 2 || !self.sorting.is_empty() || !self.parts.iter().all(same) || groups().next().is_none() {
            return vec![];
        }
        let size_of = |leaf: usize| -> i64 {
            groups().map(|g| g.source.metadata().metadata().row_group(g.group).column(leaf).uncompressed_size()).sum()
        };
        let mut leaf = 0;
        let columns = self.schema.fields().iter().map(|field| {
            let leaves = leaf..leaf + count_leaves(field.data_type());
            leaf = leaves.end;
            (leaves.clone().map(size_of).sum::<i64>(), leaves)
        });
        let mut columns: Vec<_> = columns.collect();
        columns.sort_by_key(|(size, _)| Reverse(*size));
        let mut shares = vec![(0, vec![true; leaf]); number];
        for (size, leaves) in columns {
            let smallest = shares.iter_mut().min_by_key(|(size, _)| *size).expect("there is a share");
            smallest.0 += size.max(1);
            smallest.1[leaves].fill(false);
        }
        shares.into_iter().map(|(_, others)| others).collect()
    }

    /// Returns the number of rows after all edits.
    fn rows(&self) -> u64 {
        let of_part = |part: &EncodePart| match part {
            EncodePart::Rows(rows) => rows.num_rows() as u64,
            EncodePart::Group(group) => {
                let all = group.source.metadata().metadata().row_group(group.group).num_rows();
                let removed = group.edits.iter().filter(|(_, edit)| *edit == RowEdit::Remove).count();
                u64::try_from(all).unwrap_or(0).saturating_sub(removed as u64)
            }
        };
        self.parts.iter().map(of_part).sum()
    }

    /// Encodes the columns of a share.
    pub(crate) fn encode_share(&self, others: &[bool]) -> Result<EncodedShare> {
        let leaves = others.iter().enumerate().filter(|(_, other)| !**other).map(|(leaf, _)| leaf).collect();
        Ok(EncodedShare { leaves, groups: self.encode_groups(others)? })
    }

    /// Joins the columns of all shares. Returns `None` if they make several row groups.
    pub(crate) fn join_shares(&self, shares: Vec<EncodedShare>) -> Option<EncodedRowGroup> {
        let mut columns = Vec::new();
        for mut share in shares {
            let one = share.groups.pop().filter(|_| share.groups.is_empty())?;
            columns.extend(share.leaves.into_iter().zip(one));
        }
        let bytes: u64 = columns.iter().map(|(_, chunk)| chunk.close().bytes_written).sum();
        columns.sort_by_key(|(leaf, _)| *leaf);
        let fits = !columns.is_empty() && usize::try_from(bytes).is_ok_and(|bytes| bytes <= self.max_bytes);
        fits.then(|| columns.into_iter().map(|(_, chunk)| chunk).collect())
    }

    /// Returns an encoder of all columns that are not in `made`, by leaf.
    fn new_output(&self, made: &[bool]) -> EncodeOutput<'_> {
        let is_made = |leaf: usize| made.get(leaf).is_some_and(|m| *m);
        // Only columns with a single leaf are made from pages, so looking at the first leaf of a column is enough.
        let (mut columns, mut leaf) = (Vec::new(), 0);
        for (i, field) in self.schema.fields().iter().enumerate() {
            if !is_made(leaf) {
                columns.push(i);
            }
            leaf += count_leaves(field.data_type());
        }
        let writers = (0..leaf).map(|l| !is_made(l)).collect();
        EncodeOutput { job: self, columns, wanted: writers, writers: vec![], rows: 0, done: vec![], held: vec![] }
    }

    /// Encodes all columns that are not in `made`, by leaf.
    fn encode_groups(&self, made: &[bool]) -> Result<Vec<EncodedRowGroup>> {
        let mut out = self.new_output(made);
        for part in &self.parts {
            match part {
                EncodePart::Group(group) => self.encode_group(group, &mut out)?,
                EncodePart::Rows(rows) => {
                    let rows = rows.project(&out.columns).expect("the indices come from this schema");
                    out.add_batch(rows)?;
                }
            }
        }
        out.finish()
    }

    fn encode_group(&self, group: &EncodeGroup, out: &mut EncodeOutput<'_>) -> Result<()> {
        let path = group.source.path();
        let metadata = group.source.metadata().clone();
        check_times(&group.source, group.group, &group.bytes)?;
        let same = metadata.schema().fields() == self.schema.fields();
        // If the schemas differ, `conform` needs all columns of the file; the wanted ones are projected afterwards.
        let wanted = if same { out.columns.clone() } else { (0..metadata.schema().fields().len()).collect() };
        let mask = ProjectionMask::roots(metadata.parquet_schema(), wanted);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(group.bytes.clone(), metadata)
            .with_row_groups(vec![group.group])
            .with_projection(mask)
            .with_batch_size(BATCH);
        let mut reader = decode_parquet(path, || builder.build())?;
        let (mut base, edits) = (group.first, &group.edits);
        let project = |rows: &RecordBatch| rows.project(&out.columns).expect("the indices come from this schema");
        let new: Vec<RecordBatch> = group.rows.iter().map(project).collect();
        while let Some(batch) = decode_parquet(path, || reader.next().transpose().map_err(Into::into))? {
            let end = base + batch.num_rows() as u64;
            let mine = &edits[edits.partition_point(|e| e.0 < base)..edits.partition_point(|e| e.0 < end)];
            let batch = if same {
                batch
            } else {
                let batch = conform(&batch, &self.schema, &format!("`{path}`"))?;
                batch.project(&out.columns).expect("the indices come from this schema")
            };
            out.add_batch(apply_edits(&batch, mine, base, &new)?)?;
            base = end;
        }
        let rows = u64::try_from(group.source.metadata().metadata().row_group(group.group).num_rows()).unwrap_or(0);
        if base == group.first + rows {
            return Ok(());
        }
        let reason = "its columns do not have the number of rows of its footer".to_owned();
        Err(parquet_error(path, ParquetError::General(reason)))
    }

    /// Returns the new rows: replacements and inserts.
    fn new_rows(&self) -> Vec<&RecordBatch> {
        let rows = self.parts.iter().map(|part| match part {
            EncodePart::Rows(rows) => std::slice::from_ref(rows),
            EncodePart::Group(group) => &group.rows,
        });
        rows.flatten().collect()
    }

    /// Adds new values to the carried bloom filters. Values of removed rows remain in a filter: it may answer
    /// "perhaps" for them, but never "no" for a value of the row group. A filter that cannot take all new values is
    /// dropped.
    fn copy_bloom_filters(&mut self, groups: &mut [EncodedRowGroup]) -> Result<()> {
        if self.blooms.iter().all(Option::is_none) {
            return Ok(());
        }
        let only = self.parts.iter().find_map(|p| if let EncodePart::Group(g) = p { Some(&g.source) } else { None });
        let Some(source) = only else { return Ok(()) };
        let leaves = source.metadata().parquet_schema();
        let mut blooms = std::mem::take(&mut self.blooms);
        let new = self.new_rows();
        for (leaf, filter) in blooms.iter_mut().enumerate() {
            let Some(mut filter) = filter.take() else { continue };
            let descriptor = leaves.column(leaf);
            let [name] = descriptor.path().parts() else { continue };
            let mut add = |rows: &&RecordBatch| {
                let column = rows.column_by_name(name);
                column.is_some_and(|column| bloom::insert(&mut filter, column, descriptor.physical_type()))
            };
            if new.iter().all(&mut add) {
                groups.iter_mut().for_each(|chunks| chunks[leaf].close_mut().bloom_filter = Some(filter.clone()));
            }
        }
        Ok(())
    }
}

/// Returns the size of rows in bytes. A slice counts only the rows that it shows.
pub(crate) fn bytes_of(rows: &RecordBatch) -> usize {
    let bytes =
        |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    rows.columns().iter().map(bytes).sum()
}

/// Returns the number of leaf columns that Parquet has for a type.
pub(crate) fn count_leaves(t: &DataType) -> usize {
    match t {
        DataType::Struct(fields) => fields.iter().map(|f| count_leaves(f.data_type())).sum(),
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::Map(f, _) => {
            count_leaves(f.data_type())
        }
        _ => 1,
    }
}

struct EncodeOutput<'a> {
    job: &'a RowGroupEncoder,
    /// Indices of the columns that are encoded, and for each leaf whether it belongs to one of them.
    columns: Vec<usize>,
    wanted: Vec<bool>,
    writers: Vec<ArrowColumnWriter>,
    rows: usize,
    done: Vec<EncodedRowGroup>,
    /// Rows of a file with sorting columns. They are collected, and sorted when all of them are there.
    held: Vec<RecordBatch>,
}

impl EncodeOutput<'_> {
    fn add_batch(&mut self, batch: RecordBatch) -> Result<()> {
        if self.job.sorting.is_empty() {
            return self.write(&batch);
        }
        self.held.push(batch);
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut at = 0;
        while at < batch.num_rows() {
            let part = batch.slice(at, (batch.num_rows() - at).min(self.job.max_rows - self.rows));
            self.encode_batch(&part)?;
            at += part.num_rows();
            let bytes: usize = self.writers.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum();
            if self.rows >= self.job.max_rows || bytes >= self.job.max_bytes {
                self.close_group()?;
            }
        }
        Ok(())
    }

    fn encode_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let failed = |e| parquet_error("the new file", e);
        if self.writers.is_empty() {
            let all = self.job.factory.create_column_writers(self.job.number + self.done.len()).map_err(failed)?;
            self.writers = all.into_iter().zip(&self.wanted).filter(|(_, w)| **w).map(|(writer, _)| writer).collect();
        }
        let mut writers = self.writers.iter_mut();
        let fields = self.columns.iter().map(|c| &self.job.schema.fields()[*c]);
        for (field, column) in fields.zip(batch.columns()) {
            for leaf in compute_leaves(field, column).map_err(failed)? {
                writers.next().expect("there is a writer for each leaf").write(&leaf).map_err(failed)?;
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// Returns the memory of the unfinished row group, in bytes.
    fn memory_size(&self) -> usize {
        self.writers.iter().map(ArrowColumnWriter::memory_size).sum()
    }

    fn close_group(&mut self) -> Result<()> {
        if self.rows > 0 {
            let chunks = std::mem::take(&mut self.writers).into_iter();
            let chunks = chunks.map(|w| w.close().map(|chunk| EncodedChunk::Encoded(Box::new(chunk))));
            self.done.push(chunks.collect::<Result<_, _>>().map_err(|e| parquet_error("the new file", e))?);
            self.rows = 0;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<EncodedRowGroup>> {
        if !self.held.is_empty() {
            let rows = sort_batches(&self.held, &self.job.schema, &self.job.sorting)?;
            self.held.clear();
            for at in (0..rows.num_rows()).step_by(BATCH) {
                self.write(&rows.slice(at, BATCH.min(rows.num_rows() - at)))?;
            }
        }
        self.close_group()?;
        Ok(self.done)
    }
}

/// Sorts rows by the sorting columns of a file. Rows that are already in order are not copied.
fn sort_batches(batches: &[RecordBatch], schema: &SchemaRef, by: &[SortingColumn]) -> Result<RecordBatch> {
    let failed = |e| Error::internal("the rows of a row group could not be sorted").with_source(e);
    let rows = concat_batches(schema, batches).map_err(failed)?;
    let columns = by.iter().map(|c| SortColumn {
        values: rows.column(usize::try_from(c.column_idx).unwrap_or(0)).clone(),
        options: Some(SortOptions { descending: c.descending, nulls_first: c.nulls_first }),
    });
    let order = lexsort_to_indices(&columns.collect::<Vec<_>>(), None).map_err(failed)?;
    let in_order = order.values().iter().enumerate().all(|(i, at)| i == *at as usize);
    if in_order { Ok(rows) } else { take_record_batch(&rows, &order).map_err(failed) }
}
/// Refuses a row group with INT96 timestamps that would be rewritten with other values. The check includes rows that
/// do not change, since all rows of the row group are encoded.
fn check_times(source: &OpenFile, group: usize, bytes: &GroupBytes) -> Result<()> {
    let (path, metadata) = (source.path(), source.metadata().metadata());
    for column in metadata.row_group(group).columns().iter().filter(|c| c.column_type() == Type::INT96) {
        let (start, length) = column.byte_range();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let pages = bytes.get_bytes(start, length).map_err(|e| parquet_error(path, e))?;
        check_int96(column, &pages, metadata.file_metadata().key_value_metadata()).map_err(|e| e.in_file(path))?;
    }
    Ok(())
}
