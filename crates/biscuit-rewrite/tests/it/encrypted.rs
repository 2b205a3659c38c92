//! Files with Parquet modular encryption: their replacements are encrypted as well.

use std::sync::Arc;

use biscuit_core::Outcome;
use biscuit_dataset::encryption::FileEncryption;
use biscuit_dataset::{Dataset, Location, OpenFile, ParquetOptions, WriteMode, WriteOptions};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_rewrite::{
    CompactOptions, ErasureSubjects, NoSpliceReason, RewriteChoice, RewriteUnit, RunMode, SortBy, choose_rewrite,
    compact, erase,
};
use biscuit_testkit::{MemoryKeys, assert_rows_eq};
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, ListArray, RecordBatch};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::prelude::SessionContext;
use object_store::memory::InMemory;
use parquet::encryption::encrypt::FileEncryptionProperties;

use crate::lab::{Lab, file, flat, plain, read_with};

fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

fn dataset(storage: &TableStorage) -> Dataset {
    Dataset::new(
        Location::new(storage.clone(), "lake/t", "lake/t").expect("the place is valid"),
        JournalOptions::default(),
    )
}

async fn append(d: &Dataset, rows: RecordBatch) {
    let options = WriteOptions::default().with_parquet(ParquetOptions::default().with_row_group_rows(100));
    let frame = SessionContext::new().read_batch(rows).expect("the frame is valid");
    d.observe()
        .await
        .expect("the table is observed")
        .write(frame, WriteMode::Append, &options)
        .await
        .expect("the write succeeds");
}

async fn files(d: &Dataset) -> Vec<OpenFile> {
    d.view().await.expect("the table is readable").open_files().await.expect("the files are opened")
}

async fn rows(d: &Dataset) -> Vec<RecordBatch> {
    d.load(&SessionContext::new()).await.expect("the table is loaded").collect().await.expect("the rows are readable")
}

/// Three files. The first one was written before the table had encrypted columns.
async fn lake(keys: &MemoryKeys) -> (TableStorage, Dataset) {
    let storage = memory();
    append(&dataset(&storage), flat(&(0..60).collect::<Vec<_>>(), "a")).await;
    let d = dataset(&storage).with_encryption(keys.encrypting(["note"]));
    append(&d, flat(&(60..400).collect::<Vec<_>>(), "b")).await;
    append(&d, flat(&[7, 500], "c")).await;
    (storage, d)
}

#[tokio::test]
async fn compaction_encrypts_columns_of_older_plain_files() {
    for sort_by in [vec![], vec![SortBy::descending("id")]] {
        let keys = MemoryKeys::new();
        let (storage, d) = lake(&keys).await;
        let before = rows(&d).await;
        let mut options = CompactOptions::default();
        options.sort_by = sort_by;
        let e = compact(&dataset(&storage), &options, RunMode::Commit).await.unwrap_err();
        assert_eq!(e.code(), "NoFileKeys");
        // The keys are enough: the table knows which columns are encrypted.
        let d = dataset(&storage).with_encryption(FileEncryption::new(Arc::new(keys)));
        let report = compact(&d, &options, RunMode::Commit).await.unwrap();
        assert_eq!((report.files_replaced, report.files_written), (3, 1));
        assert_rows_eq!(rows(&d).await, before);
        let all = files(&d).await;
        let [file] = all.as_slice() else { panic!("one file") };
        assert!(file.is_encrypted("note") && !file.is_encrypted("id"));
        assert_eq!(compact(&d, &options, RunMode::Commit).await.unwrap().outcome, Outcome::Unchanged);
    }
}

#[tokio::test]
async fn single_plain_file_is_compacted_to_be_encrypted() {
    let storage = memory();
    append(&dataset(&storage), flat(&(0..60).collect::<Vec<_>>(), "a")).await;
    let d = dataset(&storage).with_encryption(MemoryKeys::new().encrypting(["note"]).with_everything());
    let report = compact(&d, &CompactOptions::default(), RunMode::Commit).await.unwrap();
    assert_eq!((report.outcome, report.files_replaced), (Outcome::Committed, 1));
    let all = files(&d).await;
    assert!(all[0].is_encrypted("note") && all[0].is_encrypted_whole());
    assert_eq!(compact(&d, &CompactOptions::default(), RunMode::Commit).await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn rows_are_erased_from_encrypted_files_by_encrypted_columns() {
    let keys = MemoryKeys::new();
    let (storage, d) = lake(&keys).await;
    let clear = files(&d).await.iter().position(|f| f.encrypted().is_empty()).expect("the first one is found");
    let untouched = files(&d).await[clear].path().to_owned();
    let e = erase(&dataset(&storage), &ErasureSubjects::new("note", ["b of 70"]), RunMode::Commit).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("note")));
    let report = erase(&d, &ErasureSubjects::new("note", ["b of 70", "c of 7"]), RunMode::Commit).await.unwrap();
    assert_eq!((report.erased, report.files, report.groups_copied), (2, 2, 0));
    assert_eq!(rows(&d).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 400);
    for file in files(&d).await {
        assert_eq!(file.encrypted().is_empty(), file.path() == untouched, "{}", file.path());
    }
}

/// Encrypted columns have no bloom filter, since the Parquet library would write it without encryption.
#[tokio::test]
async fn bloom_filters_of_encrypted_columns_are_dropped_and_others_remain() {
    let keys = MemoryKeys::new();
    let groups: Vec<RecordBatch> = (0..3).map(|g| flat(&(g * 100..(g + 1) * 100).collect::<Vec<_>>(), "x")).collect();
    let lab = Lab::with(file(&groups, plain().set_bloom_filter_enabled(true))).await.with_keys(&keys);
    let unit = lab.unit().await.with_removed(&[5]);
    let unit = unit.with_parquet(ParquetOptions::default().with_encryption(keys.encrypting(["note"])));
    assert_eq!(choose_rewrite(&unit), RewriteChoice::Rewrite(NoSpliceReason::Encrypted));
    lab.run(unit).await;
    let open = lab.open().await;
    for group in open.metadata().metadata().row_groups() {
        let filters: Vec<bool> = group.columns().iter().map(|c| c.bloom_filter_offset().is_some()).collect();
        assert_eq!(filters, [true, true, false]);
    }
}

async fn gathered(max_file_size: u64, memory: usize) -> Vec<u64> {
    let keys = MemoryKeys::new();
    let batches: Vec<RecordBatch> = (0..11).map(|b| flat(&(b * 30..(b + 1) * 30).collect::<Vec<_>>(), "new")).collect();
    let lab = Lab::with(file(&[flat(&[1], "old")], plain())).await.with_keys(&keys);
    let parquet = ParquetOptions::default().with_row_group_rows(100).with_encryption(keys.encrypting(["note", "id"]));
    let unit = RewriteUnit::from_sources(vec![], lab.unit().await.schema, "")
        .with_parquet(parquet)
        .with_max_file_size(max_file_size);
    let written = lab.write(unit, &batches, memory).await;
    let mut read: Vec<RecordBatch> = lab.files().await.iter().map(|bytes| read_with(bytes, Some(&keys))).collect();
    read.sort_by_key(|rows| rows["id"].to_data().buffers()[0].typed_data::<i64>()[0]);
    let schema = read[0].schema();
    let (got, want) = (
        concat_batches(&schema, &read).expect("the batches have one schema"),
        concat_batches(&batches[0].schema(), &batches).expect("the batches have one schema"),
    );
    assert_eq!(got.columns(), want.columns());
    if max_file_size == u64::MAX {
        assert_eq!(written.len(), 1);
        let groups = lab.open().await;
        return groups.metadata().metadata().row_groups().iter().map(|g| g.num_rows() as u64).collect();
    }
    written.iter().filter_map(|w| w.file.rows).collect()
}

#[tokio::test]
async fn encrypted_rows_writer_fills_row_groups_and_files() {
    assert_eq!(gathered(u64::MAX, 1 << 30).await, [100, 100, 100, 30]);
    assert_eq!(gathered(u64::MAX, 100).await, [30; 11], "a row group ends when memory is exhausted");
    let files = gathered(1, 1 << 30).await;
    assert_eq!(files, [100, 100, 100, 30], "each file has one row group, and no row group is split");
}

/// The element of a list has another name in files of other writers.
#[tokio::test]
async fn list_of_another_writer_remains_encrypted_with_another_element_name() {
    let keys = MemoryKeys::new();
    keys.insert(b"footer".to_vec(), vec![1; 16]);
    keys.insert(b"list".to_vec(), vec![2; 16]);
    let properties = FileEncryptionProperties::builder(vec![1; 16])
        .with_plaintext_footer(true)
        .with_footer_key_metadata(b"footer".to_vec())
        .with_column_key_and_metadata("list.list.element", vec![2; 16], b"list".to_vec())
        .build()
        .unwrap();
    let numbers = Arc::new(Int64Array::from_iter_values(0..200));
    let element = Arc::new(Field::new("element", DataType::Int64, true));
    let lists: ArrayRef =
        Arc::new(ListArray::new(element, OffsetBuffer::from_lengths(vec![2; 100]), numbers.clone(), None));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let rows = RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("list", lists, true)]).unwrap();
    let lab = Lab::with(file(&[rows], plain().with_file_encryption_properties(properties))).await.with_keys(&keys);
    let mut unit = lab.unit().await.with_removed(&[0]);
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let fields = [("id", DataType::Int64), ("list", list), ("more", DataType::Utf8)];
    unit.schema = Arc::new(Schema::new(fields.map(|(name, t)| Field::new(name, t, true)).to_vec()));
    assert_eq!(choose_rewrite(&unit), RewriteChoice::Rewrite(NoSpliceReason::OtherColumns));
    lab.run(unit).await;
    let open = lab.open().await;
    assert!(open.is_encrypted("list") && !open.is_encrypted("id"));
    let read = read_with(&lab.only_file().await, Some(&keys));
    let list = read["list"].as_list::<i32>().value(98);
    assert_eq!((read.num_rows(), list.as_primitive::<Int64Type>().values().to_vec()), (99, vec![198, 199]));
}
