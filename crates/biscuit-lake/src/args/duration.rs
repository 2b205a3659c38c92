//! Durations on the command line.

use std::time::Duration;

/// Parses a duration with a unit, such as `30s` or `2h`. Only zero may have no unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(0) => Ok(Duration::ZERO),
        Ok(n) => Err(format!("{n} has no unit; write {n}s, {n}m, {n}h or {n}d")),
        Err(_) => biscuit_core::parse_duration(text).map_err(|e| e.message().to_owned()),
    }
}
