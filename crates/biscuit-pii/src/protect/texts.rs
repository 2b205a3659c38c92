//! The texts of a column, including those inside of nested columns, dictionaries and run-end encoded columns.
//! Detectors, masks, hashes and tokens read distinct texts with [`distinct_texts`] and write them back with
//! [`with_texts`].

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeStringArray, StringArray, StringViewArray, make_array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use biscuit_core::{Error, Result};

/// Returns whether all values of a column of this type are text. For a nested type, each leaf has to be text.
pub(crate) fn is_all_text(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, of) => is_all_text(of),
        DataType::RunEndEncoded(_, of) => is_all_text(of.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_all_text(field.data_type())),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => is_all_text(item.data_type()),
        kind => kind.is_string(),
    }
}

/// Returns the column if it is text throughout, else the text form of its numbers, dates and similar values. The text
/// of a number does not depend on its type: 5 is `5` as an integer, a double and a decimal.
///
/// # Errors
/// `NotText` for bytes, and for nested columns that contain anything except text, since that would remain in clear.
pub(crate) fn as_text(column: &str, values: &ArrayRef) -> Result<ArrayRef> {
    let kind = values.data_type();
    if is_all_text(kind) {
        return Ok(values.clone());
    }
    let scalar = match kind {
        DataType::Dictionary(_, of) => of,
        kind => kind,
    };
    let none = scalar.is_nested()
        || scalar.is_binary()
        || matches!(scalar, DataType::FixedSizeBinary(_) | DataType::BinaryView);
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    // The cause is dropped on purpose: it quotes a value.
    let text = if none { None } else { cast_with_options(&plain_numbers(values)?, &DataType::Utf8, &strict).ok() };
    text.ok_or_else(|| {
        let message =
            format!("column `{column}` has type {kind}, which is not text throughout; name its text fields by path");
        Error::new(biscuit_core::codes::NOT_TEXT, message).with_column(column)
    })
}

/// Converts floating-point and decimal numbers to their shortest text without exponent and without trailing zeros
/// after the point. Other values remain as they are.
fn plain_numbers(values: &ArrayRef) -> Result<ArrayRef> {
    let kind = values.data_type();
    if kind.is_floating() {
        let failed = |e| Error::internal("cannot convert a number to text").with_source(e);
        // The shortest text of an `f32` has fewer digits than the text of the same number as `f64`: 0.1 against
        // 0.10000000149011612.
        let texts: StringArray = if *kind == DataType::Float64 {
            values.as_primitive::<Float64Type>().iter().map(|n| n.map(|n| n.to_string())).collect()
        } else {
            let singles = cast(values, &DataType::Float32).map_err(failed)?;
            singles.as_primitive::<Float32Type>().iter().map(|n| n.map(|n| n.to_string())).collect()
        };
        return Ok(Arc::new(texts));
    }
    if kind.is_decimal() {
        let texts = cast(values, &DataType::Utf8)
            .map_err(|e| Error::internal("cannot convert a decimal to text").with_source(e))?;
        let shortest = |text: &str| match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text.to_owned(),
        };
        return Ok(Arc::new(texts.as_string::<i32>().iter().map(|t| t.map(shortest)).collect::<StringArray>()));
    }
    Ok(values.clone())
}

/// Function that receives each text of a column and its number of rows.
type TextVisitor<'a> = dyn FnMut(&str, u64) + 'a;

/// Returns the distinct texts of a column that are neither null nor empty, in the order of their first occurrence,
/// each with its number of rows.
pub(crate) fn distinct_texts(array: &dyn Array) -> Vec<(String, u64)> {
    let (mut all, mut numbers) = (Vec::<(String, u64)>::new(), HashMap::<String, usize>::new());
    each_text(array, &mut |text, count| match numbers.get(text) {
        Some(at) => all[*at].1 += count,
        None if text.is_empty() => {}
        None => {
            numbers.insert(text.to_owned(), all.len());
            all.push((text.to_owned(), count));
        }
    });
    all
}

/// Visits all texts of a column, including texts that no row refers to. Each value of a dictionary is visited once
/// with its number of rows, which may be 0.
fn each_text(array: &dyn Array, each: &mut TextVisitor<'_>) {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().flatten().for_each(|text| each(text, 1)),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().flatten().for_each(|text| each(text, 1)),
        DataType::Utf8View => array.as_string_view().iter().flatten().for_each(|text| each(text, 1)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let mut counts = vec![0; dictionary.values().len()];
            for (row, key) in dictionary.normalized_keys().into_iter().enumerate() {
                if dictionary.keys().is_valid(row) {
                    counts[key] += 1;
                }
            }
            for (at, count) in counts.into_iter().enumerate() {
                each_text(&dictionary.values().slice(at, 1), &mut |text, _| each(text, count));
            }
        }
        // Nested columns of any kind, including unions, list views and run-end encoded columns. The children contain
        // texts that no row shows, such as the texts of a null struct: they are in the file as well.
        _ => array.to_data().child_data().iter().for_each(|part| each_text(&make_array(part.clone()), each)),
    }
}

/// Applies `map` to each distinct text of a column that is not empty.
pub(crate) fn map_texts(array: &ArrayRef, map: &mut dyn FnMut(&str) -> String) -> Result<ArrayRef> {
    let distinct = distinct_texts(array);
    with_texts(array, &distinct.iter().map(|(text, _)| (text.as_str(), map(text))).collect())
}

/// Replaces the texts that are keys of `new`. Null remains null, and the type of the column does not change.
pub(crate) fn with_texts(array: &ArrayRef, new: &HashMap<&str, String>) -> Result<ArrayRef> {
    fn in_place_of<'a>(text: &'a str, new: &'a HashMap<&str, String>) -> &'a str {
        new.get(text).map_or(text, String::as_str)
    }
    let other = |text: Option<_>| text.map(|text| in_place_of(text, new));
    Ok(match array.data_type() {
        DataType::Utf8 => Arc::new(array.as_string::<i32>().iter().map(other).collect::<StringArray>()),
        DataType::LargeUtf8 => Arc::new(array.as_string::<i64>().iter().map(other).collect::<LargeStringArray>()),
        DataType::Utf8View => Arc::new(array.as_string_view().iter().map(other).collect::<StringViewArray>()),
        _ => {
            let data = array.to_data();
            if data.child_data().is_empty() {
                return Ok(array.clone());
            }
            let part = |part| with_texts(&make_array(part), new).map(|part| part.to_data());
            let parts: Vec<_> = data.child_data().iter().cloned().map(part).collect::<Result<_>>()?;
            let made = data.into_builder().child_data(parts).build();
            make_array(made.map_err(|e| Error::internal("cannot build a column with replaced texts").with_source(e))?)
        }
    })
}

/// Returns the leaves of a column that may contain texts, with their paths, such as `address.street`.
pub(crate) fn text_parts(field: &Field, array: &ArrayRef) -> Vec<(String, ArrayRef)> {
    let name = field.name();
    let inside = |field: &Field, array: &ArrayRef| {
        let parts = text_parts(field, array).into_iter();
        parts.map(|(path, array)| (format!("{name}.{path}"), array)).collect::<Vec<_>>()
    };
    let same = |item: &ArrayRef| text_parts(&Field::new(name, item.data_type().clone(), true), item);
    match array.data_type() {
        DataType::Struct(fields) => {
            fields.iter().zip(array.as_struct().columns()).flat_map(|(field, column)| inside(field, column)).collect()
        }
        DataType::List(_) => same(array.as_list::<i32>().values()),
        DataType::LargeList(_) => same(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => same(array.as_fixed_size_list().values()),
        DataType::Map(..) => {
            let map = array.as_map();
            let entries = [("key", map.keys()), ("value", map.values())];
            entries
                .into_iter()
                .flat_map(|(part, array)| inside(&Field::new(part, array.data_type().clone(), true), array))
                .collect()
        }
        _ => vec![(name.clone(), array.clone())],
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float32Array, Float64Array, Int64Array};

    use super::*;

    #[test]
    fn the_text_of_a_number_does_not_depend_on_its_type() {
        let decimal =
            Decimal128Array::from(vec![411_111_111_111_111_100, 1_250]).with_precision_and_scale(20, 2).unwrap();
        let numbers: [ArrayRef; 3] = [
            Arc::new(Float64Array::from(vec![4_111_111_111_111_111.0, 12.5])),
            Arc::new(decimal),
            Arc::new(StringArray::from(vec!["4111111111111111", "12.5"])),
        ];
        for values in numbers {
            let texts = as_text("v", &values).unwrap();
            assert_eq!(texts.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["4111111111111111", "12.5"]);
        }
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![100]));
        let single: ArrayRef = Arc::new(Float32Array::from(vec![100.0]));
        let of = |values: &ArrayRef| as_text("v", values).unwrap().as_string::<i32>().value(0).to_owned();
        assert_eq!((of(&whole), of(&single)), ("100".to_owned(), "100".to_owned()));
    }
}
