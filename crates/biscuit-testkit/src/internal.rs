//! Helpers of the Biscuit workspace's own tests. They are outside of semantic versioning: do not use them elsewhere.

pub use crate::boundaries::{BoundaryValue, boundaries};
pub use crate::histories::{History, HistoryOptions, RecordKind, TrueRecord, histories, true_state};

/// Number of cases of a long test: `full` with `BISCUIT_TEST_SCALE=full`, as in CI, otherwise a tenth of it, at least one.
pub fn scaled(full: u32) -> u32 {
    match std::env::var("BISCUIT_TEST_SCALE") {
        Ok(scale) if scale == "full" => full,
        _ => (full / 10).max(1),
    }
}
