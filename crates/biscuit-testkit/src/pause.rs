use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::TableStorage;

use crate::fault_store::{FaultStore, InjectedFault};

/// How often a job was paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseCount {
    /// Storage calls of the job when nothing happens to it.
    pub calls: u64,
    /// Runs that slept while two others finished.
    pub slept: u64,
    /// Runs that found out, on waking, that others had been there, and had to be run again.
    pub conflicts: u64,
}

/// Runs a job that falls asleep at every one of its storage calls, in turn; each time on a fresh setup. While it sleeps two
/// other runs finish; then it wakes up and goes on. A job that ends with `Conflict` is run again, as a scheduler would
/// do it; any other error is a failure. Then `check` looks at the outcome.
///
/// `pause` is [`InjectedFault::Pause`] (asleep before the call) or [`InjectedFault::PauseAfter`] (asleep before its answer is known). `other`
/// is told which of the two it is, 1 or 2. What `check` expects must not depend on who was first.
///
/// # Panics
/// If a run fails, and where `check` panics.
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
    assert!(matches!(pause, InjectedFault::Pause | InjectedFault::PauseAfter), "{pause:?} is no pause");
    let healthy = setup().await;
    let counting = FaultStore::new(healthy.store.clone(), pause, 0);
    job(healthy.with_store(Arc::new(counting.clone()))).await.unwrap_or_else(|e| panic!("without a pause: {e}"));
    let calls = counting.calls();
    let (mut slept, mut conflicts) = (0, 0);
    for at in 1..=calls {
        let healthy = setup().await;
        let sleepy = FaultStore::new(healthy.store.clone(), pause, at);
        let run = async {
            let answer = job(healthy.with_store(Arc::new(sleepy.clone()))).await;
            sleepy.resume();
            answer
        };
        let others = async {
            let asleep = sleepy.paused().await;
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
    e.code() == "Conflict"
}
