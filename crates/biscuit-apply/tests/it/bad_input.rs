//! Invalid input: a clear error, and an unchanged table.

use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_change::{RowsOptions, RowsReader};
use biscuit_testkit::table;

use crate::lake;

async fn refused(file: &str, bytes: &[u8]) -> String {
    let storage = lake::memory();
    lake::put_external(&storage, "lake/t/a.parquet", &table("id:bigint | seq:bigint | v:string\n1 | 1 | a")).await;
    let before = lake::objects(&storage.store).await;
    let dataset = lake::dataset(storage.clone());
    let attempt = async {
        let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
        reader.read(file, bytes.to_vec().into())?;
        let spec = MergeSpec::new(["id"], ["seq"])?;
        Merge::new(dataset, spec, MergeOptions::default())?.run(reader.finish()?, RunMode::Commit).await
    };
    let e = attempt.await.expect_err("the input is invalid");
    assert_eq!(lake::objects(&storage.store).await, before);
    e.to_string()
}

#[tokio::test]
async fn errors_of_invalid_files_name_file_row_and_column() {
    let good = r#"{"id":1,"seq":2,"v":"b","op":"u"}"#;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "c.jsonl",
            format!("{good}\n{{\"id\":1,\"se").into(),
            "InvalidJson: the line ends in the middle of its JSON (c.jsonl, row 2)",
        ),
        (
            "c.jsonl",
            b"[1,2]".to_vec(),
            "InvalidJson: the line is not the expected JSON, at character 1 (c.jsonl, row 1)",
        ),
        ("c.jsonl", vec![], "EmptyFile: the file is empty (c.jsonl)"),
        ("c.parquet", b"PAR1 cut off".to_vec(), "UnreadableParquet"),
        (
            "c.jsonl.gz",
            vec![0x1f, 0x8b, 8, 0, 0],
            "TruncatedInput: the compressed text ends too early; the file was truncated (c.jsonl.gz)",
        ),
        (
            "c.jsonl",
            br#"{"id":1,"id":2,"seq":1}"#.to_vec(),
            "DuplicateColumn: the record has column `id` twice (c.jsonl, row 1)",
        ),
        (
            "c.jsonl",
            br#"{"id":1,"ID":2,"seq":1}"#.to_vec(),
            "ColumnCase: columns `id` and `ID` in `c.jsonl` differ only in letter case",
        ),
        (
            "c.jsonl",
            br#"{"id":1,"seq":2,"op":"x"}"#.to_vec(),
            "UnknownOp: column `op` contains an unknown operation code",
        ),
        ("c.jsonl", br#"{"id":null,"seq":2,"op":"u"}"#.to_vec(), "NullKey: key column `id` is null (c.jsonl, row 1)"),
        (
            "c.jsonl",
            br#"{"id":1,"seq":null,"op":"u"}"#.to_vec(),
            "NullOrder: order column `seq` is null (c.jsonl, row 1)",
        ),
        (
            "c.jsonl",
            br#"{"id":1,"v":"b","op":"u"}"#.to_vec(),
            "MissingColumn: `c.jsonl` has no column `seq`; its columns are id, v",
        ),
        (
            "c.jsonl",
            br#"{"id":"1","seq":2,"op":"u"}"#.to_vec(),
            "NoCommonType: column `id` is bigint so far and string in `c.jsonl`: no type holds the values of both without loss",
        ),
        ("c.jsonl", br#"{"id":1.5,"seq":2,"op":"u"}"#.to_vec(), "NoCommonType"),
        (
            "c.jsonl",
            b"{\"id\":1,\"seq\":1,\"v\":\"\xff\"}".to_vec(),
            "InvalidText: the text is not UTF-8: byte 22 of the line is 0xff",
        ),
        ("c.csv", b"id,seq,v\n1,2".to_vec(), "InvalidCsv: the row has 2 fields, but the header has 3 (c.csv, row 2)"),
        ("c.csv", b"id,id,seq\n1,2,3".to_vec(), "DuplicateColumn: column `id` occurs twice in `c.csv`"),
    ];
    for (file, bytes, want) in cases {
        let got = refused(file, &bytes).await;
        assert!(got.starts_with(want), "{got}\nnot\n{want}");
    }
}

#[tokio::test]
async fn numbers_as_text_and_floats_cannot_be_orders() {
    for (seq, code) in [("\"10\"", "TextOrder"), ("1.5", "OrderType")] {
        let dataset = lake::dataset(lake::memory());
        let spec = MergeSpec::new(["id"], ["seq"]).expect("the specification is valid");
        let e = lake::merge(&dataset, &spec, &format!("{{\"id\":1,\"seq\":{seq}}}")).await.unwrap_err();
        assert_eq!(e.code(), code);
    }
}

#[tokio::test]
async fn error_of_a_damaged_file_of_the_table_names_it() {
    use object_store::ObjectStoreExt;
    let storage = lake::memory();
    let path = object_store::path::Path::from("lake/t/bad.parquet");
    storage.store.put(&path, "PAR1 not really PAR1".into()).await.expect("the put succeeds");
    let dataset = lake::dataset(storage);
    let e = dataset.observe().await.expect("the table is observed").open_files().await.unwrap_err();
    assert_eq!(e.code(), "UnreadableParquet");
    assert!(e.message().contains("bad.parquet"), "{e}");
}
