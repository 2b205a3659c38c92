//! `biscuit show`: prints the rows of a table.

use std::sync::Arc;

use biscuit_core::{Result, printable};
use biscuit_dataset::internal::engine_error;
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_partition::PeriodTable;
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;

use crate::args::table::ShowTableArgs;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;

pub(crate) async fn run(args: &ShowTableArgs, context: &CommandContext) -> Result<CommandOutput> {
    let (dataset, version) = context.view_table(&args.table).await?;
    let place = format!("`{}`", args.table.url);
    let batches = dataset.read_on(version, |version| read_rows(args, &dataset, version, &place)).await?;
    // Writing as text fails for dates and times outside of the calendar.
    let shown = |e| engine_error(&place, e);
    let mut lines = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut lines);
    for batch in &batches {
        writer.write(batch).map_err(shown)?;
    }
    writer.finish().map_err(shown)?;
    drop(writer);
    let json_lines = String::from_utf8_lossy(&lines).into_owned();
    let cells = batches.iter().map(cells_as_text).collect::<Result<Vec<_>, _>>().map_err(shown)?;
    let text = format!("{}\n", pretty_format_batches(&cells).map_err(shown)?);
    Ok(CommandOutput::Rows { json_lines, text })
}

/// Returns the requested rows, all of one version.
async fn read_rows(
    args: &ShowTableArgs,
    dataset: &Dataset,
    version: TableVersion,
    place: &str,
) -> Result<Vec<RecordBatch>> {
    let unreadable = |e| engine_error(place, e);
    let mut frame = match &args.as_of {
        Some(at) => {
            let table = PeriodTable::open(dataset.clone()).await?;
            let at = table.layout().calendar.read(at)?;
            table.as_of(&SessionContext::new(), at).await?
        }
        None => version.load(&SessionContext::new()).await?,
    };
    for name in &args.columns {
        biscuit_schema::internal::column_index(frame.schema().as_arrow(), name, "the table")?;
    }
    if !args.columns.is_empty() {
        let columns: Vec<&str> = args.columns.iter().map(String::as_str).collect();
        frame = frame.select_columns(&columns).map_err(unreadable)?;
    }
    if args.limit.is_some() {
        frame = frame.limit(0, args.limit).map_err(unreadable)?;
    }
    frame.collect().await.map_err(unreadable)
}

/// Converts rows to text, each cell on one line and with control characters escaped.
fn cells_as_text(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = FormatOptions::default();
    let (mut fields, mut columns) = (vec![], vec![]);
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let cell = ArrayFormatter::try_new(column, &options)?;
        let texts = (0..column.len()).map(|row| printable(&cell.value(row).to_string()).into_owned());
        columns.push(Arc::new(texts.map(Some).collect::<StringArray>()) as ArrayRef);
        fields.push(Field::new(printable(field.name()), DataType::Utf8, true));
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
}
