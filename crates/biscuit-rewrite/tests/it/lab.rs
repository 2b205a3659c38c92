//! Test bench: one Parquet file in an in-memory store, a unit of work on it, and the files that come out.

use std::sync::Arc;

use biscuit_core::Result;
use biscuit_dataset::encryption::FileKeys;
use biscuit_dataset::{Dataset, Location, OpenFile};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_rewrite::unit::WrittenUnit;
use biscuit_rewrite::{RewriteUnit, RowsWriter, rewrite_units};
use biscuit_testkit::MemoryKeys;
use bytes::Bytes;
use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, Date32Array, Decimal128Array, Int16Array, Int64Array, ListArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use futures::{FutureExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataWriter};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

/// Rows with these ids: a text with few distinct values, a text with distinct values, and a list.
pub(crate) fn rows(ids: &[i64], version: &str) -> RecordBatch {
    let kinds: StringArray = ids.iter().map(|i| (i % 5 != 0).then(|| format!("kind {}", i % 3))).collect();
    let notes: StringArray = ids.iter().map(|i| Some(format!("{version} of {i}"))).collect();
    let lists = ids.iter().map(|i| (i % 4 != 0).then(|| (0..i % 3).map(|n| Some(n + i)).collect::<Vec<_>>()));
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from(ids.to_vec()))),
        ("kind", Arc::new(kinds)),
        ("note", Arc::new(notes)),
        ("list", Arc::new(lists)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).expect("the batch is valid")
}

/// Rows with further columns of other types, some with nulls, and texts that are longer than bounds.
pub(crate) fn wide(ids: &[i64], version: &str) -> RecordBatch {
    let each = |null: i64| ids.iter().map(move |i| (i % null != 0).then_some(*i));
    let decimal = |precision, scale, null| {
        let values: Decimal128Array = each(null).map(|i| i.map(|i| i128::from(7 * i - 900))).collect();
        values.with_precision_and_scale(precision, scale).expect("the decimal is valid")
    };
    let long = |i: i64| format!("{version} {}{i}", "é".repeat(i as usize % 60));
    let at: TimestampMicrosecondArray = ids.iter().map(|i| Some(i * 1_000_003)).collect();
    let columns: [(&str, ArrayRef); 7] = [
        ("day", Arc::new(each(6).map(|i| i.map(|i| (i / 9) as i32)).collect::<Date32Array>())),
        ("small", Arc::new(each(7).map(|i| i.map(|i| (i % 11 - 5) as i16)).collect::<Int16Array>())),
        ("price", Arc::new(decimal(15, 2, i64::MAX))),
        ("tax", Arc::new(decimal(7, 1, 3))),
        ("at", Arc::new(at.with_timezone("+00:00"))),
        ("long", Arc::new(each(8).map(|i| i.map(long)).collect::<StringArray>())),
        ("raw", Arc::new(each(2).map(|i| i.map(|i| vec![i as u8; i as usize % 70])).collect::<BinaryArray>())),
    ];
    let narrow = rows(ids, version);
    let fields = narrow.schema().fields().iter().cloned().collect::<Vec<_>>();
    let more = columns.iter().map(|(n, c)| Arc::new(Field::new(*n, c.data_type().clone(), *n != "at")));
    let schema = Arc::new(Schema::new(fields.into_iter().chain(more).collect::<Vec<_>>()));
    let columns = narrow.columns().iter().cloned().chain(columns.into_iter().map(|(_, c)| c)).collect();
    RecordBatch::try_new(schema, columns).expect("the batch is valid")
}

/// Rows without the list, for sorting columns and bloom filters.
pub(crate) fn flat(ids: &[i64], version: &str) -> RecordBatch {
    rows(ids, version).project(&[0, 1, 2]).expect("the columns exist")
}

pub(crate) fn plain() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_max_row_group_row_count(Some(100))
}

/// A file with one row group for each batch, or as the properties say.
pub(crate) fn file(batches: &[RecordBatch], properties: WriterPropertiesBuilder) -> Bytes {
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batches[0].schema(), Some(properties.build())).expect("the writer is created");
    for batch in batches {
        writer.write(batch).expect("the rows are written");
        writer.flush().expect("the row group is written");
    }
    writer.close().expect("the file is closed");
    bytes.into()
}

/// The file with another footer: the chunks of `groups` do not refer to a page index.
pub(crate) fn without_page_index(file: &Bytes, groups: &[usize]) -> Bytes {
    let metadata = footer_alone(file);
    let mut builder = metadata.clone().into_builder().set_row_groups(vec![]);
    for (g, group) in metadata.row_groups().iter().enumerate() {
        let mut columns = group.columns().to_vec();
        for column in columns.iter_mut().filter(|_| groups.contains(&g)) {
            let without = column.clone().into_builder().set_offset_index_offset(None).set_offset_index_length(None);
            let without = without.set_column_index_offset(None).set_column_index_length(None);
            *column = without.build().expect("the chunk is built");
        }
        builder = builder.add_row_group(
            group.clone().into_builder().set_column_metadata(columns).build().expect("the row group is built"),
        );
    }
    let (trailer, metadata) = (&file[file.len() - 8..file.len() - 4], builder.build());
    let old = u32::from_le_bytes(trailer.try_into().expect("there are four bytes")) as usize;
    let mut bytes = file[..file.len() - 8 - old].to_vec();
    let mut out = Vec::new();
    ParquetMetaDataWriter::new(&mut out, &metadata).finish().expect("the footer is written");
    bytes.extend_from_slice(&out);
    bytes.into()
}

/// No memory limit.
pub(crate) const UNLIMITED: usize = usize::MAX;

fn context(memory: usize) -> Arc<TaskContext> {
    let mut runtime = RuntimeEnvBuilder::new();
    if memory != UNLIMITED {
        runtime = runtime.with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)));
    }
    let config = SessionConfig::new().with_target_partitions(2);
    let context = TaskContext::default().with_session_config(config);
    Arc::new(context.with_runtime(runtime.build_arc().expect("the runtime starts")))
}

pub(crate) struct Lab {
    pub(crate) storage: TableStorage,
    dataset: Dataset,
}

impl Lab {
    pub(crate) async fn with(file: Bytes) -> Self {
        let storage = TableStorage::durable(Arc::new(InMemory::new()));
        storage.store.put(&Path::from("lake/t/part-0.parquet"), file.into()).await.expect("the put succeeds");
        let location = Location::new(storage.clone(), "lake/t", "lake/t").expect("the place is valid");
        Self { storage, dataset: Dataset::new(location, JournalOptions::default()) }
    }

    /// Sets keys for encrypted columns.
    pub(crate) fn with_keys(mut self, keys: &MemoryKeys) -> Self {
        self.dataset = self.dataset.with_encryption(keys.encrypting([""; 0]));
        self
    }

    pub(crate) async fn open(&self) -> OpenFile {
        self.try_open().await.expect("the files are opened")
    }

    pub(crate) async fn try_open(&self) -> biscuit_core::Result<OpenFile> {
        let files = self.dataset.view().await.expect("the table is readable").open_files().await?;
        let [file] = files.as_slice() else { panic!("one file") };
        Ok(file.clone())
    }

    /// A unit of work on the only file, in its own columns.
    pub(crate) async fn unit(&self) -> RewriteUnit {
        let file = self.open().await;
        let schema = nullable(file.schema());
        RewriteUnit::new(file, schema, "")
    }

    /// Runs the unit, commits the result, and returns the written files.
    pub(crate) async fn run(&self, unit: RewriteUnit) -> Vec<WrittenUnit> {
        self.try_run(unit, 1 << 30).await.expect("the unit succeeds")
    }

    pub(crate) async fn try_run(&self, unit: RewriteUnit, memory: usize) -> Result<Vec<WrittenUnit>> {
        let snapshot = self.dataset.observe().await?;
        let mut table_commit = self.dataset.journal().begin_commit(&snapshot.observed);
        let context = context(memory);
        let stager = table_commit.stager();
        let written = rewrite_units(vec![unit], &stager, context.clone()).await?;
        assert_eq!(context.memory_pool().reserved(), 0, "all memory is released");
        for w in &written {
            table_commit.publish(stager.staged(w.file.clone()));
        }
        if !written.is_empty() {
            table_commit.remove(&snapshot.observed.files[0]);
            table_commit.commit().await?;
        }
        Ok(written)
    }

    /// Writes rows into a new file with a `RowsWriter`, and replaces the only file.
    pub(crate) async fn write(&self, unit: RewriteUnit, rows: &[RecordBatch], memory: usize) -> Vec<WrittenUnit> {
        let snapshot = self.dataset.observe().await.expect("the table is observed");
        let mut table_commit = self.dataset.journal().begin_commit(&snapshot.observed);
        let (context, stager) = (context(memory), table_commit.stager());
        let mut writer = RowsWriter::new(unit, &stager, context.clone());
        for rows in rows {
            writer.write(rows.clone()).await.expect("rows are taken");
        }
        let written = writer.finish().await.expect("the writer finishes");
        assert_eq!(context.memory_pool().reserved(), 0, "all memory is released");
        written.iter().for_each(|w| table_commit.publish(stager.staged(w.file.clone())));
        table_commit.remove(&snapshot.observed.files[0]);
        table_commit.commit().await.expect("the commit succeeds");
        written
    }

    /// Writes rows and stops. Returns the objects in the store.
    pub(crate) async fn give_up(&self, unit: RewriteUnit, rows: &[RecordBatch]) -> Vec<Path> {
        let snapshot = self.dataset.observe().await.expect("the table is observed");
        let table_commit = self.dataset.journal().begin_commit(&snapshot.observed);
        let mut writer = RowsWriter::new(unit, &table_commit.stager(), context(1 << 30));
        for rows in rows {
            writer.write(rows.clone()).await.expect("rows are taken");
        }
        writer.stop().await;
        let listed: Vec<_> = self.storage.store.list(None).try_collect().await.expect("the listing succeeds");
        listed.into_iter().map(|object| object.location).collect()
    }

    /// The contents of the live files, ordered by name.
    pub(crate) async fn files(&self) -> Vec<Bytes> {
        let mut files = Vec::new();
        for file in self.dataset.view().await.expect("the table is readable").files() {
            let got = self.storage.store.get(&file.object).await.expect("the get succeeds");
            files.push(got.bytes().await.expect("the bytes are read"));
        }
        files
    }

    pub(crate) async fn only_file(&self) -> Bytes {
        let files = self.files().await;
        assert_eq!(files.len(), 1);
        files[0].clone()
    }
}

pub(crate) fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

/// Keys for the Parquet library.
struct Held(MemoryKeys);

impl KeyRetriever for Held {
    fn retrieve_key(&self, metadata: &[u8]) -> parquet::errors::Result<Vec<u8>> {
        let key = self.0.key(metadata).now_or_never().expect("it does not wait").expect("the key is one of the test");
        Ok(key.to_vec())
    }
}

/// Options with which the Parquet library reads a file.
pub(crate) fn reading(policy: PageIndexPolicy, keys: Option<&MemoryKeys>) -> ArrowReaderOptions {
    let options = ArrowReaderOptions::new().with_page_index_policy(policy);
    let Some(keys) = keys else { return options };
    let properties = FileDecryptionProperties::with_key_retriever(Arc::new(Held(keys.clone())));
    options.with_file_decryption_properties(properties.build().expect("the properties are valid"))
}

/// Reads the rows of a file, with its page index if it has one.
pub(crate) fn read(file: &Bytes) -> RecordBatch {
    read_with(file, None)
}

/// Reads the rows of a file with keys.
pub(crate) fn read_with(file: &Bytes, keys: Option<&MemoryKeys>) -> RecordBatch {
    let options = reading(PageIndexPolicy::Optional, keys);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options)
        .expect("the file is valid Parquet");
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder
        .build()
        .expect("the reader is created")
        .collect::<std::result::Result<_, _>>()
        .expect("the rows are readable");
    datafusion::arrow::compute::concat_batches(&schema, &batches).expect("the batches have one schema")
}

pub(crate) fn footer(file: &Bytes) -> ParquetMetaData {
    footer_with(file, PageIndexPolicy::Optional)
}

pub(crate) fn footer_alone(file: &Bytes) -> ParquetMetaData {
    footer_with(file, PageIndexPolicy::Skip)
}

fn footer_with(file: &Bytes, page_index: PageIndexPolicy) -> ParquetMetaData {
    let options = ArrowReaderOptions::new().with_page_index_policy(page_index);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options)
        .expect("the file is valid Parquet");
    builder.metadata().as_ref().clone()
}
