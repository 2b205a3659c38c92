//! The `biscuit` command: a thin layer over the crates.

mod adopt;
mod args;
mod aws_args;
mod bookmark;
mod bookmark_args;
mod catalog;
mod compact;
mod context;
mod csv_args;
mod defects;
mod doctor;
mod forget;
mod history;
mod lifecycle;
mod manifest;
mod means;
mod merge;
mod meter;
mod output;
mod own_files;
mod parquet_args;
mod periods;
mod pii;
mod policies;
mod process;
mod progress;
mod purge;
mod purge_report;
mod quarantine;
mod recover;
mod remarks;
mod run;
mod schema;
mod show;
mod signals;
mod snapshot;
mod stores;
mod verify;

use std::process::ExitCode;

use biscuit_core::Result;
use clap::Parser;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::{Cli, Command, LogFormat};
use crate::context::CommandContext;
use crate::output::CommandOutput;

/// glibc's allocator keeps an arena for every thread, which makes a run take twice the memory that it holds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    defects::remember();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return output::usage(&e),
    };
    log(cli.log_format, cli.show_values);
    process::run(cli)
}

async fn answer(command: &Command, context: &CommandContext) -> Result<CommandOutput> {
    match command {
        Command::Merge(args) => merge::run(args, context).await,
        Command::Snapshot(args) => snapshot::run(args, context).await,
        Command::Periods(args) => periods::run(args, context).await,
        Command::Quarantine(command) => quarantine::run(command, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Impact(args) => run::reached(args, context).await,
        Command::Schema(command) => schema::run(command, context).await,
        Command::Bookmark(command) => bookmark::run(command, context).await,
        Command::Pii(command) => pii::run(command, context).await,
        Command::Forget(args) => forget::run(args, context).await,
        Command::Recover(args) => recover::run(args, context).await,
        Command::Adopt(args) => adopt::run(args, context).await,
        Command::Compact(args) => compact::run(args, context).await,
        Command::Purge(args) => purge::run(args, context).await,
        Command::Lifecycle(command) => lifecycle::run(command, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::History(args) => history::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
    }
}

fn log(format: LogFormat, show_values: bool) {
    // What the chain of credentials tries in vain is in the error, if nothing else works.
    let defaults = || EnvFilter::new("warn,biscuit=info,aws_config=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| defaults());
    // What other crates say in detail may be what they read and send: rows, requests with their headers.
    let ours = filter_fn(move |event| {
        show_values || event.target().starts_with("biscuit") || *event.level() <= tracing::Level::INFO
    });
    let logs = tracing_subscriber::fmt::layer().with_writer(progress::above_the_bar);
    let logs = match format {
        LogFormat::Text => logs.with_target(false).boxed(),
        LogFormat::Json => logs.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(logs.with_filter(filter.and(ours)))
        .with(progress::ProgressSteps.with_filter(progress::is_wanted()))
        .init();
}
