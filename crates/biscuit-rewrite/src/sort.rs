//! Sorts all rows of a unit with DataFusion's external merge sort, and cuts them into row groups.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::OpenFile;
use biscuit_dataset::internal::engine_error;
use biscuit_schema::internal::conform;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::encode::threads::UnitResources;
use crate::plan::unit::RewriteUnit;

/// A partition of the sort input: files that are read one after the other.
#[derive(Debug)]
struct SequentialFiles {
    files: Vec<OpenFile>,
    schema: SchemaRef,
}

impl PartitionStream for SequentialFiles {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let rows = |file: OpenFile| -> Result<_> {
            let (schema, place) = (schema.clone(), format!("`{}`", file.path()));
            Ok(file.stream(None)?.map(move |batch| conform(&batch?, &schema, &place)))
        };
        let rows: Vec<Result<_>> = self.files.iter().cloned().map(rows).collect();
        let rows = stream::iter(rows).try_flatten().map_err(|e| DataFusionError::External(Box::new(e)));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

/// Returns all rows of a unit in sorted order, in groups of `rows` rows.
///
/// # Errors
/// `UnknownColumn` for a sort column that the unit does not have. The stream yields the errors of the sources and of
/// the sort.
pub(crate) fn sorted_groups(
    unit: &RewriteUnit,
    shared: &UnitResources,
    rows: usize,
) -> Result<impl Stream<Item = Result<Vec<RecordBatch>>> + use<>> {
    let failed = |e| engine_error("the rows to sort", e);
    let mut by = Vec::new();
    for column in &unit.sort_by {
        let expr = col(&column.column, &unit.schema).map_err(|e| {
            let message = format!("cannot sort by column `{}`: it does not exist", column.column);
            Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message).with_source(e)
        })?;
        by.push(PhysicalSortExpr::new(expr, SortOptions { descending: column.descending, nulls_first: false }));
    }
    let by = LexOrdering::new(by).ok_or_else(|| Error::internal("the list of sort columns is empty"))?;
    let width = shared.cores.number().min(unit.sources.len()).max(1);
    let mut parts: Vec<Vec<OpenFile>> = vec![vec![]; width];
    // The files are dealt round robin to one sort per core; a k-way merge combines the sorted partitions.
    for (i, file) in unit.sources.iter().enumerate() {
        parts[i % width].push(file.clone());
    }
    let streams = parts.into_iter().map(|files| {
        let files = SequentialFiles { files, schema: nullable_schema(&unit.schema) };
        Arc::new(files) as Arc<dyn PartitionStream>
    });
    let schema = nullable_schema(&unit.schema);
    let input = StreamingTableExec::try_new(schema, streams.collect(), None, vec![], false, None).map_err(failed)?;
    let sort = SortExec::new(by.clone(), Arc::new(input)).with_preserve_partitioning(true);
    let merged = SortPreservingMergeExec::new(by, Arc::new(sort));
    let batches = merged.execute(0, shared.context.clone()).map_err(failed)?;
    let name = unit.name().to_owned();
    let batches = batches.map_err(move |e| engine_error(&name, e)).boxed();
    Ok(in_groups(batches, rows))
}

fn nullable_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(datafusion::arrow::datatypes::Schema::new(fields))
}

/// Cuts and joins batches into groups of exactly `rows` rows. The last group may be smaller.
fn in_groups(
    batches: impl Stream<Item = Result<RecordBatch>> + Unpin,
    rows: usize,
) -> impl Stream<Item = Result<Vec<RecordBatch>>> {
    stream::try_unfold((batches, None::<RecordBatch>), move |(mut batches, mut rest)| async move {
        // `rest` is the remainder of a batch that crossed the end of the previous group.
        let (mut group, mut count) = (Vec::new(), 0);
        while count < rows {
            let batch = match rest.take() {
                Some(batch) => batch,
                None => match batches.try_next().await? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            let part = batch.num_rows().min(rows - count);
            count += part;
            group.push(batch.slice(0, part));
            rest = (part < batch.num_rows()).then(|| batch.slice(part, batch.num_rows() - part));
        }
        Ok((!group.is_empty()).then_some((group, (batches, rest))))
    })
}
