//! Rows in the columns of the table, and references to their values. Resolving moves references; values are copied
//! once, when rows are gathered for writing.

use std::sync::Arc;

use crate::records::change_batch::{AbsentColumns, ChangeBatch};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_empty_array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use biscuit_core::{Error, Result};

use crate::spec::IgnoreNull;

/// A reference to a row in one of the tables of [`TargetRows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct RowRef {
    /// Number of the table.
    pub table: u32,
    /// Index of the row in the table.
    pub row: u32,
}

/// Tables of rows in the columns of the target: change records, stored rows, and images of rows whose key changed.
/// Tables are only added, so that references remain valid.
#[derive(Debug, Default)]
pub struct TargetRows(Vec<RecordBatch>);

impl TargetRows {
    /// Adds a table, and returns its number.
    pub fn add_table(&mut self, rows: RecordBatch) -> u32 {
        self.0.push(rows);
        u32::try_from(self.0.len() - 1).expect("there are fewer than 2^32 tables")
    }

    /// Returns the array of a column, and the index of a row in it.
    pub fn column(&self, at: RowRef, column: usize) -> (&ArrayRef, usize) {
        (self.0[at.table as usize].column(column), at.row as usize)
    }

    /// Returns whether a value is null.
    pub fn is_null(&self, at: RowRef, column: usize) -> bool {
        let (array, row) = self.column(at, column);
        array.is_null(row)
    }

    /// Whether two values are equal. NaN equals itself, and `None` equals null.
    pub fn is_same_value(&self, a: Option<RowRef>, b: Option<RowRef>, column: usize) -> bool {
        let cell = |r: Option<RowRef>| r.filter(|r| !self.is_null(*r, column)).map(|r| self.column(r, column));
        match (cell(a), cell(b)) {
            (None, None) => true,
            (Some((x, i)), Some((y, j))) => x.slice(i, 1).to_data() == y.slice(j, 1).to_data(),
            _ => false,
        }
    }

    /// Gathers rows from the tables, in the columns of `schema`, which are columns of `target`.
    pub fn gather_rows(&self, target: &Schema, schema: &SchemaRef, rows: &[&CellLocation]) -> Result<RecordBatch> {
        let failed = |e| Error::internal("rows could not be gathered").with_source(e);
        let whole: Option<Vec<RowRef>> =
            rows.iter().map(|r| if let CellLocation::Row(at) = r { Some(*at) } else { None }).collect();
        let wanted =
            schema.fields().iter().map(|f| target.index_of(f.name()).expect("`schema` has columns of `target`"));
        let wanted: Vec<usize> = wanted.collect();
        let mut columns = Vec::with_capacity(wanted.len());
        if let Some(whole) = whole {
            let (used, indices) = self.value_places(whole.iter().copied().map(Some));
            let rows = UInt32Array::from_iter_values(whole.iter().map(|at| at.row));
            for &c in &wanted {
                let arrays: Vec<&dyn Array> = used.iter().map(|&t| self.0[t as usize].column(c).as_ref()).collect();
                columns.push(match arrays.as_slice() {
                    [] => new_empty_array(target.field(c).data_type()),
                    [one] => take(*one, &rows, None).map_err(failed)?,
                    several => interleave(several, &indices).map_err(failed)?,
                });
            }
        } else {
            for &c in &wanted {
                let (used, indices) = self.value_places(rows.iter().map(|r| r.cell(c)));
                let nulls = new_null_array(target.field(c).data_type(), 1);
                let mut arrays: Vec<&dyn Array> = used.iter().map(|&t| self.0[t as usize].column(c).as_ref()).collect();
                arrays.push(nulls.as_ref());
                columns.push(interleave(&arrays, &indices).map_err(failed)?);
            }
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(failed)
    }

    /// Returns the numbers of the tables that are used, and for each value its index among them and its row.
    /// `interleave` looks at all arrays that it gets, so it only gets these. A null has the index after the last
    /// table, where the caller puts an array of one null.
    fn value_places(&self, cells: impl Iterator<Item = Option<RowRef>> + Clone) -> (Vec<u32>, Vec<(usize, usize)>) {
        let mut numbers = vec![u32::MAX; self.0.len()];
        let mut used = Vec::new();
        for at in cells.clone().flatten() {
            let number = &mut numbers[at.table as usize];
            if *number == u32::MAX {
                *number = u32::try_from(used.len()).expect("there are fewer than 2^32 tables");
                used.push(at.table);
            }
        }
        let place = |at: Option<RowRef>| match at {
            Some(at) => (numbers[at.table as usize] as usize, at.row as usize),
            None => (used.len(), 0),
        };
        let indices = cells.map(place).collect();
        (used, indices)
    }
}

/// Where the values of a row are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum CellLocation {
    /// All values are in one row.
    Row(RowRef),
    /// One reference for each column; `None` is null.
    Each(Vec<Option<RowRef>>),
}

impl CellLocation {
    fn cell(&self, column: usize) -> Option<RowRef> {
        match self {
            Self::Row(at) => Some(*at),
            Self::Each(cells) => cells[column],
        }
    }
}

/// The present columns of a change batch, in the columns of the target.
#[derive(Debug)]
pub struct PresentColumns {
    /// For each column, the rows that have a value for it.
    columns: Vec<PresentColumn>,
    /// For each column, the rows with an unchanged value that was not sent.
    unavailable: Vec<Option<BooleanBuffer>>,
    /// Whether columns that the table gets later count as given, as null. This holds for full images.
    pub gives_unknown: bool,
    /// Whether every row gives every column, also later ones.
    pub all: bool,
}

#[derive(Debug)]
enum PresentColumn {
    All,
    None,
    Some(BooleanBuffer),
}

impl PresentColumns {
    /// Determines the present columns of a batch. A column that the batch does not have is given as null by full
    /// images. In columns of `ignore`, a null is an unchanged value.
    pub fn new(batch: &ChangeBatch, target: &SchemaRef, ignore: &IgnoreNull) -> Self {
        let full = batch.completeness == AbsentColumns::Full;
        let mut columns = Vec::with_capacity(target.fields().len());
        let mut unavailable = Vec::with_capacity(target.fields().len());
        for field in target.fields() {
            let ignorable = ignore.covers(field.name());
            let Ok(at) = batch.rows.schema().index_of(field.name()) else {
                columns.push(if full && !ignorable { PresentColumn::All } else { PresentColumn::None });
                unavailable.push(None);
                continue;
            };
            let available = batch.present.get(at).cloned().flatten();
            let valid = ignorable.then(|| batch.rows.column(at).logical_nulls()).flatten();
            columns.push(match (&available, valid) {
                (None, None) => PresentColumn::All,
                (Some(a), None) => PresentColumn::Some(a.clone()),
                (None, Some(v)) => PresentColumn::Some(v.inner().clone()),
                (Some(a), Some(v)) => PresentColumn::Some(a & v.inner()),
            });
            unavailable.push(available.map(|a| !&a));
        }
        let gives_unknown = full && *ignore != IgnoreNull::All;
        let all = gives_unknown && columns.iter().all(|c| matches!(c, PresentColumn::All));
        Self { columns, unavailable, gives_unknown, all }
    }

    /// Whether a row gives a column.
    pub fn has_column(&self, row: usize, column: usize) -> bool {
        match &self.columns[column] {
            PresentColumn::All => true,
            PresentColumn::None => false,
            PresentColumn::Some(rows) => rows.value(row),
        }
    }

    /// Whether a row has an unchanged value for a column that was not sent.
    pub fn is_unavailable(&self, row: usize, column: usize) -> bool {
        self.unavailable[column].as_ref().is_some_and(|u| u.value(row))
    }

    /// Returns the columns for which a row has an unchanged value that was not sent.
    pub fn unavailable_columns(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.unavailable.len()).filter(move |&c| self.is_unavailable(row, c))
    }
}

/// Returns the schema without the columns to drop.
pub fn schema_without(schema: &SchemaRef, dropped: &[String]) -> SchemaRef {
    let kept: Vec<_> = schema.fields().iter().filter(|f| !dropped.contains(f.name())).cloned().collect();
    Arc::new(Schema::new(kept))
}

/// Returns the schema without columns that are null in all rows: their type is not known, and they have no values.
pub fn schema_without_null_columns(schema: &SchemaRef) -> SchemaRef {
    let typed = schema.fields().iter().filter(|f| *f.data_type() != DataType::Null);
    Arc::new(Schema::new(typed.cloned().collect::<Vec<_>>()))
}
