use std::sync::Arc;

use biscuit_core::{Error, Result};
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, UInt64Type};

use crate::plan::apply::RowEdit;
use crate::spill::buffered_rows::{BufferedRows, SpillFolder};

/// What happens to the rows of one row group: some go, some get other values. Rows are named by their number, counted from 0
/// through all sources of the unit; none is named twice.
#[derive(Debug, Clone, Default)]
pub struct RowGroupEdits {
    /// Numbers alone.
    removed: Vec<BufferedRows>,
    /// New rows, with the number of the row that each replaces in the last column.
    replaced: Vec<BufferedRows>,
}

/// Edits by number, ascending, and the new rows that they name.
pub(crate) type LoadedEdits = (Vec<(u64, RowEdit)>, Vec<RecordBatch>);

/// The column of numbers; no column of a table has that name.
const NUMBER: &str = "\u{0}row";

impl RowGroupEdits {
    /// Takes rows away.
    pub fn remove(&mut self, numbers: &[u64]) {
        if !numbers.is_empty() {
            let numbers: ArrayRef = Arc::new(UInt64Array::from(numbers.to_vec()));
            let rows = RecordBatch::try_from_iter([(NUMBER, numbers)]).expect("a column without nulls");
            self.removed.push(rows.into());
        }
    }

    /// Puts new rows in the place of those of these numbers.
    ///
    /// # Errors
    /// `Internal` if there are not as many rows as numbers.
    pub fn replace(&mut self, numbers: &[u64], rows: &RecordBatch) -> Result<()> {
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
        self.replaced.push(rows.into());
        Ok(())
    }

    /// Adds what is said elsewhere of the same row group.
    pub fn extend(&mut self, other: Self) {
        self.removed.extend(other.removed);
        self.replaced.extend(other.replaced);
    }

    /// The same edits, on the disk.
    ///
    /// # Errors
    /// `SpillFailed`.
    pub fn spilled(self, spill: &Arc<SpillFolder>) -> Result<Self> {
        let all = |rows: Vec<BufferedRows>| rows.into_iter().map(|r| r.spilled(spill)).collect::<Result<_>>();
        Ok(Self { removed: all(self.removed)?, replaced: all(self.replaced)? })
    }

    /// How many rows go.
    pub fn removed(&self) -> u64 {
        self.removed.iter().map(|r| r.len() as u64).sum()
    }

    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.replaced.is_empty()
    }

    pub(crate) fn new_rows(&self) -> impl Iterator<Item = &BufferedRows> {
        self.replaced.iter()
    }

    /// Bytes that they take in memory.
    pub(crate) fn memory(&self) -> usize {
        self.removed.iter().chain(&self.replaced).map(BufferedRows::memory).sum()
    }

    /// The edits by number, ascending, and the new rows that they name.
    pub(crate) fn load(&self) -> Result<LoadedEdits> {
        let (mut edits, mut batches) = (Vec::new(), Vec::new());
        for rows in &self.removed {
            edits.extend(numbers(&rows.get()?).iter().map(|n| (*n, RowEdit::Remove)));
        }
        for rows in &self.replaced {
            let rows = rows.get()?;
            let batch = u32::try_from(batches.len()).expect("there are fewer than 2^32 batches");
            edits.extend(numbers(&rows).iter().zip(0..).map(|(n, row)| (*n, RowEdit::Replace { batch, row })));
            let columns: Vec<usize> = (0..rows.num_columns() - 1).collect();
            batches.push(rows.project(&columns).expect("indices come from this batch"));
        }
        edits.sort_unstable_by_key(|(number, _)| *number);
        Ok((edits, batches))
    }
}

fn numbers(rows: &RecordBatch) -> Vec<u64> {
    let last = rows.columns().last().expect("there is a column of numbers");
    last.as_primitive::<UInt64Type>().values().to_vec()
}
