//! Types of columns that no contract declares. They come from the values of all text files of a run.

use std::sync::Arc;

use arrow::datatypes::DataType;
use biscuit_schema::{SchemaInference, TypeConflict};

use crate::files::chunks::TextChunk;

/// Types of the columns that are not declared: first they are learned from all values, then they are known.
#[derive(Debug)]
pub(crate) struct LearnedTypes {
    /// Types so far.
    pub(crate) learning: SchemaInference,
    known: Option<Arc<SchemaInference>>,
    /// Chunks that wait until the types are known.
    pub(crate) waiting: Vec<TextChunk>,
}

impl Default for LearnedTypes {
    fn default() -> Self {
        // Without times: a later run may contain dates and times in another format.
        Self { learning: SchemaInference::default().without_times(), known: None, waiting: vec![] }
    }
}

impl LearnedTypes {
    pub(crate) fn are_known(&self) -> bool {
        self.known.is_some()
    }

    /// Returns the types for a reader of a part. If they are not known yet, the part learns types of its own.
    pub(crate) fn for_part(&self) -> Self {
        Self { known: self.known.clone(), ..Self::default() }
    }

    /// Takes over the types that were learned. Returns the columns with conflicting values.
    pub(crate) fn set(&mut self, learned: SchemaInference) -> Vec<TypeConflict> {
        let conflicts = learned.conflicts().cloned().collect();
        self.known = Some(Arc::new(learned));
        conflicts
    }

    /// Returns the type of a column; `Null` if it has no value in any file.
    pub(crate) fn type_of(&self, column: &str) -> DataType {
        self.known.as_ref().and_then(|known| known.type_of(column)).unwrap_or(DataType::Null)
    }
}
