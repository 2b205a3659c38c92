//! Conversion of lists, maps and structs, part by part; fields of structs are matched by name.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::row::{RowConverter, SortField};
use biscuit_core::{Error, Result};

use crate::codes;
use crate::values::converted::{ConvertedColumn, combine_nulls, no_coercion};
use crate::values::fault::ValueFault;

/// Converts a part of a nested column: name of the part for messages, its values, and the wanted type.
pub(crate) type ConvertPart<'a> = &'a dyn Fn(&str, &ArrayRef, &DataType) -> Result<ConvertedColumn>;

/// Maps faults of items to the rows of the lists that contain the items. The offsets are sorted, so the list of an
/// item is found by binary search.
fn of_lists(offsets: &OffsetBuffer<i32>, faults: &[(usize, ValueFault)]) -> Vec<(usize, ValueFault)> {
    let list = |item: usize| offsets.partition_point(|o| *o as usize <= item) - 1;
    faults.iter().map(|(item, fault)| (list(*item), *fault)).collect()
}

pub(crate) fn list(
    column: &str,
    from: &ListArray,
    item: &FieldRef,
    convert: ConvertPart<'_>,
) -> Result<ConvertedColumn> {
    let made = convert(&format!("{column}[]"), from.values(), item.data_type())?;
    let array = ListArray::try_new(item.clone(), from.offsets().clone(), made.array.clone(), from.nulls().cloned());
    let array = array.map_err(|e| Error::internal("cannot build a list").with_source(e))?;
    Ok(ConvertedColumn { array: Arc::new(array), faults: of_lists(from.offsets(), &made.faults), ..made })
}

pub(crate) fn convert_map(
    column: &str,
    from: &MapArray,
    entry: &FieldRef,
    sorted: bool,
    convert: ConvertPart<'_>,
) -> Result<ConvertedColumn> {
    let DataType::Struct(kv) = entry.data_type() else {
        return Err(no_coercion(column, from.data_type(), &DataType::Map(entry.clone(), sorted)));
    };
    let entries = from.entries();
    // By position, because engines give different names to keys and values.
    let key = convert(&format!("{column}.key"), entries.column(0), kv[0].data_type())?;
    let value = convert(&format!("{column}.value"), entries.column(1), kv[1].data_type())?;
    let broken = of_lists(from.offsets(), &key.faults);
    let mut faults = of_lists(from.offsets(), &value.faults);
    faults.extend(&broken);
    faults.sort_by_key(|(row, _)| *row);
    // A key is never null in Arrow, so a map with a key that could not be converted becomes null as a whole.
    let nulls = combine_nulls(from.len(), from.nulls(), &broken);
    // The keys of such a map still need values, because the key array must not contain nulls.
    let keys = if broken.is_empty() { key.array.clone() } else { remove_nulls(&key.array)? };
    let made = StructArray::try_new(kv.clone(), vec![keys, value.array.clone()], None)
        .and_then(|entries| MapArray::try_new(entry.clone(), from.offsets().clone(), entries, nulls, sorted));
    let array = made.map_err(|e| Error::internal("cannot build a map").with_source(e))?;
    Ok(ConvertedColumn { array: Arc::new(array), faults, rounded: key.rounded + value.rounded, ..value })
}

/// Returns the rows with a map that has a key twice, also inside of structs and lists. The rows are ascending.
pub(crate) fn duplicate_keys(array: &ArrayRef) -> Result<Vec<usize>> {
    let of_lists = |offsets: &OffsetBuffer<i32>, items: Vec<usize>| {
        let mut rows: Vec<usize> =
            items.into_iter().map(|item| offsets.partition_point(|o| *o as usize <= item) - 1).collect();
        rows.dedup();
        rows
    };
    match array.data_type() {
        DataType::List(item) if item.data_type().is_nested() => {
            let list = array.as_list::<i32>();
            Ok(of_lists(list.offsets(), duplicate_keys(list.values())?))
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns().iter().map(duplicate_keys);
            let mut rows: Vec<usize> = columns.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
            rows.sort_unstable();
            rows.dedup();
            Ok(rows)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let failed = |e| Error::internal("cannot compare keys").with_source(e);
            // The row format of Arrow makes keys of any type comparable as bytes.
            let converter = RowConverter::new(vec![SortField::new(map.keys().data_type().clone())]).map_err(failed)?;
            let keys = converter.convert_columns(&[map.keys().clone()]).map_err(failed)?;
            let has_twice = |row: &usize| {
                let range = map.value_offsets()[*row] as usize..map.value_offsets()[*row + 1] as usize;
                let mut seen = HashSet::new();
                map.is_valid(*row) && range.into_iter().any(|at| !seen.insert(keys.row(at)))
            };
            let mut rows: Vec<usize> = (0..map.len()).filter(has_twice).collect();
            rows.extend(of_lists(map.offsets(), duplicate_keys(map.values())?));
            rows.sort_unstable();
            rows.dedup();
            Ok(rows)
        }
        _ => Ok(vec![]),
    }
}

/// Removes the nulls of a column; what value appears in their place does not matter.
fn remove_nulls(array: &ArrayRef) -> Result<ArrayRef> {
    let data = array.to_data().into_builder().nulls(None).build();
    Ok(arrow::array::make_array(data.map_err(|e| Error::internal("cannot remove nulls from keys").with_source(e))?))
}

pub(crate) fn convert_struct(
    column: &str,
    from: &StructArray,
    fields: &Fields,
    convert: ConvertPart<'_>,
) -> Result<ConvertedColumn> {
    let (mut arrays, mut faults, mut rounded) = (Vec::new(), Vec::new(), 0);
    let (mut dropped, mut missing, mut used) = (Vec::new(), Vec::new(), vec![false; from.num_columns()]);
    for field in fields {
        let name = format!("{column}.{}", field.name());
        match find_field(from.fields().iter(), field.name(), &name)? {
            Some(at) => {
                used[at] = true;
                // A child may contain arbitrary values below a null struct. They must not cause faults.
                let child = add_parent_nulls(from.column(at), from.nulls())?;
                let made = convert(&name, &child, field.data_type())?;
                arrays.push(made.array);
                faults.extend(made.faults);
                rounded += made.rounded;
                dropped.extend(made.dropped);
                missing.extend(made.missing);
            }
            None => {
                arrays.push(new_null_array(field.data_type(), from.len()));
                missing.push(name);
            }
        }
    }
    // Fields that no field of the type has used are dropped and reported.
    let unused = from.fields().iter().zip(used).filter(|(_, used)| !used);
    dropped.extend(unused.map(|(f, _)| format!("{column}.{}", f.name())));
    faults.sort_by_key(|(row, _)| *row);
    // A fault makes a field null even if its type is not nullable.
    let nullable: Fields = fields.iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))).collect();
    let array = StructArray::try_new_with_length(nullable, arrays, from.nulls().cloned(), from.len());
    let array = array.map_err(|e| Error::internal("cannot build a struct").with_source(e))?;
    Ok(ConvertedColumn { array: Arc::new(array), faults, rounded, dropped, missing })
}

/// Adds the nulls of a struct to the nulls of a child.
fn add_parent_nulls(child: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    let Some(nulls) = nulls.filter(|n| n.null_count() > 0) else { return Ok(child.clone()) };
    let data = child.to_data().into_builder().nulls(NullBuffer::union(Some(nulls), child.nulls())).build();
    let data = data.map_err(|e| Error::internal("cannot combine nulls").with_source(e))?;
    Ok(arrow::array::make_array(data))
}

/// Finds a field by name: an exact match, or else the only match that differs in letter case.
pub(crate) fn find_field<'a>(
    fields: impl Iterator<Item = &'a Arc<Field>>,
    name: &str,
    shown: &str,
) -> Result<Option<usize>> {
    let fields: Vec<&Arc<Field>> = fields.collect();
    if let Some(at) = fields.iter().position(|f| f.name() == name) {
        return Ok(Some(at));
    }
    // Two matches are ambiguous and an error: a choice would depend on the order of the fields.
    let like: Vec<usize> = (0..fields.len()).filter(|at| fields[*at].name().eq_ignore_ascii_case(name)).collect();
    match like.as_slice() {
        [] => Ok(None),
        [at] => Ok(Some(*at)),
        [a, b, ..] => {
            let (a, b) = (fields[*a].name(), fields[*b].name());
            let message = format!("column `{shown}` matches both `{a}` and `{b}`, which differ only in letter case");
            Err(Error::new(codes::COLUMN_CASE, message).with_column(shown))
        }
    }
}
