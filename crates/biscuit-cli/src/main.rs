//! The `biscuit` command: a thin layer over the crates.

mod adopt;
mod args;
mod history;
mod merge;
mod output;
mod quarantine;
mod recover;
mod show;
mod verify;

use std::process::ExitCode;

use biscuit_core::Result;
use clap::Parser;

use crate::args::{Cli, Command, LogFormat};
use crate::output::Answer;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return output::usage(&e),
    };
    log(cli.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return output::internal("the runtime cannot start", &e),
    };
    let answer = runtime.block_on(run(&cli.command));
    output::finish(answer, cli.json, cli.show_values)
}

async fn run(command: &Command) -> Result<Answer> {
    match command {
        Command::Merge(args) => merge::run(args).await,
        Command::Quarantine(command) => quarantine::run(command).await,
        Command::Recover(args) => recover::run(args).await,
        Command::Adopt(args) => adopt::run(args).await,
        Command::History(args) => history::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Show(args) => show::run(args).await,
    }
}

fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,biscuit=info"));
    let logs = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match format {
        LogFormat::Text => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
}
