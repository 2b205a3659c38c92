use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{OpenFile, conform, parquet_error};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::SortingColumn;

use crate::apply::{Edit, apply};
use crate::bloom;
use crate::group_bytes::GroupBytes;

/// Rows that are decoded, changed and encoded at a time.
const BATCH: usize = 8192;

/// One row group of the new file, made of rows of the source and new ones.
pub(crate) struct Encode {
    /// What it is made of, in this order.
    pub(crate) parts: Vec<EncodePart>,
    /// The columns of the new file.
    pub(crate) schema: SchemaRef,
    pub(crate) factory: Arc<ArrowRowGroupWriterFactory>,
    pub(crate) sorting: Vec<SortingColumn>,
    /// The bloom filters of the only source group, where they are carried over, to which the new values are added.
    pub(crate) blooms: Vec<Option<Sbbf>>,
    pub(crate) most_rows: usize,
    pub(crate) most_bytes: usize,
}

/// A part of the row group.
pub(crate) enum EncodePart {
    /// A row group of a source.
    Group(EncodeGroup),
    /// New rows, in the columns of the new file.
    Rows(RecordBatch),
}

/// A row group of a source, with its bytes.
pub(crate) struct EncodeGroup {
    pub(crate) source: OpenFile,
    pub(crate) group: usize,
    /// The number of its first row, through all sources.
    pub(crate) first: u64,
    pub(crate) edits: Vec<(u64, Edit)>,
    /// The new rows that edits name, in the columns of the new file.
    pub(crate) rows: Vec<RecordBatch>,
    pub(crate) bytes: GroupBytes,
}

/// The columns of one encoded row group.
pub(crate) type Chunks = Vec<ArrowColumnChunk>;

impl Encode {
    /// Decodes, changes and encodes, in one pass; more rows or bytes than a row group may have make several.
    pub(crate) fn run(mut self) -> Result<Vec<Chunks>> {
        let mut out = Out { job: &self, writers: vec![], rows: 0, done: vec![], held: vec![] };
        for part in &self.parts {
            match part {
                EncodePart::Group(group) => self.group(group, &mut out)?,
                EncodePart::Rows(rows) => out.add(rows.clone())?,
            }
        }
        let mut done = out.finish()?;
        self.carry_blooms(&mut done)?;
        Ok(done)
    }

    fn group(&self, group: &EncodeGroup, out: &mut Out<'_>) -> Result<()> {
        let path = &group.source.file.path;
        let failed = |e| parquet_error(path, e);
        let metadata = group.source.metadata().clone();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(group.bytes.clone(), metadata)
            .with_row_groups(vec![group.group])
            .with_batch_size(BATCH)
            .build()
            .map_err(failed)?;
        let (mut base, edits) = (group.first, &group.edits);
        for batch in reader {
            let batch = batch.map_err(|e| failed(e.into()))?;
            let end = base + batch.num_rows() as u64;
            let mine = &edits[edits.partition_point(|e| e.0 < base)..edits.partition_point(|e| e.0 < end)];
            let batch = if batch.schema().fields() == self.schema.fields() {
                batch
            } else {
                conform(&batch, &self.schema, &format!("`{path}`"))?
            };
            out.add(apply(&batch, mine, base, &group.rows)?)?;
            base = end;
        }
        Ok(())
    }

    /// The new values: of rows that take the place of others, and of those that are added.
    fn new_rows(&self) -> Vec<&RecordBatch> {
        let rows = self.parts.iter().map(|part| match part {
            EncodePart::Rows(rows) => std::slice::from_ref(rows),
            EncodePart::Group(group) => &group.rows,
        });
        rows.flatten().collect()
    }

    /// Values of rows that are gone stay in the filters: they may answer "perhaps" for them, never "no" for one that is there.
    fn carry_blooms(&mut self, groups: &mut [Chunks]) -> Result<()> {
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

struct Out<'a> {
    job: &'a Encode,
    writers: Vec<ArrowColumnWriter>,
    rows: usize,
    done: Vec<Chunks>,
    /// Rows of a file that says it is sorted, until all of them are there.
    held: Vec<RecordBatch>,
}

impl Out<'_> {
    fn add(&mut self, batch: RecordBatch) -> Result<()> {
        if self.job.sorting.is_empty() {
            return self.write(&batch);
        }
        self.held.push(batch);
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut at = 0;
        while at < batch.num_rows() {
            let part = batch.slice(at, (batch.num_rows() - at).min(self.job.most_rows - self.rows));
            self.encode(&part)?;
            at += part.num_rows();
            let bytes: usize = self.writers.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum();
            if self.rows >= self.job.most_rows || bytes >= self.job.most_bytes {
                self.close()?;
            }
        }
        Ok(())
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<()> {
        let failed = |e| parquet_error("the new file", e);
        if self.writers.is_empty() {
            self.writers = self.job.factory.create_column_writers(self.done.len()).map_err(failed)?;
        }
        let mut writers = self.writers.iter_mut();
        for (field, column) in self.job.schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, column).map_err(failed)? {
                writers.next().expect("there is a writer for each leaf").write(&leaf).map_err(failed)?;
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if self.rows > 0 {
            let chunks = std::mem::take(&mut self.writers).into_iter().map(ArrowColumnWriter::close);
            self.done.push(chunks.collect::<Result<_, _>>().map_err(|e| parquet_error("the new file", e))?);
            self.rows = 0;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Chunks>> {
        if !self.held.is_empty() {
            let rows = sorted(&self.held, &self.job.schema, &self.job.sorting)?;
            self.held.clear();
            for at in (0..rows.num_rows()).step_by(BATCH) {
                self.write(&rows.slice(at, BATCH.min(rows.num_rows() - at)))?;
            }
        }
        self.close()?;
        Ok(self.done)
    }
}

/// The rows by these columns; rows that are in order already stay as they are.
fn sorted(batches: &[RecordBatch], schema: &SchemaRef, by: &[SortingColumn]) -> Result<RecordBatch> {
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
