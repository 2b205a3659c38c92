//! A data file of a table, and its open form: footer, schema, encryption, and streams of its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use biscuit_core::{Error, ObjectRef, Result};
use biscuit_journal::store_error;
use biscuit_schema::internal::{check_names, int96_as_micros, plain_type};
use biscuit_schema::{ColumnType, ContractColumn};
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::basic::Repetition;
use parquet::file::column_crypto_metadata::ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::{ColumnDescriptor, Type};

use crate::encryption::file_encryption::{EncryptedParts, FileEncryption, is_or_inside, no_keys};
use crate::engine_error::parquet_error;
use crate::files::calendar::check_calendar;
use crate::files::guarded::{GuardedRows, catch_decoder_panic, decode_parquet, panic_error};
use crate::files::reader::{FileReader, FirstFetch, ObjectReader, ParquetFooter, fetch_footer};
use crate::paths::column::PathValue;
use crate::paths::hive::partition_values;
use biscuit_schema::internal::conform;

/// A Parquet file of a table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DataFile {
    /// The file as it was listed. Its path is relative to the table; for a file outside of tables it is the name of the
    /// file in messages.
    pub listed: ObjectRef,
    /// Path in the store.
    pub object: Path,
    /// Partition columns and values of the path. `None` is null.
    pub partition: Vec<(String, Option<String>)>,
}

impl DataFile {
    /// Creates a file of the table in the folder `root`, with the partition columns of its path.
    ///
    /// # Errors
    /// `InvalidPath` if the path is not a valid path of a store, or a folder of it is not a valid partition value.
    pub fn in_table(root: &Path, listed: ObjectRef) -> Result<Self> {
        let object = Path::parse(format!("{root}/{}", listed.path)).map_err(|e| {
            Error::new(biscuit_core::codes::INVALID_PATH, format!("`{}` is not a valid object path", listed.path))
                .with_source(e)
        })?;
        let partition = partition_values(&listed.path)?;
        Ok(Self { listed, object, partition })
    }

    /// Creates a file outside of tables, without partition columns.
    pub fn outside_tables(listed: ObjectRef, object: Path) -> Self {
        Self { listed, object, partition: vec![] }
    }

    /// Path relative to the table, or the name in messages of a file outside of tables.
    pub fn path(&self) -> &str {
        &self.listed.path
    }
}

/// A Parquet file whose footer was read.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// The file.
    pub file: DataFile,
    /// Columns in plain types, without columns that are also in the path.
    schema: SchemaRef,
    metadata: ArrowReaderMetadata,
    reader: FileReader,
    batch_rows: usize,
    keys: Option<FileEncryption>,
    /// Encrypted leaf columns: the path of the leaf, and the path that names it in a new file.
    encrypted: BTreeMap<String, String>,
    encrypted_whole: bool,
    encrypted_footer: bool,
}

/// Returns the path of the column or field that contains a leaf, up to a list or map. Inside of lists and maps,
/// writers use different names, so a new file could not refer to the leaf.
fn column_of_leaf(leaf: &ColumnDescriptor, root: &Type) -> String {
    let (mut at, mut named) = (root, Vec::new());
    for part in leaf.path().parts() {
        let Some(next) = at.get_fields().iter().find(|field| field.name() == part) else { break };
        let repeated =
            next.get_basic_info().has_repetition() && next.get_basic_info().repetition() == Repetition::REPEATED;
        if repeated && !named.is_empty() {
            break;
        }
        named.push(part.as_str());
        if repeated || next.is_primitive() {
            break;
        }
        at = next;
    }
    named.join(".")
}

impl OpenFile {
    /// Opens a file and reads its footer. The types are those of Parquet in their plain form. An embedded Arrow
    /// schema is ignored, as it is by other engines.
    ///
    /// # Errors
    /// `UnreadableParquet` for a damaged file or another format; `PartitionMismatch` if a column has another value in
    /// the path than in the file; `LegacyCalendar`; `ColumnCase`; `NoFileKeys` for an encrypted footer; the errors of
    /// the store.
    pub async fn open(store: Arc<dyn ObjectStore>, file: DataFile) -> Result<Self> {
        Self::open_with(store, file, None).await
    }

    /// Opens a file like [`open`](Self::open), with keys for encrypted parts. Without keys, the other columns of a
    /// file can be read if its footer is not encrypted.
    ///
    /// # Errors
    /// As [`open`](Self::open), and the errors of the keys.
    pub async fn open_with(store: Arc<dyn ObjectStore>, file: DataFile, keys: Option<&FileEncryption>) -> Result<Self> {
        Self::open_first(store, file, keys, FirstFetch::Footer).await
    }

    /// Opens a file like [`open_with`](Self::open_with). `first` is how much of it is fetched with the footer.
    pub(crate) async fn open_first(
        store: Arc<dyn ObjectStore>,
        file: DataFile,
        keys: Option<&FileEncryption>,
        first: FirstFetch,
    ) -> Result<Self> {
        let object = ObjectReader::new(store, file.object.clone(), file.listed.size);
        let footer = fetch_footer(&object, file.path(), keys, first).await?;
        let whole = Self::of_footer(object, file, keys, footer)?;
        check_calendar(&whole.metadata, whole.path())?;
        whole.without_path_columns().await
    }

    fn of_footer(
        object: ObjectReader,
        file: DataFile,
        keys: Option<&FileEncryption>,
        footer: ParquetFooter,
    ) -> Result<Self> {
        let chunks = footer.metadata.row_groups().iter().flat_map(|g| g.columns());
        let encrypted = chunks.filter(|c| c.crypto_metadata().is_some());
        let root = footer.metadata.file_metadata().schema_descr().root_schema();
        let encrypted: BTreeMap<_, _> =
            encrypted.map(|c| (c.column_path().string(), column_of_leaf(c.column_descr(), root))).collect();
        let by_footer = |c: &ColumnChunkMetaData| c.crypto_metadata() == Some(&ENCRYPTION_WITH_FOOTER_KEY);
        let mut chunks = footer.metadata.row_groups().iter().flat_map(|g| g.columns()).peekable();
        let encrypted_whole = chunks.peek().is_some() && chunks.all(by_footer);
        let encrypted_footer = footer.encrypted;
        let object = match footer.end {
            Some((from, bytes)) => object.with_end(from, bytes),
            None => object,
        };
        let reader = FileReader { object, metadata: footer.metadata.clone() };
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        // INT96 is decoded to microseconds: as nanoseconds, which is the default, only years from 1677 to 2262 fit.
        let metadata = decode_parquet(file.path(), || {
            let own = ArrowReaderMetadata::try_new(footer.metadata.clone(), options.clone())?;
            match int96_as_micros(own.schema(), own.parquet_schema()) {
                Some(schema) => ArrowReaderMetadata::try_new(footer.metadata, options.with_schema(schema)),
                None => Ok(own),
            }
        })?;
        let fields = metadata.schema().fields().iter();
        let plain =
            fields.map(|f| Field::new(f.name(), plain_type(f.data_type()), f.is_nullable())).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(plain));
        check_names(&schema, &format!("`{}`", file.path()))?;
        let keys = keys.cloned();
        Ok(Self {
            file,
            schema,
            metadata,
            reader,
            batch_rows: 8192,
            keys,
            encrypted,
            encrypted_whole,
            encrypted_footer,
        })
    }

    /// Removes the columns that are also in the path, after a check that they have the same values.
    async fn without_path_columns(mut self) -> Result<Self> {
        let twice: Vec<String> = self.file.partition.iter().map(|(n, _)| n.clone()).collect();
        let twice: Vec<String> = twice.into_iter().filter(|name| self.schema.index_of(name).is_ok()).collect();
        for name in &twice {
            self.check_path_column(name).await?;
        }
        if !twice.is_empty() {
            let rest = self.schema.fields().iter().filter(|f| !twice.contains(f.name())).cloned();
            self.schema = Arc::new(Schema::new(rest.collect::<Vec<_>>()));
        }
        Ok(self)
    }

    /// Checks that a column of the file has in every row the value that the path of the file contains.
    ///
    /// # Errors
    /// `PartitionMismatch` with the row and both values; the errors of the file.
    async fn check_path_column(&self, name: &str) -> Result<()> {
        let text = self.file.partition.iter().find(|(n, _)| n == name).and_then(|(_, text)| text.as_deref());
        let field = self.schema.field_with_name(name);
        let field = field.map_err(|e| Error::internal("the file does not have the column").with_source(e))?;
        let column = ContractColumn::new(name, ColumnType::of_arrow(field.data_type().clone()));
        let value = PathValue::new(name, text, &column).map_err(|e| e.in_file(self.path()))?;
        if value.is_proven_by(&self.metadata) {
            return Ok(());
        }
        let mut rows = self.stream(Some(&[name]))?;
        let mut first = 1;
        while let Some(batch) = rows.try_next().await? {
            value.check_rows(batch.column(0), self.path(), first)?;
            first += batch.num_rows() as u64;
        }
        Ok(())
    }

    /// Returns whether a column, or a part of it, is encrypted.
    pub fn is_encrypted(&self, column: &str) -> bool {
        self.encrypted.keys().any(|leaf| is_or_inside(leaf, column))
    }

    /// Returns the encrypted columns: a name, or the path of a field inside of structs. A list or map is returned as
    /// a whole, even if only a part of it is encrypted.
    pub fn encrypted(&self) -> BTreeSet<String> {
        self.encrypted.values().cloned().collect()
    }

    /// Returns whether all columns are encrypted with the key of the footer.
    pub fn is_encrypted_whole(&self) -> bool {
        self.encrypted_whole
    }

    /// Returns whether the footer or a column is encrypted.
    pub fn has_encrypted(&self) -> bool {
        self.encrypted_footer || !self.encrypted.is_empty()
    }

    /// Returns whether at least the parts are encrypted that `wanted` would encrypt in a new file.
    pub fn is_encrypted_as(&self, wanted: &FileEncryption) -> bool {
        let leaves = wanted.encrypted_leaves(self.metadata.parquet_schema());
        let columns = leaves.is_ok_and(|leaves| leaves.iter().all(|leaf| self.encrypted.contains_key(leaf)));
        columns && (self.encrypted_footer || !wanted.encrypts_footer())
    }

    pub(crate) fn hidden_parts(&self) -> EncryptedParts {
        // If everything is encrypted, no columns are listed: this includes columns that are added later.
        let columns = if self.encrypted_whole { BTreeSet::new() } else { self.encrypted() };
        EncryptedParts { columns, everything: self.encrypted_whole, footer: self.encrypted_footer }
    }

    /// Returns the encryption of a file that replaces this one, or `None` if nothing is encrypted.
    ///
    /// # Errors
    /// `NoFileKeys` if there are no keys; the new file would not be encrypted.
    pub fn encryption(&self) -> Result<Option<FileEncryption>> {
        if !self.has_encrypted() {
            return Ok(None);
        }
        let first = self.encrypted.keys().next().map(String::as_str);
        let keys = self.keys.as_ref().ok_or_else(|| no_keys(self.path(), first))?;
        Ok(Some(keys.only_keys().with_hidden(&self.hidden_parts())))
    }

    /// Checks that there are keys if one of `columns` is encrypted.
    ///
    /// # Errors
    /// `NoFileKeys` for an encrypted column, if there are no keys.
    pub(crate) fn check_keys<'a>(&self, mut columns: impl Iterator<Item = &'a str>) -> Result<()> {
        let hidden = columns.find(|column| self.is_closed() && self.is_encrypted(column));
        hidden.map_or(Ok(()), |column| Err(no_keys(self.path(), Some(column))))
    }

    /// Returns whether there are encrypted columns but no keys. The page indexes cannot be read then.
    pub(crate) fn is_closed(&self) -> bool {
        self.keys.is_none() && !self.encrypted.is_empty()
    }

    pub(crate) fn reader(&self) -> &FileReader {
        &self.reader
    }

    /// Uses this open file for another file of the table with the same content. The footer and the bytes are those of
    /// this file.
    #[must_use]
    pub fn known_as(mut self, file: DataFile) -> Self {
        self.file = file;
        self
    }

    /// Sets the maximum number of rows of a batch. Default: 8,192.
    #[must_use]
    pub fn with_batch_rows(mut self, rows: usize) -> Self {
        self.batch_rows = rows.max(1);
        self
    }

    /// Path of the file relative to the table, or the name in messages of a file outside of tables.
    pub fn path(&self) -> &str {
        self.file.path()
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.file.listed.size
    }

    /// Returns the columns of the file in plain types, without partition columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the number of rows of the footer.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Returns the footer, with the Arrow schema that follows from Parquet's own types.
    pub fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    /// Reads byte ranges of the file.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = self.reader.object.get_ranges(ranges).await;
        read.map_err(|e| store_error("read", self.path(), e))
    }

    /// Reads the page indexes, and returns the footer with them. [`open`](Self::open) does not read them.
    ///
    /// # Errors
    /// `UnreadableParquet` and the errors of the store.
    pub async fn page_indexes(&self) -> Result<ParquetMetaData> {
        let metadata = self.metadata.metadata().as_ref().clone();
        let mut reader =
            ParquetMetaDataReader::new_with_metadata(metadata).with_page_index_policy(PageIndexPolicy::Optional);
        let failed = |e| parquet_error(self.path(), e);
        let mut bytes = self.reader.clone();
        let loaded = catch_decoder_panic(reader.load_page_index(&mut bytes)).await;
        loaded.unwrap_or_else(|e| Err(panic_error(e))).map_err(failed)?;
        reader.finish().map_err(failed)
    }

    /// Reads the rows in the order of the file, in plain types: all columns, or `columns` in the order of the file.
    ///
    /// # Errors
    /// `NoFileKeys` for an encrypted column, if there are no keys. The stream yields `UnreadableParquet` and the
    /// errors of the store.
    pub fn stream(&self, columns: Option<&[&str]>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.build(columns, None, None)
    }

    /// Reads the rows of some row groups, in the order of the file: all columns, or `columns`.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn stream_groups(
        &self,
        columns: Option<&[&str]>,
        groups: &[usize],
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.build(columns, Some(groups), None)
    }

    /// Returns the number of the first row of each row group, counted from 0, followed by the number of all rows.
    pub fn group_starts(&self) -> Vec<u64> {
        let mut starts = vec![0];
        for group in self.metadata.metadata().row_groups() {
            starts.push(starts.last().copied().unwrap_or(0) + u64::try_from(group.num_rows()).unwrap_or(0));
        }
        starts
    }

    /// Reads the rows with the numbers `rows`, which are counted from 0 and ascending: all columns, or `columns`.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn stream_rows(
        &self,
        columns: Option<&[&str]>,
        rows: &[u64],
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let starts = self.group_starts();
        let has = |g: &usize| {
            let first = rows.partition_point(|r| *r < starts[*g]);
            rows.get(first).is_some_and(|r| *r < starts[*g + 1])
        };
        // Row groups without a wanted row are not fetched.
        let groups: Vec<usize> = (0..starts.len() - 1).filter(has).collect();
        let mut selectors: Vec<RowSelector> = Vec::new();
        let mut rows = rows.iter().peekable();
        for &group in &groups {
            let mut next = starts[group];
            while let Some(&row) = rows.next_if(|r| **r < starts[group + 1]) {
                selectors.push(RowSelector::skip((row - next) as usize));
                selectors.push(RowSelector::select(1));
                next = row + 1;
            }
            selectors.push(RowSelector::skip((starts[group + 1] - next) as usize));
        }
        selectors.retain(|s| s.row_count > 0);
        self.build(columns, Some(&groups), Some(selectors.into()))
    }

    fn build(
        &self,
        columns: Option<&[&str]>,
        groups: Option<&[usize]>,
        selection: Option<RowSelection>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut target = self.schema.clone();
        let mut mask = ProjectionMask::all();
        let all = self.metadata.schema().fields();
        if columns.is_some() || all.len() != self.schema.fields().len() {
            let wanted = |f: &Arc<Field>| columns.is_none_or(|names| names.contains(&f.name().as_str()));
            let fields: Vec<_> = self.schema.fields().iter().filter(|f| wanted(f)).cloned().collect();
            let roots = (0..all.len()).filter(|i| fields.iter().any(|f| f.name() == all[*i].name()));
            mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
            target = Arc::new(Schema::new(fields));
        }
        self.check_keys(target.fields().iter().map(|f| f.name().as_str()))?;
        let all: Vec<usize>;
        let groups = match groups {
            Some(groups) => groups,
            None => {
                all = (0..self.metadata.metadata().num_row_groups()).collect();
                &all
            }
        };
        let in_group = |g: usize| usize::try_from(self.metadata.metadata().row_group(g).num_rows()).unwrap_or(0);
        let mut expected = groups.iter().map(|g| in_group(*g) as u64).sum();
        let mut selection = selection;
        if let Some(selection) = &selection {
            expected = selection.row_count() as u64;
        }
        // Each row group has a reader of its own, because the number of rows of a batch depends on the pages of the
        // row group.
        let parts: Vec<_> =
            groups.iter().map(|g| (*g, selection.as_mut().map(|s| s.split_off(in_group(*g))))).collect();
        let (reader, metadata, wanted) = (self.reader.clone(), self.metadata.clone(), self.batch_rows);
        let path: Arc<str> = self.path().into();
        let open = {
            let path = path.clone();
            move |(group, selection)| {
                let (reader, metadata, mask, path) = (reader.clone(), metadata.clone(), mask.clone(), path.clone());
                async move {
                    let held = reader.fetch_columns(group, &mask).await.map_err(|e| parquet_error(&path, e))?;
                    let stream = decode_parquet(&path, || {
                        let rows = held.rows_at_a_time(group, wanted)?;
                        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(held, metadata);
                        let builder = builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(rows);
                        match selection {
                            Some(selection) => builder.with_row_selection(selection).build(),
                            None => builder.build(),
                        }
                    })?;
                    Ok(stream.map_err(move |e| parquet_error(&path, e)))
                }
            }
        };
        let batches = futures::stream::iter(parts).then(open).try_flatten();
        let rows = batches.and_then({
            let path = path.clone();
            move |b| std::future::ready(conform(&b, &target, &path))
        });
        Ok(GuardedRows::new(&path, expected, rows.boxed()).boxed())
    }
}
