#![doc = include_str!("../README.md")]

mod boundaries;
mod clock;
pub mod conformance;
mod crash;
mod diff;
mod fault_store;
mod histories;
mod memory_keys;
mod pause;
mod recording_sink;
mod recording_store;
mod snapshot;
mod source;
mod table;

pub use boundaries::{Boundary, boundaries};
pub use clock::FixedClock;
pub use crash::{Crashes, crash_at_every_call};
pub use diff::{Matching, diff_rows, diff_rows_with};
pub use fault_store::{Fault, FaultStore};
pub use histories::{History, HistoryOptions, RecordKind, TrueRecord, histories, true_state};
pub use memory_keys::MemoryKeys;
pub use pause::{Pauses, pause_at_every_call};
pub use recording_sink::{RecordingSink, Written};
pub use recording_store::{Calls, RecordingStore};
pub use snapshot::{dataset_text, frame_text, rows_text};
pub use source::MemorySource;
pub use table::{json_rows, table};

#[doc(hidden)]
pub use insta::assert_snapshot as __assert_snapshot;

/// Asserts that two sets of rows are equal: by type, whatever the order of rows and columns; a failure shows the cells
/// that differ. Takes batches, or anything that is a slice of them.
#[macro_export]
macro_rules! assert_rows_eq {
    ($left:expr, $right:expr $(,)?) => {
        if let Some(diff) = $crate::diff_rows(&$crate::Rows::rows(&$left), &$crate::Rows::rows(&$right)) {
            panic!("the rows differ (- left, + right):\n{diff}");
        }
    };
}

/// Compares rows with a snapshot of insta, as a text table sorted by all columns.
#[macro_export]
macro_rules! assert_rows_snapshot {
    ($rows:expr, @$snapshot:literal) => {
        $crate::__assert_snapshot!($crate::rows_text(&$crate::Rows::rows(&$rows)), @$snapshot)
    };
    ($name:expr, $rows:expr) => {
        $crate::__assert_snapshot!($name, $crate::rows_text(&$crate::Rows::rows(&$rows)))
    };
    ($rows:expr) => {
        $crate::__assert_snapshot!($crate::rows_text(&$crate::Rows::rows(&$rows)))
    };
}

/// What the macros take as rows.
pub trait Rows {
    /// The batches.
    fn rows(&self) -> Vec<datafusion::arrow::array::RecordBatch>;
}

impl Rows for datafusion::arrow::array::RecordBatch {
    fn rows(&self) -> Vec<datafusion::arrow::array::RecordBatch> {
        vec![self.clone()]
    }
}

impl Rows for Vec<datafusion::arrow::array::RecordBatch> {
    fn rows(&self) -> Vec<datafusion::arrow::array::RecordBatch> {
        self.clone()
    }
}

impl Rows for [datafusion::arrow::array::RecordBatch] {
    fn rows(&self) -> Vec<datafusion::arrow::array::RecordBatch> {
        self.to_vec()
    }
}
