use std::sync::Arc;

use biscuit_change::{AbsentColumns, ChangeBatch};
use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_empty_array, new_null_array};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{interleave, take};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::spec::IgnoreNull;

/// A row in one of the tables of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowRef {
    pub(crate) table: u32,
    pub(crate) row: u32,
}

/// Rows in the target's columns: change records, stored rows, images of rows whose key changed.
#[derive(Debug, Default)]
pub(crate) struct TargetRows(Vec<RecordBatch>);

impl TargetRows {
    pub(crate) fn add(&mut self, rows: RecordBatch) -> u32 {
        self.0.push(rows);
        u32::try_from(self.0.len() - 1).expect("there are fewer than 2^32 tables")
    }

    pub(crate) fn column(&self, at: RowRef, column: usize) -> (&ArrayRef, usize) {
        (self.0[at.table as usize].column(column), at.row as usize)
    }

    pub(crate) fn is_null(&self, at: RowRef, column: usize) -> bool {
        let (array, row) = self.column(at, column);
        array.is_null(row)
    }

    /// Whether two cells hold the same value; NaN is itself, and none is null.
    pub(crate) fn same(&self, a: Option<RowRef>, b: Option<RowRef>, column: usize) -> bool {
        let cell = |r: Option<RowRef>| r.filter(|r| !self.is_null(*r, column)).map(|r| self.column(r, column));
        match (cell(a), cell(b)) {
            (None, None) => true,
            (Some((x, i)), Some((y, j))) => x.slice(i, 1).to_data() == y.slice(j, 1).to_data(),
            _ => false,
        }
    }

    /// Rows put together from the tables, which are in the columns of `target`: the columns of `schema`, which are some of
    /// those.
    pub(crate) fn gather(&self, target: &Schema, schema: &SchemaRef, rows: &[&CellLocation]) -> Result<RecordBatch> {
        let failed = |e| Error::internal("rows could not be gathered").with_source(e);
        let whole: Option<Vec<RowRef>> =
            rows.iter().map(|r| if let CellLocation::Row(at) = r { Some(*at) } else { None }).collect();
        let wanted = schema.fields().iter().map(|f| target.index_of(f.name()).expect("a column of the target"));
        let wanted: Vec<usize> = wanted.collect();
        let mut columns = Vec::with_capacity(wanted.len());
        if let Some(whole) = whole {
            let (used, indices) = self.places(whole.iter().copied().map(Some));
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
                let (used, indices) = self.places(rows.iter().map(|r| r.cell(c)));
                let nulls = new_null_array(target.field(c).data_type(), 1);
                let mut arrays: Vec<&dyn Array> = used.iter().map(|&t| self.0[t as usize].column(c).as_ref()).collect();
                arrays.push(nulls.as_ref());
                columns.push(interleave(&arrays, &indices).map_err(failed)?);
            }
        }
        let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(failed)
    }

    /// The tables in use, since interleaving looks at all it is given, and where each cell is among them; none is behind the
    /// last of them.
    fn places(&self, cells: impl Iterator<Item = Option<RowRef>> + Clone) -> (Vec<u32>, Vec<(usize, usize)>) {
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

/// Where the cells of a row are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CellLocation {
    /// All in one row.
    Row(RowRef),
    /// By column; none is null.
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

/// What a change batch says of the target's columns.
#[derive(Debug)]
pub(crate) struct PresentColumns {
    /// By column, the rows that give it.
    columns: Vec<PresentColumn>,
    /// By column, the rows whose value was not available.
    unavailable: Vec<Option<BooleanBuffer>>,
    /// Whether a column that nobody knows yet counts as given: as null.
    pub(crate) gives_unknown: bool,
    /// Whether every row gives every column.
    pub(crate) all: bool,
}

#[derive(Debug)]
enum PresentColumn {
    All,
    None,
    Some(BooleanBuffer),
}

impl PresentColumns {
    pub(crate) fn new(batch: &ChangeBatch, target: &SchemaRef, ignore: &IgnoreNull) -> Self {
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

    pub(crate) fn gives(&self, row: usize, column: usize) -> bool {
        match &self.columns[column] {
            PresentColumn::All => true,
            PresentColumn::None => false,
            PresentColumn::Some(rows) => rows.value(row),
        }
    }

    pub(crate) fn is_unavailable(&self, row: usize, column: usize) -> bool {
        self.unavailable[column].as_ref().is_some_and(|u| u.value(row))
    }

    /// The columns that a row says were not available.
    pub(crate) fn unavailable_columns(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.unavailable.len()).filter(move |&c| self.is_unavailable(row, c))
    }
}

/// The schema without some columns.
pub(crate) fn without(schema: &SchemaRef, dropped: &[String]) -> SchemaRef {
    let kept: Vec<_> = schema.fields().iter().filter(|f| !dropped.contains(f.name())).cloned().collect();
    Arc::new(Schema::new(kept))
}

/// The schema without columns that were null everywhere: nobody knows their type, and they say nothing.
pub(crate) fn known(schema: &SchemaRef) -> SchemaRef {
    let typed = schema.fields().iter().filter(|f| *f.data_type() != DataType::Null);
    Arc::new(Schema::new(typed.cloned().collect::<Vec<_>>()))
}
