//! Value of a column in the path of a file, and checks of the same column in the rows.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_schema::{ContractColumn, coerce_column};
use datafusion::arrow::array::{Array, ArrayRef, Scalar, StringArray};
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

use crate::codes;

/// Value of a column in a path.
#[derive(Debug)]
pub struct PathValue {
    name: String,
    text: Option<String>,
    column: ContractColumn,
    /// The value as an array of length 1, in the type of the column.
    value: ArrayRef,
}

impl PathValue {
    /// Parses a text of a path as a value of `column`.
    ///
    /// # Errors
    /// `Unparseable`, `Overflow` and the other codes of a coercion, if the text does not fit the column.
    pub fn new(name: &str, text: Option<&str>, column: &ContractColumn) -> Result<Self> {
        let values: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let made = coerce_column(column, &values)?;
        match made.refused.first() {
            Some(refused) => Err(refused.error().with_detail("in the path", text.unwrap_or_default())),
            None => Ok(Self {
                name: name.to_owned(),
                text: text.map(str::to_owned),
                column: column.clone(),
                value: made.array,
            }),
        }
    }

    /// Returns the value as an array of length 1.
    pub fn value(&self) -> &ArrayRef {
        &self.value
    }

    /// Returns whether the statistics of a footer prove that all rows have the value: the bounds are exact and equal
    /// to it, and there are no nulls.
    pub(crate) fn is_proven_by(&self, metadata: &ArrowReaderMetadata) -> bool {
        let groups = metadata.metadata().row_groups();
        let converter = StatisticsConverter::try_new(&self.name, metadata.schema(), metadata.parquet_schema());
        let Ok(converter) = converter else { return false };
        let all = |values: parquet::errors::Result<ArrayRef>| {
            values.is_ok_and(|v| v.null_count() == 0 && self.check_rows(&v, "", 1).is_ok())
        };
        let no_nulls = converter.row_group_null_counts(groups);
        let no_nulls = no_nulls.is_ok_and(|counts| counts.iter().all(|count| count == Some(0)));
        // A truncated bound is not a value of the column.
        let is_own = |part: Option<&String>| part.is_some_and(|part| *part == self.name);
        let exact = groups.iter().flat_map(|g| g.columns()).filter(|c| is_own(c.column_path().parts().first()));
        let exact = exact.map(|c| c.statistics()).all(|s| s.is_some_and(|s| s.min_is_exact() && s.max_is_exact()));
        let has_value = !self.value.is_null(0);
        has_value
            && exact
            && no_nulls
            && all(converter.row_group_mins(groups))
            && all(converter.row_group_maxes(groups))
    }

    /// Checks that each row has the value or is null. `first` is the number of the first row in `file`.
    ///
    /// # Errors
    /// `PartitionMismatch`.
    pub fn check_rows(&self, rows: &ArrayRef, file: &str, first: u64) -> Result<()> {
        let made = coerce_column(&self.column, rows).map_err(|e| e.in_file(file))?;
        let same = not_distinct(&made.array, &Scalar::new(self.value.clone()))
            .map_err(|e| Error::internal("values could not be compared").with_source(e))?;
        let differs = |row: &usize| rows.is_valid(*row) && !same.value(*row);
        let Some(row) = (0..rows.len()).find(differs) else { return Ok(()) };
        let message = format!("column `{}` has one value in the path of the file and another one in a row", self.name);
        Err(Error::new(codes::PARTITION_MISMATCH, message)
            .with_column(&self.name)
            .at(file, first + row as u64)
            .with_detail("in the path", self.text.as_deref().unwrap_or("null"))
            .with_detail("in the row", array_value_to_string(rows, row).unwrap_or_default()))
    }
}
