//! The way from the command line to the exit code: threads, signals, and exactly one answer in every case.
//!
//! Three threads have separate tasks: one watches signals, one polls the command, and one prints. Work that computes
//! for long, or blocks on a pipe, therefore delays neither a signal nor the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use biscuit_aws::AwsEnvironment;
use biscuit_core::internal::hide_password_of;
use biscuit_core::{Error, Result, hide_secret};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::args::command::Cli;
use crate::commands::dispatch::dispatch;
use crate::environment::context::CommandContext;
use crate::process::command_thread::{CommandThread, start_error, stopped_error};
use crate::process::signals::{self, Signals, StopSignal};
use crate::render::output::{self, RenderedOutput};
use crate::{codes, process::panics};

/// Maximum value of `TOKIO_WORKER_THREADS`.
const MOST_WORKERS: usize = 1024;
/// How long writing the report may take after a signal.
const REPORTING: Duration = Duration::from_secs(5);

/// Environment variables whose values are secrets.
const SECRETS: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];
/// Environment variables with URLs that may contain passwords.
const URLS: [&str; 12] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_GLUE",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ENDPOINT_URL_COMPREHEND",
];

/// Runs the command, prints its answer and returns the exit code. A panic is answered with an error as well.
pub(crate) fn run(cli: Cli) -> ExitCode {
    hide_secrets(&cli);
    let (json, show_values) = (cli.json, cli.show_values);
    let ended = catch_unwind(AssertUnwindSafe(|| run_on_threads(&Arc::new(cli))));
    let failed = match ended {
        Ok(Ok(code)) => return code.into(),
        Ok(Err(e)) => e,
        Err(_) => panics::panic_error(),
    };
    output::print_error(&failed, json, show_values)
}

/// Registers the secrets of the environment and the command line, so that they are masked in all output.
fn hide_secrets(cli: &Cli) {
    let value = |name: &str| std::env::var(name).ok();
    SECRETS.iter().filter_map(|name| value(name)).for_each(|secret| hide_secret(&secret));
    URLS.iter().filter_map(|name| value(name)).for_each(|url| hide_password_of(&url));
    cli.aws.endpoint_url.iter().for_each(|url| hide_password_of(url));
}

/// Runs the command on threads of its own, and returns the exit code after the answer is printed.
fn run_on_threads(cli: &Arc<Cli>) -> Result<u8> {
    // The order matters: the handlers are installed before any other work, so that a signal is never lost. Signals
    // have their own runtime, and the command its own thread, so that blocking work cannot delay the handling of a
    // signal.
    let watch = Builder::new_current_thread().enable_all().build().map_err(|e| start_error(e.to_string()))?;
    let mut signals = {
        let _inside = watch.enter();
        Signals::listen()
    };
    tracing::debug!("signal handlers are installed");
    let runtime = start_runtime(worker_threads(std::env::var_os("TOKIO_WORKER_THREADS"))?)?;
    let context = Arc::new(CommandContext::new(
        AwsEnvironment::new(cli.aws.options()).with_other_formats(cli.other_formats()),
        cli.show_values,
        cli.file_keys.clone(),
    ));
    let code = watch.block_on(async {
        let (of, with) = (cli.clone(), context.clone());
        let command = move || async move { dispatch(&of.command, &with).await };
        let work = CommandThread::begin(command, runtime.handle().clone())?;
        let grace = cli.grace.unwrap_or(signals::GRACE);
        let (answer, signal) = signals::run(work, &cli.command, &context, grace, &mut signals).await;
        // From here on the answer is fixed. Writing the report can only add `report_error` to it.
        let mut answer = output::render_answer(answer, cli.json, &context, signal.map(StopSignal::code));
        if let Some(place) = &cli.report {
            let patience = if signal.is_some() { REPORTING } else { Duration::MAX };
            let written = tokio::select! {
                written = tokio::time::timeout(patience, output::write_report(place, answer.json(), &context)) => {
                    written.unwrap_or_else(|_| Err(stopped_error()))
                }
                _ = signals.next() => Err(stopped_error()),
            };
            answer.with_report_result(written);
        }
        let printed = print_answer(answer)?;
        Ok(tokio::select! {
            code = printed => code.unwrap_or(1),
            // The reader of the output may never read it. A signal ends the process all the same.
            signal = signals.next() => signal.code(),
        })
    });
    // A stopped run may still compute or block. These calls do not wait for it.
    runtime.shutdown_background();
    watch.shutdown_background();
    code
}

/// Prints the answer on a separate thread, since standard output may be a full pipe without a reader.
fn print_answer(answer: RenderedOutput) -> Result<oneshot::Receiver<u8>> {
    let (send, printed) = oneshot::channel();
    let thread = std::thread::Builder::new().name("print".to_owned());
    let thread = thread.spawn(move || {
        let _ = send.send(answer.print());
    });
    thread.map_err(|e| start_error(e.to_string()))?;
    Ok(printed)
}

/// Parses `TOKIO_WORKER_THREADS`, the number of worker threads. `None` means one thread per processor.
fn worker_threads(asked: Option<std::ffi::OsString>) -> Result<Option<usize>> {
    let Some(asked) = asked else { return Ok(None) };
    let number = asked.to_str().and_then(|n| n.trim().parse().ok());
    match number.filter(|n| (1..=MOST_WORKERS).contains(n)) {
        Some(number) => Ok(Some(number)),
        None => {
            let message =
                format!("invalid environment variable TOKIO_WORKER_THREADS; use a number from 1 to {MOST_WORKERS}");
            Err(Error::new(codes::INVALID_ENVIRONMENT, message))
        }
    }
}

/// Starts the runtime that does the work.
fn start_runtime(threads: Option<usize>) -> Result<Runtime> {
    // An explicit number keeps the runtime from reading the variable itself, which panics on invalid values.
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    // The runtime panics if the system refuses to create a thread.
    let built = catch_unwind(|| Builder::new_multi_thread().worker_threads(threads).enable_all().build());
    match built {
        Ok(Ok(runtime)) => Ok(runtime),
        Ok(Err(e)) => Err(start_error(e.to_string())),
        Err(_) => Err(start_error(format!("{threads} threads"))),
    }
}

#[cfg(test)]
mod tests {
    use biscuit_core::ErrorKind;

    use super::*;

    fn runtime() -> Runtime {
        start_runtime(Some(1)).unwrap()
    }

    #[test]
    fn panic_of_a_command_is_an_error_without_the_message_of_the_panic() {
        let runtime = runtime();
        for deep in [false, true] {
            let command = move || async move {
                match deep {
                    true => drop(tokio::spawn(async { panic!("SECRET-VALUE") }).await.map_err(|e| e.into_panic())),
                    false => panic!("SECRET-VALUE"),
                }
                panic!("SECRET-VALUE")
            };
            let mut work = CommandThread::begin(command, runtime.handle().clone()).unwrap();
            let e = runtime.block_on(work.wait_for_answer()).unwrap_err();
            assert_eq!((e.kind(), e.code()), (ErrorKind::Internal, "Internal"));
            assert!(!format!("{e} {e:?}").contains("SECRET-VALUE"), "{e:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn signal_ends_a_command_that_never_reaches_an_await_point() {
        let runtime = runtime();
        let watch = Builder::new_current_thread().enable_all().build().unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let cli = <Cli as clap::Parser>::try_parse_from(["biscuit", "history", "t"]).unwrap();
        let context = CommandContext::new(AwsEnvironment::new(cli.aws.options()), false, None);
        // Blocks the thread that polls the future, as a decoder does.
        let command = move || async move {
            let _ = released.recv();
            Err(Error::internal("released"))
        };
        let (answer, signal) = watch.block_on(async {
            let mut signals = Signals::listen();
            let work = CommandThread::begin(command, runtime.handle().clone()).unwrap();
            let own = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args(["-TERM", &own]).status().unwrap().success());
            signals::run(work, &cli.command, &context, signals::GRACE, &mut signals).await
        });
        assert_eq!(answer.unwrap_err().code(), "Interrupted");
        assert_eq!(signal, Some(signals::StopSignal::Terminate));
        drop(release);
        runtime.shutdown_background();
    }

    #[test]
    fn number_of_worker_threads_is_validated() {
        let of = |text: &str| worker_threads(Some(text.into()));
        assert_eq!(worker_threads(None).unwrap(), None);
        assert_eq!(of("3").unwrap(), Some(3));
        for wrong in ["0", "", "-1", "many", "1000000", "99999999999999999999"] {
            assert_eq!(of(wrong).unwrap_err().code(), "InvalidEnvironment", "{wrong}");
        }
    }
}
