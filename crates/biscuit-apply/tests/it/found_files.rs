//! Change files that the caller has chosen.

use std::sync::Arc;

use biscuit_apply::{ChangeFiles, ChangeFormat, FoundFile};
use biscuit_change::RowsOptions;
use biscuit_core::{ErrorKind, ObjectRef};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

#[tokio::test]
async fn files_that_changed_after_they_were_found_are_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("raw/a.jsonl");
    store.put(&path, "{\"id\":1,\"op\":\"c\"}\n".into()).await.unwrap();
    let meta = store.head(&path).await.unwrap();
    let listed = ObjectRef::new("mem://raw/a.jsonl", meta.size, meta.e_tag);
    let found = FoundFile::new(listed, store.clone(), path);
    let files = || ChangeFiles::found(vec![found.clone()], ChangeFormat::Rows(RowsOptions::default().with_op("op")));
    assert_eq!(files().changes().await.unwrap().len(), 1);
    assert_eq!(
        ChangeFiles::found(vec![], ChangeFormat::Rows(RowsOptions::default())).changes().await.unwrap().len(),
        0
    );

    store.put(&found.object, "{\"id\":2,\"op\":\"c\"}\n".into()).await.unwrap();
    let e = files().changes().await.unwrap_err();
    assert_eq!((e.code(), e.kind(), e.file()), ("InputChanged", ErrorKind::Conflict, Some("mem://raw/a.jsonl")));
    store.delete(&found.object).await.unwrap();
    let e = files().changes().await.unwrap_err();
    assert_eq!((e.code(), e.kind(), e.file()), ("InputGone", ErrorKind::Conflict, Some("mem://raw/a.jsonl")));
}

#[tokio::test]
async fn first_error_of_a_file_is_returned_whatever_is_found_first() {
    let contract = r#"{"key": ["id"], "columns": [{"name": "id", "type": "bigint"}, {"name": "v", "type": "string"}]}"#;
    let contract = biscuit_schema::Contract::from_json(contract).unwrap();
    // The row in line 2 is decoded in the first of two chunks. The quote that does not end is found while the file is
    // divided into chunks.
    let text = ["id,v\n", "one,a\n", &"2,b\n".repeat(1 << 20), "3,\"c\n"].concat();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("raw/a.csv");
    store.put(&path, text.into()).await.unwrap();
    let meta = store.head(&path).await.unwrap();
    let found = FoundFile::new(ObjectRef::new("a.csv", meta.size, meta.e_tag), store, path);
    let format = ChangeFormat::Rows(RowsOptions::default().with_contract(contract));
    let e = ChangeFiles::found(vec![found], format).changes().await.unwrap_err();
    assert_eq!((e.code(), e.row()), ("Unparseable", Some(2)));
}

/// Encodes a number as Avro does.
fn long(value: u64) -> Vec<u8> {
    let (mut rest, mut bytes) = (value << 1, vec![]);
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

#[tokio::test]
async fn large_avro_file_is_read_in_chunks_with_the_numbers_of_its_rows() {
    const ROWS: u64 = 400_000;
    const BLOCK: u64 = 1000;
    let text = |text: &str| [long(text.len() as u64), text.as_bytes().to_vec()].concat();
    let schema = r#"{"type":"record","name":"r","fields":[{"name":"id","type":"long"},{"name":"v","type":"string"}]}"#;
    let mut file = [b"Obj\x01".to_vec(), long(1), text("avro.schema"), text(schema), vec![0], vec![7; 16]].concat();
    for first in (0..ROWS).step_by(BLOCK as usize) {
        let records: Vec<u8> = (first..first + BLOCK)
            .flat_map(|id| [long(id), text(&format!("a value, number {id:06}"))].concat())
            .collect();
        file.extend([long(BLOCK), long(records.len() as u64), records, vec![7; 16]].concat());
    }
    assert!(file.len() > 8 << 20, "the file is read with several requests");
    let read = async |file: Vec<u8>| {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("raw/a.avro");
        store.put(&path, file.into()).await.unwrap();
        let meta = store.head(&path).await.unwrap();
        let found = FoundFile::new(ObjectRef::new("a.avro", meta.size, meta.e_tag), store, path);
        ChangeFiles::found(vec![found], ChangeFormat::Rows(RowsOptions::default())).changes().await
    };
    let changes = read(file.clone()).await.unwrap();
    let places: Vec<u64> = changes.batches.iter().flat_map(|batch| batch.places.iter().copied()).collect();
    assert_eq!(places, Vec::from_iter(1..=ROWS));
    let e = read(file[..file.len() - 1].to_vec()).await.unwrap_err();
    assert_eq!((e.code(), e.file()), ("TruncatedInput", Some("a.avro")));
}
