use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use biscuit_core::Result;
use biscuit_dataset::engine_error;
use biscuit_journal::Stager;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// What all units of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stager: Stager,
    /// The session: its memory pool, and where it spills.
    pub(crate) context: Arc<TaskContext>,
    pub(crate) cores: Arc<Cores>,
}

/// What row groups have to share, whatever file they are of.
#[derive(Debug)]
pub(crate) struct Cores {
    number: usize,
    permits: Semaphore,
    /// Row groups that hold memory.
    holding: AtomicUsize,
    /// Wakes those that wait for memory.
    freed: Notify,
}

impl Cores {
    pub(crate) fn new(number: usize) -> Self {
        let number = number.max(1);
        Self { number, permits: Semaphore::new(number), holding: AtomicUsize::new(0), freed: Notify::new() }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// A core to work on, when one is free.
    pub(crate) async fn one(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }
}

/// Memory that a row group holds, given back when it is written.
pub(crate) struct Held {
    reservation: MemoryReservation,
    cores: Arc<Cores>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.reservation.free();
        self.cores.holding.fetch_sub(1, Ordering::SeqCst);
        self.cores.freed.notify_waiters();
    }
}

impl Shared {
    /// Waits for memory as long as other row groups have some that they will give back.
    ///
    /// # Errors
    /// `MemoryExhausted` if none has.
    pub(crate) async fn hold(&self, bytes: usize, name: &str) -> Result<Held> {
        let consumer = MemoryConsumer::new(format!("RewriteUnitsExec `{name}`"));
        let reservation = consumer.register(self.context.memory_pool());
        loop {
            let freed = self.cores.freed.notified();
            match reservation.try_grow(bytes) {
                Ok(()) => {
                    self.cores.holding.fetch_add(1, Ordering::SeqCst);
                    return Ok(Held { reservation, cores: self.cores.clone() });
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
