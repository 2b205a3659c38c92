use biscuit_core::{Result, Run, Source, async_trait};

/// A source that returns the same value to every run.
#[derive(Debug, Clone)]
pub struct MemorySource<T>(T);

impl<T> MemorySource<T> {
    /// Creates a source of `value`.
    pub fn of(value: T) -> Self {
        Self(value)
    }
}

#[async_trait]
impl<T: Clone + Send + Sync> Source<T> for MemorySource<T> {
    async fn read(&self, _: &Run) -> Result<T> {
        Ok(self.0.clone())
    }
}
