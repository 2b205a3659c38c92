use biscuit_core::Result;
use biscuit_journal::Record;
use serde_json::{Value, json};

use crate::args::TableArgs;
use crate::context::Context;
use crate::output::Answer;

pub(crate) async fn run(args: &TableArgs, context: &Context) -> Result<Answer> {
    let dataset = context.open_table(args).await?;
    let versions = dataset.journal().history().await?;
    let mut text = String::from("version  files              rows                                     state\n");
    let mut json = Vec::new();
    for (record, finished) in &versions {
        text.push_str(&line(record, *finished));
        json.push(json!({
            "version": record.version,
            "finished": finished,
            "commit_id": record.commit_id,
            "published": record.publish.iter().map(|f| &f.path).collect::<Vec<_>>(),
            "retired": record.retire.iter().map(|f| &f.path).collect::<Vec<_>>(),
            "adopted": record.adopt.iter().map(|f| &f.path).collect::<Vec<_>>(),
            "report": record.report,
        }));
    }
    if versions.is_empty() {
        text = "there is no version yet\n".to_owned();
    }
    Ok(Answer::Report { json: json!({ "versions": json }), text, exit: 0 })
}

fn line(record: &Record, finished: bool) -> String {
    let files = format!("+{} -{} ={}", record.publish.len(), record.retire.len(), record.adopt.len());
    let rows = &record.report["rows"];
    let n = |name: &str| rows[name].as_u64().unwrap_or(0);
    let rows = match rows {
        Value::Object(_) => format!("{} (+{} ~{} -{})", n("after"), n("inserted"), n("updated"), n("deleted")),
        _ => String::new(),
    };
    let state = if finished { "finished" } else { "unfinished: run `biscuit recover`" };
    format!("{:>7}  {files:<17}  {rows:<39}  {state}\n", record.version)
}
