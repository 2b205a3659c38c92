//! Parquet's footer, looked at before a decoder builds anything of it. It knows Thrift's compact protocol, and no Parquet library.

use crate::limits::{MAX_DEPTH, MAX_FIELDS};

/// Levels of groups: a list has two for each of its own.
const MAX_GROUPS: usize = 2 * MAX_DEPTH + 2;

/// Elements of the schema: a map has three more for each field.
const MAX_ELEMENTS: usize = 4 * MAX_FIELDS;

/// How deep values of the footer are nested; those of Parquet's definition are not deeper than ten.
const MAX_VALUES: usize = 32;

/// Looks at a footer, which is the Thrift of Parquet's `FileMetaData`, before it is decoded. `file_size` is the size of the file in bytes.
/// Checks:
///
/// - that lists have no more items than there are bytes, since a decoder reserves memory for the items;
/// - that the schema is a tree of at most [`MAX_FIELDS`] columns and not nested too deep, since a decoder calls itself for each level;
/// - that row groups have the columns of the schema, that rows and values are counted alike in the file, its row groups and their columns;
/// - that columns are within the file.
///
/// Columns that are encrypted have no counts in the clear, and are passed over.
///
/// Source: `parquet.thrift` of Apache Parquet's format, and "Thrift compact protocol encoding".
///
/// # Errors
/// What is wrong, as the end of a sentence.
pub fn check_parquet_footer(footer: &[u8], file_size: u64) -> Result<(), String> {
    let mut thrift = Thrift { rest: footer };
    let (mut rows, mut leaves, mut groups) = (None, None, None);
    thrift.fields(0, &mut |thrift, id, kind| {
        match (id, kind) {
            (2, LIST) => leaves = Some(schema(thrift)?),
            (3, I64) => rows = Some(thrift.number()?),
            (4, LIST) => {
                let leaves: &[bool] = leaves.as_deref().ok_or("it has row groups before its schema")?;
                groups = Some(row_groups(thrift, leaves, file_size)?);
            }
            (2..=4, _) => return Err(OTHER_TYPE.to_owned()),
            _ => thrift.skip(kind, 1)?,
        }
        Ok(())
    })?;
    let (rows, groups) = (rows.ok_or("it does not say its rows")?, groups.ok_or("it has no row groups")?);
    if rows != groups {
        return Err(format!("it says {rows} rows, and its row groups have {groups}"));
    }
    Ok(())
}

/// Looks at Thrift of any form: lists have no more items than there are bytes, and values are not nested too deep.
///
/// # Errors
/// What is wrong, as the end of a sentence.
pub fn check_thrift(structure: &[u8]) -> Result<(), String> {
    Thrift { rest: structure }.skip(STRUCT, 0)
}

/// The types of Thrift's compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

type Step<T = ()> = Result<T, String>;

struct Thrift<'a> {
    rest: &'a [u8],
}

const ENDS: &str = "its footer ends too early";

/// Decoders read a field by its number, whatever type it says.
const OTHER_TYPE: &str = "its footer has a field of another type than Parquet's";

impl Thrift<'_> {
    fn byte(&mut self) -> Step<u8> {
        let (first, rest) = self.rest.split_first().ok_or(ENDS)?;
        self.rest = rest;
        Ok(*first)
    }

    fn unsigned(&mut self) -> Step<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("its footer holds a number that is none".to_owned())
    }

    fn number(&mut self) -> Step<i64> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn pass(&mut self, bytes: u64) -> Step {
        self.rest = usize::try_from(bytes).ok().and_then(|bytes| self.rest.get(bytes..)).ok_or(ENDS)?;
        Ok(())
    }

    /// The type and the number of a list's items.
    fn list(&mut self) -> Step<(u8, usize)> {
        let head = self.byte()?;
        let short = u64::from(head >> 4);
        let items = if short == 15 { self.unsigned()? } else { short };
        match usize::try_from(items) {
            Ok(items) if items <= self.rest.len() => Ok((head & 0x0f, items)),
            _ => Err("its footer has a list of more items than it has bytes".to_owned()),
        }
    }

    /// The fields of a structure: each by its number and type; the step takes its value.
    fn fields(&mut self, depth: usize, step: &mut dyn FnMut(&mut Self, i64, u8) -> Step) -> Step {
        if depth > MAX_VALUES {
            return Err("its footer is nested too deep".to_owned());
        }
        let mut id = 0_i64;
        loop {
            let head = self.byte()?;
            if head & 0x0f == 0 {
                return Ok(());
            }
            id = if head >> 4 == 0 { self.number()? } else { id.saturating_add(i64::from(head >> 4)) };
            step(self, id, head & 0x0f)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Step {
        if depth > MAX_VALUES {
            return Err("its footer is nested too deep".to_owned());
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.pass(1),
            I16 | I32 | I64 => self.unsigned().map(drop),
            DOUBLE => self.pass(8),
            BINARY => {
                let length = self.unsigned()?;
                self.pass(length)
            }
            LIST | SET => {
                let (kind, items) = self.list()?;
                (0..items).try_for_each(|_| self.item(kind, depth + 1))
            }
            MAP => {
                let items = self.unsigned()?;
                if items == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                for _ in 0..items {
                    self.item(kinds >> 4, depth + 1)?;
                    self.item(kinds & 0x0f, depth + 1)?;
                }
                Ok(())
            }
            STRUCT => self.fields(depth, &mut |thrift, _, kind| thrift.skip(kind, depth + 1)),
            _ => Err("its footer holds a value of no type".to_owned()),
        }
    }

    /// An item: a boolean, which a field has in its type, is a byte.
    fn item(&mut self, kind: u8, depth: usize) -> Step {
        match kind {
            TRUE | FALSE => self.pass(1),
            kind => self.skip(kind, depth),
        }
    }
}

/// The leaves of the schema, which are its columns: for each, whether it, or a group around it, is repeated.
fn schema(thrift: &mut Thrift<'_>) -> Step<Vec<bool>> {
    let (kind, elements) = thrift.list()?;
    if kind != STRUCT || elements == 0 {
        return Err("it has no schema".to_owned());
    }
    if elements > MAX_ELEMENTS {
        return Err(format!("it has more than {MAX_FIELDS} columns and nested fields"));
    }
    let mut leaves = Vec::new();
    // The groups that are not at their end: how many children are still to come, and whether values in it are repeated.
    let mut open: Vec<(i64, bool)> = vec![(1, false)];
    for element in 0..elements {
        let (mut children, mut repetition, mut typed) = (0, 0, false);
        thrift.fields(1, &mut |thrift, id, kind| {
            typed |= id == 1;
            match (id, kind) {
                (3, I32) => repetition = thrift.number()?,
                (5, I32) => children = thrift.number()?,
                (3 | 5, _) => return Err(OTHER_TYPE.to_owned()),
                _ => thrift.skip(kind, 2)?,
            }
            Ok(())
        })?;
        while open.last().is_some_and(|(left, _)| *left == 0) {
            open.pop();
        }
        let (left, repeated) = open.last_mut().ok_or("its schema has an element outside of its root")?;
        *left -= 1;
        // What the root says of itself means nothing.
        let repeated = *repeated || (repetition == 2 && element > 0);
        match children {
            0 if typed && element > 0 => leaves.push(repeated),
            // A group without fields is no column.
            0 => {}
            1.. if open.len() > MAX_GROUPS => {
                return Err(format!("its schema is nested deeper than {MAX_DEPTH} levels"));
            }
            n if (1..=elements as i64).contains(&n) => open.push((n, repeated)),
            _ => return Err("its schema has a group of a number of fields that cannot be".to_owned()),
        }
    }
    if open.iter().any(|(left, _)| *left > 0) {
        return Err("its schema has a group without its fields".to_owned());
    }
    Ok(leaves)
}

/// The rows of all row groups.
fn row_groups(thrift: &mut Thrift<'_>, leaves: &[bool], file_size: u64) -> Step<i64> {
    let (_, groups) = thrift.list()?;
    let mut all = 0_i64;
    for group in 0..groups {
        let (mut rows, mut columns) = (None, None);
        thrift.fields(1, &mut |thrift, id, kind| {
            match (id, kind) {
                (1, LIST) => columns = Some(chunks(thrift, file_size)?),
                (3, I64) => rows = Some(thrift.number()?),
                (1 | 3, _) => return Err(OTHER_TYPE.to_owned()),
                _ => thrift.skip(kind, 2)?,
            }
            Ok(())
        })?;
        let (rows, columns) = (rows.unwrap_or(-1), columns.unwrap_or_default());
        if columns.len() != leaves.len() {
            return Err(format!("row group {group} has {} columns, and the schema {}", columns.len(), leaves.len()));
        }
        if rows < 0 {
            return Err(format!("row group {group} has a number of rows that cannot be"));
        }
        for (column, (values, repeated)) in columns.into_iter().zip(leaves).enumerate() {
            // A row has one value of a column that is not repeated, and one or more of one that is.
            let fits = |values: i64| if *repeated { values >= rows } else { values == rows };
            if let Some(values) = values.filter(|values| !fits(*values)) {
                return Err(format!("row group {group} has {rows} rows, and column {column} of it {values} values"));
            }
        }
        all = all.checked_add(rows).ok_or("its row groups have a number of rows that cannot be")?;
    }
    Ok(all)
}

/// The values of each column of a row group; none for one that is encrypted.
fn chunks(thrift: &mut Thrift<'_>, file_size: u64) -> Step<Vec<Option<i64>>> {
    let (_, columns) = thrift.list()?;
    let mut all = Vec::with_capacity(columns);
    for column in 0..columns {
        let (mut values, mut place) = (None, Place::default());
        // Its offset index, its column index and its Bloom filter: where each begins, and its size.
        let mut beside = [(0, 0); 3];
        thrift.fields(2, &mut |thrift, id, kind| {
            match (id, kind) {
                (3, STRUCT) => thrift.fields(3, &mut |thrift, id, kind| {
                    match (id, kind) {
                        (5, I64) => values = Some(thrift.number()?),
                        (6, I64) => place.unpacked = thrift.number()?,
                        (7, I64) => place.size = thrift.number()?,
                        (9, I64) => place.data = thrift.number()?,
                        (11, I64) => place.dictionary = Some(thrift.number()?),
                        (14, I64) => beside[2].0 = thrift.number()?,
                        (15, I32) => beside[2].1 = thrift.number()?,
                        (5..=7 | 9 | 11 | 14 | 15, _) => return Err(OTHER_TYPE.to_owned()),
                        _ => thrift.skip(kind, 4)?,
                    }
                    Ok(())
                })?,
                (4, I64) => beside[0].0 = thrift.number()?,
                (5, I32) => beside[0].1 = thrift.number()?,
                (6, I64) => beside[1].0 = thrift.number()?,
                (7, I32) => beside[1].1 = thrift.number()?,
                (3..=7, _) => return Err(OTHER_TYPE.to_owned()),
                _ => thrift.skip(kind, 3)?,
            }
            Ok(())
        })?;
        let outside = values.is_some() && !place.is_within(file_size);
        if outside || beside.iter().any(|(begin, size)| !is_within(*begin, *size, file_size)) {
            return Err(format!("column {column} of a row group is not within the file"));
        }
        all.push(values);
    }
    Ok(all)
}

/// Where a column of a row group is in its file.
#[derive(Default)]
struct Place {
    data: i64,
    dictionary: Option<i64>,
    size: i64,
    unpacked: i64,
}

impl Place {
    fn is_within(&self, file_size: u64) -> bool {
        // A decoder reads from the dictionary on, wherever the first data page is.
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
    fn a_list_has_no_more_items_than_there_are_bytes() {
        // Field 1, a list of 2^28 bytes.
        let huge = [0x19, 0xf3, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 0];
        assert!(check_thrift(&huge).unwrap_err().contains("more items"));
        let fine = [0x19, 0x23, 1, 2, 0];
        assert_eq!(check_thrift(&fine), Ok(()));
        assert_eq!(check_thrift(&fine[..4]), Err(ENDS.to_owned()));
    }

    #[test]
    fn thrift_that_is_nested_without_end_is_refused() {
        assert!(check_thrift(&[0x1c; 1000]).unwrap_err().contains("too deep"));
        assert!(check_thrift(&[0x19; 1000]).is_err());
    }

    #[test]
    fn a_schema_that_is_nested_without_end_is_refused() {
        // Elements of one child each, with field 5 (children) alone.
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
