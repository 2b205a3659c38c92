use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use biscuit_core::{Error, ErrorKind, Instant, Result};
use biscuit_dataset::{Dataset, OpenLocation};
use biscuit_journal::{JournalOptions, store_error};
use biscuit_purge::{
    Allow, Answer as Fate, Condition, Done, Item, Keep, Listed, Listing, Pace, Plan, Rules, Table, Upload, carry_out,
    is_below, manifest_line,
};
use clap::{Args, ValueEnum};
use object_store::buffered::BufWriter;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::args::{TableArgs, duration};
use crate::context::Context;
use crate::output::{AGAIN, Answer, code};
use crate::protect;
use crate::stores::Place;

/// Objects that a dry run prints; the manifest has all of them.
const SHOWN: usize = 40;
/// Objects that it names in JSON.
const NAMED: usize = 10_000;
/// What dead runs of others left is as old as this at least, if nothing else is said.
const LEFT_FOR: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Objects that were modified longer ago than this, on the store's clock: 2h, 30d
    #[arg(long, group = "what", value_parser = duration, value_name = "DURATION")]
    pub(crate) older_than: Option<Duration>,

    /// Objects that were modified before this instant, on the store's clock
    #[arg(long, group = "what", value_name = "INSTANT")]
    pub(crate) before: Option<Instant>,

    /// Files that merges have replaced and kept for readers (`--retire-after`), when their time is over
    #[arg(long, group = "what")]
    pub(crate) superseded: bool,

    /// What dead runs left: staging and files that are no part of the table, Spark's temporary folders, unfinished uploads
    #[arg(long, group = "what")]
    pub(crate) leftovers: bool,

    /// Exactly what a dry run by age has written with `--manifest`, each object only if it is unchanged
    #[arg(long, group = "what", value_name = "PATH_OR_URL")]
    pub(crate) plan: Option<String>,

    /// Keep everything for so much longer [default: 0s]; with --leftovers the least age of what others left [default: 1d]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) grace: Option<Duration>,

    /// Keep objects of these storage classes: GLACIER,DEEP_ARCHIVE
    #[arg(long, value_delimiter = ',', value_name = "CLASSES")]
    pub(crate) exclude_storage_class: Vec<String>,

    /// In a bucket that keeps versions: delete old versions and delete markers too, for good, instead of marking objects
    #[arg(long)]
    pub(crate) versions: bool,

    /// With --leftovers: delete these marks as well
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MARKS")]
    pub(crate) also: Vec<Mark>,

    /// Do what is refused otherwise
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORDS")]
    pub(crate) allow: Vec<Word>,

    /// Write what becomes of every object to this path or URL, as lines of JSON
    #[arg(long, value_name = "PATH_OR_URL")]
    pub(crate) manifest: Option<String>,

    /// Print the plan, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Marks that some tools leave and others rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mark {
    /// `_SUCCESS`
    Success,
    /// `*_$folder$`
    Folders,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Word {
    /// Plan for a whole bucket
    BucketRoot,
    /// Plan for a folder around or inside a table; its files and its state stay
    Overlap,
    /// Leave nothing of what is there
    Empty,
    /// Delete keys that other programs may take for one another
    Lookalikes,
}

impl PurgeArgs {
    fn allowed(&self) -> Allow {
        let mut allow = Allow::default();
        allow.bucket_root = self.allow.contains(&Word::BucketRoot);
        allow.overlap = self.allow.contains(&Word::Overlap);
        allow.empty = self.allow.contains(&Word::Empty);
        allow.lookalikes = self.allow.contains(&Word::Lookalikes);
        allow
    }
}

pub(crate) async fn run(args: &PurgeArgs, context: &Context) -> Result<Answer> {
    if !args.also.is_empty() && !args.leftovers {
        return Err(Error::usage("InvalidArguments", "--also goes with --leftovers"));
    }
    let by_time = args.older_than.is_some() || args.before.is_some();
    if (args.versions || !args.exclude_storage_class.is_empty()) && !by_time {
        let message = "--versions and --exclude-storage-class go with --older-than or --before";
        return Err(Error::usage("InvalidArguments", message));
    }
    let place = context.stores.place(&args.table.url).await?;
    if place.is_missing() {
        return Err(Error::usage("NothingThere", format!("there is nothing at `{}`", args.table.url)));
    }
    let named = TableArgs { url: place.url(&place.prefix), state: args.table.state.clone() };
    let args = &PurgeArgs { table: named, ..args.clone() };
    if args.superseded {
        return superseded(args, &place, context).await;
    }
    let (plans, condition) = if args.leftovers {
        leftovers(args, &place, context).await?
    } else if let Some(file) = &args.plan {
        stored(args, file, &place, context).await?
    } else {
        timed(args, &place, context).await?
    };
    let caveat = condition.caveat();
    if args.dry_run {
        return planned(args, &place, &plans, caveat, context).await;
    }
    carried_out(args, &place, &plans, caveat, context).await
}

/// Where a marker is written: in the table's state, or beside the folder on a disk, where no folder is to be left behind.
fn scratch(place: &Place, dataset: Option<&Dataset>) -> String {
    match (dataset, place.prefix.rsplit_once('/'), &place.s3) {
        (Some(dataset), ..) => format!("{}/probe", dataset.journal().state_root()),
        (None, Some((parent, name)), Some(_)) => format!("{parent}/.biscuit/{name}/probe"),
        (None, None, Some(_)) => format!(".biscuit/{}/probe", place.prefix),
        (None, Some((parent, _)), None) => parent.to_owned(),
        (None, None, None) => String::new(),
    }
}

async fn open(args: &PurgeArgs, context: &Context) -> Result<Dataset> {
    context.open(&args.table, JournalOptions::default()).await
}

/// The table, if the folder is one.
async fn table(args: &PurgeArgs, place: &Place, context: &Context) -> Result<Option<Dataset>> {
    if place.prefix.is_empty() {
        return Ok(None);
    }
    let dataset = open(args, context).await?;
    Ok((dataset.journal().head().await?.version > 0).then_some(dataset))
}

async fn timed(args: &PurgeArgs, place: &Place, context: &Context) -> Result<(Vec<Plan>, Condition)> {
    let allow = args.allowed();
    if place.prefix.is_empty() && !allow.bucket_root {
        // Before anything is written or listed.
        Rules::older_than("", Instant::from_micros(0), Instant::from_micros(0)).plan(Listing::default())?;
    }
    let own = table(args, place, context).await?;
    let look = place.store.look(&scratch(place, own.as_ref())).await?;
    let listing = place.store.list(&place.prefix, args.versions).await?;
    // Behind the listing: a file is published only when its version is committed, so that whatever the listing shows of a table is
    // in what its journal says by now.
    let mut tables = protect::around(place, context).await?;
    if let Some(own) = &own {
        // Its state may be elsewhere, as the command says.
        tables.retain(|t| t.root != place.prefix);
        tables.extend(protect::table(own).await?);
    }
    for table in protect::within(&listing, place, context).await? {
        if !tables.iter().any(|t| t.state == table.state) {
            tables.push(table);
        }
    }
    let cutoff = match (args.before, args.older_than) {
        (Some(before), _) => before,
        (None, age) => look.now.saturating_sub(age.unwrap_or_default()),
    };
    let mut rules = Rules::older_than(&place.prefix, cutoff, look.now).allowing(allow);
    rules = rules.with_grace(args.grace.unwrap_or_default());
    for class in &args.exclude_storage_class {
        rules = rules.excluding_storage_class(class);
    }
    for table in tables {
        rules = rules.protecting(table);
    }
    Ok((vec![rules.plan(listing)?], look.condition))
}

/// A plan that a dry run has written: nothing of it may have become a part of a table since, or belong to one's state.
async fn stored(args: &PurgeArgs, file: &str, place: &Place, context: &Context) -> Result<(Vec<Plan>, Condition)> {
    let location = context.stores.open(file).await?;
    let read = async { location.storage().store.get(location.path()).await?.bytes().await };
    let bytes = read.await.map_err(|e| store_error("read", file, e))?;
    let text = String::from_utf8(bytes.to_vec())
        .map_err(|e| Error::usage("UnreadablePlan", format!("`{file}` is not text")).with_source(e))?;
    let plan = Plan::from_json_lines(&place.prefix, file, &text)?;
    let own = table(args, place, context).await?;
    let look = place.store.look(&scratch(place, own.as_ref())).await?;
    let mut tables = protect::around(place, context).await?;
    // The plan itself does not show the tables that came since; nor does a listing show what only the plan names.
    tables.extend(protect::within(&place.store.list(&place.prefix, false).await?, place, context).await?);
    tables.extend(protect::within(&plan.deletes().collect(), place, context).await?);
    for object in plan.deletes() {
        let of = |t: &&Table| t.files.contains(&object.key) || (!t.state.is_empty() && is_below(&object.key, &t.state));
        if let Some(table) = tables.iter().find(of) {
            let whose = if table.root.is_empty() { &table.state } else { &table.root };
            let message = format!(
                "`{}` belongs to the table `{whose}`; nothing was deleted. What a table has no more use for goes with `--superseded` and `--leftovers`",
                object.key
            );
            return Err(Error::usage("LiveFiles", message));
        }
    }
    Ok((vec![plan], look.condition))
}

/// What nobody has a use for any more: of Biscuit by the journal's rule, of others by their names and their age.
async fn leftovers(args: &PurgeArgs, place: &Place, context: &Context) -> Result<(Vec<Plan>, Condition)> {
    let own = table(args, place, context).await?;
    let look = place.store.look(&scratch(place, own.as_ref())).await?;
    let cutoff = look.now.saturating_sub(args.grace.unwrap_or(LEFT_FOR));
    let old = |at: Option<Instant>| at.is_some_and(|at| at < cutoff);
    let mut files = Vec::new();
    for object in &place.store.list(&place.prefix, false).await? {
        let relative = object.key.strip_prefix(&format!("{}/", place.prefix)).unwrap_or(&object.key);
        if is_leaving(relative, &args.also) {
            files.push((old(object.modified), object));
        }
    }
    let mut of_state = Vec::new();
    if let Some(own) = &own {
        let journal = own.journal();
        if !args.dry_run {
            journal.finished_head().await?;
        }
        let found = journal.leftovers().await?;
        let ghost = |path: &str| format!("{}/{path}", journal.table());
        files.extend(found.ghosts.into_iter().map(|g| (true, Listed::new(ghost(&g.path), g.size, g.etag))));
        of_state.extend(found.dead.into_iter().map(Listed::from));
    }
    let young: BTreeSet<String> = files.iter().filter(|(old, _)| !old).map(|(_, o)| o.key.clone()).collect();
    let listing: Listing = files.into_iter().map(|(_, object)| object).collect();
    let plan = Plan::keeping(&place.prefix, listing, |o| young.contains(&o.key).then_some(Keep::Newer))?;
    let uploads = async |prefix: &str| -> Result<Vec<Upload>> {
        let found = place.store.uploads(prefix).await?.unwrap_or_default();
        Ok(found.into_iter().filter(|u| old(u.begun)).collect())
    };
    let mut plans = vec![plan.with_uploads(uploads(&place.prefix).await?)?];
    if let Some(own) = &own {
        let state = own.journal().state_root();
        plans.push(Plan::exact(state, of_state)?.with_uploads(uploads(state.as_ref()).await?)?);
    }
    Ok((plans, look.condition))
}

/// Whether Spark or Hadoop has left this and has no use for it any more, by its path below the table.
fn is_leaving(relative: &str, also: &[Mark]) -> bool {
    let temporary = |s: &str| s == "_temporary" || s.starts_with(".spark-staging") || s.starts_with(".hive-staging");
    let name = relative.rsplit('/').next().unwrap_or(relative);
    relative.split('/').any(temporary)
        || (also.contains(&Mark::Success) && name == "_SUCCESS")
        || (also.contains(&Mark::Folders) && name.ends_with("_$folder$"))
}

/// Files that were replaced and stayed: they go by a version of the table, so that it knows.
async fn superseded(args: &PurgeArgs, place: &Place, context: &Context) -> Result<Answer> {
    let Some(dataset) = table(args, place, context).await? else {
        let message = format!("`{}` is no table with a journal: nothing in it is superseded", args.table.url);
        return Err(Error::usage("NoJournal", message));
    };
    let journal = dataset.journal();
    if !args.dry_run {
        journal.finished_head().await?;
    }
    let look = place.store.look(&scratch(place, Some(&dataset))).await?;
    let found = journal.superseded().await?;
    let grace = args.grace.unwrap_or_default();
    // Stores cut times to whole seconds.
    let over =
        |since: Instant, stays: Duration| since.saturating_add(stays + grace + Duration::from_secs(1)) <= look.now;
    let key = |path: &str| format!("{}/{path}", journal.table());
    let young: BTreeSet<String> =
        found.files.iter().filter(|(_, since, stays)| !over(*since, *stays)).map(|(f, ..)| key(&f.path)).collect();
    let listing = found.files.iter().map(|(f, since, _)| {
        let mut object = Listed::new(key(&f.path), f.size, f.etag.clone());
        object.modified = Some(*since);
        object
    });
    let plan = Plan::keeping(journal.table(), listing.collect(), |o| young.contains(&o.key).then_some(Keep::Held))?;
    // The journal looks at each file before it deletes it.
    let caveat = Condition::LookedAt.caveat();
    if args.dry_run || plan.is_empty() {
        return planned(args, place, &[plan], caveat, context).await;
    }
    let files: Vec<_> =
        found.files.iter().map(|(f, ..)| f).filter(|f| !young.contains(&key(&f.path))).cloned().collect();
    let mut manifest = Manifest::open(args, place, context).await?;
    let committed = journal.release(&found.observed, &files).await?;
    let mut done = Done { requests: files.len() as u64, ..Done::default() };
    for object in plan.deletes() {
        let changed = committed.exceptions.iter().any(|e| key(&e.path) == object.key);
        let was_there = found.observed.held.iter().any(|f| key(&f.path) == object.key);
        let fate = match (changed, was_there) {
            (true, _) => Fate::Kept(biscuit_purge::Kept::Changed),
            (false, true) => Fate::Deleted,
            (false, false) => Fate::Absent,
        };
        done.count(&fate, object.size);
        manifest.line(manifest_line(Item::Object(&object), &fate));
    }
    let mut failed = Failed::default();
    failed.note(manifest.close().await);
    Ok(purged(&[plan], &done, &failed, caveat, false))
}

/// The answer of a dry run.
async fn planned(
    args: &PurgeArgs,
    place: &Place,
    plans: &[Plan],
    caveat: Option<&str>,
    context: &Context,
) -> Result<Answer> {
    let mut manifest = Manifest::open(args, place, context).await?;
    let nothing = plans.iter().all(Plan::is_empty);
    let (mut text, mut shown, mut more) = (String::new(), 0, 0_u64);
    let (mut delete, mut abort) = (Vec::new(), Vec::new());
    for plan in plans {
        for object in plan.deletes() {
            if shown < SHOWN {
                text.push_str(&row(&object));
                shown += 1;
            } else {
                more += 1;
            }
        }
        for upload in plan.uploads() {
            let begun = upload.begun.map(|t| t.to_string()).unwrap_or_default();
            let _ = writeln!(text, "{begun:<20}  {:>14}  {:<12}  {}", "", "upload", upload.key);
        }
        for line in plan.json_lines() {
            let value: Value = serde_json::from_str(&line).expect("it was written as JSON");
            match value["action"].as_str() {
                Some("delete") if delete.len() < NAMED => delete.push(value),
                Some("abort") => abort.push(value),
                _ => {}
            }
            manifest.line(line);
        }
    }
    manifest.close().await?;
    if more > 0 {
        let _ = writeln!(text, "… and {more} more; --manifest writes all of them");
    }
    let summary = sum(plans);
    if !nothing {
        let title = format!("{:<20}  {:>14}  {:<12}  {}\n", "modified", "bytes", "class", "key");
        text.insert_str(0, &title);
        text.push('\n');
    }
    let outcome = if nothing { "unchanged" } else { "planned" };
    let _ = writeln!(text, "{outcome}: {}", of(&summary, if args.dry_run { "would be deleted" } else { "to delete" }));
    text.push_str(&kept_text(&summary));
    let json = json!({
        "outcome": outcome, "plan": summary, "delete": delete, "abort": abort, "caveats": caveat.into_iter().collect::<Vec<_>>(),
    });
    Ok(Answer::Report { json, text, exit: 0 })
}

async fn carried_out(
    args: &PurgeArgs,
    place: &Place,
    plans: &[Plan],
    caveat: Option<&str>,
    context: &Context,
) -> Result<Answer> {
    let mut manifest = Manifest::open(args, place, context).await?;
    let (mut all, mut failed) = (Done::default(), Failed::default());
    for plan in plans {
        let mut each = |item: Item<'_>, fate: &Fate| {
            if let Fate::Failed(failure) = fate {
                failed.exit = failed.exit.max(code(failure.error.kind()));
                if failed.first.len() < 5 {
                    failed.first.push(failure.error.message().to_owned());
                }
            }
            manifest.line(manifest_line(item, fate));
        };
        all.add(carry_out(&*place.store, plan, &Pace::default(), &mut each).await);
        for line in plan.json_lines().filter(|line| line.contains("\"action\":\"keep\"")) {
            manifest.line(line);
        }
    }
    failed.note(manifest.close().await);
    if args.leftovers {
        failed.note(recover(args, place, context).await);
    }
    let by_time = args.older_than.is_some() || args.before.is_some();
    Ok(purged(plans, &all, &failed, caveat, by_time))
}

/// Deletes folders and half-written files of dead runs on a disk, which no listing shows.
async fn recover(args: &PurgeArgs, place: &Place, context: &Context) -> Result<()> {
    match table(args, place, context).await? {
        Some(dataset) => dataset.journal().recover().await.map(drop),
        None => Ok(()),
    }
}

/// What could not be deleted.
#[derive(Debug, Default)]
struct Failed {
    /// What the worst of it comes to.
    exit: u8,
    /// The first messages.
    first: Vec<String>,
    /// What went wrong beside the deletes.
    beside: Vec<String>,
}

impl Failed {
    /// Takes down what went wrong behind the deletes: their report is not to be lost for it.
    fn note(&mut self, result: Result<()>) {
        if let Err(e) = result {
            self.exit = self.exit.max(code(e.kind()));
            self.beside.push(format!("{}: {}", e.code(), e.message()));
        }
    }
}

/// The report of a run; `whole` says whether its plans are made of everything that is in the folder.
fn purged(plans: &[Plan], done: &Done, failed: &Failed, caveat: Option<&str>, whole: bool) -> Answer {
    let summary = sum(plans);
    let nothing = plans.iter().all(Plan::is_empty);
    let outcome = match (nothing, done.is_complete()) {
        (true, _) => "unchanged",
        (false, true) => "purged",
        (false, false) => "purged with exceptions",
    };
    let mut text = format!("{outcome}: {} objects deleted, {} bytes", done.deleted, done.bytes);
    for (n, what) in [(done.absent, "were gone already"), (done.aborted, "unfinished uploads aborted")] {
        if n > 0 {
            let _ = write!(text, ", {n} {what}");
        }
    }
    text.push('\n');
    done.kept.iter().for_each(|(why, n)| text.push_str(&format!("  exception  {n} {why}, and kept\n")));
    done.failed.iter().for_each(|(code, n)| text.push_str(&format!("  exception  {n} not deleted: {code}\n")));
    failed.first.iter().for_each(|message| text.push_str(&format!("    {message}\n")));
    failed.beside.iter().for_each(|message| text.push_str(&format!("  exception  {message}\n")));
    text.push_str(&kept_text(&summary));
    let emptied: Vec<String> = match whole && done.is_complete() {
        true => plans.first().map(Plan::emptied_folders).unwrap_or_default().into_iter().collect(),
        false => vec![],
    };
    let json = json!({
        "outcome": outcome, "plan": summary, "deleted": done.deleted, "bytes": done.bytes, "absent": done.absent,
        "aborted": done.aborted, "kept": done.kept, "failed": done.failed, "delete_requests": done.requests,
        "emptied_folders": emptied, "exceptions": failed.beside, "caveats": caveat.into_iter().collect::<Vec<_>>(),
    });
    let exit = if done.is_complete() { failed.exit } else { failed.exit.max(AGAIN) };
    Answer::Report { json, text, exit }
}

/// The plans in numbers, together.
fn sum(plans: &[Plan]) -> Value {
    let (mut objects, mut bytes, mut uploads) = (0, 0, 0);
    let mut kept = std::collections::BTreeMap::<&str, u64>::new();
    for summary in plans.iter().map(Plan::summary) {
        objects += summary.objects;
        bytes += summary.bytes;
        uploads += summary.uploads;
        summary.kept.into_iter().for_each(|(why, n)| *kept.entry(why).or_default() += n);
    }
    json!({"objects": objects, "bytes": bytes, "uploads": uploads, "kept": kept})
}

fn of(summary: &Value, what: &str) -> String {
    let n = |name: &str| summary[name].as_u64().unwrap_or(0);
    let uploads = match n("uploads") {
        0 => String::new(),
        uploads => format!(" and {uploads} unfinished uploads"),
    };
    format!("{} objects, {} bytes{uploads} {what}", n("objects"), n("bytes"))
}

fn kept_text(summary: &Value) -> String {
    let kept = summary["kept"].as_object().into_iter().flatten();
    kept.map(|(why, n)| format!("  kept       {n} {why}\n")).collect()
}

fn row(object: &Listed) -> String {
    let modified = object.modified.map(|t| t.to_string()).unwrap_or_default();
    let modified = modified.get(..19).unwrap_or(&modified);
    let class = object.storage_class.as_deref().unwrap_or("");
    format!("{modified:<20}  {:>14}  {class:<12}  {object}\n", object.size)
}

/// Lines of JSON on their way to a file or an object.
struct Manifest(Option<(mpsc::UnboundedSender<String>, tokio::task::JoinHandle<Result<()>>)>);

impl Manifest {
    /// Opens it, and shows that it can be written, before anything is deleted.
    async fn open(args: &PurgeArgs, place: &Place, context: &Context) -> Result<Self> {
        let Some(url) = &args.manifest else { return Ok(Self(None)) };
        let location = context.stores.open(url).await?;
        let (path, url) = (location.path().clone(), url.clone());
        if place.is_here(&url) && is_below(path.as_ref(), &place.prefix) {
            let message = format!("the manifest `{url}` would be inside the folder that is purged");
            return Err(Error::usage("InvalidArguments", message));
        }
        let store: Arc<dyn ObjectStore> = location.storage().store.clone();
        store.put(&path, "".into()).await.map_err(|e| store_error("write the manifest", &url, e))?;
        let (lines, mut queue) = mpsc::unbounded_channel::<String>();
        let writer = tokio::spawn(async move {
            let failed = |e: std::io::Error| {
                let message = format!("the manifest `{url}` cannot be written");
                Error::new(ErrorKind::Unavailable, "StoreUnavailable", message).with_source(e)
            };
            let mut out = BufWriter::new(store, path);
            while let Some(line) = queue.recv().await {
                out.write_all(line.as_bytes()).await.map_err(failed)?;
                out.write_all(b"\n").await.map_err(failed)?;
            }
            out.shutdown().await.map_err(failed)
        });
        Ok(Self(Some((lines, writer))))
    }

    fn line(&mut self, line: String) {
        // Where the writer has failed, closing says so.
        if let Some((lines, _)) = &self.0 {
            drop(lines.send(line));
        }
    }

    async fn close(self) -> Result<()> {
        let Some((lines, writer)) = self.0 else { return Ok(()) };
        drop(lines);
        writer.await.map_err(|e| Error::internal("the manifest was cut off").with_source(e))?
    }
}
