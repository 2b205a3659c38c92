//! A source as a table of DataFusion. Each partition of the table reads its tasks on a blocking thread, and stops
//! when the query has seen enough rows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, ErrorCode, ErrorKind, Result};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::PartitionStream;
use tokio::runtime::Handle;

use crate::read::source::{ReadTask, SourceReader};
use crate::shape::columns::repeat_value;

/// Returns a table with the rows of a source. Findings are recorded once, even if a query reads the table twice.
pub(crate) fn source_table(
    reading: &Arc<SourceReader>,
    source_file: Option<&str>,
    parts: Vec<Vec<ReadTask>>,
) -> Result<StreamingTable> {
    let schema = source_schema(reading, source_file);
    let part = |tasks: Vec<ReadTask>| -> Arc<dyn PartitionStream> {
        Arc::new(SourcePartition {
            reading: reading.clone(),
            schema: schema.clone(),
            has_file: source_file.is_some(),
            tasks,
            read: AtomicUsize::new(0),
        })
    };
    StreamingTable::try_new(schema.clone(), parts.into_iter().map(part).collect())
        .map_err(|e| Error::internal("cannot create a table of a source").with_source(e))
}

/// Returns the columns of the rows of a source, with the column for the file.
pub(crate) fn source_schema(reading: &SourceReader, source_file: Option<&str>) -> SchemaRef {
    let mut fields: Vec<Field> = reading.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.extend(source_file.map(|name| Field::new(name, DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

/// Appends a column with the URL of the file.
pub(crate) fn with_file(batch: &RecordBatch, column: &str, file: &str) -> Result<RecordBatch> {
    if batch.schema_ref().index_of(column).is_ok() {
        let message = format!(
            "cannot add the column `{column}` for the source file: the rows already have a column of that name; choose another name"
        );
        return Err(Error::new(biscuit_change::codes::COLUMN_CLASH, message).with_column(column));
    }
    let one: ArrayRef = Arc::new(StringArray::from(vec![file]));
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(column, DataType::Utf8, true)));
    let mut arrays = batch.columns().to_vec();
    arrays.push(repeat_value(&one, batch.num_rows())?);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|e| Error::internal("cannot add a column").with_source(e))
}

/// One partition of the table of a source.
struct SourcePartition {
    reading: Arc<SourceReader>,
    schema: SchemaRef,
    has_file: bool,
    tasks: Vec<ReadTask>,
    /// How often the partition was read.
    read: AtomicUsize,
}

impl fmt::Debug for SourcePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl PartitionStream for SourcePartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema.clone(), 2);
        let (sender, handle) = (builder.tx(), Handle::current());
        let (reading, schema, has_file) = (self.reading.clone(), self.schema.clone(), self.has_file);
        let mut tasks = self.tasks.clone().into_iter();
        let time = self.read.fetch_add(1, Ordering::Relaxed);
        builder.spawn_blocking(move || {
            let mut take = |rows: crate::read::source::SourceFileRows<'_>| {
                let batch = match has_file {
                    true => with_file(&rows.batch, schema.field(schema.fields().len() - 1).name(), rows.file.name())?,
                    false => rows.batch,
                };
                // A query with LIMIT drops the receiver early. This error stops the reader and is handled below.
                sender.blocking_send(Ok(batch)).map_err(|_| Error::new(STOPPED, "the reader stopped"))
            };
            match reading.run_tasks(&mut || tasks.next(), &handle, time, &mut take) {
                Err(e) if e.is(STOPPED) => Ok(()),
                Err(e) => Err(DataFusionError::External(Box::new(e))),
                Ok(()) => Ok(()),
            }
        });
        builder.build()
    }
}

const STOPPED: ErrorCode = ErrorCode::new(
    "Stopped",
    ErrorKind::Internal,
    "A reader was stopped because the receiver of its rows has ended.",
    "Report it.",
);
