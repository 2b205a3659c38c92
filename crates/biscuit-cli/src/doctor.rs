use std::fmt::Write;

use biscuit_core::{Clock, Result, SystemClock};
use biscuit_journal::{Ability, JournalOptions, Shown, examine};
use biscuit_purge::Condition;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::args::TableArgs;
use crate::context::Context;
use crate::output::{Answer, code};
use crate::policies::policies;
use crate::stores::on_s3;

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Print the IAM policy that a command needs on this table: `merge`, `purge` and so on; `all` for every command
    #[arg(long, value_name = "COMMAND")]
    pub(crate) policy: Option<String>,
}

pub(crate) async fn run(args: &DoctorArgs, context: &Context) -> Result<Answer> {
    let dataset = context.open(&args.table, JournalOptions::default()).await?;
    let (root, state) = (dataset.journal().table().to_string(), dataset.journal().state_root().to_string());
    let policies = on_s3(&args.table.url).map(|(bucket, _)| policies(bucket, &root, &state)).unwrap_or_default();
    if let Some(command) = &args.policy {
        return policy(command, &policies);
    }
    let place = context.stores.place(&args.table.url).await?;
    let scratch = dataset.journal().state_root().clone().join("probe");
    let look = place.store.look(scratch.as_ref()).await;
    let mut rows: Vec<(String, Result<Option<String>, String>, &str)> = Vec::new();
    let (mut json, mut worst) = (Map::new(), 0);
    let folder = scratch.clone().join(format!("doctor-{}", std::process::id()));
    let shown = examine(dataset.location().storage(), &folder).await?;
    for (ability, shown) in shown {
        let finding = match shown {
            Shown::Yes => Ok(None),
            Shown::No(how) => Err(how),
            Shown::Failed(e) => {
                worst = worst.max(code(e.kind()));
                Err(format!("{}: {}", e.code(), e.message()))
            }
            _ => Err("not known".to_owned()),
        };
        rows.push((ability.to_string(), finding, ability.use_of_it()));
    }
    const DELETES: &str = "retiring and purging: without it an object that is replaced right before its delete is lost";
    match &look {
        Ok(look) => {
            let finding = match look.condition {
                Condition::InBatches => Ok(Some("in batches".to_owned())),
                Condition::OneByOne => Ok(Some("one by one".to_owned())),
                _ => Err("objects are looked at right before".to_owned()),
            };
            rows.push(("conditional delete".to_owned(), finding, DELETES));
            let apart = (look.now.as_micros() - SystemClock.now().as_micros()) as f64 / 1e6;
            json.insert("clock_difference_seconds".to_owned(), json!(apart));
            let finding = Ok(Some(format!("{apart:+.1} s to this host's")));
            rows.push(("the store's clock".to_owned(), finding, "ages in a purge; this host's clock is not asked"));
        }
        Err(e) => {
            worst = worst.max(code(e.kind()));
            rows.push(("conditional delete".to_owned(), Err(format!("{}: {}", e.code(), e.message())), DELETES));
        }
    }
    if place.s3.is_some() {
        let finding =
            place.store.uploads(&state).await.map(|_| None).map_err(|e| format!("{}: {}", e.code(), e.message()));
        rows.push(("list unfinished uploads".to_owned(), finding, "`purge --leftovers`"));
        let finding = place.store.list(&state, true).await;
        let kept = |n: usize| {
            Some(if n == 0 {
                "no old versions below the state root".to_owned()
            } else {
                format!("{n} old versions below the state root")
            })
        };
        let finding = match finding {
            Ok(all) => Ok(kept(all.iter().filter(|o| o.form != biscuit_purge::Form::Current).count())),
            Err(e) => Err(format!("{}: {}", e.code(), e.message())),
        };
        rows.push((
            "list versions".to_owned(),
            finding,
            "`purge --versions`; deleted bytes stay where versions are kept",
        ));
    }
    let mut text = format!("{:<24}  {:<4}  what rests on it\n", "what", "");
    let mut checks = Vec::new();
    for (what, finding, rests) in &rows {
        let yes = if finding.is_ok() { "yes" } else { "NO" };
        let how = match finding {
            Ok(how) => how.clone(),
            Err(how) => Some(how.clone()),
        };
        let _ = writeln!(text, "{what:<24}  {yes:<4}  {rests}");
        how.iter().for_each(|how| text.push_str(&format!("{:<32}({how})\n", "")));
        checks.push(json!({"what": what, "ok": finding.is_ok(), "how": how, "rests": rests}));
    }
    let safe = |name: Ability| rows.iter().any(|(what, finding, _)| *what == name.to_string() && finding.is_ok());
    let needed = [Ability::Write, Ability::List, Ability::Copy, Ability::Multipart].into_iter().all(safe);
    let outcome = match (needed, safe(Ability::PutIfAbsent)) {
        (true, true) => "this store is safe for many writers",
        (true, false) => "this store is safe for one writer only: --single-writer",
        (false, _) => "this store cannot be used, or not with these rights",
    };
    let _ = writeln!(text, "\n{outcome}");
    if !policies.is_empty() {
        text.push_str("`--policy COMMAND` prints the IAM policy that a command needs\n");
    }
    json.insert("outcome".to_owned(), json!(outcome));
    json.insert("checks".to_owned(), json!(checks));
    json.insert("policies".to_owned(), Value::Object(policies));
    let exit = if needed { 0 } else { worst.max(code(biscuit_core::ErrorKind::Denied)) };
    Ok(Answer::Report { json: Value::Object(json), text, exit })
}

fn policy(command: &str, policies: &Map<String, Value>) -> Result<Answer> {
    let wanted: Map<String, Value> = policies
        .iter()
        .filter(|(name, _)| command == "all" || *name == command)
        .map(|(n, p)| (n.clone(), p.clone()))
        .collect();
    if wanted.is_empty() {
        let names: Vec<&str> = policies.keys().map(String::as_str).collect();
        let message = match names.is_empty() {
            true => "policies are for tables on S3".to_owned(),
            false => format!("`{command}` is none of {}", names.join(", ")),
        };
        return Err(biscuit_core::Error::usage("InvalidArguments", message));
    }
    let json = match (command, wanted.values().next()) {
        (name, Some(policy)) if name != "all" => policy.clone(),
        _ => Value::Object(wanted),
    };
    let text = format!("{json:#}\n");
    Ok(Answer::Report { json: json!({ "policy": json }), text, exit: 0 })
}
