//! The job: change files in, current state out.

mod sink;

use std::sync::Arc;

use biscuit_change::ChangeRecords;
use biscuit_core::{Job, Result, Run, Sink, Source, WriteReceipt, async_trait};

pub use sink::StateSink;

/// Keeps the current state of customers and their orders.
pub struct CustomerState {
    /// Changes of the table `customer`.
    pub customer_changes: Arc<dyn Source<ChangeRecords>>,
    /// Changes of the table `orders`.
    pub order_changes: Arc<dyn Source<ChangeRecords>>,
    /// The current customers.
    pub customers: Arc<dyn Sink<ChangeRecords>>,
    /// The current orders.
    pub orders: Arc<dyn Sink<ChangeRecords>>,
}

impl std::fmt::Debug for CustomerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CustomerState").finish_non_exhaustive()
    }
}

/// What a run did to both tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The current customers.
    pub customers: WriteReceipt,
    /// The current orders.
    pub orders: WriteReceipt,
}

#[async_trait]
impl Job for CustomerState {
    type Output = Outcome;

    async fn run(&self, run: &Run) -> Result<Outcome> {
        let customer_changes = self.customer_changes.read(run).await?;
        let order_changes = self.order_changes.read(run).await?;
        let customers = self.customers.write(run, &run.commit_id("customer"), customer_changes).await?;
        let orders = self.orders.write(run, &run.commit_id("orders"), order_changes).await?;
        Ok(Outcome { customers, orders })
    }
}
