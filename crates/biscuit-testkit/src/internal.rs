//! Helpers of the Biscuit workspace's own tests. They are outside of semantic versioning: do not use them elsewhere.

use biscuit_core::Result;
use biscuit_journal::TableStorage;

use crate::crash::crash_at_calls;
use crate::pause::pause_at_calls;
use crate::{CrashCount, InjectedFault, PauseCount};

pub use crate::boundaries::{BoundaryValue, boundaries};
pub use crate::histories::{History, HistoryOptions, RecordKind, TrueRecord, histories, true_state};

/// Returns whether long tests run in full: with `BISCUIT_TEST_SCALE=full`, as in CI.
fn is_full() -> bool {
    std::env::var("BISCUIT_TEST_SCALE").is_ok_and(|scale| scale == "full")
}

/// Returns text of this length that hardly compresses, always the same for a seed. Files with it are larger than the
/// end of a file that is read with its footer.
pub fn incompressible_text(length: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        // A linear congruential generator with the constants of MMIX (Knuth), of which the upper bits are used.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from_digit(u32::try_from(state >> 59).expect("five bits are left"), 36).expect("the digit is below 36")
    };
    (0..length).map(|_| next()).collect()
}

/// Number of cases of a long test: `full` with `BISCUIT_TEST_SCALE=full`, otherwise a tenth of it, at least one.
pub fn scaled(full: u32) -> u32 {
    if is_full() { full } else { (full / 10).max(1) }
}

/// Calls at which a long crash or pause test stops a job: all of them with `BISCUIT_TEST_SCALE=full`, otherwise the
/// first, the last, and every third between them.
fn scaled_calls(calls: u64) -> Vec<u64> {
    let is_full = is_full();
    (1..=calls).filter(|at| is_full || *at == 1 || (calls - at).is_multiple_of(3)).collect()
}

/// Number that a count of a scaled crash or pause test stands for: three times the count if a third of the calls was
/// tried.
pub fn extrapolated(count: u64) -> u64 {
    if is_full() { count } else { count * 3 }
}

/// As [`crash_at_every_call`](crate::crash_at_every_call), for long tests of the workspace: at all calls only with
/// `BISCUIT_TEST_SCALE=full`, otherwise at about a third of them.
///
/// # Panics
/// As `crash_at_every_call`.
pub async fn crash_at_scaled_calls<S, J, C, SF, JF, CF>(fault: InjectedFault, setup: S, job: J, check: C) -> CrashCount
where
    S: Fn() -> SF,
    SF: Future<Output = TableStorage>,
    J: Fn(TableStorage) -> JF,
    JF: Future<Output = Result<()>>,
    C: Fn(TableStorage, u64) -> CF,
    CF: Future<Output = ()>,
{
    crash_at_calls(scaled_calls, fault, setup, job, check).await
}

/// As [`pause_at_every_call`](crate::pause_at_every_call), for long tests of the workspace: at all calls only with
/// `BISCUIT_TEST_SCALE=full`, otherwise at about a third of them.
///
/// # Panics
/// As `pause_at_every_call`.
pub async fn pause_at_scaled_calls<S, J, O, C, SF, JF, OF, CF>(
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
    pause_at_calls(scaled_calls, pause, setup, job, other, check).await
}
