//! Writes finished row groups, in their order, to one staged file after the other.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::internal::parquet_error;
use biscuit_journal::internal::StagedWriter;
use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::reader::ChunkReader;
use parquet::file::writer::SerializedFileWriter;

use crate::encode::group_bytes::GroupBytes;
use crate::encode::row_group::EncodedRowGroup;
use crate::encode::unit_target::{ReadyRowGroup, UnitTarget};
use crate::pages::page_store::{PageBuffer, PageSink};
use crate::plan::unit::WrittenUnit;

/// A file that is being written.
struct OpenOutputFile {
    writer: SerializedFileWriter<PageSink>,
    /// Rows, copied row groups and encoded row groups so far.
    stage: StagedWriter,
    rows: u64,
    copied: u64,
    encoded: u64,
    /// Encodes the row groups of this file, if it has encrypted columns: the keys belong to the file.
    factory: Option<Arc<ArrowRowGroupWriterFactory>>,
}

/// Writes row groups to files, one file after the other.
pub(crate) struct FileOutput {
    target: Arc<UnitTarget>,
    number: usize,
    file: Option<OpenOutputFile>,
    done: Vec<WrittenUnit>,
}

impl FileOutput {
    pub(crate) fn new(target: Arc<UnitTarget>, number: usize) -> Self {
        Self { target, number, file: None, done: vec![] }
    }

    pub(crate) async fn append_group(&mut self, group: ReadyRowGroup) -> Result<()> {
        match group {
            ReadyRowGroup::Copied(..) if self.target.is_encrypted() => {
                Err(Error::internal("a row group of an encrypted file cannot be copied"))
            }
            ReadyRowGroup::Copied(bytes, closes) => {
                let size = closes.iter().map(|c| c.bytes_written).sum();
                let mut file = self.open(size).await?;
                let copied = file.copy_group(&bytes, closes, &self.target.passing);
                file.copied += 1;
                self.store_bytes(file, copied).await
            }
            ReadyRowGroup::Encoded(groups) => {
                for chunks in groups {
                    let size = chunks.iter().map(|c| c.close().bytes_written).sum();
                    let mut file = self.open(size).await?;
                    let encoded = file.encode_group(chunks, &self.target.passing);
                    file.encoded += 1;
                    self.store_bytes(file, encoded).await?;
                }
                Ok(())
            }
            ReadyRowGroup::Bound(job) => {
                let file = self.open(job.estimate()).await?;
                let factory = file.factory.clone();
                let factory =
                    factory.ok_or_else(|| Error::internal("an encrypted row group has no encoder of its file"))?;
                // Parquet binds encrypted pages to the ordinal of their row group (parquet-format, Encryption.md,
                // AAD), so the ordinal must be known before the row group is encoded. The open file holds it: no row
                // group can come between.
                let number = file.copied + file.encoded;
                let groups =
                    self.target.encode_for_file(*job, factory, usize::try_from(number).unwrap_or(usize::MAX)).await;
                self.file = Some(file);
                for chunks in groups? {
                    let Some(mut file) = self.file.take() else { continue };
                    let encoded = file.encode_group(chunks, &self.target.passing);
                    file.encoded += 1;
                    self.store_bytes(file, encoded).await?;
                }
                Ok(())
            }
        }
    }

    /// Returns the file for a row group of `size` bytes. Begins another file if the current one would become too
    /// large.
    async fn open(&mut self, size: u64) -> Result<OpenOutputFile> {
        if let Some(file) = self.file.take() {
            if file.writer.bytes_written() as u64 + size <= self.target.unit.max_file_size {
                return Ok(file);
            }
            self.finish_file(file).await?;
        }
        let t = &self.target;
        let (writer, factory) = t.writer().await?;
        let stage = t.shared.stager.writer(&t.unit.folder, "parquet");
        Ok(OpenOutputFile { writer, stage, rows: 0, copied: 0, encoded: 0, factory })
    }

    /// Hands the bytes that were written so far to the staged file.
    async fn store_bytes(&mut self, mut file: OpenOutputFile, done: parquet::errors::Result<()>) -> Result<()> {
        done.map_err(|e| parquet_error(self.target.unit.name(), e))?;
        file.drain().await?;
        self.file = Some(file);
        Ok(())
    }

    async fn finish_file(&mut self, mut file: OpenOutputFile) -> Result<()> {
        file.writer.finish().map_err(|e| parquet_error("the new file", e))?;
        file.drain().await?;
        let staged = file.stage.finish().await?;
        let staged = self.target.check_staged(staged, file.rows);
        self.done.push(WrittenUnit {
            unit: self.number,
            file: staged.entry().clone(),
            copied: file.copied,
            encoded: file.encoded,
        });
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<Vec<WrittenUnit>> {
        if let Some(file) = self.file.take() {
            self.finish_file(file).await?;
        }
        Ok(self.done)
    }
}

impl OpenOutputFile {
    fn copy_group(
        &mut self,
        bytes: &GroupBytes,
        closes: Vec<ColumnCloseResult>,
        passing: &PageBuffer,
    ) -> parquet::errors::Result<()> {
        self.rows += closes.first().map_or(0, |c| c.rows_written);
        let mut at = self.writer.bytes_written() as u64;
        let mut group = self.writer.next_row_group()?;
        for close in closes {
            let (start, length) = close.metadata.byte_range();
            passing.push_chunk(at, bytes.get_bytes(start, usize::try_from(length).unwrap_or(usize::MAX))?);
            at += length;
            group.append_column(bytes, close)?;
        }
        group.close().map(drop)
    }

    fn encode_group(&mut self, chunks: EncodedRowGroup, passing: &PageBuffer) -> parquet::errors::Result<()> {
        self.rows += chunks.first().map_or(0, |c| c.close().rows_written);
        let mut at = self.writer.bytes_written() as u64;
        let mut group = self.writer.next_row_group()?;
        for chunk in chunks {
            chunk.own_bytes().into_iter().for_each(|bytes| passing.push_chunk(at, bytes));
            at += u64::try_from(chunk.close().metadata.compressed_size()).unwrap_or(0);
            chunk.append_to(&mut group)?;
        }
        group.close().map(drop)
    }

    async fn drain(&mut self) -> Result<()> {
        self.writer.flush().map_err(|e| Error::internal("a buffer in memory could not be flushed").with_source(e))?;
        for bytes in self.writer.inner_mut().take_bytes() {
            self.stage.write(bytes).await?;
        }
        Ok(())
    }
}
