use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Instant;

/// Where the time comes from. Code of the family takes a clock as an argument and never asks the host by itself.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Instant;
}

const _: fn(&dyn Clock) = |_| {};

/// The host's clock. Never compared with the clock of a store.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the host")]
    fn now(&self) -> Instant {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}
