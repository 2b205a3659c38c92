//! `biscuit quarantine`: lists, shows and retries quarantined records.

use std::sync::Arc;

use biscuit_apply::{QuarantinedRecord, quarantined_records};
use biscuit_core::Result;
use biscuit_maintain::report::QuarantineGroup;
use biscuit_maintain::{group_quarantined, reveal_quarantined};
use biscuit_pii::tokens::{AccessRequest, AuditFile};
use serde_json::{Value, json};

use crate::args::quarantine::{QuarantineCommand, QuarantineShowArgs};
use crate::args::table::TableArgs;
use crate::commands::pii::OpenPolicy;
use crate::commands::write::merge::retry_quarantined;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;

pub(crate) async fn run(command: &QuarantineCommand, context: &CommandContext) -> Result<CommandOutput> {
    match command {
        QuarantineCommand::List(args) => list(args, context).await,
        QuarantineCommand::Show(args) => show_quarantine(args, context).await,
        QuarantineCommand::Retry(args) => retry_quarantined(args, context).await,
    }
}

async fn list(args: &TableArgs, context: &CommandContext) -> Result<CommandOutput> {
    let records = quarantined_records(&context.open_table(args).await?).await?;
    let groups = group_quarantined(&records);
    let mut text = format!("{} records\n", records.len());
    for QuarantineGroup { code, column, file, records: n, .. } in &groups {
        let of = column.as_ref().map(|column| format!(" in column `{column}`")).unwrap_or_default();
        text.push_str(&format!("{n:>8}  {code}{of}  {file}\n"));
    }
    Ok(CommandOutput::Report { json: json!({"records": records.len(), "groups": groups}), text, exit: 0 })
}

async fn show_quarantine(args: &QuarantineShowArgs, context: &CommandContext) -> Result<CommandOutput> {
    let mut records = quarantined_records(&context.open_table(&args.table).await?).await?;
    if let Some(policy) = &args.policy {
        records = decrypt_records(records, policy, args, context).await?;
    }
    let chosen = records.iter().filter(|q| args.code.as_ref().is_none_or(|c| *c == q.refused.code));
    let (mut text, mut json_lines) = (String::new(), String::new());
    for q in chosen.take(args.limit.unwrap_or(usize::MAX)) {
        let r = &q.refused;
        text.push_str(&format!("version {}, {}: {}\n", q.version, r.code, r.message));
        match std::str::from_utf8(&r.raw) {
            Ok(raw) => raw.lines().for_each(|l| text.push_str(&format!("    {l}\n"))),
            Err(_) => text.push_str(&format!("    ({} bytes of Parquet)\n", r.raw.len())),
        }
        json_lines.push_str(&format!("{}\n", as_json(q)));
    }
    Ok(CommandOutput::Rows { json_lines, text })
}

/// Decrypts the records that a job has sealed.
async fn decrypt_records(
    records: Vec<QuarantinedRecord>,
    policy: &str,
    args: &QuarantineShowArgs,
    context: &CommandContext,
) -> Result<Vec<QuarantinedRecord>> {
    let policy = OpenPolicy::open(policy, &args.table.url, None, context).await?;
    let audit = AuditFile::new(args.audit.as_deref().unwrap_or_default());
    let access = AccessRequest::new(&args.requester.who, args.reason.as_deref().unwrap_or_default(), Arc::new(audit))?;
    reveal_quarantined(records, &policy.means, &policy.table, &access).await
}

fn as_json(q: &QuarantinedRecord) -> Value {
    let r = &q.refused;
    let raw = std::str::from_utf8(&r.raw).ok();
    json!({
        "version": q.version, "file": r.file, "row": r.row, "code": r.code, "column": r.column, "message": r.message,
        "raw": raw, "raw_bytes": r.raw.len(),
    })
}
