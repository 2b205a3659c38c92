use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::{StagedFile, StagedWriter};
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::arrow::{ArrowSchemaConverter, AsyncArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

use crate::encryption::file_encryption::FileEncryption;
use crate::files::dictionary;
use crate::files::reader::{ObjectReader, fetch_footer, parquet_error};

/// Rows of a row group of a new file.
const ROW_GROUP_ROWS: usize = 262_144;

/// How Parquet files are written. A file that takes the place of another follows that one in all that is not chosen here.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ParquetOptions {
    /// The codec. Default: the one of the file that is rewritten, by column; zstd, level 1, for a new file.
    pub compression: Option<Compression>,
    /// The most rows of a row group. Default: as in the file that is rewritten; 262,144 for a new file.
    pub row_group_rows: Option<usize>,
    /// The most bytes a row group may take in memory before it is written. Default: 64 MiB.
    pub row_group_bytes: usize,
    /// Which columns are encrypted in Parquet's own way. Default: those that are in the file that is rewritten.
    pub encryption: Option<FileEncryption>,
}

impl Default for ParquetOptions {
    fn default() -> Self {
        Self { compression: None, row_group_rows: None, row_group_bytes: 64 << 20, encryption: None }
    }
}

impl ParquetOptions {
    /// The same options with a chosen codec.
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// The same options with a chosen limit of rows per row group.
    pub fn with_row_group_rows(mut self, rows: usize) -> Self {
        self.row_group_rows = Some(rows.max(1));
        self
    }

    /// The same options with columns that are encrypted.
    pub fn with_encryption(mut self, encryption: FileEncryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// How a new file with these columns is written, encryption included.
    ///
    /// # Errors
    /// `UnsupportedType` for types that Parquet cannot hold; those of [`FileEncryption::properties`].
    pub(crate) async fn sealed(
        &self,
        mut properties: WriterPropertiesBuilder,
        schema: &Schema,
    ) -> Result<WriterProperties> {
        if let Some(encryption) = &self.encryption {
            let leaves = ArrowSchemaConverter::new().convert(schema).map_err(unfit)?;
            if let Some(keys) = encryption.properties(&leaves).await? {
                properties = properties.with_file_encryption_properties(keys);
            }
        }
        Ok(properties.build())
    }

    /// How a new file is written, but for encryption.
    pub fn properties(&self) -> WriterPropertiesBuilder {
        let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
        WriterProperties::builder()
            .set_compression(self.compression.unwrap_or(Compression::ZSTD(level)))
            .set_max_row_group_row_count(Some(self.row_group_rows.unwrap_or(ROW_GROUP_ROWS)))
            .set_created_by(CREATED_BY.to_owned())
    }
}

pub(crate) fn unfit(e: ParquetError) -> Error {
    Error::usage("UnsupportedType", format!("these columns make no Parquet file: {e}")).with_source(e)
}

/// What files say of who wrote them.
const CREATED_BY: &str = concat!("biscuit-dataset version ", env!("CARGO_PKG_VERSION"));

/// The staged file as the Parquet writer wants it.
struct StagedFileSink(StagedWriter);

impl AsyncFileWriter for StagedFileSink {
    fn write(&mut self, bs: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move { self.0.write(bs).await.map_err(|e| ParquetError::External(Box::new(e))) }.boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// Writes one Parquet file into the staging of a replace.
pub struct FileWriter {
    writer: AsyncArrowWriter<StagedFileSink>,
    row_group_bytes: usize,
    rows: u64,
    encryption: Option<FileEncryption>,
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl FileWriter {
    /// Starts a file of rows with this schema.
    ///
    /// # Errors
    /// `UnsupportedType` for types that Parquet cannot hold; those of [`FileEncryption::properties`].
    pub async fn new(stage: StagedWriter, schema: SchemaRef, options: &ParquetOptions) -> Result<Self> {
        Self::with_properties(stage, schema, options.properties(), options).await
    }

    /// Starts a file whose first rows will be these: columns whose values hardly repeat there get no dictionary, which would be filled
    /// and thrown away again. The rows are not written by this.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn like(stage: StagedWriter, rows: &RecordBatch, options: &ParquetOptions) -> Result<Self> {
        let mut properties = options.properties();
        for path in dictionary::hardly_repeating(rows) {
            properties = properties.set_column_dictionary_enabled(path, false);
        }
        Self::with_properties(stage, rows.schema(), properties, options).await
    }

    async fn with_properties(
        stage: StagedWriter,
        schema: SchemaRef,
        properties: WriterPropertiesBuilder,
        options: &ParquetOptions,
    ) -> Result<Self> {
        let properties = options.sealed(properties, &schema).await?;
        let arrow = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = AsyncArrowWriter::try_new_with_options(StagedFileSink(stage), schema, arrow).map_err(unfit)?;
        let encryption = options.encryption.clone();
        Ok(Self { writer, row_group_bytes: options.row_group_bytes, rows: 0, encryption })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).await.map_err(|e| parquet_error("the staged file", e))?;
        if self.writer.in_progress_size() >= self.row_group_bytes { self.flush().await } else { Ok(()) }
    }

    /// Ends the row group, so that it does not take memory any more.
    pub async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await.map_err(|e| parquet_error("the staged file", e))
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes the file has and will get, by the encoder's estimate.
    pub fn estimated_size(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Bytes of memory that the row group in progress takes.
    pub fn memory(&self) -> usize {
        self.writer.memory_size()
    }

    /// Ends the file, then opens it again and checks its footer and its number of rows.
    ///
    /// # Errors
    /// As [`check_staged`].
    pub async fn finish(mut self, store: &Arc<dyn ObjectStore>) -> Result<StagedFile> {
        self.writer.finish().await.map_err(|e| parquet_error("the staged file", e))?;
        let staged = self.writer.into_inner().0.finish().await?;
        check_staged(staged, self.rows, store, self.encryption.as_ref()).await
    }
}

/// Opens a staged Parquet file and checks its footer and its number of rows, which it gets. What is encrypted has to open with the keys.
///
/// # Errors
/// `TornWrite` if the file is not what was written, and those of the keys and of the store.
pub async fn check_staged(
    staged: StagedFile,
    rows: u64,
    store: &Arc<dyn ObjectStore>,
    keys: Option<&FileEncryption>,
) -> Result<StagedFile> {
    let object = ObjectReader { store: store.clone(), path: staged.object().clone(), size: staged.size() };
    let footer = fetch_footer(&object, staged.object().as_ref(), keys).await?;
    let found = footer.metadata.file_metadata().num_rows();
    if found != i64::try_from(rows).unwrap_or(-1) {
        let object = staged.object();
        let message = format!("`{object}` has {found} rows where {rows} were written; run again");
        return Err(Error::new(biscuit_core::ErrorKind::Unavailable, "TornWrite", message));
    }
    Ok(staged.with_rows(rows))
}
