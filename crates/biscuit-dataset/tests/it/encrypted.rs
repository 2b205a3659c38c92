//! Parquet modular encryption of the files of a table.

use std::sync::Arc;

use biscuit_dataset::encryption::{FileEncryption, FileKeys, FilePart};
use biscuit_dataset::{Dataset, Location, OpenFile, ParquetOptions, WriteMode, WriteOptions, write_single};
use biscuit_journal::{TableStorage, WriterPolicy};
use biscuit_testkit::{MemoryKeys, RecordingStore, assert_rows_eq, table};
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::prelude::{SessionContext, col, lit};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::properties::WriterProperties;

use crate::lake::{dataset, frame, memory, rows, write};

/// Secret values that must not appear in files, as text and as the bytes of a number.
const SECRET: &str = "canary-7319";
const NUMBER: i64 = 0x7ab3_15c9_de02_4f61;

fn customers() -> RecordBatch {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..500));
    let email: ArrayRef =
        Arc::new((0..500).map(|i| (i % 7 != 0).then(|| format!("{SECRET}-{i}"))).collect::<StringArray>());
    let salary: ArrayRef = Arc::new(Int64Array::from_iter_values((0..500).map(|i| NUMBER + i % 3)));
    let street: ArrayRef = Arc::new(StringArray::from_iter_values((0..500).map(|i| format!("{SECRET} street {i}"))));
    let city: ArrayRef = Arc::new(StringArray::from_iter_values((0..500).map(|i| format!("city {}", i % 5))));
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    let address: ArrayRef = Arc::new(StructArray::from(vec![(text("street"), street), (text("city"), city)]));
    let columns = [("id", id), ("email", email), ("salary", salary), ("address", address)];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).expect("the batch is valid")
}

const HIDDEN: [&str; 3] = ["email", "salary", "address.street"];

async fn bytes_of(storage: &TableStorage) -> Vec<(Path, Bytes)> {
    let listed: Vec<_> = storage.store.list(None).try_collect().await.expect("the listing succeeds");
    let mut all = vec![];
    for object in listed {
        let got = storage
            .store
            .get(&object.location)
            .await
            .expect("the get succeeds")
            .bytes()
            .await
            .expect("the bytes are read");
        all.push((object.location, got));
    }
    all
}

fn shows(bytes: &[u8]) -> bool {
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    has(SECRET.as_bytes()) || has(&NUMBER.to_le_bytes()) || has(&(NUMBER + 2).to_le_bytes())
}

/// Without compression, so that values that are not encrypted are found in the bytes.
fn options() -> WriteOptions {
    let parquet =
        ParquetOptions::default().with_compression(parquet::basic::Compression::UNCOMPRESSED).with_row_group_rows(200);
    WriteOptions::default().with_parquet(parquet)
}

async fn written(storage: &TableStorage, encryption: FileEncryption) -> Dataset {
    let d = dataset(storage).with_encryption(encryption);
    write(&d, &customers(), WriteMode::Append, &options()).await.expect("the write succeeds");
    d
}

async fn only_file(d: &Dataset) -> OpenFile {
    let files = d.view().await.expect("the table is readable").open_files().await.expect("the files are opened");
    let [file] = files.as_slice() else { panic!("one file") };
    file.clone()
}

#[tokio::test]
async fn encrypted_columns_are_not_readable_in_bytes_and_are_read_with_the_keys() {
    let plain = memory();
    written(&plain, MemoryKeys::new().encrypting(["id"])).await;
    assert!(bytes_of(&plain).await.iter().any(|(_, bytes)| shows(bytes)), "values that are not encrypted are found");

    let (storage, keys) = (memory(), MemoryKeys::new());
    let d = written(&storage, keys.encrypting(HIDDEN)).await;
    for (path, bytes) in bytes_of(&storage).await {
        assert!(!shows(&bytes), "{path}");
    }
    assert_eq!(keys.len(), 1 + HIDDEN.len(), "one for the footer, one for each column");
    assert_rows_eq!(rows(&d).await, customers());
    let found = d.load(&SessionContext::new()).await.unwrap();
    let found = found.filter(col("email").eq(lit(format!("{SECRET}-300")))).unwrap().collect().await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1, "also with statistics and page indexes");
    let file = only_file(&d).await;
    assert!(file.is_encrypted("email") && file.is_encrypted("address") && !file.is_encrypted("id"));
    assert_eq!(file.encrypted().into_iter().collect::<Vec<_>>(), ["address.street", "email", "salary"]);
    assert!(file.page_indexes().await.unwrap().column_index().is_some());
    let some: Vec<RecordBatch> =
        file.stream_rows(Some(&["salary"]), &[3, 499]).unwrap().try_collect().await.expect("the rows are readable");
    assert_eq!(some.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[tokio::test]
async fn without_keys_plain_columns_are_read_and_encrypted_ones_are_errors() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    written(&storage, keys.encrypting(HIDDEN)).await;
    let d = dataset(&storage);
    let frame = d.load(&SessionContext::new()).await.unwrap();
    let ids = frame.clone().select_columns(&["id"]).unwrap();
    assert_eq!(ids.clone().count().await.unwrap(), 500);
    // Filters read page indexes, and the page indexes of encrypted columns cannot be read.
    let some = ids.filter(col("id").gt_eq(lit(100)).and(col("id").lt(lit(103)))).unwrap().collect().await.unwrap();
    assert_eq!(some.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    let file = only_file(&d).await;
    let path = file.path().to_owned();
    for column in ["email", "address"] {
        let e = file.stream(Some(&["id", column])).map(drop).unwrap_err();
        assert_eq!((e.code(), e.column()), ("NoFileKeys", Some(column)));
        assert!(e.to_string().contains(&path), "{e}");
        let e = frame.clone().select_columns(&[column]).unwrap().collect().await.unwrap_err();
        assert_eq!(biscuit_dataset::internal::engine_error("t", e).code(), "NoFileKeys");
    }
    let e = file.encryption().unwrap_err();
    assert_eq!(e.code(), "NoFileKeys", "a file that replaces it would not be encrypted");
}

#[tokio::test]
async fn table_remains_encrypted_and_is_not_written_without_keys() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    written(&storage, keys.encrypting(["email", "salary"])).await;
    let before = bytes_of(&storage).await.len();
    let e = write(&dataset(&storage), &customers(), WriteMode::Append, &options()).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("email")));
    assert_eq!(bytes_of(&storage).await.len(), before, "nothing was written");
    // Keys are enough: columns that were encrypted before remain encrypted, and columns that are named are added.
    let d = dataset(&storage).with_encryption(keys.encrypting(["address"]));
    write(&d, &customers(), WriteMode::Append, &options()).await.unwrap();
    let d = dataset(&storage).with_encryption(FileEncryption::new(Arc::new(keys.clone())));
    write(&d, &customers(), WriteMode::Append, &options()).await.unwrap();
    let files = d.view().await.unwrap().open_files().await.unwrap();
    let mut counts: Vec<usize> = files.iter().map(|f| f.encrypted().len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 4, 4]);
    assert_eq!(d.load(&SessionContext::new()).await.unwrap().count().await.unwrap(), 1500);
    // The same applies to a write that replaces everything.
    let e = write(&dataset(&storage), &customers(), WriteMode::ReplaceAll, &options()).await.unwrap_err();
    assert_eq!(e.code(), "NoFileKeys");
}

#[tokio::test]
async fn everything_is_encrypted_on_request_and_remains_encrypted() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    let d = written(&storage, keys.encrypting([""; 0]).with_everything()).await;
    assert!(only_file(&d).await.is_encrypted_whole());
    assert_rows_eq!(rows(&d).await, customers());
    let (path, bytes) =
        bytes_of(&storage).await.into_iter().find(|(p, _)| p.as_ref().ends_with("parquet")).expect("the file is found");
    assert!(
        bytes.ends_with(b"PARE") && !bytes.windows(6).any(|w| w == b"salary"),
        "the name of the column is encrypted as well"
    );
    let e = dataset(&storage).view().await.unwrap().open_files().await.unwrap_err();
    assert_eq!(e.code(), "NoFileKeys");
    assert!(e.to_string().contains(path.filename().unwrap()), "{e}");
    // Everything remains encrypted if fewer columns are named later, and for columns that are added later.
    let d = dataset(&storage).with_encryption(keys.encrypting(["email"]));
    let more: ArrayRef = Arc::new(StringArray::from(vec![SECRET]));
    let more = RecordBatch::try_from_iter_with_nullable([("email", more.clone(), true), ("more", more, true)]).unwrap();
    write(&d, &more, WriteMode::Append, &options()).await.unwrap();
    for (path, bytes) in bytes_of(&storage).await {
        assert!(!shows(&bytes), "{path}");
    }
    for file in d.view().await.unwrap().open_files().await.unwrap() {
        assert!(file.is_encrypted_whole());
    }
}

/// In a file with an encrypted footer and single encrypted columns, as other writers make by default, the other
/// columns are not encrypted, and neither are they in files that follow it.
#[tokio::test]
async fn footer_can_be_encrypted_in_addition_to_columns() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    let d = written(&storage, keys.encrypting(HIDDEN).with_encrypted_footer()).await;
    let like = only_file(&d).await.encryption().unwrap().unwrap();
    assert!(like.encrypts_footer() && !like.encrypts_everything() && like.covers("email") && !like.covers("id"));
    let keys_alone = dataset(&storage).with_encryption(FileEncryption::new(Arc::new(keys)));
    write(&keys_alone, &customers(), WriteMode::Append, &options()).await.unwrap();
    for (path, bytes) in bytes_of(&storage).await.into_iter().filter(|(p, _)| p.as_ref().ends_with("parquet")) {
        assert!(bytes.ends_with(b"PARE") && !shows(&bytes), "{path}");
    }
    for file in keys_alone.view().await.unwrap().open_files().await.unwrap() {
        assert!(file.is_encrypted("email") && !file.is_encrypted("id") && !file.is_encrypted_whole());
    }
    assert_eq!(rows(&keys_alone).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 1000);
}

/// The encryption that is derived from a file covers exactly the encrypted parts.
#[tokio::test]
async fn a_list_inside_of_a_struct_is_named_by_its_path() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..10).map(|i| Some(vec![Some(i), None])));
    let field = |name: &str, t: &DataType| Arc::new(Field::new(name, t.clone(), true));
    let other: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
    let inner: Vec<(Arc<Field>, ArrayRef)> =
        vec![(field("l", lists.data_type()), Arc::new(lists)), (field("n", &DataType::Int64), other)];
    let s: ArrayRef = Arc::new(StructArray::from(inner));
    let rows = RecordBatch::try_from_iter_with_nullable([("s", s, true)]).unwrap();
    let d = dataset(&memory()).with_encryption(MemoryKeys::new().encrypting(["s.l"]));
    write(&d, &rows, WriteMode::Append, &options()).await.unwrap();
    assert_eq!(only_file(&d).await.encrypted().into_iter().collect::<Vec<_>>(), ["s.l"]);
    assert_rows_eq!(self::rows(&d).await, rows);
}

/// A file that cannot be read has no encrypted parts, and does not prevent the replacement of a table.
#[tokio::test]
async fn a_torn_file_of_another_writer_can_be_replaced() {
    let storage = memory();
    storage.store.put(&Path::from("lake/t/part-0.parquet"), Bytes::from_static(b"PAR1 torn").into()).await.unwrap();
    for d in [dataset(&storage), dataset(&storage).with_encryption(MemoryKeys::new().encrypting(["email"]))] {
        write(&d, &customers(), WriteMode::ReplaceAll, &options()).await.unwrap();
    }
}

/// The columns that the options of one write encrypt are stored in the journal.
#[tokio::test]
async fn columns_that_one_write_encrypts_remain_encrypted() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    let d = dataset(&storage);
    let mut with_keys = options();
    with_keys.parquet = with_keys.parquet.with_encryption(keys.encrypting(["email"]));
    write(&d, &customers(), WriteMode::Append, &with_keys).await.unwrap();
    let e = write(&d, &customers(), WriteMode::Append, &options()).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("email")));
    let misspelt = options().with_parquet(options().parquet.with_encryption(keys.encrypting(["emial"])));
    let e = write(&d, &customers(), WriteMode::Append, &misspelt).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnknownColumn", Some("emial")));
}

/// Files that no commit has described are opened before a write, also before they are replaced.
#[tokio::test]
async fn encrypted_table_of_another_writer_remains_encrypted() {
    for mode in [WriteMode::Append, WriteMode::ReplaceAll, WriteMode::ReplacePartitions] {
        let (storage, keys) = (memory(), MemoryKeys::new());
        let other = memory();
        let d = written(&other, keys.encrypting(["email", "salary"])).await;
        let file = only_file(&d).await.file;
        let bytes = other.store.get(&file.object).await.unwrap().bytes().await.unwrap();
        storage.store.put(&Path::from("lake/t/part-0.parquet"), bytes.into()).await.unwrap();
        let e = write(&dataset(&storage), &customers(), mode, &options()).await.unwrap_err();
        assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("email")), "{mode:?}");
        let d = dataset(&storage).with_encryption(FileEncryption::new(Arc::new(keys)));
        write(&d, &customers(), mode, &options()).await.unwrap();
        for file in d.view().await.unwrap().open_files().await.unwrap() {
            assert!(file.is_encrypted("email") && file.is_encrypted("salary") && !file.is_encrypted("id"));
        }
    }
}

#[tokio::test]
async fn wrong_keys_and_damage_are_errors_with_the_file_name() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    let d = written(&storage, keys.encrypting(HIDDEN)).await;
    let others = dataset(&storage).with_encryption(MemoryKeys::new().encrypting(HIDDEN));
    let e = others.view().await.unwrap().open_files().await.unwrap_err();
    assert_eq!(e.code(), "UnknownKey");
    assert!(e.file().is_some_and(|file| file.ends_with(".parquet")), "{e}");
    // A key with the right name and another value does not open the file.
    let wrong = MemoryKeys::new();
    for n in 0..4 {
        let key = wrong.new_key(FilePart::Column).await.unwrap().key.iter().map(|b| b ^ 1).collect::<Vec<u8>>();
        for part in ["Footer", "Column"] {
            wrong.insert(format!("{part} {n}"), key.clone());
        }
    }
    let others = dataset(&storage).with_encryption(wrong.encrypting(HIDDEN));
    let e = others.view().await.unwrap().open_files().await.unwrap_err();
    assert_eq!(e.code(), "UnreadableParquet", "{e}");
    // A page with a flipped bit.
    let file = only_file(&d).await;
    let chunk = file.metadata().metadata().row_group(0).column(1).clone();
    let mut bytes = storage.store.get(&file.file.object).await.unwrap().bytes().await.unwrap().to_vec();
    let (start, length) = chunk.byte_range();
    bytes[(start + length) as usize - 20] ^= 1;
    let other = Path::from("elsewhere/damaged.parquet");
    storage.store.put(&other, bytes.into()).await.unwrap();
    let mut damaged = file.file.clone();
    (damaged.object, damaged.listed) = (other, damaged.listed.with_path("damaged.parquet"));
    let damaged = OpenFile::open_with(storage.store.clone(), damaged, Some(&keys.encrypting(HIDDEN))).await.unwrap();
    let e = damaged.stream(None).unwrap().try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(e.code(), "UnreadableParquet");
    assert!(e.to_string().contains("damaged.parquet"), "{e}");
}

#[tokio::test]
async fn partition_columns_and_missing_columns_cannot_be_encrypted() {
    let storage = memory();
    let d = dataset(&storage).with_encryption(MemoryKeys::new().encrypting(["day"]));
    let day = table("v:int | day:string\n1 | a");
    let e = write(&d, &day, WriteMode::Append, &WriteOptions::default().with_partition_by(["day"])).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("EncryptedColumn", Some("day")));
    let d = dataset(&storage).with_encryption(MemoryKeys::new().encrypting(["address.zip"]));
    let e = write(&d, &customers(), WriteMode::Append, &options()).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnknownColumn", Some("address.zip")));
    let d = dataset(&storage).with_encryption(MemoryKeys::new().encrypting(["Email"]));
    let e = write(&d, &customers(), WriteMode::Append, &options()).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnknownColumn", Some("Email")));
    let place = Location::new(storage.clone(), "out/customers.parquet", "out").unwrap();
    let parquet = options().parquet.with_encryption(MemoryKeys::new().encrypting(["Email"]));
    let e = write_single(&place, frame(&customers()), WriterPolicy::Many, &parquet).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnknownColumn", Some("Email")));
    assert!(bytes_of(&storage).await.iter().all(|(_, bytes)| !shows(bytes)), "nothing was written");
}

#[tokio::test]
async fn a_single_file_is_encrypted_too() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    let place = Location::new(storage.clone(), "out/customers.parquet", "out").unwrap();
    let options = options().parquet.with_encryption(keys.encrypting(HIDDEN));
    write_single(&place, frame(&customers()), WriterPolicy::Many, &options).await.unwrap();
    assert!(bytes_of(&storage).await.iter().all(|(_, bytes)| !shows(bytes)));
}

/// A file as another writer encrypts it: as a whole, with the key of its footer.
fn external() -> Bytes {
    let properties = FileEncryptionProperties::builder(vec![7; 16]).with_footer_key_metadata(b"kf".to_vec());
    let properties =
        WriterProperties::builder().with_file_encryption_properties(properties.build().expect("the file is valid"));
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, customers().schema(), Some(properties.build())).expect("the file is valid");
    writer.write(&customers()).expect("the file is written");
    writer.close().expect("the file is closed");
    bytes.into()
}

#[tokio::test]
async fn encrypted_files_of_other_writers_are_read_and_followed() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    keys.insert(b"kf".to_vec(), vec![7; 16]);
    storage.store.put(&Path::from("lake/t/part-0.parquet"), external().into()).await.unwrap();
    let d = dataset(&storage).with_encryption(FileEncryption::new(Arc::new(keys)));
    assert_rows_eq!(rows(&d).await, customers());
    let like = only_file(&d).await.encryption().unwrap().unwrap();
    assert!(like.encrypts_everything() && like.covers("id") && like.covers("address"));
    write(&d, &customers(), WriteMode::Append, &options()).await.unwrap();
    for file in d.view().await.unwrap().open_files().await.unwrap() {
        assert!(file.is_encrypted_whole());
    }
}

#[tokio::test]
async fn keys_are_fetched_once_for_each_file_and_the_footer_is_read_once() {
    let (storage, keys) = (memory(), MemoryKeys::new());
    written(&storage, keys.encrypting(HIDDEN)).await;
    let (recorder, recorded) = RecordingStore::storage(&storage);
    let d = dataset(&recorded).with_encryption(keys.encrypting(HIDDEN));
    let before = keys.request_count();
    let files = d.view().await.unwrap().open_files().await.unwrap();
    assert_eq!(keys.request_count() - before, 4);
    let gets = || recorder.calls().with(".parquet").iter().filter(|c| c.starts_with("get")).count();
    assert_eq!((files.len(), gets()), (1, 1));
}
