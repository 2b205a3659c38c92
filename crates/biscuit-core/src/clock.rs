use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Instant;

/// Source of the current time. Functions of the Biscuit crates take a clock as an argument and do not read the time
/// of the host themselves, so that tests can set it.
///
/// ```
/// use biscuit_core::{Clock, Instant};
///
/// #[derive(Debug)]
/// struct FixedClock(Instant);
///
/// impl Clock for FixedClock {
///     fn now(&self) -> Instant {
///         self.0
///     }
/// }
///
/// fn is_over(end: Instant, clock: &dyn Clock) -> bool {
///     clock.now() >= end
/// }
///
/// let noon: Instant = "2024-02-29T12:00:00Z".parse()?;
/// assert!(is_over("2024-02-29".parse()?, &FixedClock(noon)));
/// assert!(!is_over("2024-03-01".parse()?, &FixedClock(noon)));
/// # Ok::<(), biscuit_core::Error>(())
/// ```
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Instant;
}

// Compile-time check that the trait is object-safe.
const _: fn(&dyn Clock) = |_| {};

/// Clock of the host. It is never compared with the clock of a store: the two may differ by any amount.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value without fields")]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the time of the host")]
    fn now(&self) -> Instant {
        // A host whose clock is before 1970 reports 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}
