//! Writes rows of a source or of a query to staged files. Each thread has its own writer and files; the results are
//! combined at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use biscuit_core::{Error, Result};
use biscuit_dataset::internal::{FolderSpelling, engine_error, partition_folders};
use biscuit_dataset::{PartitionedWriter, WriteOptions};
use biscuit_journal::{FileStager, StagedFile};
use biscuit_schema::internal::{conform, plain_type};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::read::source::{SourceFileRows, SourceReader, TaskQueue};
use crate::shape::finisher::{RowFinisher, RowOrigin};
use crate::shape::source_table::with_file;

/// Staged files and their contents.
#[derive(Debug, Default)]
pub(crate) struct StagedOutput {
    pub(crate) staged: Vec<StagedFile>,
    pub(crate) rows: u64,
    pub(crate) folders: BTreeSet<String>,
    /// Folders with rows of each object, by its URL. Empty for queries, since the object of a row is not known there.
    pub(crate) reached: BTreeMap<String, BTreeSet<String>>,
    /// Columns of the rows. `None` if there were no rows.
    pub(crate) schema: Option<SchemaRef>,
}

impl StagedOutput {
    fn add_staged(&mut self, other: Self) {
        self.staged.extend(other.staged);
        self.rows += other.rows;
        self.folders.extend(other.folders);
        for (url, folders) in other.reached {
            self.reached.entry(url).or_default().extend(folders);
        }
        self.schema = self.schema.take().or(other.schema);
    }
}

/// Where rows are written, and which of them.
#[derive(Debug, Clone)]
pub(crate) struct WriteTarget {
    pub(crate) stager: FileStager,
    pub(crate) options: WriteOptions,
    /// Folders to write; rows of other folders are dropped. `None` for all folders.
    pub(crate) only: Option<BTreeSet<String>>,
    pub(crate) spelling: FolderSpelling,
    pub(crate) staged: StagedRows,
}

/// Handling of rows that reach the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StagedRows {
    /// They are written to staged files.
    Written,
    /// They are counted and not written.
    Counted,
}

/// A writer that starts new files when the columns of the rows change.
struct OutputWriter {
    target: WriteTarget,
    open: Option<(SchemaRef, PartitionedWriter)>,
    written: StagedOutput,
}

impl OutputWriter {
    fn new(target: &WriteTarget) -> Self {
        Self { target: target.clone(), open: None, written: StagedOutput::default() }
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<Vec<String>> {
        if batch.num_rows() == 0 {
            return Ok(vec![]);
        }
        if self.target.staged == StagedRows::Counted {
            return self.count_rows(batch);
        }
        if self.open.as_ref().is_some_and(|(schema, _)| *schema != batch.schema()) {
            self.close().await?;
        }
        let (_, writer) = self.open.get_or_insert_with(|| {
            let WriteTarget { stager, options, only, spelling, .. } = &self.target;
            let writer = PartitionedWriter::new(stager.clone(), options).with_spelling(spelling.clone());
            let writer = only.iter().fold(writer, |w, only| w.only(only.clone()));
            (batch.schema(), writer)
        });
        let folders = writer.write(batch).await?;
        self.written.folders.extend(folders.iter().cloned());
        Ok(folders)
    }

    /// Counts rows by folder without writing them.
    fn count_rows(&mut self, batch: &RecordBatch) -> Result<Vec<String>> {
        let WriteTarget { options, only, spelling, .. } = &self.target;
        let mut folders = Vec::new();
        for (folder, rows) in partition_folders(batch, &options.partition_by, spelling)? {
            if only.as_ref().is_none_or(|only| only.contains(&folder)) {
                self.written.rows += rows.num_rows() as u64;
                folders.push(folder);
            }
        }
        self.written.folders.extend(folders.iter().cloned());
        Ok(folders)
    }

    async fn close(&mut self) -> Result<()> {
        if let Some((schema, writer)) = self.open.take() {
            let (rows, staged) = writer.finish().await?;
            self.written.add_staged(StagedOutput { staged, rows, schema: Some(schema), ..StagedOutput::default() });
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<StagedOutput> {
        self.close().await?;
        Ok(self.written)
    }
}

/// The rows of a source for an output, and the number of threads to read them with.
pub(crate) struct SourceRows<'a> {
    pub(crate) reading: &'a Arc<SourceReader>,
    pub(crate) source_file: Option<&'a str>,
    pub(crate) queue: TaskQueue,
    pub(crate) finish: &'a Arc<RowFinisher>,
    pub(crate) workers: usize,
}

/// Calls `take` with the rows of a source, as the output stores them. Each thread works on a value from `begin`,
/// which `end` turns into its result.
pub(crate) async fn process_rows<W: Send + 'static, T: Send + 'static>(
    source: SourceRows<'_>,
    begin: impl Fn() -> W + Send + Sync + 'static,
    take: impl Fn(&mut W, &Handle, &SourceFileRows<'_>, RecordBatch) -> Result<()> + Send + Sync + 'static,
    end: impl Fn(W, &Handle) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    let SourceRows { reading, source_file, queue, finish, workers } = source;
    let shared = Arc::new((queue, AtomicBool::new(false), begin, take, end));
    let mut threads = JoinSet::new();
    for _ in 0..workers.max(1) {
        let (shared, reading, finish) = (shared.clone(), reading.clone(), finish.clone());
        let (source_file, handle) = (source_file.map(str::to_owned), Handle::current());
        threads.spawn_blocking(move || {
            let (queue, stop, begin, take, end) = &*shared;
            let mut own = begin();
            let mut next = || if stop.load(Ordering::Relaxed) { None } else { queue.next() };
            let worked = reading.run_tasks(&mut next, &handle, 0, &mut |rows| {
                let batch = match &source_file {
                    Some(column) => with_file(&rows.batch, column, rows.file.name())?,
                    None => rows.batch.clone(),
                };
                let place = |row: usize| (rows.file.name().to_owned(), rows.row_number(row));
                let raw = |row: usize| rows.raw_row(row);
                let batch = finish.finish_rows(&batch, &RowOrigin { place: &place, raw: &raw })?;
                take(&mut own, &handle, &rows, batch)
            });
            match worked {
                Ok(()) => end(own, &handle),
                Err(e) => {
                    // Tells the other threads to stop after their current task.
                    stop.store(true, Ordering::Relaxed);
                    Err(e)
                }
            }
        });
    }
    let mut all = Vec::new();
    let mut failed: Option<Error> = None;
    while let Some(done) = threads.join_next().await {
        match done.map_err(|e| Error::internal("a thread that reads was cancelled").with_source(e)).flatten() {
            Ok(part) => all.push(part),
            Err(e) => {
                // A thread that panicked did not tell the others.
                shared.1.store(true, Ordering::Relaxed);
                failed = failed.or(Some(e));
            }
        }
    }
    failed.map_or(Ok(all), Err)
}

/// Writes the rows of a source.
pub(crate) async fn write_rows(source: SourceRows<'_>, target: &WriteTarget) -> Result<StagedOutput> {
    let target = target.clone();
    let take = |writer: &mut OutputWriter, handle: &Handle, rows: &SourceFileRows<'_>, batch: RecordBatch| {
        let folders = handle.block_on(writer.write(&batch))?;
        if !folders.is_empty() {
            writer.written.reached.entry(rows.file.name().to_owned()).or_default().extend(folders);
        }
        Ok(())
    };
    let end = |writer: OutputWriter, handle: &Handle| handle.block_on(writer.finish());
    let parts = process_rows(source, move || OutputWriter::new(&target), take, end).await?;
    let mut written = StagedOutput::default();
    parts.into_iter().for_each(|part| written.add_staged(part));
    Ok(written)
}

/// Writes the rows of a query.
pub(crate) async fn write_query(
    streams: Vec<SendableRecordBatchStream>,
    name: &str,
    finish: &Arc<RowFinisher>,
    target: &WriteTarget,
) -> Result<StagedOutput> {
    let mut tasks = JoinSet::new();
    for stream in streams {
        let (finish, target, name) = (finish.clone(), target.clone(), name.to_owned());
        tasks.spawn(async move {
            let (mut writer, mut rows) = (OutputWriter::new(&target), QueryRows::new(stream, &name, finish));
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).await?;
            }
            writer.finish().await
        });
    }
    let mut written = StagedOutput::default();
    while let Some(done) = tasks.join_next().await {
        written.add_staged(done.map_err(|e| Error::internal("a task that writes was cancelled").with_source(e))??);
    }
    Ok(written)
}

/// Rows of a query, as the output stores them.
pub(crate) struct QueryRows {
    stream: SendableRecordBatchStream,
    finish: Arc<RowFinisher>,
    /// Name of the rows in messages.
    name: String,
    seen: u64,
}

impl QueryRows {
    pub(crate) fn new(stream: SendableRecordBatchStream, output: &str, finish: Arc<RowFinisher>) -> Self {
        Self { stream, finish, name: format!("the rows of the output `{output}`"), seen: 0 }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let next = self.stream.try_next().await.map_err(|e| engine_error(&self.name, e))?;
        let Some(batch) = next else { return Ok(None) };
        let batch = conform(&batch, &plain_schema(batch.schema_ref()), &self.name)?;
        let first = self.seen + 1;
        self.seen += batch.num_rows() as u64;
        let place = |row: usize| (self.name.clone(), first + row as u64);
        let raw = |row: usize| crate::read::decode::json_row(&batch, row);
        self.finish.finish_rows(&batch, &RowOrigin { place: &place, raw: &raw }).map(Some)
    }
}

/// Converts columns to types that every engine reads: no views, no milliseconds.
pub(crate) fn plain_schema(schema: &Schema) -> SchemaRef {
    let field = |f: &Arc<Field>| f.as_ref().clone().with_data_type(plain_type(f.data_type())).with_nullable(true);
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}
