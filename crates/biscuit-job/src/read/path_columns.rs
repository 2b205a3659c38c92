//! Columns from the path of a file: below `dt=2024-02-28/`, the column `dt` has the value `2024-02-28` in all rows.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_dataset::internal::{PathValue, partition_values};
use biscuit_schema::{ColumnType, Contract, ContractColumn, OnError};

/// Returns the columns in the folders of a path, with their values. `None` stands for null.
///
/// # Errors
/// `PartitionMismatch` if two folders name the same column.
pub(crate) fn path_columns(path: &str) -> Result<Vec<(String, Option<String>)>> {
    let mut all: Vec<(String, Option<String>)> = Vec::new();
    let (folders, _) = path.rsplit_once('/').unwrap_or_default();
    for folder in folders.split('/').filter(|folder| folder.find('=').is_some_and(|at| at > 0)) {
        for (name, value) in partition_values(&format!("{folder}/"))? {
            if all.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name)) {
                let message = format!(
                    "two folders of the path name the column `{name}`; remove one, or set `hive_partitioning = false`"
                );
                return Err(Error::new(biscuit_dataset::codes::PARTITION_MISMATCH, message).with_column(name));
            }
            all.push((name, value));
        }
    }
    Ok(all)
}

/// Adds the columns of the path to the rows of a file. Its name and the number of the first row are for messages.
///
/// # Errors
/// `PartitionMismatch` if rows have another value than the path; the code of a coercion if a text in the path does
/// not fit its column.
pub(crate) fn with_path_columns(
    rows: &RecordBatch,
    contract: &Contract,
    path_columns: &[(String, Option<String>)],
    file: &str,
    first: u64,
) -> Result<RecordBatch> {
    if path_columns.is_empty() {
        return Ok(rows.clone());
    }
    let schema = rows.schema();
    let (mut fields, mut columns) = (schema.fields().to_vec(), rows.columns().to_vec());
    for (name, text) in path_columns {
        let as_text = || ContractColumn::new(name, ColumnType::of_arrow(DataType::Utf8));
        let known = contract.column_for(name);
        let mut column = known.cloned().unwrap_or_else(as_text);
        // The coercion of the rows applies the default later, and counts it.
        column.reading.default = None;
        let value = match PathValue::new(name, text.as_deref(), &column) {
            // The value remains text, so that the coercion of the rows applies the `on_error` of the contract to it.
            Err(_) if contract.on_error_of(&column) != OnError::Fail => {
                PathValue::new(name, text.as_deref(), &as_text())
            }
            value => value,
        };
        let value = value.map_err(|e| e.in_file(file))?;
        let own = fields
            .iter()
            .position(|f| f.name().eq_ignore_ascii_case(name) || known.is_some_and(|column| *f.name() == column.name));
        if let Some(at) = own {
            // A column that is in the path and in the rows must agree. The value of the path fills nulls of the rows.
            value.check_rows(&columns[at], file, first)?;
        }
        let all = take(value.value(), &UInt32Array::from(vec![0; rows.num_rows()]), None)
            .map_err(|e| Error::internal("cannot repeat a value of the path").with_source(e))?;
        let field = Arc::new(Field::new(own.map_or(name, |at| fields[at].name()), all.data_type().clone(), true));
        match own {
            Some(at) => (fields[at], columns[at]) = (field, all),
            None => {
                fields.push(field);
                columns.push(all);
            }
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|e| Error::internal("cannot add the columns of the path").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_a_name_and_a_value_are_columns() {
        let of = |path: &str| path_columns(path).unwrap();
        let one = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(
            of("dt=2024-02-28/region=a%2Fb/x=y.json"),
            [one("dt", Some("2024-02-28")), one("region", Some("a/b"))]
        );
        assert_eq!(of("raw/dt=__HIVE_DEFAULT_PARTITION__/=x/a"), [one("dt", None)]);
        assert_eq!(of("a.json"), []);
        assert_eq!(path_columns("a=1/A=2/x").unwrap_err().code(), "PartitionMismatch");
    }
}
