use crate::{Result, Run};

/// A job: a struct with its sources and sinks as fields, and a `run` method that reads like a flow chart.
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
    /// Result of a run, usually a report.
    type Output;

    /// Executes the job once. A second execution with the same input must lead to the same state.
    ///
    /// # Errors
    /// The first error of a source, of a sink, or of the job itself.
    async fn run(&self, run: &Run) -> Result<Self::Output>;
}
