#![doc = include_str!("../README.md")]

mod boundaries;
pub mod conformance;
mod crash;
mod diff;
mod doubles;
mod histories;
pub mod internal;
mod pause;
mod snapshot;
mod table;

pub use crash::{CrashCount, crash_at_every_call};
pub use diff::{RowOrdering, diff_rows, diff_rows_with};
pub use doubles::clock::FixedClock;
pub use doubles::fault_store::{FaultStore, InjectedFault};
pub use doubles::latency_store::{LatencyStore, RequestDepth, request_depth};
pub use doubles::memory_keys::MemoryKeys;
pub use doubles::recording_sink::{RecordedWrite, RecordingSink};
pub use doubles::recording_store::{RecordingStore, StoreCalls};
pub use doubles::source::MemorySource;
pub use pause::{PauseCount, pause_at_every_call};
pub use snapshot::{dataset_text, frame_text, rows_text};
pub use table::{json_rows, table};

#[doc(hidden)]
pub use insta::assert_snapshot as __assert_snapshot;

/// Asserts that two sets of rows are equal in values and types, in any order of rows and columns. A failure shows the
/// rows that differ. Accepts everything that implements [`RowBatches`].
#[macro_export]
macro_rules! assert_rows_eq {
    ($left:expr, $right:expr $(,)?) => {
        if let Some(diff) = $crate::diff_rows(&$crate::RowBatches::rows(&$left), &$crate::RowBatches::rows(&$right)) {
            panic!("the rows differ (- left, + right):\n{diff}");
        }
    };
}

/// Compares rows with an insta snapshot, as a text table that is sorted by all columns.
#[macro_export]
macro_rules! assert_rows_snapshot {
    ($rows:expr, @$snapshot:literal) => {
        $crate::__assert_snapshot!($crate::rows_text(&$crate::RowBatches::rows(&$rows)), @$snapshot)
    };
    ($name:expr, $rows:expr) => {
        $crate::__assert_snapshot!($name, $crate::rows_text(&$crate::RowBatches::rows(&$rows)))
    };
    ($rows:expr) => {
        $crate::__assert_snapshot!($crate::rows_text(&$crate::RowBatches::rows(&$rows)))
    };
}

/// Rows for the assertion macros.
pub trait RowBatches {
    /// Returns the batches.
    fn rows(&self) -> Vec<datafusion::arrow::array::RecordBatch>;
}

impl RowBatches for datafusion::arrow::array::RecordBatch {
    fn rows(&self) -> Vec<datafusion::arrow::array::RecordBatch> {
        vec![self.clone()]
    }
}

impl RowBatches for Vec<datafusion::arrow::array::RecordBatch> {
    fn rows(&self) -> Vec<datafusion::arrow::array::RecordBatch> {
        self.clone()
    }
}

impl RowBatches for [datafusion::arrow::array::RecordBatch] {
    fn rows(&self) -> Vec<datafusion::arrow::array::RecordBatch> {
        self.to_vec()
    }
}
