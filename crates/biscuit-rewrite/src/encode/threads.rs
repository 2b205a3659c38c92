use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use biscuit_core::{Error, Result};
use biscuit_dataset::engine_error;
use biscuit_journal::FileStager;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tokio::sync::{Notify, oneshot};

/// What all units of a run share.
#[derive(Debug)]
pub(crate) struct UnitResources {
    pub(crate) stager: FileStager,
    /// The session: its memory pool, and where it spills.
    pub(crate) context: Arc<TaskContext>,
    pub(crate) cores: Arc<EncodeThreads>,
}

/// What row groups have to share, whatever file they are of.
#[derive(Debug)]
pub(crate) struct EncodeThreads {
    number: usize,
    /// What there is to do, for as many threads, which begin with the first of it and end with this. Always the same ones, so that the
    /// system leaves each on a core of its own.
    work: OnceLock<mpsc::Sender<EncodeJob>>,
    /// Row groups that hold memory.
    holding: AtomicUsize,
    /// Wakes those that wait for memory.
    freed: Notify,
}

impl EncodeThreads {
    pub(crate) fn new(number: usize) -> Self {
        let number = number.max(1);
        Self { number, work: OnceLock::new(), holding: AtomicUsize::new(0), freed: Notify::new() }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Works on a core, when one is free; who comes first is served first.
    pub(crate) async fn on_one<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, ended) = oneshot::channel();
        let work: EncodeJob = Box::new(move || {
            // Nobody may wait for it any more.
            if !done.is_closed() {
                drop(done.send(work()));
            }
        });
        let cut_off = || Error::internal("a row group was cut off");
        self.work.get_or_init(|| threads(self.number)).send(work).map_err(|_| cut_off())?;
        ended.await.map_err(|e| cut_off().with_source(e))?
    }
}

type EncodeJob = Box<dyn FnOnce() + Send>;

fn threads(number: usize) -> mpsc::Sender<EncodeJob> {
    let (send, receive) = mpsc::channel::<EncodeJob>();
    let receive = Arc::new(Mutex::new(receive));
    for _ in 0..number {
        let receive = receive.clone();
        std::thread::spawn(move || {
            let next = || receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
            while let Ok(work) = next() {
                // Who waits for it sees that nothing came of it.
                let _ = catch_unwind(AssertUnwindSafe(work));
            }
        });
    }
    send
}

/// Memory that a row group holds, given back when it is written.
pub(crate) struct ReservedMemory {
    reservation: MemoryReservation,
    cores: Arc<EncodeThreads>,
}

impl Drop for ReservedMemory {
    fn drop(&mut self) {
        self.reservation.free();
        self.cores.holding.fetch_sub(1, Ordering::SeqCst);
        self.cores.freed.notify_waiters();
    }
}

impl UnitResources {
    /// Waits for memory as long as other row groups have some that they will give back.
    ///
    /// # Errors
    /// `MemoryExhausted` if none has.
    pub(crate) async fn hold(&self, bytes: usize, name: &str) -> Result<ReservedMemory> {
        let consumer = MemoryConsumer::new(format!("RewriteUnitsExec `{name}`"));
        let reservation = consumer.register(self.context.memory_pool());
        loop {
            let freed = self.cores.freed.notified();
            match reservation.try_grow(bytes) {
                Ok(()) => {
                    self.cores.holding.fetch_add(1, Ordering::SeqCst);
                    return Ok(ReservedMemory { reservation, cores: self.cores.clone() });
                }
                Err(e) if self.cores.holding.load(Ordering::SeqCst) == 0 => {
                    return Err(engine_error(&format!("a row group of `{name}`"), e));
                }
                Err(_) => {
                    // It may have been freed between the try and the wait.
                    let again = tokio::time::sleep(Duration::from_millis(20));
                    tokio::select! { () = freed => {}, () = again => {} }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_takes_no_core_away() {
        let cores = EncodeThreads::new(1);
        let cut_off: Result<()> = cores.on_one(|| panic!("a defect")).await;
        assert_eq!(cut_off.expect_err("it did not end").code(), "Internal");
        assert_eq!(cores.on_one(|| Ok(7)).await.expect("it ended"), 7);
    }
}
