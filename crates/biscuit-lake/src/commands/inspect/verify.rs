//! `biscuit verify`: checks the keys and files of a table.

use biscuit_core::Result;
use biscuit_maintain::verify_table;
use serde_json::json;

use crate::args::table::VerifyArgs;
use crate::environment::context::CommandContext;
use crate::render::output::{BAD_DATA, CommandOutput};

pub(crate) async fn run(args: &VerifyArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open_table(&args.table).await?;
    let verification = verify_table(&dataset, &args.key).await?;
    let (found, sound) = (&verification.report, verification.is_sound());
    let mut text =
        format!("{}: {} rows in {} files\n", if sound { "sound" } else { "NOT SOUND" }, found.rows, found.files);
    if !found.keys_checked {
        text.push_str("  keys are not checked: the table has no recorded key; name the key columns with --key\n");
    }
    if found.duplicate_keys > 0 {
        text.push_str(&format!("  {} keys occur more than once\n", found.duplicate_keys));
    }
    let lists = [
        ("diverged", &found.diverged),
        ("unreadable", &found.unreadable),
        ("layout", &found.layout),
        ("values", &found.values),
        ("external", &found.external),
        ("orphan files", &found.orphan_files),
    ];
    for (what, names) in lists {
        names.iter().for_each(|n| text.push_str(&format!("  {what}: {n}\n")));
    }
    Ok(CommandOutput::Report { json: json!(verification), text, exit: if sound { 0 } else { BAD_DATA } })
}
