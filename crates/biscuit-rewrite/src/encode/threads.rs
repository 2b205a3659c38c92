//! The resources that the row groups of a run share: encoder threads and the memory pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use biscuit_core::{Error, Result};
use biscuit_dataset::internal::engine_error;
use biscuit_journal::FileStager;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tokio::sync::{Notify, oneshot};

/// Resources that all units of a run share.
#[derive(Debug)]
pub(crate) struct UnitResources {
    pub(crate) stager: FileStager,
    /// The session, with its memory pool and its folder for spilled sorts.
    pub(crate) context: Arc<TaskContext>,
    pub(crate) cores: Arc<EncodeThreads>,
}

/// Pool of encoder threads, shared by the row groups of all files.
#[derive(Debug)]
pub(crate) struct EncodeThreads {
    number: usize,
    /// Queue of jobs, in order of arrival. The threads start with the first job and end when the queue is dropped.
    /// They live as long as the run, so that the operating system leaves each on a core of its own.
    work: OnceLock<mpsc::Sender<EncodeJob>>,
    /// Number of row groups that hold memory.
    holding: AtomicUsize,
    /// Wakes row groups that wait for memory.
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

    /// Runs `work` on an encoder thread, in order of arrival, and returns its result.
    pub(crate) async fn run_on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, ended) = oneshot::channel();
        let work: EncodeJob = Box::new(move || {
            // Skip the work if the caller no longer waits for it.
            if !done.is_closed() {
                drop(done.send(work()));
            }
        });
        let cut_off = || Error::internal("the thread that encoded a row group ended");
        self.work.get_or_init(|| start_threads(self.number)).send(work).map_err(|_| cut_off())?;
        ended.await.map_err(|e| cut_off().with_source(e))?
    }
}

type EncodeJob = Box<dyn FnOnce() + Send>;

fn start_threads(number: usize) -> mpsc::Sender<EncodeJob> {
    let (send, receive) = mpsc::channel::<EncodeJob>();
    let receive = Arc::new(Mutex::new(receive));
    for _ in 0..number {
        let receive = receive.clone();
        std::thread::spawn(move || {
            let next = || receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
            while let Ok(work) = next() {
                // A panic drops the sender of the result, so that the caller gets an error. The thread survives.
                let _ = catch_unwind(AssertUnwindSafe(work));
            }
        });
    }
    send
}

/// Memory that a row group holds. It is released when the row group is written.
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
    /// Reserves memory for a row group. Waits while other row groups hold memory that they will release.
    ///
    /// # Errors
    /// `MemoryExhausted` if no other row group holds memory.
    pub(crate) async fn reserve_memory(&self, bytes: usize, name: &str) -> Result<ReservedMemory> {
        let consumer = MemoryConsumer::new(format!("RewriteUnitsExec `{name}`"));
        let reservation = consumer.register(self.context.memory_pool());
        loop {
            // Register for the wake-up before the attempt; otherwise a release between the two would be missed.
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
                    // The timeout covers memory that is released without a wake-up, for example by a sort.
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
    async fn panic_in_a_job_is_an_error_and_the_thread_survives() {
        let cores = EncodeThreads::new(1);
        let cut_off: Result<()> = cores.run_on_thread(|| panic!("a defect")).await;
        assert_eq!(cut_off.expect_err("the job panicked").code(), "Internal");
        assert_eq!(cores.run_on_thread(|| Ok(7)).await.expect("the job ends"), 7);
    }
}
