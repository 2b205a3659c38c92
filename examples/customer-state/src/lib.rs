//! The job: reads change files and writes the current state of two tables.
#![expect(clippy::exhaustive_structs, reason = "an example has no users")]

use std::sync::Arc;

use biscuit_change::ChangeRecords;
use biscuit_core::{Job, Result, Run, Sink, Source, WriteReceipt, async_trait};

/// Maintains the current state of customers and their orders.
pub struct CustomerState {
    /// Source of the changes of the table `customer`.
    pub customer_changes: Arc<dyn Source<ChangeRecords>>,
    /// Source of the changes of the table `orders`.
    pub order_changes: Arc<dyn Source<ChangeRecords>>,
    /// Sink for the current customers.
    pub customers: Arc<dyn Sink<ChangeRecords>>,
    /// Sink for the current orders.
    pub orders: Arc<dyn Sink<ChangeRecords>>,
}

impl std::fmt::Debug for CustomerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CustomerState").finish_non_exhaustive()
    }
}

/// Result of a run for both tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateReceipts {
    /// Receipt of the table `customer`.
    pub customers: WriteReceipt,
    /// Receipt of the table `orders`.
    pub orders: WriteReceipt,
}

#[async_trait]
impl Job for CustomerState {
    type Output = StateReceipts;

    async fn run(&self, run: &Run) -> Result<StateReceipts> {
        let customer_changes = self.customer_changes.read(run).await?;
        let order_changes = self.order_changes.read(run).await?;
        // Each write has a commit id of its own, which is the same for each attempt: a retry repeats only what is
        // missing.
        let customers = self.customers.write(run, &run.commit_id("customer"), customer_changes).await?;
        let orders = self.orders.write(run, &run.commit_id("orders"), order_changes).await?;
        Ok(StateReceipts { customers, orders })
    }
}
