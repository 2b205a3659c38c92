//! Options and writer of Parquet files.

use biscuit_core::{Error, Result};
use biscuit_journal::internal::StagedWriter;
use biscuit_journal::{FileStager, StagedFile};
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::arrow::{ArrowSchemaConverter, AsyncArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

use crate::codes;
use crate::encryption::file_encryption::FileEncryption;
use crate::engine_error::parquet_error;
use crate::files::dictionary;
use crate::files::reader::{FirstFetch, ObjectReader, fetch_footer};

/// Default number of rows of a row group.
const ROW_GROUP_ROWS: usize = 262_144;

/// Options of Parquet files. A file that replaces another one follows it in everything that is not set here.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct ParquetOptions {
    /// Codec. Default: for each column the codec of the replaced file; zstd level 1 for a new file.
    pub compression: Option<Compression>,
    /// Maximum number of rows of a row group. Default: as in the replaced file; 262,144 for a new file.
    pub row_group_rows: Option<usize>,
    /// Maximum memory of an unfinished row group, in bytes. Beyond it, the row group is written. Default: 64 MiB.
    pub row_group_bytes: usize,
    /// Columns that are encrypted (Parquet modular encryption). Default: the encrypted columns of the replaced file.
    pub encryption: Option<FileEncryption>,
}

impl Default for ParquetOptions {
    fn default() -> Self {
        Self { compression: None, row_group_rows: None, row_group_bytes: 64 << 20, encryption: None }
    }
}

impl ParquetOptions {
    /// Sets the codec.
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets the maximum number of rows of a row group.
    pub fn with_row_group_rows(mut self, rows: usize) -> Self {
        self.row_group_rows = Some(rows.max(1));
        self
    }

    /// Sets the columns that are encrypted.
    pub fn with_encryption(mut self, encryption: FileEncryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// Returns the properties of a new file with these columns, encryption included.
    ///
    /// # Errors
    /// `UnstorableType` for a type that Parquet cannot store; the errors of [`FileEncryption::file_properties`].
    pub(crate) async fn encrypted_properties(
        &self,
        mut properties: WriterPropertiesBuilder,
        schema: &Schema,
    ) -> Result<WriterProperties> {
        if let Some(encryption) = &self.encryption {
            let leaves = ArrowSchemaConverter::new().convert(schema).map_err(unwritable_error)?;
            if let Some(keys) = encryption.file_properties(&leaves).await? {
                properties = properties.with_file_encryption_properties(keys);
            }
        }
        Ok(properties.build())
    }

    /// Returns the properties of a new file, without encryption.
    pub fn writer_properties(&self) -> WriterPropertiesBuilder {
        let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
        WriterProperties::builder()
            .set_compression(self.compression.unwrap_or(Compression::ZSTD(level)))
            .set_max_row_group_row_count(Some(self.row_group_rows.unwrap_or(ROW_GROUP_ROWS)))
            .set_created_by(CREATED_BY.to_owned())
    }
}

pub(crate) fn unwritable_error(e: ParquetError) -> Error {
    Error::new(codes::UNSTORABLE_TYPE, format!("these columns cannot be stored in a Parquet file: {e}")).with_source(e)
}

/// Value of `created_by` in the footers of new files.
const CREATED_BY: &str = concat!("biscuit-dataset version ", env!("CARGO_PKG_VERSION"));

/// Adapter from the Parquet writer to a staged file.
struct StagedFileSink(StagedWriter);

impl AsyncFileWriter for StagedFileSink {
    fn write(&mut self, bs: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move { self.0.write(bs).await.map_err(|e| ParquetError::External(Box::new(e))) }.boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// Writes one staged Parquet file of a table commit.
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
    /// Begins a file of rows with this schema.
    ///
    /// # Errors
    /// `UnstorableType` for a type that Parquet cannot store; the errors of [`FileEncryption::file_properties`].
    pub async fn new(stage: StagedWriter, schema: SchemaRef, options: &ParquetOptions) -> Result<Self> {
        Self::with_properties(stage, schema, options.writer_properties(), options).await
    }

    /// Begins a file whose first rows will be `rows`. A column whose values hardly repeat in them gets no dictionary,
    /// which would be filled and given up. The rows are not written.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn like(stage: StagedWriter, rows: &RecordBatch, options: &ParquetOptions) -> Result<Self> {
        let mut properties = options.writer_properties();
        for path in dictionary::columns_without_repetition(rows) {
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
        let properties = options.encrypted_properties(properties, &schema).await?;
        let arrow = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer =
            AsyncArrowWriter::try_new_with_options(StagedFileSink(stage), schema, arrow).map_err(unwritable_error)?;
        let encryption = options.encryption.clone();
        Ok(Self { writer, row_group_bytes: options.row_group_bytes, rows: 0, encryption })
    }

    /// Appends rows. Ends the row group if it takes more memory than `row_group_bytes`.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).await.map_err(|e| parquet_error("the staged file", e))?;
        if self.writer.in_progress_size() >= self.row_group_bytes { self.flush().await } else { Ok(()) }
    }

    /// Ends the row group and releases its memory.
    pub async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await.map_err(|e| parquet_error("the staged file", e))
    }

    /// Returns the number of rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the estimated size of the file in bytes, unfinished row group included.
    pub fn estimated_size(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Returns the memory of the unfinished row group, in bytes.
    pub fn memory_size(&self) -> usize {
        self.writer.memory_size()
    }

    /// Finishes the file. The commit of `stager` opens it again, and checks its footer and its number of rows.
    ///
    /// # Errors
    /// `UnstorableType`, and errors of the store.
    pub async fn finish(mut self, stager: &FileStager) -> Result<StagedFile> {
        self.writer.finish().await.map_err(|e| parquet_error("the staged file", e))?;
        let staged = self.writer.into_inner().0.finish().await?;
        Ok(check_staged(stager, staged, self.rows, self.encryption))
    }
}

/// Lets the commit of `stager` open a staged Parquet file, and check its footer and its number of rows: `TornWrite` if
/// it has another number of rows; the errors of the keys and of the store. An encrypted footer is decrypted with
/// `keys`. Returns the file with its number of rows.
pub fn check_staged(stager: &FileStager, staged: StagedFile, rows: u64, keys: Option<FileEncryption>) -> StagedFile {
    let object = ObjectReader::new(stager.storage().store.clone(), staged.object().clone(), staged.size());
    stager.check_before_commit(async move {
        let place = object.path.to_string();
        let footer = fetch_footer(&object, &place, keys.as_ref(), FirstFetch::Footer).await?;
        let found = footer.metadata.file_metadata().num_rows();
        if found == i64::try_from(rows).unwrap_or(-1) {
            return Ok(());
        }
        let message = format!("`{place}` has {found} rows, but {rows} were written; run again");
        Err(Error::new(biscuit_journal::codes::TORN_WRITE, message))
    });
    staged.with_rows(rows)
}
