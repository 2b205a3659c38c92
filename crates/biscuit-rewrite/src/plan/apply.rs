//! Edits of single rows, and their application to a batch.

use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, MutableArrayData, RecordBatch, RecordBatchOptions, make_array};

/// Edit of one row of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowEdit {
    /// The row is removed.
    Remove,
    /// A new row replaces it.
    Replace {
        /// Index of the batch of new rows.
        batch: u32,
        /// Row in that batch.
        row: u32,
    },
}

/// Applies edits to a batch and returns the result.
///
/// `edits` are ascending by row number; `base` is the number of the first row of the batch. The rows between two
/// edits are copied as one run, so the cost is that of copying memory.
pub(crate) fn apply_edits(
    batch: &RecordBatch,
    edits: &[(u64, RowEdit)],
    base: u64,
    rows: &[RecordBatch],
) -> Result<RecordBatch> {
    if edits.is_empty() {
        return Ok(batch.clone());
    }
    let mut used: Vec<u32> = edits
        .iter()
        .filter_map(|(_, e)| if let RowEdit::Replace { batch, .. } = e { Some(*batch) } else { None })
        .collect();
    used.sort_unstable();
    used.dedup();
    let removed = edits.iter().filter(|(_, e)| *e == RowEdit::Remove).count();
    let count = batch.num_rows() - removed;
    let failed = |e| Error::internal("rows could not be replaced").with_source(e);
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (i, column) in batch.columns().iter().enumerate() {
        // `MutableArrayData` has source 0 for the old rows, and source 1 + i for the i-th batch of new rows in
        // `used`.
        let data = column.to_data();
        let new: Vec<_> = used.iter().map(|&b| rows[b as usize].column(i).to_data()).collect();
        let sources = std::iter::once(&data).chain(&new).collect();
        let mut out = MutableArrayData::new(sources, false, count);
        let mut next = 0;
        for (number, edit) in edits {
            let at = usize::try_from(number - base).expect("the number is inside of the batch");
            if at > next {
                out.try_extend(0, next, at).map_err(failed)?;
            }
            if let RowEdit::Replace { batch, row } = edit {
                let source = 1 + used.binary_search(batch).expect("`used` contains the batch of every replacement");
                out.try_extend(source, *row as usize, *row as usize + 1).map_err(failed)?;
            }
            next = at + 1;
        }
        out.try_extend(0, next, batch.num_rows()).map_err(failed)?;
        columns.push(make_array(out.freeze()));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use datafusion::arrow::datatypes::Int64Type;

    use super::*;

    fn rows(ids: &[i64]) -> RecordBatch {
        let names: StringArray = ids.iter().map(|i| (i % 3 != 0).then(|| format!("n{i}"))).collect();
        let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("name", Arc::new(names) as ArrayRef, true)])
            .expect("the columns have the same length")
    }

    #[test]
    fn rows_are_replaced_in_place_and_removed() {
        let new = [rows(&[90]), rows(&[]), rows(&[91, 92])];
        let edits = [
            (100, RowEdit::Remove),
            (102, RowEdit::Replace { batch: 2, row: 1 }),
            (103, RowEdit::Replace { batch: 0, row: 0 }),
            (105, RowEdit::Remove),
        ];
        let out = apply_edits(&rows(&[0, 1, 2, 3, 4, 5]), &edits, 100, &new).unwrap();
        assert_eq!(out.column(0).as_primitive::<Int64Type>().values(), &[1, 92, 90, 4]);
        assert_eq!(out, rows(&[1, 92, 90, 4]));
    }

    #[test]
    fn all_rows_can_be_removed() {
        let edits: Vec<_> = (0..3).map(|r| (r, RowEdit::Remove)).collect();
        assert_eq!(apply_edits(&rows(&[1, 2, 3]), &edits, 0, &[]).unwrap(), rows(&[]));
    }
}
