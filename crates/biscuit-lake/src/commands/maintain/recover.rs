//! `biscuit recover`: finishes or cleans up after runs that died.

use biscuit_core::Result;
use biscuit_maintain::{RecoveryFence, recover_table};
use serde_json::json;

use crate::args::table::RecoverArgs;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;

pub(crate) async fn run(args: &RecoverArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open_table(&args.table).await?;
    let fence = if args.fence { RecoveryFence::Commit } else { RecoveryFence::None };
    let recovery = recover_table(dataset.journal(), fence).await?;
    let done = &recovery.report;
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
    Ok(CommandOutput::Report { json: json!(recovery), text, exit: 0 })
}
