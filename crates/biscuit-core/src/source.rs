use crate::{Result, Run};

/// Where a job's input comes from. `T` is what it carries, `DataFrame` in most jobs.
#[async_trait::async_trait]
pub trait Source<T>: Send + Sync {
    /// Reads what this run is to work on.
    async fn read(&self, run: &Run) -> Result<T>;
}

const _: fn(&dyn Source<()>) = |_| {};
