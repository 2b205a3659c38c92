//! Output of a task that works ahead of its reader.

use biscuit_core::{Error, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Values that a task sends, and the task itself. A task that panics is an error, and not the end of the values.
pub(crate) struct TaskOutput<T> {
    values: mpsc::Receiver<Result<T>>,
    task: JoinHandle<()>,
}

impl<T> TaskOutput<T> {
    /// Starts a task with `start`. The channel holds one value: the task is at most one value ahead, which bounds the
    /// memory. If sending fails, the receiver has been dropped and the task should end.
    pub(crate) fn start(start: impl FnOnce(mpsc::Sender<Result<T>>) -> JoinHandle<()>) -> Self {
        let (send, values) = mpsc::channel(1);
        Self { values, task: start(send) }
    }

    /// Returns the next value; `None` at the end. After the end and after an error, it must not be called again.
    ///
    /// # Errors
    /// Errors that the task sent; `Internal` if it panicked.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        match self.values.recv().await {
            Some(value) => value.map(Some),
            None => {
                let failed = |e| Error::internal("a task that reads a change file failed").with_source(e);
                (&mut self.task).await.map(|()| None).map_err(failed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn task_that_panics_is_an_error_and_not_the_end() {
        let values = |panics: bool| {
            TaskOutput::start(|send| {
                tokio::spawn(async move {
                    send.send(Ok(7)).await.expect("the test receives");
                    assert!(!panics, "the task fails");
                })
            })
        };
        let mut whole = values(false);
        assert_eq!((whole.next().await.unwrap(), whole.next().await.unwrap()), (Some(7), None));
        let mut cut = values(true);
        assert_eq!(cut.next().await.unwrap(), Some(7));
        assert_eq!(cut.next().await.unwrap_err().code(), "Internal");
    }
}
