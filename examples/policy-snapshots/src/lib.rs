//! One full copy of all policies for each month. Late, back-dated and future changes reach the months that they
//! concern.

use biscuit_apply::{ChangeFiles, ChangeFormat, MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeRecords, RowsOptions};
use biscuit_core::{Instant, Result};
use biscuit_dataset::Dataset;
use biscuit_partition::report::PeriodTableReport;
use biscuit_partition::{Granularity, PeriodBasis, PeriodCalendar, PeriodPlan, PeriodTable};
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{SessionContext, col, lit};

/// Policies of an insurer, as a periodic snapshot by month.
#[derive(Debug, Clone)]
pub struct Policies(PeriodTable);

impl Policies {
    /// Opens the policies in a dataset. The key of a policy is its number. A change takes effect at `since`, and the
    /// newest change wins; of two changes of one day, a cancellation wins.
    ///
    /// # Errors
    /// Only after a mistake in this function: the specification is constant.
    pub fn new(dataset: Dataset) -> Result<Self> {
        let spec = MergeSpec::new(["policy"], ["since"])?.with_op_rank(["c", "u", "d"]);
        let months = PeriodCalendar::new(Granularity::Month, "Europe/Zurich")?;
        let periods = PeriodPlan::new(months, PeriodBasis::Effective("since".to_owned())).with_column("month");
        PeriodTable::new(dataset, spec, MergeOptions::default(), periods).map(Self)
    }

    /// Merges a delivery into the months that it concerns. `as_of` is the instant for which the run was scheduled.
    ///
    /// # Errors
    /// As [`PeriodTable::run`].
    pub async fn deliver(&self, changes: ChangeRecords, as_of: Instant) -> Result<PeriodTableReport> {
        self.0.run(changes, as_of, RunMode::Commit).await
    }

    /// Returns the policies at the end of the month of an instant, as they are known now.
    ///
    /// # Errors
    /// `NoSuchPeriod` for a month that the table does not have.
    pub async fn as_of(&self, at: Instant) -> Result<DataFrame> {
        self.0.as_of(&SessionContext::new(), at).await
    }

    /// Returns all states of a policy, one after the other.
    ///
    /// # Errors
    /// As [`PeriodTable::history`].
    pub async fn history(&self, policy: &str) -> Result<DataFrame> {
        self.0.history(&SessionContext::new(), col("policy").eq(lit(policy))).await
    }
}

/// Reads the changes of a file or folder: JSON lines with the operation in `op`.
///
/// # Errors
/// As [`ChangeFiles::changes`].
pub async fn delivery(place: &str) -> Result<ChangeRecords> {
    ChangeFiles::new([place], ChangeFormat::Rows(RowsOptions::default().with_op("op"))).changes().await
}
