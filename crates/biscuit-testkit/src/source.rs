use biscuit_core::{Result, Run, Source, async_trait};

/// A source that gives every run the same value.
#[derive(Debug, Clone)]
pub struct MemorySource<T>(T);

impl<T> MemorySource<T> {
    /// A source of this value.
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
