//! What a merge is made of: the table, the rules, and the options.

use std::sync::Arc;

use biscuit_dataset::Dataset;
use biscuit_merge::MergeSpec;

use crate::options::MergeOptions;
use crate::periods::period_state::PeriodStates;

/// The table, the rules and the options of a merge.
#[derive(Debug, Clone)]
pub(crate) struct MergeSetup {
    pub(crate) dataset: Dataset,
    pub(crate) spec: Arc<MergeSpec>,
    pub(crate) options: MergeOptions,
    /// Periods of a table of periodic snapshots.
    pub(crate) periods: Option<Arc<PeriodStates>>,
}

impl MergeSetup {
    /// Returns the column that names the periods.
    pub(crate) fn period_column(&self) -> Option<&String> {
        self.periods.as_ref().map(|periods| &periods.column)
    }
}
