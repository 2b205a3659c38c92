use std::sync::Arc;

use biscuit_dataset::escape;
use bytes::Bytes;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

use crate::resolve::retraction::RetractionSet;

/// What a slice holds before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeriodBase {
    /// The files in its folder.
    Own,
    /// What the slice before it held before the run, whose files are copied by the store.
    Predecessor,
    /// Nothing.
    Empty,
    /// Nothing, although there are files in its folder, which go: it is built anew. Nothing is remembered of it either.
    Rebuilt,
}

/// One of the states that a table holds, each in a folder of its own: a record counts in its slice and in all later ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeriodState {
    /// What is kept by key in the state root names the slice by this number, for ever; later slices have greater ones.
    pub number: i64,
    /// The number of the slice behind it; none for the newest one of the table.
    pub next: Option<i64>,
    /// The value of the slice column.
    pub value: String,
    /// What it holds before the run.
    pub base: PeriodBase,
}

/// The slices of a table that a run may touch, ascending, the last of them the newest of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeriodStates {
    /// The partition column that names them; no record has it.
    pub column: String,
    /// The slices; change batches name them by their place here.
    pub all: Vec<PeriodState>,
}

impl PeriodStates {
    pub(crate) fn folder(&self, period: &PeriodState) -> String {
        format!("{}={}", escape(&self.column), escape(&period.value))
    }

    /// The table's columns with the one that names the slice.
    pub(crate) fn with_column(&self, schema: &SchemaRef, partition_by: &[String]) -> (SchemaRef, Vec<String>) {
        let data = schema.fields().iter().filter(|f| !partition_by.contains(f.name())).cloned();
        let own = Arc::new(Field::new(&self.column, DataType::Utf8, true));
        let rest = schema.fields().iter().filter(|f| partition_by.contains(f.name())).cloned();
        let fields: Vec<_> = data.chain([own]).chain(rest).collect();
        let columns = std::iter::once(self.column.clone()).chain(partition_by.iter().cloned());
        (Arc::new(Schema::new(fields)), columns.collect())
    }
}

/// What a commit makes true besides the rows.
#[derive(Debug, Clone, Default)]
pub struct CommitExtras {
    /// State files by name; none drops the name.
    pub state: Vec<(String, Option<Bytes>)>,
    /// Facts by name; null drops the name.
    pub properties: Vec<(String, Value)>,
    /// Stored records that never took effect when they say they did.
    pub retractions: RetractionSet,
    /// Columns that later commits of the run bring, and a file that has them: what becomes wider does so in all slices at once.
    pub columns: Vec<(SchemaRef, Arc<str>)>,
    /// What the scheduler calls the run.
    pub run: Option<String>,
    /// The records of the run that this commit is a part of, where it has several: a share of records that are put aside is of all.
    pub of_records: u64,
}

impl CommitExtras {
    pub(crate) fn is_empty(&self) -> bool {
        self.state.is_empty() && self.properties.is_empty() && self.retractions.all.is_empty()
    }
}
