use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_schema::{ColumnType, ContractColumn, coerce_column};
use datafusion::arrow::array::{Array, ArrayRef, Scalar, StringArray};
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

use crate::files::data_file::OpenFile;

/// Checks that a column of a file says in each row what the file's path says.
///
/// # Errors
/// `PartitionMismatch` with the row and both values; those of the file.
pub(crate) async fn check_path_column(file: &OpenFile, name: &str) -> Result<()> {
    let value = file.file.partition.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.as_deref());
    let field = file.schema().field_with_name(name);
    let field = field.map_err(|e| Error::internal("a column of the file is not in it").with_source(e))?;
    let said = PathValue::new(name, value, &ContractColumn::new(name, ColumnType::of_arrow(field.data_type().clone())))
        .map_err(|e| e.in_file(&file.file.path))?;
    if by_statistics(file, name, &said) {
        return Ok(());
    }
    let mut rows = file.stream(Some(&[name]))?;
    let mut first = 1;
    while let Some(batch) = rows.try_next().await? {
        said.check(batch.column(0), (&file.file.path, first))?;
        first += batch.num_rows() as u64;
    }
    Ok(())
}

/// Whether the footer alone says that all rows have the value.
fn by_statistics(file: &OpenFile, name: &str, said: &PathValue) -> bool {
    let metadata = file.metadata();
    let groups = metadata.metadata().row_groups();
    let Ok(converter) = StatisticsConverter::try_new(name, metadata.schema(), metadata.parquet_schema()) else {
        return false;
    };
    let all = |values: parquet::errors::Result<ArrayRef>| {
        values.is_ok_and(|v| v.null_count() == 0 && said.check(&v, ("", 1)).is_ok())
    };
    let no_nulls = converter.row_group_null_counts(groups);
    let no_nulls = no_nulls.is_ok_and(|counts| counts.iter().all(|count| count == Some(0)));
    // A bound that is cut off is not a value of the column.
    let exact =
        groups.iter().flat_map(|g| g.columns()).filter(|c| c.column_path().parts().first().is_some_and(|p| p == name));
    let exact = exact.map(|c| c.statistics()).all(|s| s.is_some_and(|s| s.min_is_exact() && s.max_is_exact()));
    let said_value = !said.value.is_null(0);
    said_value && exact && no_nulls && all(converter.row_group_mins(groups)) && all(converter.row_group_maxes(groups))
}

/// What a path says of a column.
#[derive(Debug)]
pub struct PathValue {
    name: String,
    text: Option<String>,
    column: ContractColumn,
    /// One value, in the column's type.
    value: ArrayRef,
}

impl PathValue {
    /// A text of a path, in a column.
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

    /// The value, as the only one of an array.
    pub fn value(&self) -> &ArrayRef {
        &self.value
    }

    /// Checks that rows say the same, or nothing. The first of them is the row `first` of `file`.
    ///
    /// # Errors
    /// `PartitionMismatch`.
    pub fn check(&self, rows: &ArrayRef, (file, first): (&str, u64)) -> Result<()> {
        let made = coerce_column(&self.column, rows).map_err(|e| e.in_file(file))?;
        let same = not_distinct(&made.array, &Scalar::new(self.value.clone()))
            .map_err(|e| Error::internal("values could not be compared").with_source(e))?;
        let differs = |row: &usize| rows.is_valid(*row) && !same.value(*row);
        let Some(row) = (0..rows.len()).find(differs) else { return Ok(()) };
        let message =
            format!("column `{}` is in the path of the file and in its rows, and they do not say the same", self.name);
        Err(Error::data("PartitionMismatch", message)
            .with_column(&self.name)
            .at(file, first + row as u64)
            .with_detail("in the path", self.text.as_deref().unwrap_or("null"))
            .with_detail("in the row", array_value_to_string(rows, row).unwrap_or_default()))
    }
}
