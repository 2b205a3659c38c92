use biscuit_core::{Error, Result};
use biscuit_dataset::engine_error;
use biscuit_journal::JournalOptions;
use biscuit_partition::Snapshots;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;

use crate::args::ShowArgs;
use crate::context::Context;
use crate::output::Answer;

pub(crate) async fn run(args: &ShowArgs, context: &Context) -> Result<Answer> {
    let dataset = context.open(&args.table, JournalOptions::default()).await?;
    let unreadable = |e| match engine_error(&args.table.url, e) {
        // It may quote values.
        e if e.code() == "UnreadableRows" => Error::data("UnreadableRows", "the rows cannot be read").with_source(e),
        e => e,
    };
    let snapshot = dataset.view().await?;
    if snapshot.files().is_empty() && snapshot.observed.head.version == 0 {
        return Err(Error::usage("NotFound", format!("there is no table at `{}`", args.table.url)));
    }
    let mut frame = match &args.as_of {
        Some(at) => {
            let table = Snapshots::open(dataset).await?;
            let at = table.layout().calendar.read(at)?;
            table.as_of(&SessionContext::new(), at).await?
        }
        None => dataset.load(&SessionContext::new()).await?,
    };
    for name in &args.columns {
        biscuit_schema::column_index(frame.schema().as_arrow(), name, "the table")?;
    }
    if !args.columns.is_empty() {
        let columns: Vec<&str> = args.columns.iter().map(String::as_str).collect();
        frame = frame.select_columns(&columns).map_err(unreadable)?;
    }
    if args.limit.is_some() {
        frame = frame.limit(0, args.limit).map_err(unreadable)?;
    }
    let batches = frame.collect().await.map_err(unreadable)?;
    let shown = |e| Error::internal("rows could not be shown").with_source(e);
    let mut lines = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut lines);
    for batch in &batches {
        writer.write(batch).map_err(shown)?;
    }
    writer.finish().map_err(shown)?;
    drop(writer);
    let json_lines = String::from_utf8_lossy(&lines).into_owned();
    let text = format!("{}\n", pretty_format_batches(&batches).map_err(shown)?);
    Ok(Answer::Rows { json_lines, text })
}
