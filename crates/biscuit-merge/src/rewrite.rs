use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{FileWriter, OpenFile, ParquetOptions, conform};
use biscuit_journal::{StagedFile, Stager};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::interleave_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use object_store::ObjectStore;

/// What happens to one row of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    Remove,
    /// With the new row of this batch and row.
    Replace(usize, usize),
}

/// Everything one file's rewriting needs; it owns it, so that files can be worked on at the same time.
pub(crate) struct Rewrite {
    pub(crate) file: OpenFile,
    pub(crate) edits: BTreeMap<u64, Edit>,
    /// New rows, in the columns of `schema`.
    pub(crate) rows: Arc<Vec<RecordBatch>>,
    /// Rows to append.
    pub(crate) inserts: Vec<RecordBatch>,
    /// The columns of the file: the target's without those in the path.
    pub(crate) schema: SchemaRef,
    pub(crate) stager: Stager,
    /// Where the new files are.
    pub(crate) folder: String,
    /// Bytes at which another file is begun: what is staged stays below what one server-side copy can move.
    pub(crate) max_file_size: u64,
    pub(crate) options: ParquetOptions,
    pub(crate) store: Arc<dyn ObjectStore>,
}

/// Copies a file with its edits, a batch at a time; untouched rows keep their order and their values. One that is too large
/// becomes several.
pub(crate) async fn rewrite(job: Rewrite) -> Result<Vec<StagedFile>> {
    let place = format!("`{}`", job.file.file.path);
    let mut out = Out { job: &job, writer: None, done: vec![] };
    let mut batches = job.file.stream(None)?;
    let mut first = 0;
    while let Some(batch) = batches.try_next().await? {
        let next = first + batch.num_rows() as u64;
        let batch = conform(&batch, &job.schema, &place)?;
        let edits: Vec<(u64, Edit)> = job.edits.range(first..next).map(|(r, e)| (r - first, *e)).collect();
        out.write(&apply(&batch, &edits, &job.rows)?).await?;
        first = next;
    }
    for batch in &job.inserts {
        out.write(batch).await?;
    }
    out.finish().await
}

struct Out<'a> {
    job: &'a Rewrite,
    writer: Option<FileWriter>,
    done: Vec<StagedFile>,
}

impl Out<'_> {
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin()?,
        };
        writer.write(batch).await?;
        if writer.estimated_size() as u64 >= self.job.max_file_size {
            self.done.push(writer.finish(&self.job.store).await?);
        } else {
            self.writer = Some(writer);
        }
        Ok(())
    }

    fn begin(&self) -> Result<FileWriter> {
        let stage = self.job.stager.writer(&self.job.folder, "parquet");
        FileWriter::new(stage, self.job.schema.clone(), &self.job.options)
    }

    async fn finish(mut self) -> Result<Vec<StagedFile>> {
        if let Some(writer) = self.writer.take() {
            self.done.push(writer.finish(&self.job.store).await?);
        }
        Ok(self.done)
    }
}

fn apply(batch: &RecordBatch, edits: &[(u64, Edit)], rows: &[RecordBatch]) -> Result<RecordBatch> {
    if edits.is_empty() {
        return Ok(batch.clone());
    }
    let mut sources: Vec<usize> =
        edits.iter().filter_map(|(_, e)| if let Edit::Replace(b, _) = e { Some(*b) } else { None }).collect();
    sources.sort_unstable();
    sources.dedup();
    let mut indices = Vec::with_capacity(batch.num_rows());
    let mut edits = edits.iter().peekable();
    for row in 0..batch.num_rows() {
        match edits.next_if(|(r, _)| *r == row as u64) {
            None => indices.push((0, row)),
            Some((_, Edit::Remove)) => {}
            Some((_, Edit::Replace(b, r))) => {
                indices.push((1 + sources.binary_search(b).expect("it was collected above"), *r));
            }
        }
    }
    let mut batches = vec![batch];
    batches.extend(sources.iter().map(|&b| &rows[b]));
    interleave_record_batch(&batches, &indices)
        .map_err(|e| Error::internal("rows could not be replaced").with_source(e))
}
