use std::sync::Arc;

use biscuit_change::{RowsOptions, RowsReader};
use biscuit_schema::ColumnType;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options, concat_batches};
use datafusion::arrow::datatypes::{Field, Schema};

/// Parses rows from a small text table.
///
/// The first line contains the names and types of the columns (`id:bigint | paid:decimal(8,2)`), with the type names
/// of `biscuit_schema::ColumnType`. Each further line is a row, with cells between `|`. `null` is null, and `""` is
/// an empty text.
///
/// ```
/// use biscuit_testkit::table;
///
/// let rows = table("
///     id:bigint | name:string | paid:decimal(8,2)
///     1         | Ada         | 10.50
///     2         | null        | 0.00
/// ");
/// assert_eq!((rows.num_rows(), rows.num_columns()), (2, 3));
/// assert!(rows.column(1).is_null(1));
/// ```
///
/// # Panics
/// With the line, if a type is unknown, a cell does not have the type of its column, or a row has too many or too few
/// cells.
pub fn table(text: &str) -> RecordBatch {
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let header = lines.next().expect("a table has a header");
    let columns: Vec<(&str, ColumnType)> = header.split('|').map(str::trim).map(parse_column).collect();
    let rows: Vec<Vec<&str>> = lines.map(|l| l.split('|').map(str::trim).collect()).collect();
    if let Some(row) = rows.iter().find(|r| r.len() != columns.len()) {
        panic!("the row `{}` has {} cells, but the header has {}", row.join(" | "), row.len(), columns.len());
    }
    let array = |(i, (name, t)): (usize, &(&str, ColumnType))| -> ArrayRef {
        let cell = |r: &Vec<&str>| match r[i] {
            "null" => None,
            "\"\"" => Some(String::new()),
            text => Some(text.to_owned()),
        };
        let texts: ArrayRef = Arc::new(rows.iter().map(cell).collect::<StringArray>());
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&texts, t.arrow(), &options).unwrap_or_else(|e| panic!("column `{name}`: {e}"))
    };
    let arrays = columns.iter().enumerate().map(array).collect();
    let fields: Vec<_> = columns.iter().map(|(n, t)| Field::new(*n, t.arrow().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("the columns have the same length")
}

fn parse_column(text: &str) -> (&str, ColumnType) {
    let (name, t) = text.split_once(':').unwrap_or_else(|| panic!("`{text}` is not `name:type`"));
    (name.trim(), ColumnType::parse(t.trim()).unwrap_or_else(|e| panic!("{e}")))
}

/// Parses rows from JSON lines. The types follow from the values: integers are bigint, other numbers are double, and
/// nested values are lists and structs; everything else is text.
///
/// ```
/// use biscuit_testkit::{assert_rows_eq, json_rows, table};
///
/// let rows = json_rows(r#"{"id": 1, "name": "Ada"}
/// {"id": 2, "name": null}"#);
/// let expected = table("
///     id:bigint | name:string
///     1         | Ada
///     2         | null
/// ");
/// assert_rows_eq!(rows, expected);
/// ```
///
/// # Panics
/// With the line, if it is not JSON or a column changes its type.
pub fn json_rows(lines: &str) -> RecordBatch {
    let mut reader = RowsReader::new(RowsOptions::default());
    reader.read("rows.jsonl", lines.to_owned().into_bytes().into()).unwrap_or_else(|e| panic!("{e}"));
    let changes = reader.finish().unwrap_or_else(|e| panic!("{e}"));
    let batches: Vec<RecordBatch> = changes.batches.into_iter().map(|b| b.rows).collect();
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    concat_batches(&schema, &batches).expect("all batches of one file have the same schema")
}
