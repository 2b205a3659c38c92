//! Transcoding: makes a column chunk from the pages of another one without decoding its values.

mod bounds;
mod content;
mod kind;
mod source;
mod writer;

use std::ops::Range;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use parquet::basic::Compression;
use parquet::errors::Result;
use parquet::file::metadata::ColumnChunkMetaData;

use crate::encode::group_bytes::GroupBytes;
use crate::plan::apply::RowEdit;
use crate::transcode::kind::{NewValues, ValueKind};
use crate::transcode::source::SourceValues;
use crate::transcode::writer::{ChunkWriter, PageCompressor};

pub(crate) use crate::transcode::writer::TranscodedChunk;

/// A run of rows of a new row group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowRun {
    /// Consecutive rows of the source.
    Kept(Range<usize>),
    /// One new row, by index of the batch and row in it.
    New(usize, usize),
}

impl RowRun {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Kept(rows) => rows.len(),
            Self::New(..) => 1,
        }
    }
}

/// Returns the rows of a row group after its edits, as runs. All rows of the batches `added` follow at the end.
///
/// Example: 6 rows from number 9 on, with row 10 removed, row 11 replaced and row 14 removed, are the runs
/// `Kept(0..1)`, `New(..)`, `Kept(3..5)`.
pub(crate) fn row_runs(
    rows: usize,
    first: u64,
    edits: &[(u64, RowEdit)],
    added: Range<usize>,
    batches: &[RecordBatch],
) -> Vec<RowRun> {
    let (mut out, mut next) = (Vec::new(), 0);
    for (number, edit) in edits {
        let at = usize::try_from(number - first).expect("the number is inside of the row group");
        if at > next {
            out.push(RowRun::Kept(next..at));
        }
        if let RowEdit::Replace { batch, row } = edit {
            out.push(RowRun::New(*batch as usize, *row as usize));
        }
        next = at + 1;
    }
    if next < rows {
        out.push(RowRun::Kept(next..rows));
    }
    for batch in added {
        out.extend((0..batches[batch].num_rows()).map(|row| RowRun::New(batch, row)));
    }
    out
}

/// Makes a column chunk from another one without decoding its values. Dictionary indices remain indices, runs of
/// plain values are copied as bytes, and only new values are encoded.
///
/// Returns `None` for a chunk that is not flat, or whose encoding, type or codec is not supported. The caller then
/// decodes and encodes the column.
pub(crate) fn transcode_chunk(
    source: &GroupBytes,
    chunk: &ColumnChunkMetaData,
    codec: Compression,
    rows: usize,
    runs: &[RowRun],
    new: &[ArrayRef],
) -> Result<Option<TranscodedChunk>> {
    let descriptor = chunk.column_descr();
    if descriptor.max_rep_level() > 0 || descriptor.max_def_level() > 1 || !PageCompressor::supports(codec) {
        return Ok(None);
    }
    let Some(kind) = ValueKind::from_chunk(chunk) else { return Ok(None) };
    let Some(new) = NewValues::from_columns(kind, new) else { return Ok(None) };
    let Some(values) = SourceValues::read(source, chunk, rows, kind)? else { return Ok(None) };
    let Some(values) = content::apply_edits(values, runs, &new) else { return Ok(None) };
    if descriptor.max_def_level() == 0 && content::has_null(&values, runs, &new) {
        return Ok(None);
    }
    let mut writer = ChunkWriter::new(chunk, kind, codec)?;
    content::write(&values, runs, &new, &mut writer)?;
    writer.finish().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_split_rows_into_runs() {
        let edits = [(10, RowEdit::Remove), (11, RowEdit::Replace { batch: 0, row: 3 }), (14, RowEdit::Remove)];
        let runs = row_runs(6, 9, &edits, 0..0, &[]);
        assert_eq!(runs, [RowRun::Kept(0..1), RowRun::New(0, 3), RowRun::Kept(3..5)]);
    }
}
