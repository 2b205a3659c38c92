//! New files that are staged while a run is deciding, for runs larger than memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_core::Result;
use biscuit_journal::FileStager;
use biscuit_rewrite::RowsWriter;
use biscuit_rewrite::unit::WrittenUnit;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;

use crate::options::MergeOptions;
use crate::plan::merge_plan::{MergePlan, new_file};

/// Maximum number of folders whose new files are written at a time.
const FOLDERS: usize = 4;

/// New files of a run whose records do not fit into memory. They are staged while the run is deciding, so that their
/// rows need not be stored on the disk; rows of further folders are. The files become part of the table only with the
/// commit.
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

    /// Writes the new rows of a part to their files. The folders remain in the plan with empty lists, which count as
    /// new files.
    pub(crate) async fn write_rows(&mut self, plan: &mut MergePlan) -> Result<()> {
        let folders: Vec<String> = plan.added.keys().cloned().collect();
        for folder in folders {
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

    /// Ends all files, and returns them.
    pub(crate) async fn finish(&mut self) -> Result<Vec<WrittenUnit>> {
        let mut written = Vec::new();
        while let Some((_, writer)) = self.writers.pop_first() {
            written.extend(writer.finish().await?);
        }
        Ok(written)
    }

    /// Stops after an error. Nothing is staged any more when this returns; the caller abandons the commit, which
    /// deletes the staged files.
    pub(crate) async fn stop(self) {
        for writer in self.writers.into_values() {
            writer.stop().await;
        }
    }
}
