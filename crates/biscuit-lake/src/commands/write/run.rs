//! `biscuit run` and `biscuit impact`: jobs described by a file, and the partitions that input has reached.

use std::path::Path;

use biscuit_bookmark::{ReadMode, ReplayRange, RunRef};
use biscuit_core::{Error, Outcome, Result};
use biscuit_dataset::TableVersion;
use biscuit_job::report::{JobReport, OutputReport};
use biscuit_job::{DeclarativeJob, DryRun, JobSpec, RunOptions, impact};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::args::bookmark::{ModeName, open_place, run_named};
use crate::args::parquet::parse_bytes;
use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;
use crate::process::memory::default_budget;
use crate::render::output::{AGAIN, CommandOutput};
use crate::render::remarks::render_losses;

/// Options of `biscuit run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Path of the job file
    job: String,

    /// Set a value of the job file by its path, such as sources.orders.url=s3://test/orders
    #[arg(long, value_name = "PATH=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,

    /// Identify the run by this id, the same for each attempt [default: start time of the run]
    #[arg(long, value_name = "ID", env = "BISCUIT_RUN_ID", hide_env_values = true)]
    run_id: Option<String>,

    /// Record this number as the attempt of the run
    #[arg(long, default_value_t = 1, value_name = "N")]
    attempt: u32,

    /// Run only this output
    #[arg(long, value_name = "NAME")]
    output: Option<String>,

    /// Choose which files of sources with a bookmark are read, and whether they are remembered
    #[arg(long, value_enum, default_value = "advance", value_name = "MODE")]
    bookmark_mode: ModeName,

    /// Replay: read again the files of the runs after this one, exclusive, by number or id
    #[arg(long, value_name = "RUN", alias = "job-bookmark-from")]
    after: Option<String>,

    /// Replay: up to this run, inclusive
    #[arg(long, value_name = "RUN", alias = "job-bookmark-to")]
    through: Option<String>,

    /// Rebuild exactly these partitions from the input that they were made from, such as day=2024-02-29
    #[arg(long, num_args = 1.., value_name = "PARTITION")]
    rebuild: Vec<String>,

    /// For outputs with periods: run for this scheduled instant, which the current period contains; give the same one
    /// to a retry [default: now]
    #[arg(long, value_name = "INSTANT")]
    as_of: Option<String>,

    /// Limit the memory of an output with the mode merge or snapshot, such as `512MB`. Beyond it, change records are spilled
    /// to a temporary file [default: half of the memory of the machine or container]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    memory: Option<usize>,

    /// Print the plan, and change nothing; `--dry-run=read` also reads the rows and reports what would be written and
    /// which rows are invalid
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "plan", value_name = "HOW")]
    dry_run: Option<DryRunName>,
}

/// Values of `--dry-run`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum DryRunName {
    /// Print which files are read and which outputs they reach
    Plan,
    /// Also read the rows
    Read,
}

/// Parses `PATH=VALUE` of `--set`.
fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (path, value) = text.split_once('=').ok_or("write PATH=VALUE")?;
    Ok((path.trim().to_owned(), value.trim().to_owned()))
}

pub(crate) async fn run(args: &RunArgs, context: &CommandContext) -> Result<CommandOutput> {
    let text = std::fs::read_to_string(&args.job).map_err(|e| {
        Error::new(biscuit_job::codes::INVALID_JOB, format!("cannot read `{}`: {e}", args.job)).with_source(e)
    })?;
    let spec = JobSpec::from_toml(&text, &args.set).map_err(|e| e.in_file(&args.job))?;
    let job = DeclarativeJob::new(spec)
        .with_environment(context.stores.clone())
        .with_interrupt(context.interrupt.clone())
        .in_folder(Path::new(&args.job).parent().unwrap_or(Path::new("")));
    let job = match args.memory.or_else(default_budget) {
        Some(bytes) => job.with_memory(bytes),
        None => job,
    };
    let run = run_named(&job.spec().name, args.run_id.as_deref(), args.attempt);
    let mode = match (ReplayRange::parse_runs(args.after.as_deref(), args.through.as_deref())?, args.bookmark_mode) {
        (Some(replay), ModeName::Advance) => ReadMode::Replay(replay),
        (Some(_), _) => {
            return Err(Error::new(
                biscuit_bookmark::codes::INVALID_REPLAY,
                "--after and --through need --bookmark-mode advance, the default",
            ));
        }
        (None, mode) => mode.into(),
    };
    let mut options = RunOptions::default().with_mode(mode).with_rebuild(args.rebuild.iter().map(String::as_str));
    options.output.clone_from(&args.output);
    options.as_of.clone_from(&args.as_of);
    options.dry_run = match args.dry_run {
        None => DryRun::No,
        Some(DryRunName::Plan) => DryRun::Plan,
        Some(DryRunName::Read) => DryRun::Read,
    };
    let report = job.run_with(&run, &options).await?;
    let exceptions = report.outputs.iter().any(|o| !o.exceptions.is_empty());
    let exit = if exceptions { AGAIN } else { 0 };
    Ok(CommandOutput::Report { json: json!(report), text: job_text(&report, context.seconds()), exit })
}

/// Renders the report as text.
fn job_text(report: &JobReport, seconds: f64) -> String {
    let mut out = format!("{}: {} in {seconds:.2} s\n", report.outcome, report.job);
    report.outputs.iter().for_each(|o| render_output(o, &mut out));
    out
}

/// Renders one output of a job.
fn render_output(o: &OutputReport, out: &mut String) {
    let mut line = |text: String| out.push_str(&format!("  {text}\n"));
    line(format!("{}  {}: {}, version {}", o.name, o.url, o.outcome, o.version));
    for (name, source) in &o.sources {
        line(format!("  source      {name}: {}", source.selection.counts));
        let Some(read) = &source.read else { continue };
        for (column, losses) in &read.coercion.columns {
            line(format!("  lost        {name}.{column}: {}", render_losses(losses)));
        }
        if !read.coercion.dropped.is_empty() {
            let names: Vec<&str> = read.coercion.dropped.iter().map(String::as_str).collect();
            line(format!("  dropped     {name}: {}", names.join(", ")));
        }
    }
    for conflict in o.sources.values().flat_map(|source| &source.conflicts) {
        line(format!("  types       {conflict}"));
    }
    for (column, losses) in o.coercion.iter().flat_map(|coercion| &coercion.columns) {
        line(format!("  lost        {column}: {}", render_losses(losses)));
    }
    match (o.outcome, o.rows + o.files + o.replaced) {
        (_, 0) => {}
        (Outcome::Planned, _) => line(format!("  rows        {} would be written", o.rows)),
        _ => line(format!("  rows        {} in {} files, {} files replaced", o.rows, o.files, o.replaced)),
    }
    if !o.partitions.is_empty() {
        line(format!("  partitions  changed {}", o.partitions.join(", ")));
    }
    if o.quarantined > 0 {
        line(format!("  quarantine  {} rows; use `biscuit quarantine list` to list them", o.quarantined));
    }
    o.findings.iter().for_each(|f| line(format!("  rule        {} rows: {}", f.rows, f.rule)));
    o.plan.iter().for_each(|p| line(format!("  {p}")));
    o.exceptions.iter().for_each(|e| line(format!("  exception   {e}")));
}

/// Options of `biscuit impact`.
#[derive(Debug, Args)]
pub(crate) struct ImpactArgs {
    #[command(flatten)]
    table: TableArgs,

    /// Find the partitions of these input files, by path or URL
    #[arg(long, num_args = 1.., value_name = "PATH_OR_URL", required_unless_present = "run")]
    input: Vec<String>,

    /// Find the partitions of these runs, by number or id
    #[arg(long, num_args = 1.., value_name = "RUN")]
    run: Vec<RunRef>,

    /// Search only this bookmark
    #[arg(long, value_name = "NAME")]
    bookmark: Option<String>,
}

/// Runs `biscuit impact`.
pub(crate) async fn run_impact(args: &ImpactArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open_table(&args.table).await?;
    let mut objects = Vec::new();
    for input in &args.input {
        objects.push(open_place(input, context).await?.url());
    }
    let (bookmark, objects) = (args.bookmark.as_deref(), &objects);
    let read = |snapshot: TableVersion| async move { impact(&snapshot, bookmark, objects, &args.run).await };
    let partitions = dataset.read(read).await?;
    let text = match partitions.is_empty() {
        true => "no partition: the table is not partitioned, or it has no rows of this input\n".to_owned(),
        false => partitions.iter().map(|p| format!("{p}\n")).collect(),
    };
    Ok(CommandOutput::Report { json: json!({ "partitions": partitions }), text, exit: 0 })
}
