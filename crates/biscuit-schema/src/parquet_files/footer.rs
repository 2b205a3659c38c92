//! Checks of a Parquet footer, before a decoder builds anything from it.
//!
//! The footer of a damaged or malicious file can make a decoder allocate much memory, recurse deeply, or read outside
//! of the file. The checks read the Thrift bytes directly.

use crate::parquet_files::thrift::{I32, I64, LIST, OTHER_TYPE, STRUCT, ThriftReader, ThriftStep};
use crate::types::limits::{MAX_DEPTH, MAX_FIELDS};

/// Maximum nesting of groups in the schema. A list has two groups for each level.
const MAX_GROUPS: usize = 2 * MAX_DEPTH + 2;

/// Maximum number of schema elements. A map has three elements in addition to each field.
const MAX_ELEMENTS: usize = 4 * MAX_FIELDS;

/// Checks a footer before it is decoded. The footer is the Thrift form of Parquet's `FileMetaData`, and `file_size`
/// is the size of the file in bytes. The checks are:
///
/// - No list has more items than bytes, because a decoder allocates memory for the items.
/// - The schema is a tree of at most [`MAX_FIELDS`] columns and is not nested too deep, because a decoder recurses
///   for each level.
/// - Each row group has the columns of the schema, and the numbers of rows and values agree between the file, its row
///   groups and their columns.
/// - Columns are within the file.
///
/// Encrypted columns have no numbers in plain text and are skipped.
///
/// Source: `parquet.thrift` of the Apache Parquet format.
///
/// # Errors
/// The problem, as the end of a sentence.
pub fn check_parquet_footer(footer: &[u8], file_size: u64) -> Result<(), String> {
    let mut thrift = ThriftReader { rest: footer };
    let (mut rows, mut leaves, mut groups) = (None, None, None);
    thrift.read_fields(0, &mut |thrift, id, kind| {
        match (id, kind) {
            (2, LIST) => leaves = Some(schema(thrift)?),
            (3, I64) => rows = Some(thrift.read_number()?),
            (4, LIST) => {
                let leaves: &[bool] = leaves.as_deref().ok_or("it has row groups before its schema")?;
                groups = Some(row_groups(thrift, leaves, file_size)?);
            }
            (2..=4, _) => return Err(OTHER_TYPE.to_owned()),
            _ => thrift.skip_value(kind, 1)?,
        }
        Ok(())
    })?;
    let (rows, groups) = (rows.ok_or("it contains no number of rows")?, groups.ok_or("it has no row groups")?);
    if rows != groups {
        return Err(format!("it reports {rows} rows, but its row groups have {groups}"));
    }
    Ok(())
}

/// Returns for each leaf of the schema, which is a column, whether the leaf or a group around it is repeated.
///
/// The schema is stored as a list in depth-first order, and a group has only the number of its children. The tree is
/// followed with a stack of open groups.
fn schema(thrift: &mut ThriftReader<'_>) -> ThriftStep<Vec<bool>> {
    let (kind, elements) = thrift.list()?;
    if kind != STRUCT || elements == 0 {
        return Err("it has no schema".to_owned());
    }
    if elements > MAX_ELEMENTS {
        return Err(format!("it has more than {MAX_FIELDS} columns and nested fields"));
    }
    let mut leaves = Vec::new();
    // Open groups: the number of children that are still to be read, and whether values in the group are repeated.
    let mut open: Vec<(i64, bool)> = vec![(1, false)];
    for element in 0..elements {
        let (mut children, mut repetition, mut typed) = (0, 0, false);
        thrift.read_fields(1, &mut |thrift, id, kind| {
            typed |= id == 1;
            match (id, kind) {
                (3, I32) => repetition = thrift.read_number()?,
                (5, I32) => children = thrift.read_number()?,
                (3 | 5, _) => return Err(OTHER_TYPE.to_owned()),
                _ => thrift.skip_value(kind, 2)?,
            }
            Ok(())
        })?;
        // Groups whose children are all read are closed before the next element.
        while open.last().is_some_and(|(left, _)| *left == 0) {
            open.pop();
        }
        // The element belongs to the innermost group that still misses children.
        let (left, repeated) = open.last_mut().ok_or("its schema has an element outside of its root")?;
        *left -= 1;
        // The repetition of the root has no meaning.
        let repeated = *repeated || (repetition == 2 && element > 0);
        match children {
            0 if typed && element > 0 => leaves.push(repeated),
            // A group without fields is not a column.
            0 => {}
            1.. if open.len() > MAX_GROUPS => {
                return Err(format!("its schema is nested deeper than {MAX_DEPTH} levels"));
            }
            n if (1..=elements as i64).contains(&n) => open.push((n, repeated)),
            _ => return Err("its schema has a group with an impossible number of fields".to_owned()),
        }
    }
    if open.iter().any(|(left, _)| *left > 0) {
        return Err("its schema has a group without its fields".to_owned());
    }
    Ok(leaves)
}

/// Returns the number of rows of all row groups.
fn row_groups(thrift: &mut ThriftReader<'_>, leaves: &[bool], file_size: u64) -> ThriftStep<i64> {
    let (_, groups) = thrift.list()?;
    let mut all = 0_i64;
    for group in 0..groups {
        let (mut rows, mut columns) = (None, None);
        thrift.read_fields(1, &mut |thrift, id, kind| {
            match (id, kind) {
                (1, LIST) => columns = Some(read_chunk_counts(thrift, file_size)?),
                (3, I64) => rows = Some(thrift.read_number()?),
                (1 | 3, _) => return Err(OTHER_TYPE.to_owned()),
                _ => thrift.skip_value(kind, 2)?,
            }
            Ok(())
        })?;
        // A missing number of rows becomes -1, which is refused below.
        let (rows, columns) = (rows.unwrap_or(-1), columns.unwrap_or_default());
        if columns.len() != leaves.len() {
            return Err(format!(
                "row group {group} has {} columns, but the schema has {}",
                columns.len(),
                leaves.len()
            ));
        }
        if rows < 0 {
            return Err(format!("row group {group} has an impossible number of rows"));
        }
        for (column, (values, repeated)) in columns.into_iter().zip(leaves).enumerate() {
            // A row has exactly one value of a column that is not repeated, which may be null, and at least one of a
            // column that is.
            let fits = |values: i64| if *repeated { values >= rows } else { values == rows };
            if let Some(values) = values.filter(|values| !fits(*values)) {
                return Err(format!("row group {group} has {rows} rows, but its column {column} has {values} values"));
            }
        }
        all = all.checked_add(rows).ok_or("its row groups have an impossible total number of rows")?;
    }
    Ok(all)
}

/// Returns the number of values of each column of a row group, or `None` for an encrypted column.
fn read_chunk_counts(thrift: &mut ThriftReader<'_>, file_size: u64) -> ThriftStep<Vec<Option<i64>>> {
    let (_, columns) = thrift.list()?;
    let mut all = Vec::with_capacity(columns);
    for column in 0..columns {
        let (mut values, mut place) = (None, ColumnChunkRange::default());
        // Begin and size of the offset index, the column index and the Bloom filter of the column.
        let mut indexes = [(0, 0); 3];
        thrift.read_fields(2, &mut |thrift, id, kind| {
            match (id, kind) {
                // Field 3 of `ColumnChunk` is its `ColumnMetaData`, which may be absent if the column is encrypted.
                (3, STRUCT) => thrift.read_fields(3, &mut |thrift, id, kind| {
                    match (id, kind) {
                        (5, I64) => values = Some(thrift.read_number()?),
                        (6, I64) => place.unpacked = thrift.read_number()?,
                        (7, I64) => place.size = thrift.read_number()?,
                        (9, I64) => place.data = thrift.read_number()?,
                        (11, I64) => place.dictionary = Some(thrift.read_number()?),
                        (14, I64) => indexes[2].0 = thrift.read_number()?,
                        (15, I32) => indexes[2].1 = thrift.read_number()?,
                        (5..=7 | 9 | 11 | 14 | 15, _) => return Err(OTHER_TYPE.to_owned()),
                        _ => thrift.skip_value(kind, 4)?,
                    }
                    Ok(())
                })?,
                (4, I64) => indexes[0].0 = thrift.read_number()?,
                (5, I32) => indexes[0].1 = thrift.read_number()?,
                (6, I64) => indexes[1].0 = thrift.read_number()?,
                (7, I32) => indexes[1].1 = thrift.read_number()?,
                (3..=7, _) => return Err(OTHER_TYPE.to_owned()),
                _ => thrift.skip_value(kind, 3)?,
            }
            Ok(())
        })?;
        let outside = values.is_some() && !place.is_within(file_size);
        if outside || indexes.iter().any(|(begin, size)| !is_within(*begin, *size, file_size)) {
            return Err(format!("column {column} of a row group is not within the file"));
        }
        all.push(values);
    }
    Ok(all)
}

/// Byte range of a column of a row group in its file, as the metadata declares it.
#[derive(Default)]
struct ColumnChunkRange {
    data: i64,
    dictionary: Option<i64>,
    size: i64,
    unpacked: i64,
}

impl ColumnChunkRange {
    fn is_within(&self, file_size: u64) -> bool {
        // A decoder reads from the dictionary page, if there is one, wherever the first data page is.
        let begin = self.dictionary.unwrap_or(self.data);
        self.unpacked >= 0 && is_within(begin, self.size, file_size) && is_within(self.data, 0, file_size)
    }
}

fn is_within(begin: i64, size: i64, file_size: u64) -> bool {
    let numbers = u64::try_from(begin).ok().zip(u64::try_from(size).ok());
    numbers.and_then(|(begin, size)| begin.checked_add(size)).is_some_and(|end| end <= file_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeply_nested_schema_is_refused() {
        // Elements with one child each, which contain only field 5 (`num_children`).
        let nested = |levels: usize| {
            let mut footer = vec![0x29, 0xfc];
            let mut n = levels;
            while n >= 0x80 {
                footer.push(n as u8 | 0x80);
                n >>= 7;
            }
            footer.push(n as u8);
            footer.extend([0x55, 2, 0].repeat(levels));
            check_parquet_footer(&footer, 0).unwrap_err()
        };
        assert!(nested(10_000).contains("nested deeper"));
        assert!(nested(20).contains("without its fields"));
    }
}
