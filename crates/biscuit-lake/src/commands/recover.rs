//! `biscuit recover`: finishes or cleans up after runs that died.

use biscuit_core::Result;
use serde_json::json;

use crate::args::command::RecoverArgs;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;

pub(crate) async fn run(args: &RecoverArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open_table(&args.table).await?;
    let journal = dataset.journal();
    let done = if args.fence { journal.recover_with_fence().await? } else { journal.recover().await? };
    let mut text = match done.rolled_forward {
        Some(v) => format!("finished version {v}\n"),
        None => "no version was unfinished\n".to_owned(),
    };
    if let Some(v) = done.fence {
        text.push_str(&format!("fenced version {v}: no other run can commit it\n"));
    }
    if done.cleaned > 0 {
        text.push_str(&format!("deleted {} objects of dead runs\n", done.cleaned));
    }
    let outcome =
        if done.rolled_forward.is_some() || done.cleaned > 0 || args.fence { "recovered" } else { "unchanged" };
    let mut json = json!(done);
    json["outcome"] = json!(outcome);
    Ok(CommandOutput::Report { json, text, exit: 0 })
}
