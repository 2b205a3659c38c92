use crate::{Result, Run};

/// A job: a struct that holds its sources and sinks, and a `run` that reads like a flow chart.
///
/// ```
/// use biscuit_core::{async_trait, CommitId, Job, Result, Run, Sink, Source};
/// use std::sync::Arc;
///
/// struct Copy { from: Arc<dyn Source<Vec<i64>>>, to: Arc<dyn Sink<Vec<i64>>> }
///
/// #[async_trait]
/// impl Job for Copy {
///     type Output = u64;
///     async fn run(&self, run: &Run) -> Result<u64> {
///         let rows = self.from.read(run).await?;
///         let receipt = self.to.write(run, &run.commit_id("copy"), rows).await?;
///         Ok(receipt.rows)
///     }
/// }
/// ```
#[async_trait::async_trait]
pub trait Job: Send + Sync {
    /// What a run answers with, usually a report.
    type Output;

    /// Executes the job once. Running it again with the same input must lead to the same state.
    async fn run(&self, run: &Run) -> Result<Self::Output>;
}
