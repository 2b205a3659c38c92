//! The periods of a table, and what a commit has to know of a run with several commits.

use std::sync::Arc;

use biscuit_dataset::internal::escape;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::periods::retraction::RetractionSet;

/// The content of a period before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum PeriodBase {
    /// The files in the folder of the period.
    Own,
    /// A new period that begins with the content of its predecessor before the run. Its files are copied by the
    /// store.
    Predecessor,
    /// A new period that begins empty.
    Empty,
    /// A period that is built again from nothing. The files in its folder are removed, and its key metadata no longer
    /// applies.
    Rebuilt,
}

/// A period of a table of periodic snapshots, which has a folder of its own. A record takes effect in its period and
/// in all later ones.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct PeriodState {
    /// Number of the period. Key metadata is stored under this number, so it must never change. Later periods have
    /// greater numbers.
    pub number: i64,
    /// Number of the next period; `None` for the newest period of the table.
    pub next: Option<i64>,
    /// Value of the period column.
    pub value: String,
    /// Content of the period before the run.
    pub base: PeriodBase,
}

/// The periods of a table that a run may change, in ascending order. The last one is the newest period of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct PeriodStates {
    /// Partition column with the name of the period. Records must not have this column.
    pub column: String,
    /// The periods. Change batches refer to them by their index.
    pub all: Vec<PeriodState>,
}

impl PeriodStates {
    /// Returns the folder of a period, relative to the table.
    pub(crate) fn period_folder(&self, period: &PeriodState) -> String {
        format!("{}={}", escape(&self.column), escape(&period.value))
    }

    /// Returns the schema and the partition columns of the table, with the period column as the first partition
    /// column.
    pub(crate) fn with_column(&self, schema: &SchemaRef, partition_by: &[String]) -> (SchemaRef, Vec<String>) {
        let data = schema.fields().iter().filter(|f| !partition_by.contains(f.name())).cloned();
        let own = Arc::new(Field::new(&self.column, DataType::Utf8, true));
        let rest = schema.fields().iter().filter(|f| partition_by.contains(f.name())).cloned();
        let fields: Vec<_> = data.chain([own]).chain(rest).collect();
        let columns = std::iter::once(self.column.clone()).chain(partition_by.iter().cloned());
        (Arc::new(Schema::new(fields)), columns.collect())
    }
}

/// Information about the whole run, which may have several commits, for one commit of a run into periods.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PeriodRunContext {
    /// Stored records that never took effect at their stated time.
    pub retractions: RetractionSet,
    /// Columns that later commits of the run will add, each schema with a file that has it. A column that becomes
    /// wider does so in all periods at once.
    pub columns: Vec<(SchemaRef, Arc<str>)>,
    /// Number of records of the whole run. The share of quarantined records is computed from it.
    pub of_records: u64,
}
