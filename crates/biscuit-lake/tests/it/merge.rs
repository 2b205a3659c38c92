//! `biscuit merge` and the commands that show, verify, adopt and compact its table.

use std::fs::File;
use std::io::Write;

use crate::binary::Folder;

const MERGE: &str = "merge --target lake/t --format rows --key id --order seq --op op --changes";

const CHANGES: &str = r#"{"id":1,"seq":1,"day":"2024-02-28","v":"a","op":"c"}
{"id":2,"seq":1,"day":"2024-02-29","v":"b","op":"c"}
{"id":2,"seq":3,"day":"2024-02-29","v":null,"op":"d"}
"#;

#[test]
fn rows_are_merged_shown_listed_and_verified() {
    let f = Folder::new();
    f.write("c.jsonl", CHANGES);
    let ran = f.run(&format!("{MERGE} c.jsonl --json"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let report = ran.json();
    assert_eq!((report["outcome"].as_str(), report["version"].as_u64()), (Some("committed"), Some(1)));
    assert_eq!(report["verdicts"]["inserted"], 1);
    assert!(report["peak_memory_bytes"].as_u64() > Some(0) && report["seconds"].as_f64() > Some(0.0));
    assert_eq!(f.rows("lake/t"), [r#"{"id":1,"seq":1,"day":"2024-02-28","v":"a"}"#]);
    let table = f.run("show lake/t --columns v,id").out;
    assert!(table.contains("| v | id |"), "{table}");
    assert_eq!(f.run("history lake/t --json").json()["versions"][0]["finished"], true);
    let verified = f.run("verify lake/t --json").json();
    assert_eq!((verified["outcome"].as_str(), verified["rows"].as_u64()), (Some("sound"), Some(1)));
    assert_eq!(f.run("recover lake/t --json").json()["outcome"], "unchanged");
}

#[test]
fn rerun_reports_unchanged_and_touches_no_file() {
    let f = Folder::new();
    f.write("c.jsonl", CHANGES);
    f.run(&format!("{MERGE} c.jsonl"));
    let before = f.files("lake");
    let again = f.run(&format!("{MERGE} c.jsonl --json")).json();
    assert_eq!((again["outcome"].as_str(), again["version"].as_u64()), (Some("unchanged"), Some(1)));
    assert_eq!(f.files("lake"), before);
}

#[test]
fn dry_run_reports_the_plan_and_writes_nothing() {
    let f = Folder::new();
    f.write("c.jsonl", CHANGES);
    let plan = f.run(&format!("{MERGE} c.jsonl --dry-run --json")).json();
    assert_eq!((plan["outcome"].as_str(), plan["rows"]["inserted"].as_u64()), (Some("planned"), Some(1)));
    assert!(f.files("lake").is_empty());
}

#[test]
fn partitions_are_hive_folders() {
    let f = Folder::new();
    f.write("c.jsonl", CHANGES);
    assert_eq!(f.run(&format!("{MERGE} c.jsonl --partition-by day")).code, 0);
    let files = f.files("lake/t");
    assert_eq!(files.len(), 1);
    assert!(files[0].0.to_string_lossy().contains("/day=2024-02-28/biscuit-"), "{files:?}");
    f.write("d.jsonl", r#"{"id":1,"seq":2,"day":"2024-03-01","v":"moved","op":"u"}"#);
    let moved = f.run(&format!("{MERGE} d.jsonl --json")).json();
    assert_eq!(moved["partitions"]["added"][0], "day=2024-03-01");
    assert_eq!(moved["partitions"]["emptied"][0], "day=2024-02-28");
    assert_eq!((moved["files"]["added"].as_u64(), moved["files"]["removed"].as_u64()), (Some(1), Some(1)));
    assert_eq!(f.rows("lake/t"), [r#"{"id":1,"seq":2,"v":"moved","day":"2024-03-01"}"#]);
}

#[test]
fn changes_come_from_files_folders_globs_and_formats() {
    let f = Folder::new();
    f.write("in/a.jsonl", r#"{"id":1,"seq":1,"n":1.5,"op":"c"}"#);
    f.write("in/_hidden/x.jsonl", r#"{"id":99,"seq":1,"n":1.5,"op":"c"}"#);
    f.write("in/sub/b.csv", "id,seq,n,op\n2,1,2.5,c\n3,1,,c\n");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(br#"{"id":4,"seq":1,"n":4.5,"op":"c"}"#).expect("the bytes are written");
    f.write("more/d.jsonl.gz", gz.finish().expect("the bytes are written"));
    f.write("more/e.other", "not read");
    let ran = f.run(&format!("{MERGE} in more/*.gz --json"));
    assert_eq!(ran.json()["rows"]["inserted"], 4, "{}{}", ran.out, ran.err);
    // A glob without matches is more often a mistake than an empty folder.
    let none = f.run(&format!("{MERGE} none/*.jsonl --json"));
    assert_eq!((none.code, &none.json()["error"]["code"]), (2, &"NoInput".into()), "{}", none.err);
    let allowed = f.run(&format!("{MERGE} none/*.jsonl --allow-empty --json"));
    assert_eq!((allowed.code, &allowed.json()["outcome"]), (0, &"unchanged".into()), "{}", allowed.err);
}

#[test]
fn parquet_changes_with_a_delete_flag_merge_into_external_parquet_files() {
    use arrow::array::{BooleanArray, Int64Array, RecordBatch};
    use std::sync::Arc;
    let f = Folder::new();
    let write = |name: &str, batch: RecordBatch| {
        f.write(name, "");
        let file = File::create(f.path().join(name)).expect("the file can be created");
        let mut w = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).expect("the writer is created");
        w.write(&batch).expect("the rows are written");
        w.close().expect("the file is closed");
    };
    let ints = |v: Vec<i64>| Arc::new(Int64Array::from(v)) as arrow::array::ArrayRef;
    let target = [("id", ints(vec![1, 2, 3])), ("seq", ints(vec![1, 1, 1]))];
    write("lake/t/part-0.snappy.parquet", RecordBatch::try_from_iter(target).expect("the rows are valid"));
    let gone = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])) as arrow::array::ArrayRef;
    let changes = [("id", ints(vec![1, 2, 4])), ("seq", ints(vec![2, 2, 2])), ("gone", gone)];
    write("c.parquet", RecordBatch::try_from_iter(changes).expect("the rows are valid"));
    let ran =
        f.run("merge --target lake/t --format rows --key id --order seq --delete-column gone --changes c.parquet");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(f.rows("lake/t"), [r#"{"id":2,"seq":2}"#, r#"{"id":3,"seq":1}"#, r#"{"id":4,"seq":2}"#]);
    assert_eq!(f.run("verify lake/t --json").json()["external"].as_array().map(Vec::len), Some(0));
}

#[test]
fn contract_declares_types_key_and_order() {
    let f = Folder::new();
    f.write(
        "t.toml",
        "key = ['id']\norder = ['at']\n\
         [[columns]]\nname = 'id'\ntype = 'int'\nnullable = false\n\
         [[columns]]\nname = 'at'\ntype = 'timestamp'\n\
         [[columns]]\nname = 'paid'\ntype = 'decimal(8,2)'\n",
    );
    f.write("c.jsonl", r#"{"id":1,"at":"2024-02-29 12:00:00","paid":12.5,"other":1}"#);
    let ran = f.run("merge --target lake/t --format rows --schema t.toml --changes c.jsonl --json");
    assert_eq!(ran.json()["dropped_columns"][0], "other", "{}", ran.err);
    assert_eq!(f.rows("lake/t"), [r#"{"id":1,"at":"2024-02-29T12:00:00","paid":12.50}"#]);
    f.write("bad.jsonl", r#"{"id":null,"at":"2024-02-29 12:00:00","paid":12.5}"#);
    let bad = f.run("merge --target lake/t --format rows --schema t.toml --changes bad.jsonl --json");
    assert_eq!(bad.json()["error"]["code"], "NullNotAllowed");
}

#[test]
fn debezium_needs_no_key_and_no_order() {
    let f = Folder::new();
    f.write("t.json", r#"{"columns":[{"name":"id","type":"bigint"},{"name":"v","type":"string"}]}"#);
    f.write(
        "e.jsonl",
        r#"{"key":{"id":1},"headers":{},"value":{"op":"c","before":null,"after":{"id":1,"v":"a"},"source":{"schema":"s","table":"t","lsn":5}}}
{"key":{"id":1},"headers":{},"value":{"op":"u","before":null,"after":{"id":1,"v":"b"},"source":{"schema":"s","table":"t","lsn":9}}}"#,
    );
    let ran = f.run("merge --target lake/t --format debezium --schema t.json --changes e.jsonl --order-as lsn");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(f.rows("lake/t"), [r#"{"id":1,"v":"b","lsn":9}"#]);
}

#[test]
fn moved_state_root_is_found_and_a_different_one_is_refused() {
    let f = Folder::new();
    f.write("c.jsonl", CHANGES);
    assert_eq!(f.run(&format!("{MERGE} c.jsonl --state state/here")).code, 0);
    assert!(f.path().join("state/here/journal").is_dir());
    assert!(!f.path().join("lake/.biscuit/t/journal").exists());
    assert_eq!(f.run(&format!("{MERGE} c.jsonl --json")).json()["outcome"], "unchanged");
    let other = f.run(&format!("{MERGE} c.jsonl --state state/there --json"));
    assert_eq!((other.code, other.json()["error"]["code"].as_str()), (2, Some("StateRootMismatch")));
    let inside = f.run(&format!("{MERGE} c.jsonl --state lake/t/state --json"));
    assert_eq!((inside.code, inside.json()["error"]["code"].as_str()), (2, Some("StateRootInTable")));
}

#[test]
fn external_files_are_adopted_refused_or_ignored() {
    let f = Folder::new();
    f.write("c.jsonl", CHANGES);
    f.run(&format!("{MERGE} c.jsonl"));
    let own = f.files("lake/t")[0].0.clone();
    std::fs::copy(own, f.path().join("lake/t/theirs.parquet")).expect("the file can be copied");
    assert_eq!(f.run("verify lake/t --json").json()["duplicate_keys"], 1);
    assert_eq!(f.run("verify lake/t").code, 3);
    f.write("d.jsonl", r#"{"id":5,"seq":1,"op":"c"}"#);
    let refused = f.run(&format!("{MERGE} d.jsonl --external-files fail --json"));
    assert_eq!((refused.code, refused.json()["error"]["code"].as_str()), (3, Some("ExternalFiles")));
    let ignored = f.run(&format!("{MERGE} d.jsonl --external-files ignore --json")).json();
    assert_eq!((ignored["rows"]["before"].as_u64(), ignored["files"]["adopted"].as_u64()), (Some(1), Some(0)));
    f.write("e.jsonl", r#"{"id":1,"seq":2,"op":"u"}"#);
    let healed = f.run(&format!("{MERGE} e.jsonl --json")).json();
    assert_eq!(healed["rows"]["duplicate_target_keys"], 1, "{healed}");
    assert_eq!(f.run("verify lake/t").code, 0);
}

#[test]
fn diverged_table_is_refused_until_it_is_adopted() {
    let f = Folder::new();
    f.write("c.jsonl", CHANGES);
    f.run(&format!("{MERGE} c.jsonl"));
    let file = f.files("lake/t")[0].0.clone();
    std::fs::remove_file(&file).expect("the path exists");
    let refused = f.run("show lake/t");
    assert_eq!(refused.code, 3, "exit code 3: another run would fail in the same way");
    assert!(refused.err.contains("Diverged") && refused.err.contains("biscuit adopt"), "{}", refused.err);
    let plan = f.run("adopt lake/t --dry-run --json").json();
    assert_eq!((plan["outcome"].as_str(), plan["diverged"].as_bool()), (Some("planned"), Some(true)));
    assert_eq!(f.run("show lake/t").code, 3, "a dry run changes nothing");
    let done = f.run("adopt lake/t");
    assert!(done.code == 0 && done.out.contains("missing  biscuit-"), "{}{}", done.out, done.err);
    assert!(f.rows("lake/t").is_empty());
    assert_eq!(f.run("adopt lake/t --json").json()["outcome"], "unchanged");
}

#[test]
fn merge_with_adopt_accepts_a_diverged_table() {
    let f = Folder::new();
    f.write("c.jsonl", CHANGES);
    f.run(&format!("{MERGE} c.jsonl"));
    std::fs::remove_dir_all(f.path().join("lake/.biscuit")).expect("the path exists");
    assert_eq!(f.run(&format!("{MERGE} c.jsonl")).code, 3);
    f.write("d.jsonl", "{\"id\":7,\"seq\":9,\"day\":\"2024-02-29\",\"v\":\"z\",\"op\":\"c\"}\n");
    let done = f.run(&format!("{MERGE} d.jsonl --adopt --json"));
    assert_eq!((done.code, done.json()["version"].as_u64()), (0, Some(1)), "{}", done.err);
    assert_eq!(f.rows("lake/t").len(), 2);
    assert_eq!(f.run("verify lake/t").code, 0);
}

#[test]
fn invalid_records_are_quarantined_listed_shown_and_retried() {
    let f = Folder::new();
    f.write("c.jsonl", "{\"id\":1,\"seq\":1,\"v\":\"a\",\"op\":\"c\"}\n{\"id\":null,\"seq\":1,\"v\":\"b\",\"op\":\"c\"}\n{\"id\":2,\"seq\":1,\"v\":\"__debezium_unavailable_value\",\"op\":\"u\"}\n");
    let refused = f.run(&format!("{MERGE} c.jsonl --bad-rows quarantine --json"));
    assert_eq!((refused.code, refused.json()["error"]["code"].as_str()), (3, Some("TooManyQuarantined")));
    assert!(f.files("lake").is_empty());
    let ran = f.run(&format!("{MERGE} c.jsonl --bad-rows quarantine --max-quarantined 80"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("quarantined 2") && ran.out.contains("biscuit quarantine list"), "{}", ran.out);
    let listed = f.run("quarantine list lake/t --json").json();
    assert_eq!(listed["records"], 2);
    assert_eq!(listed["groups"][0]["code"], "NullKey");
    let text = f.run("quarantine list lake/t").out;
    assert!(text.contains("1  NullKey in column `id`  c.jsonl"), "{text}");
    let shown = f.run("quarantine show lake/t --code NullKey").out;
    assert!(shown.contains("key column `id` is null (c.jsonl, row 2)") && shown.contains("\"v\":\"b\""), "{shown}");
    f.write("d.jsonl", "{\"id\":2,\"seq\":0,\"v\":\"z\",\"op\":\"c\"}\n");
    f.run(&format!("{MERGE} d.jsonl"));
    let retry = "quarantine retry --target lake/t --format rows --op op --json";
    let plan = f.run(&format!("{retry} --dry-run")).json();
    assert_eq!((plan["outcome"].as_str(), plan["verdicts"]["updated"].as_u64()), (Some("planned"), Some(1)));
    let retried = f.run(retry);
    assert_eq!(retried.code, 0, "{}", retried.err);
    assert_eq!(retried.json()["verdicts"]["quarantined"], 1);
    assert_eq!(f.rows("lake/t").len(), 2);
    assert_eq!(f.run("quarantine list lake/t --json").json()["records"], 1);
}

#[test]
fn error_about_a_record_has_separate_fields_for_file_row_and_column() {
    let f = Folder::new();
    f.write("c.jsonl", "{\"id\":1,\"seq\":1,\"op\":\"c\"}\n{\"id\":null,\"seq\":1,\"op\":\"c\"}\n");
    let error = f.run(&format!("{MERGE} c.jsonl --json")).json()["error"].clone();
    assert_eq!(
        (error["file"].as_str(), error["row"].as_u64(), error["column"].as_str()),
        (Some("c.jsonl"), Some(2), Some("id"))
    );
}

#[test]
fn small_files_are_compacted_and_sorted() {
    let f = Folder::new();
    for day in 0..3 {
        f.write("c.jsonl", format!("{{\"id\":{day},\"seq\":1,\"day\":\"2024-02-0{}\",\"op\":\"c\"}}\n", 3 - day));
        let one = MERGE.replace("lake/t", &format!("lake/{day}"));
        assert_eq!(f.run(&format!("{one} c.jsonl")).code, 0);
        let (file, ..) = f.files(&format!("lake/{day}")).remove(0);
        f.write(&format!("lake/t/part-{day}.parquet"), std::fs::read(file).expect("the file can be read"));
    }
    let plan = f.run("compact lake/t --sort-by day --dry-run --json").json();
    assert_eq!((plan["outcome"].as_str(), plan["files_replaced"].as_u64()), (Some("planned"), Some(3)));
    let ran = f.run("compact lake/t --sort-by day --codec snappy --json");
    assert_eq!((ran.code, ran.json()["files_written"].as_u64()), (0, Some(1)), "{}", ran.err);
    assert!(f.run("show lake/t --limit 1 --json").out.contains("2024-02-01"));
    assert_eq!(f.rows("lake/t").len(), 3);
    assert_eq!(f.run("compact lake/t --sort-by day --json").json()["outcome"], "unchanged");
    let wrong = f.run("compact lake/t --sort-by nix --json");
    assert_eq!((wrong.code, wrong.json()["error"]["code"].as_str()), (2, Some("UnknownColumn")));
}
