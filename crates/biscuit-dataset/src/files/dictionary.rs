use std::collections::HashSet;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::row::{RowConverter, SortField};
use parquet::schema::types::ColumnPath;

/// Number of rows in the sample.
const SAMPLE: usize = 2048;
/// Minimum number of values for a decision.
const LEAST: usize = 256;

/// Returns the columns and fields of structs in which at least four of five values of the sample are distinct. A
/// dictionary of such a column would be filled and given up.
pub(crate) fn columns_without_repetition(rows: &RecordBatch) -> Vec<ColumnPath> {
    let mut found = Vec::new();
    if rows.num_rows() < LEAST {
        return found;
    }
    let rows = rows.slice(0, rows.num_rows().min(SAMPLE));
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        find_columns(column, vec![field.name().clone()], &mut found);
    }
    found
}

fn find_columns(column: &ArrayRef, path: Vec<String>, found: &mut Vec<ColumnPath>) {
    match column.data_type() {
        DataType::Struct(fields) => {
            for (field, child) in fields.iter().zip(column.as_struct().columns()) {
                find_columns(child, path.iter().cloned().chain([field.name().clone()]).collect(), found);
            }
        }
        t if t.is_nested() || *t == DataType::Boolean => {}
        _ if is_hardly_repeating(column) => found.push(ColumnPath::new(path)),
        _ => {}
    }
}

fn is_hardly_repeating(column: &ArrayRef) -> bool {
    let Ok(converter) = RowConverter::new(vec![SortField::new(column.data_type().clone())]) else { return false };
    let Ok(rows) = converter.convert_columns(std::slice::from_ref(column)) else { return false };
    let values = (0..rows.num_rows()).filter(|i| column.is_valid(*i));
    let (mut seen, mut count) = (HashSet::new(), 0);
    for i in values {
        seen.insert(rows.row(i));
        count += 1;
    }
    count >= LEAST && seen.len() * 5 >= count * 4
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray, StructArray};
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn distinct_values_get_no_dictionary_and_repeated_ones_do() {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let cities: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(|i| format!("city {}", i % 50))));
        let field = |name: &str, a: &ArrayRef| Arc::new(Field::new(name, a.data_type().clone(), true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![
            (field("id", &ids), ids.clone()),
            (field("city", &cities), cities.clone()),
        ]));
        let rows = RecordBatch::try_from_iter([("id", ids), ("city", cities), ("s", nested)]).unwrap();
        let paths =
            |rows: &RecordBatch| columns_without_repetition(rows).iter().map(ColumnPath::string).collect::<Vec<_>>();
        assert_eq!(paths(&rows), ["id", "s.id"]);
        assert!(paths(&rows.slice(0, 100)).is_empty());
    }
}
