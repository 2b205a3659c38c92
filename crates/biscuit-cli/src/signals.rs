use std::time::Duration;

use biscuit_core::{Error, ErrorKind, Result};

use crate::context::Context;
use crate::output::Answer;

/// How long a run that is told to stop may take to finish, if nothing else is said.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// A signal that tells a process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    /// The exit code of a process that it stopped.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Deleting what a stopped run staged may take this long; the rest goes with the next commit.
const CLEANING: Duration = Duration::from_secs(10);

/// Runs a command until it ends or is told to stop: before its commit at once, behind it within `grace`.
pub(crate) async fn run(
    command: impl Future<Output = Result<Answer>>,
    context: &Context,
    grace: Duration,
) -> (Result<Answer>, Option<Signal>) {
    let mut command = Box::pin(command);
    let signal = tokio::select! {
        answer = &mut command => return (answer, None),
        signal = next() => signal,
    };
    if context.interrupt.stop() {
        drop(command);
        tracing::warn!("stopped; nothing was committed");
        match tokio::time::timeout(CLEANING, context.interrupt.clean_up()).await {
            Ok(Ok(())) => {}
            _ => tracing::warn!("what was staged is left to the next run"),
        }
        return (Err(interrupted("the run was stopped before its commit; nothing was changed")), Some(signal));
    }
    tracing::warn!("stopping once the committed version is finished");
    let answer = tokio::select! {
        answer = &mut command => Some(answer),
        () = tokio::time::sleep(grace) => None,
        _ = next() => None,
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

#[cfg(unix)]
async fn next() -> Signal {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the process ends at once, which is safe too.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Signal::Interrupt,
        _ = terminate.recv() => Signal::Terminate,
    }
}

#[cfg(not(unix))]
async fn next() -> Signal {
    match tokio::signal::ctrl_c().await {
        Ok(()) => Signal::Interrupt,
        Err(_) => std::future::pending().await,
    }
}
