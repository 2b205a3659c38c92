use biscuit_core::Result;
use biscuit_dataset::Dataset;
use biscuit_dataset::internal::engine_error;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{DataFrame, SessionContext};

/// Formats rows as a stable text table: columns with their types, and rows sorted by all cells.
///
/// ```
/// use biscuit_testkit::{rows_text, table};
///
/// let rows = table("
///     name:string | id:bigint
///     Bob         | 10
///     Ada         | 9
/// ");
/// assert_eq!(rows_text(&[rows]), "\
/// name:string | id:bigint
/// Ada         | 9
/// Bob         | 10");
/// ```
pub fn rows_text(batches: &[RecordBatch]) -> String {
    let Some(first) = batches.first() else { return "(no rows)".to_owned() };
    let schema = first.schema();
    let header: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| {
            format!(
                "{}:{}",
                f.name(),
                biscuit_schema::type_name(f.data_type()).unwrap_or_else(|| f.data_type().to_string())
            )
        })
        .collect();
    let mut rows: Vec<Vec<String>> = batches.iter().flat_map(cells).collect();
    rows.sort_by_key(|r| natural_sort_key(r));
    let all = std::iter::once(&header).chain(&rows);
    let width = |i: usize| all.clone().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |r: &Vec<String>| {
        let padded: Vec<String> = r.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        padded.join(" | ").trim_end().to_owned()
    };
    all.clone().map(line).collect::<Vec<_>>().join("\n")
}

/// Sort key of a row: integers are compared as numbers.
fn natural_sort_key(row: &[String]) -> Vec<(Option<i128>, String)> {
    row.iter().map(|c| (c.parse().ok(), c.clone())).collect()
}

/// Returns the cells of each row as text.
pub(crate) fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let columns: Vec<Vec<String>> = batch.columns().iter().map(column_cells).collect();
    (0..batch.num_rows()).map(|r| columns.iter().map(|c| c[r].clone()).collect()).collect()
}

fn column_cells(array: &ArrayRef) -> Vec<String> {
    let texts: Vec<String> = match array.data_type() {
        // Debug output of floats distinguishes -0.0 from 0.0 and is the shortest text that parses to the same value.
        DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().map(|f| format!("{f:?}")).collect(),
        DataType::Float32 => array.as_primitive::<Float32Type>().values().iter().map(|f| format!("{f:?}")).collect(),
        _ => {
            let options = FormatOptions::default().with_null("null");
            let f = ArrayFormatter::try_new(array, &options).expect("all types of a table can be formatted");
            (0..array.len()).map(|r| f.value(r).try_to_string().unwrap_or_else(|_| raw_value(array, r))).collect()
        }
    };
    let text = matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let shown = |(r, t): (usize, String)| match array.is_null(r) {
        true => "null".to_owned(),
        // Quote a text that could be taken for a null, an empty cell or the end of a cell.
        false if text && (t.is_empty() || t == "null" || t.contains(['|', '\n', '\r', '"'])) => format!("{t:?}"),
        false => t,
    };
    texts.into_iter().enumerate().map(shown).collect()
}

/// Shows a value without a calendar form, such as PostgreSQL's infinity, as its number.
fn raw_value(array: &ArrayRef, row: usize) -> String {
    let number = datafusion::arrow::compute::cast(array, &DataType::Int64);
    number
        .map_or("?".to_owned(), |n| n.as_primitive::<datafusion::arrow::datatypes::Int64Type>().value(row).to_string())
}

/// Formats the rows of a DataFrame like [`rows_text`].
///
/// # Errors
/// `UnreadableRows` if the DataFrame cannot be computed.
pub async fn frame_text(frame: DataFrame) -> Result<String> {
    Ok(rows_text(&collect_frame(frame).await?))
}

async fn collect_frame(frame: DataFrame) -> Result<Vec<RecordBatch>> {
    frame.collect().await.map_err(|e| engine_error("the rows", e))
}

/// Formats the current rows of a dataset like [`rows_text`].
///
/// # Errors
/// The errors of loading the dataset.
pub async fn dataset_text(dataset: &Dataset) -> Result<String> {
    frame_text(dataset.view().await?.load(&SessionContext::new()).await?).await
}
