//! Tables whose files encrypt columns.

use std::fmt::Write;
use std::sync::Arc;

use biscuit_apply::internal::stored_key_metadata;
use biscuit_apply::{
    ChangeFiles, ChangeFormat, Merge, MergeSpec, RunMode, adopt, discard, quarantined_records, verify,
};
use biscuit_change::{BadRows, DebeziumOptions, DebeziumReader, RowsOptions, RowsReader};
use biscuit_dataset::Dataset;
use biscuit_dataset::encryption::FileEncryption;
use biscuit_journal::TableStorage;
use biscuit_schema::Contract;
use biscuit_testkit::{MemoryKeys, assert_rows_eq, table};
use datafusion::prelude::{SessionContext, col, lit};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::lake::{self, serial, spec};

const SECRET: &str = "canary-5521";

fn upserts(ids: impl IntoIterator<Item = i64>, seq: i64) -> String {
    ids.into_iter().fold(String::new(), |mut lines, id| {
        writeln!(
            lines,
            "{{\"id\":{id},\"seq\":{seq},\"day\":\"d{}\",\"v\":\"{SECRET} {seq} of {id}\",\"op\":\"u\"}}",
            id % 3
        )
        .expect("a String takes all");
        lines
    })
}

fn hidden(storage: &TableStorage, keys: &MemoryKeys) -> Dataset {
    lake::dataset(storage.clone()).with_encryption(keys.encrypting(["v"]))
}

/// No object contains the secret, and every data file encrypts its column.
async fn check_hidden(d: &Dataset) {
    let store = &d.journal().storage().store;
    let all: Vec<_> = store.list(None).try_collect().await.expect("the listing succeeds");
    for object in all {
        let bytes =
            store.get(&object.location).await.expect("the get succeeds").bytes().await.expect("the bytes are read");
        assert!(!bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()), "{}", object.location);
    }
    for file in d.view().await.expect("the table can be read").open_files().await.expect("the files are opened") {
        assert!(file.is_encrypted("v"), "{}", file.path());
    }
}

#[tokio::test]
async fn updated_inserted_and_moved_rows_remain_encrypted() {
    let (storage, keys) = (lake::memory(), MemoryKeys::new());
    let d = hidden(&storage, &keys);
    let options = serial().with_partition_by(["day"]);
    let run = async |lines: &str| lake::merge_with(&d, &spec(), &options, lines).await.expect("the merge succeeds");
    run(&upserts(0..300, 1)).await;
    check_hidden(&d).await;
    // Updates, an insert, a delete, a row that moves to another partition, and a new partition.
    let key_changes = "{\"id\":7,\"seq\":3,\"day\":\"d2\",\"v\":\"moved\",\"op\":\"u\"}\n{\"id\":8,\"seq\":3,\"op\":\"d\"}\n{\"id\":9,\"seq\":3,\"day\":\"d9\",\"v\":\"new folder\",\"op\":\"u\"}\n";
    let report = run(&(upserts([5, 1000], 2) + key_changes)).await;
    assert_eq!((report.rows.inserted, report.rows.deleted, report.rows.after), (1, 1, 300));
    check_hidden(&d).await;
    assert!(verify(&d, &[]).await.expect("the table can be verified").is_sound());
    let frame = d.load(&SessionContext::new()).await.unwrap();
    let some = frame.filter(col("id").in_list(vec![lit(5), lit(7), lit(9)], false)).unwrap().collect().await.unwrap();
    assert_rows_eq!(
        some,
        table(&format!(
            "id:bigint | seq:bigint | v:string | day:string\n5 | 2 | {SECRET} 2 of 5 | d2\n7 | 3 | moved | d2\n9 | 3 | new folder | d9"
        ))
    );
    // The table stores which columns are encrypted: a dataset that only has the keys, or has none, need not be told.
    let with_keys = lake::dataset(storage.clone()).with_encryption(FileEncryption::new(Arc::new(keys)));
    lake::merge_with(&with_keys, &spec(), &options, &upserts([2000], 4)).await.expect("the merge succeeds");
    check_hidden(&d).await;
    let e = lake::merge_with(&lake::dataset(storage), &spec(), &options, &upserts([3000], 5)).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("v")));
}

/// A first load that exceeds its memory stages new files while it is read.
#[tokio::test]
async fn load_larger_than_memory_is_encrypted() {
    let d = hidden(&lake::memory(), &MemoryKeys::new());
    let folder = std::env::temp_dir().join(format!("biscuit-encrypted-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let rows = format!(
        "id:bigint | seq:bigint | v:string\n{}",
        (0..5000).fold(String::new(), |mut all, id| {
            writeln!(all, "{id} | 1 | {SECRET} {id}").expect("a String takes all");
            all
        })
    );
    let rows = table(&rows);
    let file = folder.join("changes.parquet");
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&file).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let files = ChangeFiles::new([file.to_string_lossy().into_owned()], ChangeFormat::Rows(RowsOptions::default()));
    let options = serial().with_change_memory(10_000);
    let report =
        Merge::new(d.clone(), spec(), options).unwrap().input(files.clone()).run(RunMode::Commit).await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(report.rows.after, 5000);
    check_hidden(&d).await;
    assert_rows_eq!(lake::rows(&d).await, rows);
}

#[tokio::test]
async fn encrypted_columns_are_refused_as_key_order_or_partition_and_in_the_quarantine() {
    for column in ["id", "seq", "day"] {
        let d = lake::dataset(lake::memory()).with_encryption(MemoryKeys::new().encrypting([column]));
        let e =
            lake::merge_with(&d, &spec(), &serial().with_partition_by(["day"]), &upserts([1], 1)).await.unwrap_err();
        assert_eq!((e.code(), e.column()), ("EncryptedColumn", Some(column)));
    }
    let d = hidden(&lake::memory(), &MemoryKeys::new());
    let quarantining = serial().with_bad_rows(BadRows::Quarantine, 50.0);
    let e = lake::merge_with(&d, &spec(), &quarantining, &upserts([1], 1)).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("EncryptedColumn", None));
    let whole = lake::dataset(lake::memory()).with_encryption(MemoryKeys::new().encrypting([""; 0]).with_everything());
    let e = lake::merge_with(&whole, &spec(), &serial(), &upserts([1], 1)).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("EncryptedColumn", Some("id")));
    let misspelt = lake::dataset(lake::memory()).with_encryption(MemoryKeys::new().encrypting(["vv"]));
    let e = lake::merge_with(&misspelt, &spec(), &serial(), &upserts([1], 1)).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnknownColumn", Some("vv")));
    let mut sealed = quarantining;
    sealed.sealed = true;
    lake::merge_with(&d, &spec(), &sealed, &upserts([1], 1)).await.expect("the caller has sealed the records");
}

/// The encrypted columns of an external table are read from its files, and stored when the table is adopted.
#[tokio::test]
async fn adopted_table_keeps_its_encrypted_columns() {
    let (storage, keys) = (lake::memory(), MemoryKeys::new());
    let d = hidden(&storage, &keys);
    lake::merge_with(&d, &spec(), &serial(), &upserts(0..10, 1)).await.expect("the merge succeeds");
    // The same file as an external file, in a table without a journal.
    let file = d.view().await.unwrap().files()[0].clone();
    let bytes = storage.store.get(&file.object).await.unwrap().bytes().await.unwrap();
    let other = lake::memory();
    other.store.put(&"lake/t/part-0.parquet".into(), bytes.into()).await.unwrap();
    adopt(&lake::dataset(other.clone()), RunMode::Commit).await.expect("its footer is in the clear");
    let e = lake::merge_with(&lake::dataset(other.clone()), &spec(), &serial(), &upserts([99], 2)).await.unwrap_err();
    assert_eq!(e.code(), "NoFileKeys");
    let with_keys = lake::dataset(other).with_encryption(FileEncryption::new(Arc::new(keys)));
    let report = lake::merge_with(&with_keys, &spec(), &serial(), &upserts([99], 2)).await.expect("the merge succeeds");
    assert_eq!(report.rows.after, 11);
    check_hidden(&with_keys).await;
}

/// Every commit adopts external files, and has to store which columns these encrypt.
#[tokio::test]
async fn commit_without_rows_stores_encrypted_columns_of_external_files() {
    let (storage, other, keys) = (lake::memory(), lake::memory(), MemoryKeys::new());
    let d = lake::dataset(storage.clone());
    let quarantining = serial().with_bad_rows(BadRows::Quarantine, 60.0);
    let bad = "{\"id\":null,\"seq\":1,\"op\":\"u\"}\n";
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op").with_bad_rows(BadRows::Quarantine));
    reader.read("changes.jsonl", (upserts([1], 1) + bad).into_bytes().into()).unwrap();
    let changes = reader.finish().unwrap();
    Merge::new(d.clone(), spec(), quarantining)
        .unwrap()
        .run(changes, RunMode::Commit)
        .await
        .expect("the merge succeeds");
    lake::merge_with(&hidden(&other, &keys), &spec(), &serial(), &upserts([2], 1)).await.expect("the merge succeeds");
    let file = hidden(&other, &keys).view().await.unwrap().files()[0].clone();
    let bytes = other.store.get(&file.object).await.unwrap().bytes().await.unwrap();
    storage.store.put(&"lake/t/part-9.parquet".into(), bytes.into()).await.unwrap();
    let refused: Vec<_> = quarantined_records(&d).await.unwrap().into_iter().map(|q| q.refused).collect();
    discard(&d, &refused).await.unwrap();
    assert!(d.view().await.unwrap().observed.external.is_empty());
    let e = d.observe().await.unwrap().encryption().unwrap_err();
    assert_eq!((e.code(), e.column()), ("NoFileKeys", Some("v")));
}

/// The row of a key change is stored as an image in the key metadata until both halves have come.
#[tokio::test]
async fn key_metadata_is_encrypted() {
    let (storage, keys) = (lake::memory(), MemoryKeys::new());
    let d = hidden(&storage, &keys);
    let event = |op: &str, id: i64, lsn: i64, v: &str, headers: &str| {
        let after = if op == "d" { "null".to_owned() } else { format!(r#"{{"id":{id},"v":"{v}"}}"#) };
        format!(
            r#"{{"key":{{"id":{id}}},"headers":{{{headers}}},"value":{{"op":"{op}","before":null,"after":{after},"source":{{"schema":"s","table":"t","lsn":{lsn}}}}}}}"#
        )
    };
    let run = async |d: &Dataset, line: String| {
        let contract = r#"{"key":["id"],"columns":[{"name":"id","type":"bigint"},{"name":"v","type":"string"}]}"#;
        let contract = Contract::from_json(contract).expect("the contract is valid");
        let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract));
        reader.read("events.jsonl", &line.into_bytes().into()).expect("the events are readable");
        let changes = reader.finish().expect("the records are readable");
        let spec = MergeSpec::new(["id"], changes.order.clone()).expect("the specification is valid");
        Merge::new(d.clone(), spec, serial())?.run(changes, RunMode::Commit).await
    };
    // Segments from before the table was encrypted are written again, encrypted.
    let clear = lake::dataset(storage.clone());
    run(&clear, event("c", 1, 10, &format!("{SECRET} of 1"), "")).await.unwrap();
    run(&clear, event("d", 1, 20, "", r#""__debezium.newkey":{"id":2}"#)).await.unwrap();
    assert_eq!(stored_key_metadata(&clear).await.unwrap().len(), 1);
    run(&d, event("c", 7, 20, "seven", "")).await.unwrap();
    let mut kept = 0;
    let all: Vec<_> = storage.store.list(None).try_collect().await.unwrap();
    let head = d.journal().head().await.unwrap();
    let live =
        |o: &&object_store::ObjectMeta| head.state.keys().any(|name| o.location.as_ref().ends_with(name.as_str()));
    for object in all.iter().filter(live).filter(|o| o.location.as_ref().contains("keys-")) {
        let bytes = storage.store.get(&object.location).await.unwrap().bytes().await.unwrap();
        assert!(bytes.ends_with(b"PARE"), "{}", object.location);
        kept += 1;
    }
    assert!(kept > 0, "the row is kept");
    assert_eq!(stored_key_metadata(&lake::dataset(storage.clone())).await.unwrap_err().code(), "NoFileKeys");
    assert_eq!(stored_key_metadata(&d).await.unwrap().len(), 1);
    let unavailable = "__debezium_unavailable_value";
    run(&d, event("c", 2, 20, unavailable, r#""__debezium.oldkey":{"id":1}"#)).await.unwrap();
    let want = table(&format!("id:bigint | v:string | __lsn:bigint\n2 | {SECRET} of 1 | 20\n7 | seven | 20"));
    assert_rows_eq!(lake::rows(&d).await, want);
    check_hidden(&d).await;
}
