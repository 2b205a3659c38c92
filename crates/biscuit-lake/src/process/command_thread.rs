//! The thread of the command, and the errors of starting and stopping threads.

use std::panic::AssertUnwindSafe;

use biscuit_core::{Error, Result};
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::render::output::CommandOutput;
use crate::{codes, process::panics};

/// Stack size of the command's thread in bytes, the usual size for a main thread.
const STACK: usize = 8 * 1024 * 1024;

/// A command that runs on its own thread.
pub(crate) struct CommandThread {
    answer: oneshot::Receiver<Result<CommandOutput>>,
    stop: Option<oneshot::Sender<()>>,
}

impl CommandThread {
    /// Starts the thread. The future of the command is polled on that thread only, so that it need not be `Send`.
    pub(crate) fn begin<F>(command: impl FnOnce() -> F + Send + 'static, runtime: Handle) -> Result<Self>
    where
        F: Future<Output = Result<CommandOutput>>,
    {
        let (send, answer) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            let command = AssertUnwindSafe(command()).catch_unwind();
            let ended = runtime.block_on(async {
                tokio::select! {
                    // Check the request to stop first: a command that is always ready would otherwise never see it.
                    biased;
                    _ = stopped => Err(stopped_error()),
                    ended = command => ended.unwrap_or_else(|_| Err(panics::panic_error())),
                }
            });
            let _ = send.send(ended);
        };
        let thread = std::thread::Builder::new().name("command".to_owned()).stack_size(STACK);
        thread.spawn(work).map_err(|e| start_error(e.to_string()))?;
        Ok(Self { answer, stop: Some(stop) })
    }

    /// Waits for the answer of the command. The future can be dropped and created again until it has returned.
    pub(crate) async fn wait_for_answer(&mut self) -> Result<CommandOutput> {
        // The sender is dropped without an answer only if the thread has panicked.
        (&mut self.answer).await.unwrap_or_else(|_| Err(panics::panic_error()))
    }

    /// Drops the command at its next await point.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }
}

/// Returns the error of an operation that a signal has ended.
pub(crate) fn stopped_error() -> Error {
    Error::new(biscuit_core::codes::INTERRUPTED, "the process received a signal to stop")
}

/// Returns the error for a system that refuses a thread or a file descriptor.
pub(crate) fn start_error(what: impl std::fmt::Display) -> Error {
    let message = format!("the system has too few threads or file descriptors to start the command: {what}");
    Error::new(codes::CANNOT_START, message)
}
