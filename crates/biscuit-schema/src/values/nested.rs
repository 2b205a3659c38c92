//! Lists, maps and structs of one type as those of another: by name, part by part.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::row::{RowConverter, SortField};
use biscuit_core::{Error, Result};

use crate::values::convert::{ConvertedColumn, convert, no_coercion, place, valid};
use crate::values::fault::ValueFault;
use crate::values::reading_rules::ReadingRules;

/// Faults of items, as those of the lists that they are in.
fn of_lists(offsets: &OffsetBuffer<i32>, faults: &[(usize, ValueFault)]) -> Vec<(usize, ValueFault)> {
    let list = |item: usize| offsets.partition_point(|o| *o as usize <= item) - 1;
    faults.iter().map(|(item, fault)| (list(*item), *fault)).collect()
}

pub(crate) fn list(column: &str, from: &ListArray, item: &FieldRef, reading: &ReadingRules) -> Result<ConvertedColumn> {
    let made = convert(&format!("{column}[]"), from.values(), item.data_type(), reading)?;
    let array = ListArray::try_new(item.clone(), from.offsets().clone(), made.array.clone(), from.nulls().cloned());
    let array = array.map_err(|e| Error::internal("a list could not be made").with_source(e))?;
    Ok(ConvertedColumn { array: Arc::new(array), faults: of_lists(from.offsets(), &made.faults), ..made })
}

pub(crate) fn map(
    column: &str,
    from: &MapArray,
    entry: &FieldRef,
    sorted: bool,
    reading: &ReadingRules,
) -> Result<ConvertedColumn> {
    let DataType::Struct(kv) = entry.data_type() else {
        return Err(no_coercion(column, from.data_type(), &DataType::Map(entry.clone(), sorted)));
    };
    let entries = from.entries();
    // By place: keys and values have other names in every engine.
    let key = convert(&format!("{column}.key"), entries.column(0), kv[0].data_type(), reading)?;
    let value = convert(&format!("{column}.value"), entries.column(1), kv[1].data_type(), reading)?;
    let broken = of_lists(from.offsets(), &key.faults);
    let mut faults = of_lists(from.offsets(), &value.faults);
    faults.extend(&broken);
    faults.sort_by_key(|(row, _)| *row);
    // A key is never null: a map that has lost one is null as a whole.
    let nulls = valid(from.len(), from.nulls(), &broken);
    let keys = if broken.is_empty() { key.array.clone() } else { filled(&key.array)? };
    let made = StructArray::try_new(kv.clone(), vec![keys, value.array.clone()], None)
        .and_then(|entries| MapArray::try_new(entry.clone(), from.offsets().clone(), entries, nulls, sorted));
    let array = made.map_err(|e| Error::internal("a map could not be made").with_source(e))?;
    Ok(ConvertedColumn { array: Arc::new(array), faults, rounded: key.rounded + value.rounded, ..value })
}

/// The rows with a map that has a key twice, also inside of structs and lists, ascending.
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
            let failed = |e| Error::internal("keys could not be compared").with_source(e);
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

/// The same column with some value where it is null.
fn filled(array: &ArrayRef) -> Result<ArrayRef> {
    let data = array.to_data().into_builder().nulls(None).build();
    Ok(arrow::array::make_array(data.map_err(|e| Error::internal("keys could not be filled").with_source(e))?))
}

pub(crate) fn structure(
    column: &str,
    from: &StructArray,
    fields: &Fields,
    reading: &ReadingRules,
) -> Result<ConvertedColumn> {
    let (mut arrays, mut faults, mut rounded) = (Vec::new(), Vec::new(), 0);
    let (mut dropped, mut missing, mut used) = (Vec::new(), Vec::new(), vec![false; from.num_columns()]);
    for field in fields {
        let name = format!("{column}.{}", field.name());
        match place(from.fields().iter(), field.name(), &name)? {
            Some(at) => {
                used[at] = true;
                // What is below a null is no value.
                let child = masked(from.column(at), from.nulls())?;
                let made = convert(&name, &child, field.data_type(), reading)?;
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
    let unused = from.fields().iter().zip(used).filter(|(_, used)| !used);
    dropped.extend(unused.map(|(f, _)| format!("{column}.{}", f.name())));
    faults.sort_by_key(|(row, _)| *row);
    let nullable: Fields = fields.iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))).collect();
    let array = StructArray::try_new_with_length(nullable, arrays, from.nulls().cloned(), from.len());
    let array = array.map_err(|e| Error::internal("a struct could not be made").with_source(e))?;
    Ok(ConvertedColumn { array: Arc::new(array), faults, rounded, dropped, missing })
}

fn masked(child: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    let Some(nulls) = nulls.filter(|n| n.null_count() > 0) else { return Ok(child.clone()) };
    let data = child.to_data().into_builder().nulls(NullBuffer::union(Some(nulls), child.nulls())).build();
    let data = data.map_err(|e| Error::internal("nulls could not be joined").with_source(e))?;
    Ok(arrow::array::make_array(data))
}
