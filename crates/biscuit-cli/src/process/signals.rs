use std::time::Duration;

use biscuit_core::{Error, ErrorKind, Result};

use crate::args::command::Command;
use crate::environment::context::CommandContext;
use crate::process::thread::CommandThread;
use crate::render::output::CommandOutput;

/// How long a run that is told to stop may take to finish, if nothing else is said.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// A signal that tells a process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    Interrupt,
    Terminate,
}

impl StopSignal {
    /// The exit code of a process that it stopped.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// A command that is told to stop gets this long to come to a point where it waits for something. One that computes, or waits for a
/// file that does not come, is left behind.
const STOPPING: Duration = Duration::from_millis(300);
/// Deleting what a stopped run staged may take this long; the rest goes with the next commit.
const CLEANING: Duration = Duration::from_secs(10);

/// Waits for a command until it ends or is told to stop: before its commit at once, behind it within `grace`. A second signal ends
/// whatever is still waited for.
pub(crate) async fn run(
    mut work: CommandThread,
    command: &Command,
    context: &CommandContext,
    grace: Duration,
    signals: &mut Signals,
) -> (Result<CommandOutput>, Option<StopSignal>) {
    let signal = tokio::select! {
        answer = work.ended() => return (answer, None),
        signal = signals.next() => signal,
    };
    if context.interrupt.stop() {
        work.stop();
        if let Ok(Ok(answer)) = tokio::time::timeout(STOPPING, work.ended()).await {
            // It had come to its end already.
            return (Ok(answer), None);
        }
        tracing::warn!("stopped");
        let cleaned = tokio::select! {
            cleaned = tokio::time::timeout(CLEANING, context.interrupt.clean_up()) => matches!(cleaned, Ok(Ok(()))),
            _ = signals.next() => false,
        };
        if !cleaned {
            tracing::warn!("what was staged is left to the next run");
        }
        let message = match command.changes_by_commits_only() && !context.interrupt.has_committed() {
            true => "the run was stopped before its commit; nothing was changed",
            false => "the run was stopped; what it had done until then stands, and running it again does the rest",
        };
        return (Err(interrupted(message)), Some(signal));
    }
    tracing::warn!("stopping once the committed version is finished");
    let answer = tokio::select! {
        answer = work.ended() => Some(answer),
        () = tokio::time::sleep(grace) => None,
        _ = signals.next() => None,
    };
    match answer {
        // Stopped between two tables: the ones before stand.
        Some(Err(e)) if e.kind() == ErrorKind::Interrupted => (Err(e), Some(signal)),
        Some(answer) => (answer, None),
        None => {
            let version = context.interrupt.committing().unwrap_or_default();
            let message = format!(
                "version {version} is committed and not finished; the next run or `biscuit recover` finishes it"
            );
            (Err(interrupted(message)), Some(signal))
        }
    }
}

fn interrupted(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Interrupted, "Interrupted", message)
}

/// The signals of the process, from the time on at which this was made.
#[cfg(unix)]
pub(crate) struct Signals {
    // Without handlers the process ends at once, which is safe too.
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    /// Installs the handlers, in the runtime that it is called in.
    pub(crate) fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { interrupt: signal(SignalKind::interrupt()).ok(), terminate: signal(SignalKind::terminate()).ok() }
    }

    /// The next signal.
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

/// The signals of the process.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Installs no handler before a signal is waited for.
    pub(crate) fn listen() -> Self {
        Self
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> StopSignal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => StopSignal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}
