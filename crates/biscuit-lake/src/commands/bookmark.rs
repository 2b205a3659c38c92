//! `biscuit bookmark`: shows what a bookmark remembers, and changes it without touching the rows of the table.
//!
//! Each change is a commit of its own that replaces no file.

use biscuit_bookmark::{Bookmark, BookmarkOptions, BookmarkState, RunKind, RunRecord, RunRef, bookmark_names, list};
use biscuit_core::{Clock, Error, Outcome, Result, Run, RunId, SystemClock};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_journal::{CommitExtras, ExternalFiles, JournalOptions, TableHead};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::bookmark::{open_place, open_places};
use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;

/// Commands of `biscuit bookmark`.
#[derive(Debug, Subcommand)]
pub(crate) enum BookmarkCommand {
    /// List the bookmarks of a table and their runs
    Show(ShowBookmarkArgs),
    /// Explain why the next run reads an input file or does not
    Explain(ExplainObjectArgs),
    /// Forget all runs: the next run reads all input. The rows of the table do not change
    Reset(ChangeArgs),
    /// Forget the runs after a given run: the next run reads their input again. The rows of the table do not change
    Rewind(RewindArgs),
    /// Mark all existing input as read without reading it
    SetToNow(SetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ShowBookmarkArgs {
    #[command(flatten)]
    table: TableArgs,

    /// Show only this bookmark
    #[arg(long, value_name = "NAME")]
    bookmark: Option<String>,

    /// Show at most this number of runs per bookmark, newest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    table: TableArgs,

    /// Use this bookmark
    #[arg(long, value_name = "NAME")]
    bookmark: String,

    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RewindArgs {
    #[command(flatten)]
    change: ChangeArgs,

    /// Keep the runs up to this one, by number or id; 0 keeps none
    #[arg(long, value_name = "RUN")]
    to: RunRef,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    change: ChangeArgs,

    /// Look for the input at these paths or URLs of files, folders or globs [default: input of the last run]
    #[arg(long, num_args = 1.., value_name = "PATH_OR_URL")]
    input: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainObjectArgs {
    #[command(flatten)]
    table: TableArgs,

    /// Path or URL of the input file
    path: String,

    /// Use this bookmark
    #[arg(long, value_name = "NAME")]
    bookmark: String,

    /// Look for the input at these paths or URLs of files, folders or globs [default: input of the last run]
    #[arg(long, num_args = 1.., value_name = "PATH_OR_URL")]
    input: Vec<String>,
}

pub(crate) async fn run(command: &BookmarkCommand, context: &CommandContext) -> Result<CommandOutput> {
    match command {
        BookmarkCommand::Show(args) => show_bookmark(args, context).await,
        BookmarkCommand::Explain(args) => explain_object(args, context).await,
        BookmarkCommand::Reset(args) => {
            commit_change(args, context, "reset: the next run reads all input", async |state, _| state.reset()).await
        }
        BookmarkCommand::Rewind(args) => {
            let done = format!("rewound: the next run reads again what was read after run {}", args.to);
            commit_change(&args.change, context, &done, async |state, _| state.rewind(&args.to)).await
        }
        BookmarkCommand::SetToNow(args) => {
            let done = "set to now: all existing input counts as read";
            commit_change(&args.change, context, done, async |state, context| {
                let places = input_places(&args.input, state)?;
                let input = list(&open_places(&places, context).await?).await?;
                let start = SystemClock.now();
                let run = Run::new("biscuit", RunId::new(start.to_string()), start);
                // External files may have rows of the input as well: their partitions count, too.
                let (_, snapshot) =
                    open_view(context.open(&args.change.table, JournalOptions::default()).await?).await?;
                state.set_to_now(&input, &run, snapshot.observed.folders())
            })
            .await
        }
    }
}

/// Opens a view of a table that may have no version yet.
async fn open_view(dataset: Dataset) -> Result<(Dataset, TableVersion)> {
    let snapshot = dataset.view().await?;
    Ok((dataset, snapshot))
}

async fn show_bookmark(args: &ShowBookmarkArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = &context.open_table(&args.table).await?;
    dataset.read(|snapshot| async move { render_bookmark(args, dataset, &snapshot.observed.head).await }).await
}

async fn render_bookmark(args: &ShowBookmarkArgs, dataset: &Dataset, head: &TableHead) -> Result<CommandOutput> {
    let names = match &args.bookmark {
        Some(name) => vec![name.clone()],
        None => bookmark_names(head),
    };
    let (mut json, mut text) = (Vec::new(), String::new());
    for name in names {
        let state = Bookmark::new(&name)?.load(dataset.journal(), head).await?;
        if args.bookmark.is_some() {
            check_has_runs(&state)?;
        }
        let runs: Vec<(&RunRecord, bool)> = state.runs().collect();
        let watermark = state.watermark().map(|w| w.to_string());
        let newest = watermark.as_deref().map(|w| format!(", newest input modified {w}")).unwrap_or_default();
        text.push_str(&format!(
            "{name}: {} runs{newest}, {} bytes of state\n",
            state.last_run(),
            state.compressed_size()
        ));
        let hidden = runs.len().saturating_sub(args.limit);
        if hidden > 0 {
            text.push_str(&format!("  {hidden} earlier runs are not shown\n"));
        }
        runs.iter().skip(hidden).for_each(|(run, counts)| text.push_str(&render_run(run, *counts)));
        json.push(json!({
            "name": name, "last": state.last_run(), "watermark": watermark, "bytes": state.compressed_size(),
            "runs": runs.iter().skip(hidden).map(|(run, counts)| run_entry(run, *counts)).collect::<Vec<_>>(),
        }));
    }
    if json.is_empty() {
        text.push_str("the table has no bookmark\n");
    }
    Ok(CommandOutput::Report { json: json!({ "bookmarks": json }), text, exit: 0 })
}

fn run_kind(kind: RunKind) -> Value {
    json!(kind)
}

/// Renders a run as a line of text. `counts` is false for a run that was rewound.
fn render_run(run: &RunRecord, counts: bool) -> String {
    let what = match run.kind {
        RunKind::Advance => String::new(),
        other => format!("  {}", run_kind(other).as_str().unwrap_or_default()),
    };
    let rewound = if counts { "" } else { "  rewound" };
    let attempt = if run.attempt > 1 { format!(", attempt {}", run.attempt) } else { String::new() };
    let (number, id, objects, bytes) = (run.number, &run.id, run.objects, run.bytes);
    format!("  {number:>5}  {id}{attempt}  {objects} files, {bytes} bytes{what}{rewound}\n")
}

fn run_entry(run: &RunRecord, counts: bool) -> Value {
    json!({
        "number": run.number, "id": run.id, "attempt": run.attempt, "started": run.started().to_string(),
        "kind": run_kind(run.kind), "objects": run.objects, "bytes": run.bytes, "places": run.places,
        "replaced": run.replaced, "partitions": run.output.partitions, "counts": counts,
    })
}

async fn explain_object(args: &ExplainObjectArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = &context.open_table(&args.table).await?;
    let bookmark = &Bookmark::new(&args.bookmark)?;
    let load = |snapshot: TableVersion| async move { bookmark.load(dataset.journal(), &snapshot.observed.head).await };
    let state = dataset.read(load).await?;
    let input = list(&open_places(&input_places(&args.input, &state)?, context).await?).await?;
    let url = open_place(&args.path, context).await?.url();
    let reason = state.explain(&input, &url)?;
    let mut json = json!(reason);
    json["url"] = json!(url);
    Ok(CommandOutput::Report { json, text: format!("{url}: {reason}\n"), exit: 0 })
}

/// Returns the given places of the input, or otherwise the places of the last run.
fn input_places(given: &[String], state: &BookmarkState) -> Result<Vec<String>> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    check_has_runs(state)?;
    Ok(state.runs().last().map(|(run, _)| run.places.clone()).unwrap_or_default())
}

/// Checks that the bookmark has at least one run.
///
/// # Errors
/// `UnknownBookmark`.
fn check_has_runs(state: &BookmarkState) -> Result<()> {
    match state.last_run() {
        0 => {
            let message = format!(
                "the table has no bookmark `{}` yet; `biscuit bookmark show` lists the bookmarks",
                state.name()
            );
            Err(Error::new(biscuit_job::codes::UNKNOWN_BOOKMARK, message))
        }
        _ => Ok(()),
    }
}

/// Commits a change of a bookmark, and of nothing else in the table.
async fn commit_change(
    args: &ChangeArgs,
    context: &CommandContext,
    done: &str,
    of: impl AsyncFn(&BookmarkState, &CommandContext) -> Result<CommitExtras>,
) -> Result<CommandOutput> {
    let options = JournalOptions::default().with_external_files(ExternalFiles::Ignore);
    let dataset = context.open(&args.table, options).await?;
    let journal = dataset.journal();
    let observed = journal.observe().await?;
    // This command compacts no runs: the options of the next run decide how many are retained.
    let options = BookmarkOptions::default().with_keep_runs(u64::MAX);
    let state = Bookmark::new(&args.bookmark)?.with_options(options).load(journal, &observed.head).await?;
    let change = of(&state, context).await?;
    // Only a known bookmark can be reset or rewound, while `set-to-now` may begin a new one.
    if change.state.is_empty() {
        check_has_runs(&state)?;
    }
    let mut version = observed.head.version;
    if !args.dry_run {
        let mut table_commit = journal.begin_commit(&observed);
        table_commit.with_extras(change).await?;
        table_commit.with_report(json!({"bookmark": args.bookmark, "done": done}));
        version = table_commit.commit().await?.version;
    }
    let outcome = if args.dry_run { Outcome::Planned } else { Outcome::Committed };
    let json = json!({"outcome": outcome, "bookmark": args.bookmark, "version": version, "done": done});
    Ok(CommandOutput::Report { json, text: format!("{outcome}: {} {done}\n", args.bookmark), exit: 0 })
}
