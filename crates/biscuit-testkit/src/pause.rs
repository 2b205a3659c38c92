//! Pause tests: a job sleeps at each of its storage calls while other runs finish.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::TableStorage;

use crate::doubles::fault_store::{FaultStore, InjectedFault};

/// Numbers of a pause test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PauseCount {
    /// Number of storage calls of the job without a pause.
    pub calls: u64,
    /// Number of runs that slept while two other runs finished.
    pub slept: u64,
    /// Number of runs that ended with a conflict after the pause and were repeated.
    pub conflicts: u64,
}

/// Runs a job once for each of its storage calls, and pauses it at that call while two other runs finish. Each time
/// it begins with a new setup. A job that ends with `Conflict` after the pause is run again, as a scheduler would do;
/// any other error is a failure. Then `check` examines the outcome.
///
/// `pause` is [`InjectedFault::Pause`] (before the call) or [`InjectedFault::PauseAfter`] (before the response
/// arrives). `other` gets the number of the other run, 1 or 2. The outcome that `check` expects must not depend on
/// the order of the runs.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::{TableStorage, store_error};
/// use biscuit_testkit::{InjectedFault, pause_at_every_call};
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// async fn put(storage: TableStorage, name: String) -> biscuit_core::Result<()> {
///     let path = Path::from(name);
///     storage.store.put(&path, "1".into()).await.map_err(|e| store_error("put", &path, e))?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let setup = || async { TableStorage::durable(Arc::new(InMemory::new())) };
/// let job = |storage: TableStorage| put(storage, "job".to_owned());
/// let other = |storage: TableStorage, n: u32| put(storage, format!("other-{n}"));
/// let check = |storage: TableStorage, at: u64| async move {
///     for name in ["job", "other-1", "other-2"] {
///         assert!(storage.store.head(&Path::from(name)).await.is_ok(), "`{name}` is lost after a pause at call {at}");
///     }
/// };
/// let count = pause_at_every_call(InjectedFault::Pause, setup, job, other, check).await;
/// assert_eq!((count.calls, count.slept, count.conflicts), (1, 1, 0));
/// # }
/// ```
///
/// # Panics
/// If a run fails, and if `check` panics.
pub async fn pause_at_every_call<S, J, O, C, SF, JF, OF, CF>(
    pause: InjectedFault,
    setup: S,
    job: J,
    other: O,
    check: C,
) -> PauseCount
where
    S: Fn() -> SF,
    SF: Future<Output = TableStorage>,
    J: Fn(TableStorage) -> JF,
    JF: Future<Output = Result<()>>,
    O: Fn(TableStorage, u32) -> OF,
    OF: Future<Output = Result<()>>,
    C: Fn(TableStorage, u64) -> CF,
    CF: Future<Output = ()>,
{
    pause_at_calls(|calls| (1..=calls).collect(), pause, setup, job, other, check).await
}

/// As [`pause_at_every_call`], at the calls that `choose` selects of all calls. They are numbered from 1.
pub(crate) async fn pause_at_calls<S, J, O, C, SF, JF, OF, CF>(
    choose: fn(u64) -> Vec<u64>,
    pause: InjectedFault,
    setup: S,
    job: J,
    other: O,
    check: C,
) -> PauseCount
where
    S: Fn() -> SF,
    SF: Future<Output = TableStorage>,
    J: Fn(TableStorage) -> JF,
    JF: Future<Output = Result<()>>,
    O: Fn(TableStorage, u32) -> OF,
    OF: Future<Output = Result<()>>,
    C: Fn(TableStorage, u64) -> CF,
    CF: Future<Output = ()>,
{
    assert!(matches!(pause, InjectedFault::Pause | InjectedFault::PauseAfter), "{pause:?} is not a pause");
    let healthy = setup().await;
    let counting = FaultStore::new(healthy.store.clone(), pause, 0);
    job(healthy.with_store(Arc::new(counting.clone()))).await.unwrap_or_else(|e| panic!("without a pause: {e}"));
    let calls = counting.calls();
    let (mut slept, mut conflicts) = (0, 0);
    for at in choose(calls) {
        let healthy = setup().await;
        let sleepy = FaultStore::new(healthy.store.clone(), pause, at);
        let run = async {
            let answer = job(healthy.with_store(Arc::new(sleepy.clone()))).await;
            sleepy.resume();
            answer
        };
        let others = async {
            // Both futures run in one task. `resume` after the job ends the wait below if the job needed fewer calls
            // this time.
            let asleep = sleepy.wait_for_pause().await;
            for n in [1, 2] {
                let done = other(healthy.clone(), n).await;
                done.unwrap_or_else(|e| panic!("run {n} while the job slept at call {at} of {calls}: {e}"));
            }
            sleepy.resume();
            asleep
        };
        let (answer, asleep) = futures::join!(run, others);
        slept += u64::from(asleep);
        if let Err(e) = answer {
            assert!(must_run_again(&e), "after a pause at call {at} of {calls}: {e}");
            conflicts += 1;
            job(healthy.clone()).await.unwrap_or_else(|e| panic!("rerun after a pause at call {at} of {calls}: {e}"));
        }
        check(healthy, at).await;
    }
    PauseCount { calls, slept, conflicts }
}

fn must_run_again(e: &Error) -> bool {
    e.is(biscuit_core::codes::CONFLICT)
}
