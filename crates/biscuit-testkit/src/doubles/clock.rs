use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use biscuit_core::{Clock, Instant};

/// A clock that shows a fixed time until it is advanced.
///
/// ```
/// use std::time::Duration;
///
/// use biscuit_core::Clock;
/// use biscuit_testkit::FixedClock;
///
/// let clock = FixedClock::at("2024-02-29T12:00:00Z".parse()?);
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().to_string(), "2024-02-29T12:01:00Z");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug)]
pub struct FixedClock(AtomicI64);

impl FixedClock {
    /// Creates a clock at `instant`.
    pub fn at(instant: Instant) -> Self {
        Self(AtomicI64::new(instant.as_micros()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let next = self.now().saturating_add(by);
        self.0.store(next.as_micros(), Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Instant {
        Instant::from_micros(self.0.load(Ordering::SeqCst))
    }
}
