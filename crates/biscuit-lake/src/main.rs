//! The `biscuit` command. It reads the command line, calls the crates and prints their reports.
//!
//! `args` has the options, `commands` one file for each command, `environment` the state that they share,
//! `process` the threads and signals, and `render` everything that is printed or written as a report.

mod args;
mod codes;
mod commands;
mod environment;
mod process;
mod render;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::command::{Cli, LogFormat};

/// The allocator of glibc keeps one arena per thread, which doubles the memory of a run. jemalloc does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    crate::process::panics::install_hook();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return crate::render::output::print_usage(&e),
    };
    install_log(cli.log_format, cli.show_values);
    crate::process::thread::run(cli)
}

/// Installs the log output on standard error, and the layer that feeds the progress bar.
fn install_log(format: LogFormat, show_values: bool) {
    // `aws_config` warns about each source of credentials that has none. If all fail, the error lists them.
    let default_filter = || EnvFilter::new("warn,biscuit=info,aws_config=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default_filter());
    // Debug and trace logs of other crates can contain the data that they read or send, such as rows and request
    // headers. They are dropped unless `--show-values` is given, for any value of `RUST_LOG`.
    let ours = filter_fn(move |event| {
        show_values || event.target().starts_with("biscuit") || *event.level() <= tracing::Level::INFO
    });
    let logs = tracing_subscriber::fmt::layer().with_writer(crate::render::progress::log_writer);
    let logs = match format {
        LogFormat::Text => logs.with_target(false).boxed(),
        LogFormat::Json => logs.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(logs.with_filter(filter.and(ours)))
        .with(crate::render::progress::ProgressSteps.with_filter(crate::render::progress::is_wanted()))
        .init();
}
