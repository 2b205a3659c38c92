use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_core::Result;
use biscuit_journal::FileStager;
use biscuit_rewrite::{RewriteUnit, RowsWriter, WrittenUnit};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;

use crate::options::MergeOptions;
use crate::plan::merge_plan::MergePlan;

/// Folders whose new files are written at a time.
const FOLDERS: usize = 4;

/// The new files of a run whose records do not fit into memory: they are written while the run goes on, so that their rows need
/// not wait on the disk. They are staged, and part of the table only by the commit. Rows of further folders do wait.
#[derive(Debug)]
pub(crate) struct NewFiles {
    stager: FileStager,
    context: Arc<TaskContext>,
    schema: SchemaRef,
    options: MergeOptions,
    writers: BTreeMap<String, RowsWriter>,
}

impl NewFiles {
    pub(crate) fn new(
        stager: FileStager,
        context: Arc<TaskContext>,
        schema: SchemaRef,
        options: &MergeOptions,
    ) -> Self {
        Self { stager, context, schema, options: options.clone(), writers: BTreeMap::new() }
    }

    /// Takes the rows that a part of the run has put into new files.
    pub(crate) async fn take(&mut self, plan: &mut MergePlan) -> Result<()> {
        let pending: Vec<String> = plan.added.keys().cloned().collect();
        for folder in pending {
            if !self.writers.contains_key(&folder) && self.writers.len() >= FOLDERS {
                continue;
            }
            let writer = self.writers.entry(folder.clone()).or_insert_with(|| {
                let unit = new_file(folder.clone(), &self.schema, &self.options);
                RowsWriter::new(unit, &self.stager, self.context.clone())
            });
            for rows in plan.added.get_mut(&folder).into_iter().flat_map(std::mem::take) {
                writer.write(rows.get()?).await?;
            }
        }
        Ok(())
    }

    /// Ends all files.
    pub(crate) async fn finish(&mut self) -> Result<Vec<WrittenUnit>> {
        let mut written = Vec::new();
        while let Some((_, writer)) = self.writers.pop_first() {
            written.extend(writer.finish().await?);
        }
        Ok(written)
    }

    /// Gives up: nothing is staged any more when this returns.
    pub(crate) async fn stop(self) {
        for writer in self.writers.into_values() {
            writer.stop().await;
        }
    }
}

/// A new file, without rows yet, that becomes no larger than new files are to be.
pub(crate) fn new_file(folder: String, schema: &SchemaRef, options: &MergeOptions) -> RewriteUnit {
    RewriteUnit::of(vec![], schema.clone(), folder)
        .with_parquet(options.parquet.clone())
        .with_max_file_size(options.target_size.min(options.max_file_size))
}
