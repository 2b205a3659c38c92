use std::sync::Arc;

use biscuit_core::Result;
use biscuit_journal::TableStorage;

use crate::fault_store::{FaultStore, InjectedFault};

/// How often a job was crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashCount {
    /// Storage calls of the job when nothing happens to it.
    pub calls: u64,
    /// Runs that a fault stopped.
    pub crashed: u64,
}

/// Runs a job with a fault at every one of its storage calls, in turn; each time on a fresh setup, then again on a healthy
/// storage, and then checks.
///
/// `setup` makes a storage as it is before the job; `job` runs on the storage it is given; `check` looks at the outcome.
/// The job has to end with an error where the fault strikes, unless it can do without that call.
///
/// # Panics
/// If the job fails without a fault, or again after the fault is gone; and where `check` panics, naming the call.
pub async fn crash_at_every_call<S, J, C, SF, JF, CF>(fault: InjectedFault, setup: S, job: J, check: C) -> CrashCount
where
    S: Fn() -> SF,
    SF: Future<Output = TableStorage>,
    J: Fn(TableStorage) -> JF,
    JF: Future<Output = Result<()>>,
    C: Fn(TableStorage, u64) -> CF,
    CF: Future<Output = ()>,
{
    let healthy = setup().await;
    let counting = FaultStore::new(healthy.store.clone(), fault, 0);
    job(healthy.with_store(Arc::new(counting.clone()))).await.unwrap_or_else(|e| panic!("without a fault: {e}"));
    let calls = counting.calls();
    check(healthy, 0).await;
    let mut crashed = 0;
    for at in 1..=calls {
        let healthy = setup().await;
        let faulty = FaultStore::new(healthy.store.clone(), fault, at);
        crashed += u64::from(job(healthy.with_store(Arc::new(faulty))).await.is_err());
        job(healthy.clone()).await.unwrap_or_else(|e| panic!("rerun after a fault at call {at} of {calls}: {e}"));
        check(healthy, at).await;
    }
    CrashCount { calls, crashed }
}
