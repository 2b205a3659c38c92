//! Aligns rows with a schema, and splits rows by partition.

use std::collections::{BTreeSet, HashMap};

use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;

use crate::paths::hive;
use crate::paths::spelling::{FolderSpelling, folder_texts};

/// Returns the rows with a text in a partition column that cannot be the name of a folder, each once, with its first
/// error.
pub fn rows_without_folder(batch: &RecordBatch, partition_by: &[String]) -> Vec<(usize, Error)> {
    let (mut bad, mut seen) = (Vec::new(), BTreeSet::new());
    for name in partition_by {
        let Some(texts) = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()) else { continue };
        for (row, text) in texts.iter().enumerate() {
            if let Some(Err(e)) = text.map(|text| hive::check_folder(name, text))
                && seen.insert(row)
            {
                bad.push((row, e));
            }
        }
    }
    bad
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
        let at = biscuit_schema::internal::column_index(&batch.schema(), name, "the rows to write")?;
        texts.push(folder_texts(batch.column(at), name)?);
    }
    let mut folders: Vec<(String, Vec<u32>)> = Vec::new();
    let mut known: HashMap<Vec<Option<&str>>, usize> = HashMap::new();
    for row in 0..batch.num_rows() {
        let values: Vec<Option<&str>> = texts.iter().map(|t| t.is_valid(row).then(|| t.value(row))).collect();
        let at = match known.get(&values) {
            Some(&at) => at,
            None => {
                folders.push((spelling.spell_folder(partition_by, &values)?, Vec::new()));
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
