//! The table as one run sees it: files, schema, loading, and writes on the same base.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use biscuit_core::{CommitId, Error, Result};
use biscuit_journal::{CommitSummary, Journal, ObservedTable};
use biscuit_schema::{merge_schemas, type_name};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use serde_json::Value;

use crate::codes;
use crate::encryption::file_encryption::FileEncryption;
use crate::encryption::table::{TableEncryption, encrypted_parts};
use crate::engine_error::engine_error;
use crate::files::data_file::{DataFile, OpenFile};
use crate::files::reader::{ALL_FETCHED_WHOLE, FETCHED_WHOLE, FirstFetch};
use crate::files::writer::ParquetOptions;
use crate::paths::hive::check_partition_names;
use crate::paths::location::Location;
use crate::paths::spelling::FolderSpelling;
use crate::table_writer::{TableWriter, WriteOptions};
use crate::version::opened_before::OpenedBefore;
use crate::version::properties::{
    COLUMNS, PARTITION_TYPES, kept_columns, partition_columns, partition_types, refuse_raw,
};
use crate::version::provider::TableFiles;
use crate::version::store::{PinnedFile, TableVersionStore};

/// Effect of a write on the existing rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteMode {
    /// They remain.
    Append,
    /// Replaces the partitions that contain new rows. Other partitions remain.
    ReplacePartitions,
    /// Replaces all rows. `EmptyReplacement` if there are no new rows.
    ReplaceAll,
    /// Replaces all rows, even if there are no new rows.
    ReplaceAllEvenByNothing,
}

/// Effect of a write without rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmptyWrite {
    /// The mode decides.
    ByMode,
    /// Nothing changes.
    Nothing,
}

/// The table as one run sees it. What is loaded from it and what is written on it have the same base: if another run
/// commits in between, the write is refused with `Conflict`.
///
/// ```
/// use biscuit_core::ErrorKind;
/// use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sales = Dataset::new(Location::parse("memory://table-version/lake/sales")?, JournalOptions::default());
/// let options = WriteOptions::default();
/// sales.observe().await?.write(dataframe!("id" => [1])?, WriteMode::Append, &options).await?;
///
/// // Two runs start from version 1. The first one commits, and the second one is refused.
/// let (one, two) = (sales.observe().await?, sales.observe().await?);
/// assert_eq!((one.observed.head.version, one.files().len()), (1, 1));
/// one.write(dataframe!("id" => [2])?, WriteMode::Append, &options).await?;
/// let refused = two.write(dataframe!("id" => [3])?, WriteMode::ReplaceAll, &options).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict);
/// assert_eq!(sales.load(&SessionContext::new()).await?.count().await?, 2);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct TableVersion {
    location: Location,
    journal: Journal,
    encryption: TableEncryption,
    /// State that the journal observed.
    pub observed: ObservedTable,
    files: Vec<DataFile>,
    partition: Vec<(String, DataType)>,
    pub(crate) opened: OpenedBefore,
}

impl TableVersion {
    pub(crate) fn new(
        location: Location,
        journal: Journal,
        encryption: Option<FileEncryption>,
        observed: ObservedTable,
        opened: OpenedBefore,
    ) -> Result<Self> {
        let mut files = Vec::with_capacity(observed.files.len());
        let root = location.path();
        for f in &observed.files {
            files.push(DataFile::in_table(root, f.clone())?);
        }
        let partition = partition_columns(&files, observed.head.properties.get(PARTITION_TYPES))?;
        let encryption = TableEncryption::of_table(encryption, &observed.head)?;
        Ok(Self { location, journal, encryption, observed, files, partition, opened })
    }

    /// Returns the location of the table.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns the journal of the table.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Returns the [encryption](crate::Dataset::with_encryption) of the dataset of this version: the keys for encrypted
    /// files, and the columns that are encrypted in new files.
    pub fn dataset_encryption(&self) -> Option<&FileEncryption> {
        self.encryption.own.as_ref()
    }

    /// Returns the live files, in the order of their paths.
    pub fn files(&self) -> &[DataFile] {
        &self.files
    }

    /// Restricts the version to some of its files. The result is for reading, and must not be written.
    #[must_use]
    pub fn only(mut self, keep: impl Fn(&DataFile) -> bool) -> Self {
        let (files, observed) = (std::mem::take(&mut self.files), std::mem::take(&mut self.observed.files));
        let kept = files.into_iter().zip(observed).filter(|(file, _)| keep(file));
        (self.files, self.observed.files) = kept.unzip();
        self
    }

    /// Returns the partition columns in the order of the folders, with their types. Empty for a table without
    /// partitions.
    pub fn partition_columns(&self) -> &[(String, DataType)] {
        &self.partition
    }

    /// Returns a store that reads exactly the files of this version.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        let mut pinned = HashMap::with_capacity(self.files.len());
        for file in &self.files {
            let live = self.observed.head.live.get(file.path());
            let state = self.journal.state_root();
            let staged = live.and_then(|l| l.staged.as_ref()).and_then(|s| Path::parse(format!("{state}/{s}")).ok());
            pinned.insert(file.object.clone(), PinnedFile { etag: file.listed.etag.clone(), staged });
        }
        Arc::new(TableVersionStore::new(self.location.storage().store.clone(), pinned))
    }

    /// Opens all files, in the order of their paths.
    ///
    /// # Errors
    /// The errors of [`OpenFile::open`]; `Conflict` if a newer version replaced a file meanwhile.
    pub async fn open_files(&self) -> Result<Vec<OpenFile>> {
        self.open(self.files.clone()).await
    }

    /// Opens some files of this version, in the given order.
    ///
    /// # Errors
    /// As [`open_files`](Self::open_files).
    pub async fn open(&self, files: Vec<DataFile>) -> Result<Vec<OpenFile>> {
        self.open_first(files, |_| FirstFetch::Footer).await
    }

    /// Opens some files as [`open`](Self::open) does, for a change that reads most of their columns. In a store other than
    /// a disk, a request takes as long as the transfer of a megabyte: there, files of at most 1 MiB are fetched as a
    /// whole, if all of them together have at most 16 MiB.
    ///
    /// # Errors
    /// As [`open_files`](Self::open_files).
    pub async fn open_for_change(&self, files: Vec<DataFile>) -> Result<Vec<OpenFile>> {
        let small = |file: &DataFile| file.listed.size <= FETCHED_WHOLE;
        let bytes: u64 = files.iter().filter(|file| small(file)).map(|file| file.listed.size).sum();
        let whole = self.location.storage().durability.is_immediate() && bytes <= ALL_FETCHED_WHOLE;
        let first = |file: &DataFile| if whole && small(file) { FirstFetch::Whole } else { FirstFetch::Footer };
        self.open_first(files, first).await
    }

    async fn open_first(&self, files: Vec<DataFile>, first: impl Fn(&DataFile) -> FirstFetch) -> Result<Vec<OpenFile>> {
        let (store, keys, mut known) = (self.store(), self.dataset_encryption(), self.opened.take());
        let jobs = files.into_iter().map(|file| match known.find(&file) {
            Some(open) => std::future::ready(Ok(open)).boxed(),
            None => {
                let first = first(&file);
                OpenFile::open_first(store.clone(), file, keys, first).boxed()
            }
        });
        self.run_jobs(jobs).await
    }

    /// Runs jobs on files of this version, up to eight at a time. An error is explained by the journal: `Conflict` if
    /// the version was replaced.
    pub(crate) async fn run_jobs<'a, T: Send>(
        &self,
        jobs: impl Iterator<Item = BoxFuture<'a, Result<T>>>,
    ) -> Result<Vec<T>> {
        let jobs: Vec<_> = jobs.collect();
        match stream::iter(jobs).buffered(8).try_collect().await {
            Ok(done) => Ok(done),
            Err(e) => Err(self.journal.explain_error(e, &self.observed.head).await),
        }
    }

    /// Returns the schema of the rows: the columns of all files with their common types, partition columns last.
    ///
    /// # Errors
    /// The errors of [`merge_schemas`], with the name of the file.
    pub fn schema(&self, files: &[OpenFile]) -> Result<SchemaRef> {
        if files.is_empty() {
            return kept_columns(self.observed.head.properties.get(COLUMNS));
        }
        let mut schema = Schema::empty();
        for f in files {
            schema = merge_schemas(&schema, f.schema(), &format!("`{}`", f.path()))?;
        }
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        fields.extend(self.partition.iter().map(|(n, t)| Arc::new(Field::new(n, t.clone(), true))));
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Returns the schema that the last commit stored in the journal, partition columns last. Returns `None` if no
    /// commit stored it, or if the table has external files that were not opened.
    ///
    /// # Errors
    /// `Diverged` if the property of the journal cannot be read.
    pub fn known_schema(&self) -> Result<Option<SchemaRef>> {
        let known = self.observed.head.properties.contains_key(COLUMNS);
        let as_it_was = known && self.observed.external.is_empty() && !self.observed.diverged;
        as_it_was.then(|| kept_columns(self.observed.head.properties.get(COLUMNS))).transpose()
    }

    /// Returns the columns of the table: the [known schema](Self::known_schema), or else the schema of its files, which
    /// are opened for it. A table of periods stores its schema, so that its many files need not be opened.
    ///
    /// # Errors
    /// As [`known_schema`](Self::known_schema), [`open_files`](Self::open_files) and [`schema`](Self::schema).
    pub async fn current_schema(&self) -> Result<SchemaRef> {
        match self.known_schema()? {
            Some(known) => Ok(known),
            None => {
                let files = self.open_files().await?;
                let schema = self.schema(&files)?;
                self.opened.keep(files);
                Ok(schema)
            }
        }
    }

    /// Loads the rows as a DataFrame. Filters on partition columns select the files; other filters select row groups
    /// and pages by their statistics.
    ///
    /// If a file disappears while the footers are read, the error is `Conflict`, and
    /// [`Dataset::load`](crate::Dataset::load) starts again. If it disappears later, the query fails; it never
    /// returns a part of the rows.
    ///
    /// # Errors
    /// As [`open_files`](Self::open_files) and [`schema`](Self::schema).
    pub async fn load(&self, ctx: &SessionContext) -> Result<DataFrame> {
        let files = self.open_files().await?;
        let table = TableFiles::new(self.schema(&files)?, files, self.store(), self.partition.len());
        ctx.read_table(Arc::new(table)).map_err(|e| engine_error(&self.location.to_string(), e))
    }

    /// Writes rows on this version, and commits them in one step.
    ///
    /// # Errors
    /// `NoFileKeys` if the table has encrypted columns and there are no keys; `UnknownColumn` and `EncryptedColumn`
    /// for columns that cannot be encrypted; `Conflict` if another run committed since; `PartitioningDiffers` if the
    /// table has other partition columns; `EmptyReplacement`; the errors of [`TableWriter`] and of the rows. After an
    /// error the table is unchanged.
    pub async fn write(&self, rows: DataFrame, mode: WriteMode, options: &WriteOptions) -> Result<CommitSummary> {
        self.write_as(rows, mode, options, None).await
    }

    /// Writes rows like [`write`](Self::write), once for each commit id. A second call with the same id changes
    /// nothing.
    pub async fn write_as(
        &self,
        rows: DataFrame,
        mode: WriteMode,
        options: &WriteOptions,
        commit: Option<&CommitId>,
    ) -> Result<CommitSummary> {
        Ok(self.write_rows(rows, mode, options, commit, EmptyWrite::ByMode).await?.0)
    }

    /// Writes rows like [`write_as`](Self::write_as), and returns their number as well. The number is 0 if the commit
    /// id is known.
    pub(crate) async fn write_rows(
        &self,
        rows: DataFrame,
        mode: WriteMode,
        options: &WriteOptions,
        commit: Option<&CommitId>,
        empty: EmptyWrite,
    ) -> Result<(CommitSummary, u64)> {
        if let Some(version) = commit.and_then(|id| self.observed.head.version_of_commit(id)) {
            return Ok((CommitSummary::unchanged(version), 0));
        }
        self.check_partitioning(&options.partition_by, mode)?;
        if mode != WriteMode::Append {
            refuse_raw(&self.observed.head, "replaced")?;
        }
        let (this, parquet) = self.clone().for_writing(&options.parquet, &[]).await?;
        let options = &options.clone().with_parquet(parquet);
        let schema = Arc::clone(rows.schema().inner());
        let known = kept_columns(self.observed.head.properties.get(COLUMNS))?;
        this.check_encrypted(&|name| known.index_of(name).is_ok() || schema.index_of(name).is_ok())?;
        let journal = &self.journal;
        let mut table_commit = journal.begin_commit(&self.observed);
        commit.inspect(|id| table_commit.with_commit_id(id));
        for (name, value) in this.journal_properties(&schema, &options.partition_by)? {
            table_commit.with_property(name, value);
        }
        let written = self.stage_rows(&mut table_commit, rows, options).await;
        let (count, folders) = match written {
            Ok(written) => written,
            Err(e) => {
                table_commit.abandon().await?;
                return Err(journal.explain_error(e, &self.observed.head).await);
            }
        };
        if count == 0 && empty == EmptyWrite::Nothing {
            table_commit.abandon().await?;
            return Ok((CommitSummary::unchanged(self.observed.head.version), 0));
        }
        match mode {
            WriteMode::Append => {}
            WriteMode::ReplaceAll if count == 0 => {
                table_commit.abandon().await?;
                return Err(Error::new(
                    codes::EMPTY_REPLACEMENT,
                    "there are no new rows, and the replacement would empty the table",
                ));
            }
            WriteMode::ReplaceAll | WriteMode::ReplaceAllEvenByNothing => {
                self.observed.files.iter().for_each(|f| table_commit.remove(f));
            }
            WriteMode::ReplacePartitions => {
                let there = self.observed.files.iter().filter(|f| folders.contains(f.folder()));
                there.for_each(|f| table_commit.remove(f));
            }
        }
        Ok((table_commit.commit().await?, count))
    }

    /// Returns the journal properties for rows with this schema and these partition columns, by name: columns,
    /// partition types, and encrypted parts.
    ///
    /// # Errors
    /// `MissingColumn`, `PartitionColumns`, `PartitionType`.
    pub fn journal_properties(
        &self,
        schema: &SchemaRef,
        partition_by: &[String],
    ) -> Result<[(&'static str, Value); 3]> {
        let column = |f: &Arc<Field>| {
            let t = type_name(&biscuit_schema::internal::plain_type(f.data_type()))?;
            Some(Value::Array(vec![Value::String(f.name().clone()), Value::String(t)]))
        };
        check_partition_names(partition_by)?;
        let columns = schema.fields().iter().filter_map(column).collect();
        let mut types = partition_types(schema, partition_by)?;
        self.keep_undeclared(&mut types);
        Ok([(COLUMNS, Value::Array(columns)), (PARTITION_TYPES, types), self.encrypted_property()])
    }

    /// Removes the types of partition columns that are text only by inference and contain nothing but digits: they
    /// may be numbers, such as `01`, so their type remains undeclared.
    fn keep_undeclared(&self, types: &mut Value) {
        let declared = self.observed.head.properties.get(PARTITION_TYPES).and_then(Value::as_object);
        let Some(types) = types.as_object_mut() else { return };
        for (at, (name, t)) in self.partition.iter().enumerate() {
            let values = || self.files.iter().filter_map(|f| f.partition.get(at)?.1.as_deref());
            let digits = values().all(|v| v.parse::<i64>().is_ok()) && values().next().is_some();
            if *t == DataType::Utf8 && digits && declared.is_none_or(|declared| !declared.contains_key(name)) {
                types.remove(name);
            }
        }
    }

    async fn stage_rows(
        &self,
        table_commit: &mut biscuit_journal::TableCommit<'_>,
        rows: DataFrame,
        options: &WriteOptions,
    ) -> Result<(u64, BTreeSet<String>)> {
        let mut batches = rows.execute_stream().await.map_err(|e| engine_error("the rows to write", e))?;
        let spelling = self.folder_spelling()?;
        let mut writer = TableWriter::new(table_commit, options).with_spelling(spelling);
        let mut folders = BTreeSet::new();
        while let Some(batch) = batches.try_next().await.map_err(|e| engine_error("the rows to write", e))? {
            if batch.num_rows() > 0 {
                folders.extend(writer.write(&batch).await?);
            }
        }
        let (rows, _) = writer.finish().await?;
        Ok((rows, folders))
    }

    /// Returns the spelling of the folders of the table.
    ///
    /// # Errors
    /// `PartitionType`.
    pub fn folder_spelling(&self) -> Result<FolderSpelling> {
        let declared = self.observed.head.properties.get(PARTITION_TYPES).and_then(Value::as_object);
        let column = |(name, t): &(String, DataType)| {
            (name.clone(), t.clone(), declared.is_some_and(|declared| declared.contains_key(name)))
        };
        FolderSpelling::from_files(&self.files, &self.partition.iter().map(column).collect::<Vec<_>>())
    }

    /// Checks that a write has the partition columns of the table. A write that replaces everything may have others.
    ///
    /// # Errors
    /// `PartitioningDiffers`.
    pub fn check_partitioning(&self, partition_by: &[String], mode: WriteMode) -> Result<()> {
        let has: Vec<&str> = self.partition.iter().map(|(n, _)| n.as_str()).collect();
        let all = matches!(mode, WriteMode::ReplaceAll | WriteMode::ReplaceAllEvenByNothing);
        if self.files.is_empty() || all || has == partition_by {
            return Ok(());
        }
        let name = |columns: &[&str]| if columns.is_empty() { "nothing".to_owned() } else { columns.join(", ") };
        let asked: Vec<&str> = partition_by.iter().map(String::as_str).collect();
        let message = format!("the table is partitioned by {}, not by {}", name(&has), name(&asked));
        Err(Error::new(codes::PARTITIONING_DIFFERS, message))
    }

    /// Sets the [encryption](crate::Dataset::with_encryption) of the dataset of this version.
    #[must_use]
    pub fn with_encryption(mut self, encryption: FileEncryption) -> Self {
        self.encryption.own = Some(encryption);
        self.opened = OpenedBefore::default();
        self
    }

    /// Prepares this version for writing. Returns it with the options of its new files, in which everything is
    /// encrypted that `options`, the dataset or files of the table encrypt. `open` are files that are already open;
    /// other files that no commit has described are opened.
    ///
    /// # Errors
    /// `NoFileKeys` if files of the table are encrypted and there are no keys: the new files would not be encrypted.
    /// The errors of [`OpenFile::open_with`].
    pub async fn for_writing(self, options: &ParquetOptions, open: &[OpenFile]) -> Result<(Self, ParquetOptions)> {
        let mut this = self.with_encryption_of_files(open).await?;
        let options = this.encryption.for_writing(options, &this.location)?;
        Ok((this, options))
    }

    /// Finds the encrypted parts of all files. `open` are files that are already open; other files that no commit has
    /// described are opened, which needs keys only for encrypted footers. A file that is not readable as Parquet has
    /// no encrypted parts.
    ///
    /// # Errors
    /// `NoFileKeys` for an encrypted footer; the errors of the keys and of the store.
    pub async fn with_encryption_of_files(mut self, open: &[OpenFile]) -> Result<Self> {
        open.iter().for_each(|file| self.encryption.add(&file.hidden_parts()));
        let known: HashSet<&str> = open.iter().map(OpenFile::path).collect();
        let unknown = |file: &&DataFile| !known.contains(file.path());
        let unknown: Vec<DataFile> = self.undescribed_files().filter(unknown).cloned().collect();
        let (store, keys) = (self.store(), self.dataset_encryption());
        let hidden =
            self.run_jobs(unknown.into_iter().map(|file| encrypted_parts(store.clone(), file, keys).boxed())).await?;
        hidden.iter().for_each(|hidden| self.encryption.add(hidden));
        Ok(self)
    }

    /// Returns the files that no commit has described: external files, or all files of a table without columns in its
    /// journal.
    fn undescribed_files(&self) -> impl Iterator<Item = &DataFile> {
        let described = self.observed.head.properties.contains_key(COLUMNS) && !self.observed.diverged;
        let external: HashSet<&str> = self.observed.external.iter().map(|external| external.path.as_str()).collect();
        self.files.iter().filter(move |file| !described || external.contains(file.path()))
    }

    /// Returns the encryption of new files, as far as commits describe it: the parts that the dataset names, and the
    /// parts that were encrypted before. `None` without keys.
    ///
    /// # Errors
    /// `NoFileKeys` if something was encrypted before and the dataset has no keys.
    pub fn encryption(&self) -> Result<Option<FileEncryption>> {
        self.encryption.of_new_files(&self.location)
    }

    /// Checks that all columns to encrypt exist.
    ///
    /// # Errors
    /// `UnknownColumn`: a misspelt name would leave the column without encryption.
    pub fn check_encrypted(&self, is_there: &dyn Fn(&str) -> bool) -> Result<()> {
        self.encryption.check_names(is_there)
    }

    /// Returns the journal property with the encrypted parts, by name. It is one of the
    /// [`journal_properties`](Self::journal_properties), for commits that set none of the others.
    pub fn encrypted_property(&self) -> (&'static str, Value) {
        self.encryption.property()
    }
}
