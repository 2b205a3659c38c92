//! Writer ids: the random names of executions.

use std::fmt;

/// Source of writer ids: numbers that no other execution gets.
pub trait WriterIds: fmt::Debug + Send + Sync {
    /// Returns the next number.
    fn next(&self) -> u64;
}

/// Writer ids from the random number generator of the operating system.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct RandomWriterIds;

impl WriterIds for RandomWriterIds {
    fn next(&self) -> u64 {
        getrandom::u64().expect("the operating system provides random numbers")
    }
}
