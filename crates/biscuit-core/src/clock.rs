use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Instant;

/// Source of the current time. Functions of the Biscuit crates take a clock as an argument and do not read the time
/// of the host themselves, so that tests can set it.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Instant;
}

// Compile-time check that the trait is object-safe.
const _: fn(&dyn Clock) = |_| {};

/// Clock of the host. It is never compared with the clock of a store: the two may differ by any amount.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the time of the host")]
    fn now(&self) -> Instant {
        // A host whose clock is before 1970 reports 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}
