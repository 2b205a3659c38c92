//! SIGINT and SIGTERM: what a stopped command does before and after its commit.
//!
//! Before the commit the command is abandoned, and its staged files are deleted. After the commit it gets a grace
//! period in which it finishes the version. A second signal ends every wait.

use std::time::Duration;

use biscuit_core::{Error, ErrorKind, Result};

use crate::args::command::Command;
use crate::environment::context::CommandContext;
use crate::process::command_thread::CommandThread;
use crate::render::output::CommandOutput;

/// Default of `--grace`: how long a run may take to finish a committed version after a signal.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// A signal that asks the process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    Interrupt,
    Terminate,
}

impl StopSignal {
    /// Returns the exit code of a process that this signal stopped: 128 plus the number of the signal.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// How long a stopped command may take to reach an await point, where it is dropped.
///
/// A command that computes, or blocks on a file, does not reach one. Its thread is then abandoned.
const STOPPING: Duration = Duration::from_millis(300);
/// How long the deletion of the staged files of a stopped run may take. The next commit deletes the rest.
const CLEANING: Duration = Duration::from_secs(10);

/// Waits until the command ends, or stops it when a signal arrives.
///
/// Before its commit the command is stopped at once. After the commit it may take up to `grace` to finish the
/// version. A second signal ends the wait. The result has the signal if the signal decided the exit code.
pub(crate) async fn run(
    mut work: CommandThread,
    command: &Command,
    context: &CommandContext,
    grace: Duration,
    signals: &mut Signals,
) -> (Result<CommandOutput>, Option<StopSignal>) {
    let signal = tokio::select! {
        answer = work.wait_for_answer() => return (answer, None),
        signal = signals.next() => signal,
    };
    // `stop` and the commit of a run exclude each other: it returns true only if the run cannot commit any more.
    if context.interrupt.stop() {
        work.stop();
        if let Ok(Ok(answer)) = tokio::time::timeout(STOPPING, work.wait_for_answer()).await {
            // The command had already ended when the signal arrived.
            return (Ok(answer), None);
        }
        tracing::warn!("the command is stopped");
        let cleaned = tokio::select! {
            cleaned = tokio::time::timeout(CLEANING, context.interrupt.clean_up()) => matches!(cleaned, Ok(Ok(()))),
            _ = signals.next() => false,
        };
        if !cleaned {
            tracing::warn!("staged files remain; the next run deletes them");
        }
        let message = match command.changes_by_commits_only() && !context.interrupt.has_committed() {
            true => "the run was stopped before its commit; nothing has changed",
            false => "the run was stopped; changes made so far remain, and another run does the rest",
        };
        return (Err(interrupted_error(message)), Some(signal));
    }
    tracing::warn!("the run stops after it has finished the committed version");
    let answer = tokio::select! {
        answer = work.wait_for_answer() => Some(answer),
        () = tokio::time::sleep(grace) => None,
        _ = signals.next() => None,
    };
    match answer {
        // The run stopped between two tables. The tables before are committed.
        Some(Err(e)) if e.kind() == ErrorKind::Interrupted => (Err(e), Some(signal)),
        Some(answer) => (answer, None),
        None => {
            let version = context.interrupt.committing().unwrap_or_default();
            let message = format!(
                "version {version} is committed but not finished; the next run or `biscuit recover` finishes it"
            );
            (Err(interrupted_error(message)), Some(signal))
        }
    }
}

fn interrupted_error(message: impl Into<String>) -> Error {
    Error::new(biscuit_core::codes::INTERRUPTED, message)
}

/// Receiver of the signals that the process gets after [`listen`](Self::listen).
#[cfg(unix)]
pub(crate) struct Signals {
    // `None` if the handler could not be installed. Then the signal ends the process at once, which is safe as well.
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    /// Installs the handlers in the current Tokio runtime.
    pub(crate) fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { interrupt: signal(SignalKind::interrupt()).ok(), terminate: signal(SignalKind::terminate()).ok() }
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> StopSignal {
        async fn one(signal: &mut Option<tokio::signal::unix::Signal>) {
            let came = match signal {
                Some(signal) => signal.recv().await.is_some(),
                None => false,
            };
            if !came {
                std::future::pending::<()>().await;
            }
        }
        tokio::select! {
            () = one(&mut self.interrupt) => StopSignal::Interrupt,
            () = one(&mut self.terminate) => StopSignal::Terminate,
        }
    }
}

/// Receiver of the signals of the process.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Does nothing: the handler is installed by the first call of [`next`](Self::next).
    pub(crate) fn listen() -> Self {
        Self
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> StopSignal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => StopSignal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}
