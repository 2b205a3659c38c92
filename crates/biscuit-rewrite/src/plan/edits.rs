//! Edits of a row group: removed and replaced rows, in memory or spilled to disk.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, UInt64Type};

use crate::plan::apply::RowEdit;
use crate::spill::buffered_rows::{BufferedRows, SpillFolder};

/// Edits of the rows of one row group: some are removed, some are replaced.
///
/// Rows are named by their number, counted from 0 through all sources of the unit. No row is named twice.
#[derive(Debug, Clone, Default)]
pub struct RowGroupEdits {
    /// Batches with one column: the numbers of removed rows.
    removed: Vec<NumberedRows>,
    /// Batches of new rows. The last column contains the number of the row that each replaces.
    replaced: Vec<NumberedRows>,
}

/// Rows whose last column has row numbers.
#[derive(Debug, Clone)]
struct NumberedRows {
    rows: BufferedRows,
    /// Added to the row numbers: rows of sources that were put before when units were joined.
    offset: u64,
}

impl NumberedRows {
    fn new(rows: RecordBatch) -> Self {
        Self { rows: rows.into(), offset: 0 }
    }

    fn spill(self, spill: &Arc<SpillFolder>) -> Result<Self> {
        Ok(Self { rows: self.rows.spill(spill)?, ..self })
    }

    /// Returns the row numbers of rows that were loaded.
    fn numbers(&self, rows: &RecordBatch) -> impl Iterator<Item = u64> + use<> {
        let last = rows.columns().last().expect("the last column contains the row numbers");
        let (numbers, offset) = (last.as_primitive::<UInt64Type>().values().clone(), self.offset);
        (0..numbers.len()).map(move |row| numbers[row] + offset)
    }
}

/// Edits in ascending order of row numbers, and the batches of new rows that they refer to.
pub(crate) type LoadedEdits = (Vec<(u64, RowEdit)>, Vec<RecordBatch>);

/// Name of the column of row numbers. Columns of tables cannot have it.
const NUMBER: &str = "\u{0}row";

impl RowGroupEdits {
    /// Removes the rows with these numbers.
    pub fn remove_rows(&mut self, numbers: &[u64]) {
        if !numbers.is_empty() {
            let numbers: ArrayRef = Arc::new(UInt64Array::from(numbers.to_vec()));
            let rows = RecordBatch::try_from_iter([(NUMBER, numbers)]).expect("the column has no nulls");
            self.removed.push(NumberedRows::new(rows));
        }
    }

    /// Replaces the rows with these numbers by the rows of a batch, in the same order.
    ///
    /// # Errors
    /// `Internal` if there are not as many rows as numbers.
    pub fn replace_rows(&mut self, numbers: &[u64], rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 && numbers.is_empty() {
            return Ok(());
        }
        let schema = rows.schema();
        let number = Arc::new(Field::new(NUMBER, DataType::UInt64, false));
        let fields: Vec<_> = schema.fields().iter().cloned().chain([number]).collect();
        let numbers: ArrayRef = Arc::new(UInt64Array::from(numbers.to_vec()));
        let columns = rows.columns().iter().cloned().chain([numbers]).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .map_err(|e| Error::internal("new rows could not be numbered").with_source(e))?;
        self.replaced.push(NumberedRows::new(rows));
        Ok(())
    }

    /// Returns the edits after `rows` rows were put before the rows of the sources.
    pub(crate) fn after(mut self, rows: u64) -> Self {
        self.removed.iter_mut().chain(&mut self.replaced).for_each(|numbered| numbered.offset += rows);
        self
    }

    /// Adds other edits of the same row group.
    pub fn extend(&mut self, other: Self) {
        self.removed.extend(other.removed);
        self.replaced.extend(other.replaced);
    }

    /// Moves the edits to disk.
    ///
    /// # Errors
    /// `SpillFailed`.
    pub fn spill(self, spill: &Arc<SpillFolder>) -> Result<Self> {
        let all = |rows: Vec<NumberedRows>| rows.into_iter().map(|r| r.spill(spill)).collect::<Result<_>>();
        Ok(Self { removed: all(self.removed)?, replaced: all(self.replaced)? })
    }

    /// Returns the number of removed rows.
    pub fn removed(&self) -> u64 {
        self.removed.iter().map(|r| r.rows.len() as u64).sum()
    }

    /// Returns whether there are no edits.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.replaced.is_empty()
    }

    pub(crate) fn new_rows(&self) -> impl Iterator<Item = &BufferedRows> {
        self.replaced.iter().map(|r| &r.rows)
    }

    /// Returns the memory that the loaded edits take, in bytes.
    pub(crate) fn memory_size(&self) -> usize {
        self.removed.iter().chain(&self.replaced).map(|r| r.rows.memory_size()).sum()
    }

    /// Loads the edits in ascending order of row numbers, and the batches of new rows that they refer to.
    pub(crate) fn load_edits(&self) -> Result<LoadedEdits> {
        let (mut edits, mut batches) = (Vec::new(), Vec::new());
        for numbered in &self.removed {
            edits.extend(numbered.numbers(&numbered.rows.get()?).map(|number| (number, RowEdit::Remove)));
        }
        for numbered in &self.replaced {
            let rows = numbered.rows.get()?;
            let batch = u32::try_from(batches.len()).expect("there are fewer than 2^32 batches");
            let replace = |(number, row)| (number, RowEdit::Replace { batch, row });
            edits.extend(numbered.numbers(&rows).zip(0..).map(replace));
            let columns: Vec<usize> = (0..rows.num_columns() - 1).collect();
            batches.push(rows.project(&columns).expect("indices come from this batch"));
        }
        edits.sort_unstable_by_key(|(number, _)| *number);
        Ok((edits, batches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_that_are_added_after_joining_keep_their_numbers() {
        let of = |numbers: &[u64]| {
            let mut edits = RowGroupEdits::default();
            edits.remove_rows(numbers);
            edits
        };
        let mut edits = of(&[1]).after(10);
        edits.remove_rows(&[12]);
        edits.extend(of(&[13]));
        let (loaded, _) = edits.load_edits().expect("the edits are in memory");
        assert_eq!(loaded.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [11, 12, 13]);
    }
}
