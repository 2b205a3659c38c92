//! One full copy of all policies per month: late, back-dated and future changes go to the months they belong to.

use biscuit_change::{ChangeRecords, RowsOptions};
use biscuit_core::{Instant, Result};
use biscuit_dataset::Dataset;
use biscuit_merge::{ChangeFiles, ChangeFormat, MergeOptions, MergeSpec, RunMode};
use biscuit_partition::{Granularity, PeriodBasis, PeriodCalendar, PeriodPlan, PeriodTable, PeriodTableReport};
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{SessionContext, col, lit};

/// The policies of an insurer, by month.
#[derive(Debug, Clone)]
pub struct Policies(PeriodTable);

impl Policies {
    /// The policies in a dataset. A policy is named by its number; its changes are in force from `since` on, the newest of them wins, and
    /// of two of one day a cancellation does.
    ///
    /// # Errors
    /// None that is not a mistake in this function.
    pub fn new(dataset: Dataset) -> Result<Self> {
        let spec = MergeSpec::new(["policy"], ["since"])?.with_op_rank(["c", "u", "d"]);
        let months = PeriodCalendar::new(Granularity::Month, "Europe/Zurich")?;
        let periods = PeriodPlan::new(months, PeriodBasis::Effective("since".to_owned())).with_column("month");
        PeriodTable::new(dataset, spec, MergeOptions::default(), periods).map(Self)
    }

    /// Brings a delivery to the months that it is about. `as_of` is the instant for which the run was scheduled.
    ///
    /// # Errors
    /// Those of [`PeriodTable::run`].
    pub async fn deliver(&self, changes: ChangeRecords, as_of: Instant) -> Result<PeriodTableReport> {
        self.0.run(changes, as_of, RunMode::Commit).await
    }

    /// What was insured at the end of the month of an instant, by what is known now.
    ///
    /// # Errors
    /// `NoSuchPeriod` for a month that is not there.
    pub async fn as_of(&self, at: Instant) -> Result<DataFrame> {
        self.0.as_of(&SessionContext::new(), at).await
    }

    /// What a policy was, state by state.
    ///
    /// # Errors
    /// Those of [`PeriodTable::history`].
    pub async fn history(&self, policy: &str) -> Result<DataFrame> {
        self.0.history(&SessionContext::new(), col("policy").eq(lit(policy))).await
    }
}

/// The changes in a file or folder: JSON lines with the operation in `op`.
///
/// # Errors
/// Those of [`ChangeFiles::changes`].
pub async fn delivery(place: &str) -> Result<ChangeRecords> {
    ChangeFiles::new([place], ChangeFormat::Rows(RowsOptions::default().with_op("op"))).changes().await
}
