//! Crash tests: a job stops at each of its storage calls and is run again.

use std::sync::Arc;

use biscuit_core::Result;
use biscuit_journal::TableStorage;

use crate::doubles::fault_store::{FaultStore, InjectedFault};

/// Numbers of a crash test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashCount {
    /// Number of storage calls of the job without a fault.
    pub calls: u64,
    /// Number of runs that the fault stopped.
    pub crashed: u64,
}

/// Runs a job once for each of its storage calls, with a fault at that call. Each time it begins with a new setup,
/// runs the job with the fault, runs it again on the healthy storage, and checks the outcome.
///
/// `setup` creates a storage in the state before the job. `job` runs on the storage that it gets. `check` examines
/// the outcome; its second argument is the number of the call, or 0 for the run without a fault. The job may survive
/// the fault if it does not need the call.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::{TableStorage, store_error};
/// use biscuit_testkit::{InjectedFault, crash_at_every_call};
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// async fn job(storage: TableStorage) -> biscuit_core::Result<()> {
///     for name in ["rows", "total"] {
///         let path = Path::from(name);
///         storage.store.put(&path, "42".into()).await.map_err(|e| store_error("put", &path, e))?;
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let setup = || async { TableStorage::durable(Arc::new(InMemory::new())) };
/// let check = |storage: TableStorage, at: u64| async move {
///     let total = storage.store.head(&Path::from("total")).await;
///     assert!(total.is_ok(), "there is no total after a crash at call {at}");
/// };
/// let count = crash_at_every_call(InjectedFault::Crash, setup, job, check).await;
/// assert_eq!((count.calls, count.crashed), (2, 2));
/// # }
/// ```
///
/// # Panics
/// If the job fails without a fault or in the second run, and if `check` panics.
pub async fn crash_at_every_call<S, J, C, SF, JF, CF>(fault: InjectedFault, setup: S, job: J, check: C) -> CrashCount
where
    S: Fn() -> SF,
    SF: Future<Output = TableStorage>,
    J: Fn(TableStorage) -> JF,
    JF: Future<Output = Result<()>>,
    C: Fn(TableStorage, u64) -> CF,
    CF: Future<Output = ()>,
{
    crash_at_calls(|calls| (1..=calls).collect(), fault, setup, job, check).await
}

/// As [`crash_at_every_call`], at the calls that `choose` selects of all calls. They are numbered from 1.
pub(crate) async fn crash_at_calls<S, J, C, SF, JF, CF>(
    choose: fn(u64) -> Vec<u64>,
    fault: InjectedFault,
    setup: S,
    job: J,
    check: C,
) -> CrashCount
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
    for at in choose(calls) {
        let healthy = setup().await;
        let faulty = FaultStore::new(healthy.store.clone(), fault, at);
        crashed += u64::from(job(healthy.with_store(Arc::new(faulty))).await.is_err());
        job(healthy.clone()).await.unwrap_or_else(|e| panic!("rerun after a fault at call {at} of {calls}: {e}"));
        check(healthy, at).await;
    }
    CrashCount { calls, crashed }
}
