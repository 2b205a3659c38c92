//! Columns of a row group that are made from the pages of its source, each as a job of its own.

use std::cmp::Reverse;

use biscuit_core::Result;
use biscuit_dataset::internal::decode_parquet;
use datafusion::arrow::array::RecordBatch;

use crate::encode::row_group::{EncodePart, RowGroupEncoder, count_leaves};
use crate::transcode::{RowRun, TranscodedChunk, row_runs, transcode_chunk};

/// A row group whose columns may be made from the pages of its source.
pub(crate) struct PagedRowGroup {
    /// Number of rows of the source.
    rows: usize,
    runs: Vec<RowRun>,
    /// New rows that the runs refer to.
    batches: Vec<RecordBatch>,
    /// Columns that may be transcoded, each with the index of its leaf.
    pub(crate) columns: Vec<(usize, usize)>,
    pub(crate) leaves: usize,
}

impl PagedRowGroup {
    /// Returns what can be made from the pages of the only source row group. Returns `None` if rows are sorted,
    /// columns differ, or the rows may make more than one row group.
    pub(crate) fn of(encoder: &RowGroupEncoder) -> Option<Self> {
        let (EncodePart::Group(group), rest) = encoder.parts.split_first()? else { return None };
        let metadata = group.source.metadata();
        let source = metadata.metadata().row_group(group.group);
        let mut batches = group.rows.clone();
        for part in rest {
            match part {
                EncodePart::Rows(rows) => batches.push(rows.clone()),
                EncodePart::Group(_) => return None,
            }
        }
        let same = metadata.schema().fields() == encoder.schema.fields();
        let bytes = usize::try_from(source.compressed_size()).unwrap_or(usize::MAX);
        if !encoder.sorting.is_empty() || !same || bytes > encoder.max_bytes / 2 {
            return None;
        }
        let rows = usize::try_from(source.num_rows()).unwrap_or(0);
        let runs = row_runs(rows, group.first, &group.edits, group.rows.len()..batches.len(), &batches);
        if runs.iter().map(RowRun::rows).sum::<usize>() > encoder.max_rows {
            return None;
        }
        let (mut columns, mut leaf) = (Vec::new(), 0);
        for (i, field) in encoder.schema.fields().iter().enumerate() {
            let leaves = count_leaves(field.data_type());
            if leaves == 1 && !field.data_type().is_nested() {
                columns.push((i, leaf));
            }
            leaf += leaves;
        }
        // The largest columns first, so that no core is left with one of them at the end.
        columns.sort_by_key(|&(_, leaf)| Reverse(source.column(leaf).uncompressed_size()));
        Some(Self { rows, runs, batches, columns, leaves: leaf })
    }

    /// Makes a column of the row group from the pages of its source. Returns `None` if the column cannot be
    /// transcoded.
    pub(crate) fn own_chunk(
        &self,
        encoder: &RowGroupEncoder,
        column: usize,
        leaf: usize,
    ) -> Result<Option<TranscodedChunk>> {
        let Some(EncodePart::Group(group)) = encoder.parts.first() else { return Ok(None) };
        let chunk = group.source.metadata().metadata().row_group(group.group).column(leaf);
        let new: Vec<_> = self.batches.iter().map(|b| b.column(column).clone()).collect();
        let codec = encoder.properties.compression(chunk.column_path());
        let made = || transcode_chunk(&group.bytes, chunk, codec, self.rows, &self.runs, &new);
        decode_parquet(group.source.path(), made)
    }
}
