use crate::{Result, Run};

/// Input of a job. `T` is the value that a read returns; in most jobs it is a `DataFrame`.
///
/// The trait keeps storage and engines out of a job: a test passes a source that returns rows from memory.
#[async_trait::async_trait]
pub trait Source<T>: Send + Sync {
    /// Reads the input of `run`.
    ///
    /// # Errors
    /// The error of the source.
    async fn read(&self, run: &Run) -> Result<T>;
}

// Compile-time check that the trait is object-safe: jobs hold their sources as `Arc<dyn Source<T>>`.
const _: fn(&dyn Source<()>) = |_| {};
