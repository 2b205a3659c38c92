//! `biscuit doctor`: tests what a store can do, and prints the IAM policies of commands.
//!
//! The tests use objects in `probe` below the state root, and delete them.

use std::collections::BTreeSet;
use std::fmt::Write;

use biscuit_core::{Clock, Error, ErrorKind, Result, SystemClock};
use biscuit_journal::{JournalOptions, ProbeResult, StoreCapability, probe_store};
use biscuit_purge::{DeleteCondition, VersionKind};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::args::command::TableArgs;
use crate::environment::context::CommandContext;
use crate::environment::iam_policies::policies;
use crate::environment::stores::{DeletePlace, on_s3};
use crate::render::output::{CommandOutput, code};

/// Options of `biscuit doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Print the IAM policy that this command needs for the table, such as `merge` or `purge`; `all` for every
    /// command
    #[arg(long, value_name = "COMMAND")]
    pub(crate) policy: Option<String>,
}

/// Result of one test of the store.
struct TrialResult {
    what: String,
    ok: bool,
    /// Details, or the error.
    how: Option<String>,
    /// Features that depend on this capability.
    rests: &'static str,
}

impl TrialResult {
    fn new(what: &str, ok: bool, how: Option<String>, rests: &'static str) -> Self {
        Self { what: what.to_owned(), ok, how, rests }
    }

    fn failed(what: &str, e: &Error, rests: &'static str) -> Self {
        Self::new(what, false, Some(format!("{}: {}", e.code(), e.message())), rests)
    }
}

const DELETES: &str =
    "removing files and purging: without it an object that is replaced right before its delete is lost";
const UPLOADS: &str = "`purge --orphans`";
const VERSIONS: &str = "`purge --versions`; in a bucket with versioning deleted objects still take space";

pub(crate) async fn run(args: &DoctorArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open(&args.table, JournalOptions::default()).await?;
    let (root, state) = (dataset.journal().table().to_string(), dataset.journal().state_root().to_string());
    let policies = on_s3(&args.table.url).map(|(bucket, _)| policies(bucket, &root, &state)).unwrap_or_default();
    if let Some(command) = &args.policy {
        return policy(command, &policies);
    }
    let place = context.stores.place(&args.table.url).await?;
    let scratch = dataset.journal().state_root().clone().join("probe");
    // Each process has its own folder: two doctors at the same time do not disturb each other.
    let folder = scratch.clone().join(format!("doctor-{}", std::process::id()));
    let (mut checks, mut worst) = (Vec::new(), 0);
    let mut can = BTreeSet::new();
    for (ability, shown) in probe_store(dataset.location().storage(), &folder).await? {
        let (what, rests) = (ability.to_string(), ability.use_of_it());
        checks.push(match shown {
            ProbeResult::Yes => TrialResult::new(&what, true, None, rests),
            ProbeResult::No(how) => TrialResult::new(&what, false, Some(how), rests),
            ProbeResult::Failed(e) => {
                worst = worst.max(code(e.kind()));
                TrialResult::failed(&what, &e, rests)
            }
            _ => TrialResult::new(&what, false, None, rests),
        });
        if checks.last().is_some_and(|c| c.ok) {
            can.insert(what);
        }
    }
    let apart = look(&place, scratch.as_ref(), &mut checks, &mut worst).await;
    if place.s3.is_some() {
        checks.extend(lists(&place, &state).await);
    }
    let has = |ability: StoreCapability| can.contains(&ability.to_string());
    let needed = [StoreCapability::Write, StoreCapability::List, StoreCapability::Copy, StoreCapability::Multipart]
        .into_iter()
        .all(has);
    let outcome = match (needed, has(StoreCapability::PutIfAbsent)) {
        (true, true) => "this store is safe for many writers",
        (true, false) => "this store is safe for a single writer only; merge with --single-writer",
        (false, _) => "this store cannot be used, or the permissions do not suffice",
    };
    let mut text = text_of(&checks);
    let _ = writeln!(text, "\n{outcome}");
    if !policies.is_empty() {
        text.push_str("use `--policy COMMAND` to print the IAM policy of a command\n");
    }
    let checks: Vec<Value> =
        checks.iter().map(|c| json!({"check": c.what, "ok": c.ok, "details": c.how, "needed_for": c.rests})).collect();
    let json = json!({
        "outcome": outcome, "checks": checks, "clock_difference_seconds": apart, "policies": Value::Object(policies),
    });
    let exit = if needed { 0 } else { worst.max(code(ErrorKind::Denied)) };
    Ok(CommandOutput::Report { json, text, exit })
}

/// Tests conditional deletes and the clock. Returns by how many seconds the store's clock is ahead of this host.
async fn look(place: &DeletePlace, scratch: &str, checks: &mut Vec<TrialResult>, worst: &mut u8) -> Option<f64> {
    let look = match place.store.look(scratch).await {
        Ok(look) => look,
        Err(e) => {
            *worst = code(e.kind()).max(*worst);
            checks.push(TrialResult::failed("conditional delete", &e, DELETES));
            return None;
        }
    };
    let how = match look.condition {
        DeleteCondition::InBatches => "in batches",
        DeleteCondition::OneByOne => "one by one",
        _ => "each object is compared right before its delete",
    };
    let conditional = look.condition != DeleteCondition::LookedAt;
    checks.push(TrialResult::new("conditional delete", conditional, Some(how.to_owned()), DELETES));
    let seconds = (look.now.as_micros() - SystemClock.now().as_micros()) as f64 / 1e6;
    let how = Some(format!("{seconds:+.1} s relative to this host"));
    checks.push(TrialResult::new(
        "the store's clock",
        true,
        how,
        "ages in a purge, which ignore the clock of this host",
    ));
    Some(seconds)
}

/// Tests the listings that only S3 has: unfinished uploads and versions.
async fn lists(place: &DeletePlace, state: &str) -> [TrialResult; 2] {
    let what = "list unfinished uploads";
    let uploads = match place.store.uploads(state).await {
        Ok(_) => TrialResult::new(what, true, None, UPLOADS),
        Err(e) => TrialResult::failed(what, &e, UPLOADS),
    };
    let what = "list versions";
    let versions = match place.store.list(state, true).await {
        Ok(all) => {
            let old = all.iter().filter(|o| o.form != VersionKind::Current).count();
            TrialResult::new(what, true, Some(format!("{old} noncurrent versions below the state root")), VERSIONS)
        }
        Err(e) => TrialResult::failed(what, &e, VERSIONS),
    };
    [uploads, versions]
}

/// Renders the results as a table of text.
fn text_of(checks: &[TrialResult]) -> String {
    let mut text = format!("{:<24}  {:<4}  required for\n", "capability", "");
    for check in checks {
        let _ = writeln!(text, "{:<24}  {:<4}  {}", check.what, if check.ok { "yes" } else { "NO" }, check.rests);
        check.how.iter().for_each(|how| text.push_str(&format!("{:<32}({how})\n", "")));
    }
    text
}

/// Returns the IAM policy of a command, or of all commands.
fn policy(command: &str, policies: &Map<String, Value>) -> Result<CommandOutput> {
    let wanted: Map<String, Value> = policies
        .iter()
        .filter(|(name, _)| command == "all" || *name == command)
        .map(|(n, p)| (n.clone(), p.clone()))
        .collect();
    if wanted.is_empty() {
        let names: Vec<&str> = policies.keys().map(String::as_str).collect();
        let message = match names.is_empty() {
            true => "IAM policies need a table on S3".to_owned(),
            false => format!("unknown command `{command}`; use one of {}", names.join(", ")),
        };
        return Err(Error::usage("InvalidArguments", message));
    }
    let json = match (command, wanted.values().next()) {
        (name, Some(policy)) if name != "all" => policy.clone(),
        _ => Value::Object(wanted),
    };
    let text = format!("{json:#}\n");
    Ok(CommandOutput::Report { json: json!({ "policy": json }), text, exit: 0 })
}
