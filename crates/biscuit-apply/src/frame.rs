//! The merge contract as a function on data frames, without a table and without memory of earlier runs.

use biscuit_core::{Error, Result};
use biscuit_merge::{ChangeColumns, MergeSpec, ReductionReport, merge_and_retain_last};
use datafusion::arrow::array::RecordBatch;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use futures::TryStreamExt;

/// Merges change records into rows that are data frames: [`merge_and_retain_last`] for the rows of two frames. Both
/// frames are held in memory.
///
/// # Errors
/// The errors of [`merge_and_retain_last`], and `UnreadableRows` if a frame cannot be computed.
pub async fn merge_frames(
    current: DataFrame,
    changes: DataFrame,
    spec: &MergeSpec,
    columns: &ChangeColumns,
) -> Result<(DataFrame, ReductionReport)> {
    // A specification that cannot work is refused before the frames are computed.
    spec.check()?;
    let (current, changes) =
        (collect_rows(current, "the current rows").await?, collect_rows(changes, "the changes").await?);
    let (merged, report) = merge_and_retain_last(&current, &changes, spec, columns)?;
    let frame = SessionContext::new().read_batches(merged);
    Ok((frame.map_err(|e| Error::internal("the rows could not be turned into a frame").with_source(e))?, report))
}

/// Returns the rows of a frame. The first batch is empty and has the schema of the frame, which may have no rows.
async fn collect_rows(frame: DataFrame, place: &str) -> Result<Vec<RecordBatch>> {
    let schema = frame.schema().inner().clone();
    let failed =
        |e| Error::new(biscuit_dataset::codes::UNREADABLE_ROWS, format!("{place} cannot be computed")).with_source(e);
    let rows: Vec<RecordBatch> = frame.execute_stream().await.map_err(failed)?.try_collect().await.map_err(failed)?;
    Ok([RecordBatch::new_empty(schema)].into_iter().chain(rows).collect())
}
