use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::PartitionStream;
use tokio::runtime::Handle;

use crate::read::source::{ReadTask, SourceReader};
use crate::shape::columns::repeated;

/// The rows of a source as a table of the engine. What comes up while they are read is noted once, also if a query reads them twice.
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
        .map_err(|e| Error::internal("a source could not be made a table").with_source(e))
}

/// The columns of a source's rows.
pub(crate) fn source_schema(reading: &SourceReader, source_file: Option<&str>) -> SchemaRef {
    let mut fields: Vec<Field> = reading.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.extend(source_file.map(|name| Field::new(name, DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

/// The rows with the name of the file that they come from.
pub(crate) fn with_file(batch: &RecordBatch, column: &str, file: &str) -> Result<RecordBatch> {
    if batch.schema_ref().index_of(column).is_ok() {
        let message = format!("the column `{column}` is to have the source file, and the rows have one of that name");
        return Err(Error::usage("ColumnClash", message).with_column(column));
    }
    let one: ArrayRef = Arc::new(StringArray::from(vec![file]));
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(column, DataType::Utf8, true)));
    let mut arrays = batch.columns().to_vec();
    arrays.push(repeated(&one, batch.num_rows())?);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|e| Error::internal("a column could not be added").with_source(e))
}

/// A part of a source.
struct SourcePartition {
    reading: Arc<SourceReader>,
    schema: SchemaRef,
    has_file: bool,
    tasks: Vec<ReadTask>,
    /// How often it was read.
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
            let mut take = |rows: crate::read::source::FileRows<'_>| {
                let batch = match has_file {
                    true => with_file(&rows.batch, schema.field(schema.fields().len() - 1).name(), &rows.file.name)?,
                    false => rows.batch,
                };
                // Who reads may have seen enough.
                sender.blocking_send(Ok(batch)).map_err(|_| Error::usage(STOPPED, "the reader has left"))
            };
            match reading.work(&mut || tasks.next(), &handle, time, &mut take) {
                Err(e) if e.code() == STOPPED => Ok(()),
                Err(e) => Err(DataFusionError::External(Box::new(e))),
                Ok(()) => Ok(()),
            }
        });
        builder.build()
    }
}

const STOPPED: &str = "Stopped";
