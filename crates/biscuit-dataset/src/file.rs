use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_schema::{check_names, plain_type};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::basic::Compression;

use crate::reader::{ObjectReader, fetch_metadata, parquet_error};
use crate::rows::conform;

/// A Parquet file of a table.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Relative to the table.
    pub path: String,
    /// In the store.
    pub object: Path,
    /// Bytes.
    pub size: u64,
    /// The partition columns and values that its path says; null is none.
    pub partition: Vec<(String, Option<String>)>,
}

/// A Parquet file whose footer was read.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// The file.
    pub file: DataFile,
    schema: SchemaRef,
    metadata: ArrowReaderMetadata,
    reader: ObjectReader,
}

impl OpenFile {
    /// Reads the footer. Types are those of Parquet itself, in their plain form; a schema that Arrow embeds is not
    /// looked at, since no other engine does.
    ///
    /// # Errors
    /// `UnreadableParquet` for what is no Parquet file or a damaged one, `DuplicateColumn`, `ColumnCase`, and those of
    /// the store.
    pub async fn open(store: Arc<dyn ObjectStore>, file: DataFile) -> Result<Self> {
        let reader = ObjectReader { store, path: file.object.clone(), size: file.size };
        let metadata = fetch_metadata(&reader, &file.path).await?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::try_new(metadata, options).map_err(|e| parquet_error(&file.path, e))?;
        let fields = metadata.schema().fields().iter();
        let plain =
            fields.map(|f| Field::new(f.name(), plain_type(f.data_type()), f.is_nullable())).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(plain));
        check_names(&schema, &format!("`{}`", file.path))?;
        if let Some((name, _)) = file.partition.iter().find(|(name, _)| schema.index_of(name).is_ok()) {
            let message = format!("column `{name}` of `{}` is both in the file and in its path", file.path);
            return Err(Error::data("DuplicateColumn", message));
        }
        Ok(Self { file, schema, metadata, reader })
    }

    /// The columns in the file, in plain types; partition columns are not among them.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows, by the footer.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// The codec of its first column; none in a file without rows.
    pub fn compression(&self) -> Option<Compression> {
        let group = self.metadata.metadata().row_groups().first()?;
        group.columns().first().map(|c| c.compression())
    }

    /// The rows in the order of the file, in plain types: all columns, or those named (in the file's order).
    ///
    /// # Errors
    /// In the stream: `UnreadableParquet` and those of the store.
    pub fn stream(&self, columns: Option<&[&str]>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.build(columns, None)
    }

    /// Only the rows of these numbers, counted from 0 and ascending, with all columns.
    pub fn stream_rows(&self, rows: &[u64]) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut selectors: Vec<RowSelector> = Vec::new();
        let mut next = 0;
        for &row in rows {
            if row > next {
                selectors.push(RowSelector::skip((row - next) as usize));
            }
            selectors.push(RowSelector::select(1));
            next = row + 1;
        }
        if next < self.rows() {
            selectors.push(RowSelector::skip((self.rows() - next) as usize));
        }
        self.build(None, Some(selectors.into()))
    }

    fn build(
        &self,
        columns: Option<&[&str]>,
        selection: Option<RowSelection>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone());
        let mut target = self.schema.clone();
        if let Some(names) = columns {
            let roots: Vec<usize> = (0..self.schema.fields().len())
                .filter(|&i| names.contains(&self.schema.field(i).name().as_str()))
                .collect();
            target = Arc::new(self.schema.project(&roots).expect("indices come from this schema"));
            builder = builder.with_projection(ProjectionMask::roots(self.metadata.parquet_schema(), roots));
        }
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let path = self.file.path.clone();
        let stream = builder.with_batch_size(8192).build().map_err(|e| parquet_error(&path, e))?;
        let batches = stream.map_err({
            let path = path.clone();
            move |e| parquet_error(&path, e)
        });
        Ok(batches.and_then(move |b| std::future::ready(conform(&b, &target, &path))).boxed())
    }
}
