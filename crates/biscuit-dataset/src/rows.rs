//! Aligns rows with a schema, and splits rows by partition.

use std::collections::HashMap;

use biscuit_core::{Error, Result};
use biscuit_schema::{plain_type, type_name};
use datafusion::arrow::array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options, take_record_batch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use crate::paths::hive;
use crate::paths::spelling::FolderSpelling;

/// Casts an array. A value that does not fit is an error, never a silent null.
fn strict(array: &ArrayRef, to: &DataType, column: &str, place: &str) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|e| {
        let name = type_name(to).unwrap_or_else(|| to.to_string());
        Error::data("WrongType", format!("column `{column}` of {place} cannot be read as {name}")).with_source(e)
    })
}

/// Converts rows to the columns and types of `target`, matched by name. Missing columns become null; columns that
/// `target` does not have are left out. `place` names the rows in messages.
///
/// # Errors
/// `WrongType` if a value does not fit.
pub fn conform(batch: &RecordBatch, target: &SchemaRef, place: &str) -> Result<RecordBatch> {
    align(batch, &[], target, place)
}

/// Converts rows like [`conform`]. `constants` are columns with the same value in every row, such as the partition
/// columns of a path.
pub fn align(
    batch: &RecordBatch,
    constants: &[(String, Option<String>)],
    target: &SchemaRef,
    place: &str,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let column = |f: &datafusion::arrow::datatypes::FieldRef| -> Result<ArrayRef> {
        if let Some(array) = batch.column_by_name(f.name()) {
            return strict(array, f.data_type(), f.name(), place);
        }
        match constants.iter().find(|(name, _)| name == f.name()) {
            Some((_, Some(value))) => {
                let one: ArrayRef = std::sync::Arc::new(StringArray::from(vec![value.as_str()]));
                let one = strict(&one, f.data_type(), f.name(), place)?;
                let zeros = UInt32Array::from(vec![0; rows]);
                datafusion::arrow::compute::take(&one, &zeros, None)
                    .map_err(|e| Error::internal("a constant column could not be built").with_source(e))
            }
            _ => Ok(new_null_array(f.data_type(), rows)),
        }
    };
    let columns = target.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let nullable = std::sync::Arc::new(datafusion::arrow::datatypes::Schema::new(
        target.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
    ));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(nullable, columns, &options)
        .map_err(|e| Error::internal(format!("the columns of {place} do not make a batch")).with_source(e))
}

/// Splits rows by their Hive folder. Each part has the rows in their order, without the partition columns. The
/// folders are in the order of their first row.
///
/// # Errors
/// `MissingColumn`; `PartitionColumns`; `PartitionType` for a type that cannot be in a path; `PartitionValue` for a
/// text that cannot be in a path or makes a name that is too long; `PartitionSpelling` for a text that is the same
/// number as another folder of the table.
pub fn partition_folders(
    batch: &RecordBatch,
    partition_by: &[String],
    spelling: &FolderSpelling,
) -> Result<Vec<(String, RecordBatch)>> {
    if partition_by.is_empty() {
        return Ok(vec![(String::new(), batch.clone())]);
    }
    hive::check_partition_columns(batch.schema().fields().iter().map(|f| f.name().as_str()), partition_by)?;
    let mut texts = Vec::with_capacity(partition_by.len());
    for name in partition_by {
        let at = biscuit_schema::column_index(&batch.schema(), name, "the rows to write")?;
        texts.push(folder_texts(batch.column(at), name)?);
    }
    let mut folders: Vec<(String, Vec<u32>)> = Vec::new();
    let mut known: HashMap<Vec<Option<&str>>, usize> = HashMap::new();
    for row in 0..batch.num_rows() {
        let values: Vec<Option<&str>> = texts.iter().map(|t| t.is_valid(row).then(|| t.value(row))).collect();
        let at = match known.get(&values) {
            Some(&at) => at,
            None => {
                folders.push((spelling.folder(partition_by, &values)?, Vec::new()));
                known.insert(values, folders.len() - 1);
                folders.len() - 1
            }
        };
        folders[at].1.push(u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
    }
    let rest: Vec<usize> =
        (0..batch.num_columns()).filter(|&i| !partition_by.contains(batch.schema().field(i).name())).collect();
    let data = batch.project(&rest).expect("indices come from this batch");
    let whole = folders.len() == 1;
    let part = |(folder, rows): (String, Vec<u32>)| {
        let rows = if whole { Ok(data.clone()) } else { take_record_batch(&data, &UInt32Array::from(rows)) };
        Ok((folder, rows.map_err(|e| Error::internal("rows could not be split").with_source(e))?))
    };
    folders.into_iter().map(part).collect()
}

pub(crate) fn folder_texts(array: &ArrayRef, name: &str) -> Result<StringArray> {
    let t = plain_type(array.data_type());
    let folder = t.is_integer()
        || matches!(
            t,
            DataType::Utf8 | DataType::Boolean | DataType::Date32 | DataType::Timestamp(..) | DataType::Decimal128(..)
        );
    if !folder {
        let message = format!(
            "partition column `{name}` has type {t}; use text, integers, decimals, booleans, dates or timestamps"
        );
        return Err(Error::usage("PartitionType", message));
    }
    let plain = strict(array, &t, name, "the rows to write")?;
    let texts = strict(&plain, &DataType::Utf8, name, "the rows to write")?;
    Ok(texts.as_any().downcast_ref::<StringArray>().expect("a cast to Utf8 gives a StringArray").clone())
}
