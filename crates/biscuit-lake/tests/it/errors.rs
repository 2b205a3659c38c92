//! Errors: exit codes and messages. After an error the table is unchanged.

use crate::binary::Folder;

const MERGE: &str = "merge --target lake/t --format rows --key id --order seq --op op --changes";

#[test]
fn errors_have_a_code_and_an_exit_code_and_leave_the_table_unchanged() {
    let f = Folder::new();
    f.write("ok.jsonl", r#"{"id":1,"seq":1,"v":"a","op":"c"}"#);
    f.run(&format!("{MERGE} ok.jsonl"));
    let before = f.files("lake");
    f.write("half.jsonl", "{\"id\":1,\"seq\":2}\n{\"id\":");
    f.write("op.jsonl", r#"{"id":1,"seq":2,"op":"zap"}"#);
    f.write("null.jsonl", r#"{"id":null,"seq":2,"op":"u"}"#);
    f.write("tie.jsonl", "{\"id\":7,\"seq\":2,\"v\":\"x\"}\n{\"id\":7,\"seq\":2,\"v\":\"y\"}");
    f.write("type.jsonl", r#"{"id":"one","seq":2,"v":"b","op":"u"}"#);
    f.write("empty.jsonl", "");
    f.write("bad.parquet", "PAR1");
    let cases = [
        ("half.jsonl", 3, "InvalidJson", "half.jsonl, row 2"),
        ("op.jsonl", 3, "UnknownOp", "op.jsonl, row 1"),
        ("null.jsonl", 3, "NullKey", "`id`"),
        ("tie.jsonl", 3, "AmbiguousOrder", "column `v`"),
        ("type.jsonl", 3, "Unparseable", "column `id`"),
        ("empty.jsonl", 3, "EmptyFile", "empty.jsonl"),
        ("bad.parquet", 3, "UnreadableParquet", "bad.parquet"),
        ("nowhere.jsonl", 2, "NoInput", "nowhere.jsonl"),
        ("no*.jsonl", 2, "NoInput", "no*.jsonl"),
        ("ftp://x/y", 2, "InvalidUrl", "ftp://x/y"),
    ];
    for (file, exit, code, place) in cases {
        let ran = f.run(&format!("{MERGE} {file} --json"));
        let error = ran.json()["error"].clone();
        assert_eq!((ran.code, error["code"].as_str()), (exit, Some(code)), "{error}");
        assert!(error["message"].as_str().is_some_and(|m| m.contains(place)), "{error}");
        assert_eq!(f.files("lake"), before, "{file}");
    }
}

#[test]
fn values_are_shown_only_with_show_values() {
    let f = Folder::new();
    f.write("tie.jsonl", "{\"id\":4711,\"seq\":2,\"v\":\"x\"}\n{\"id\":4711,\"seq\":2,\"v\":\"y\"}");
    let quiet = f.run(&format!("{MERGE} tie.jsonl"));
    assert!(!quiet.err.contains("4711") && quiet.out.is_empty(), "{}", quiet.err);
    let open = f.run(&format!("{MERGE} tie.jsonl --show-values"));
    assert!(open.err.contains("key: 4711"), "{}", open.err);
}

#[test]
fn usage_error_exits_with_2_in_text_and_json() {
    let f = Folder::new();
    assert_eq!(f.run("merge --target t").code, 2);
    let ran = f.run("merge --target t --json");
    assert_eq!((ran.code, ran.json()["error"]["kind"].as_str()), (2, Some("usage")));
    f.write("c.jsonl", r#"{"id":1,"seq":1}"#);
    let ran = f.run("merge --target t --format rows --changes c.jsonl --json");
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (2, Some("InvalidArguments")));
    let ran = f.run("merge --target t --format debezium --op x --changes c.jsonl --json");
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (2, Some("InvalidArguments")));
    let help = f.run("--help");
    assert_eq!(help.code, 0);
    assert!(help.out.contains("merge") && help.err.is_empty());
}

#[test]
fn too_many_deletes_stop_the_run_unless_allowed() {
    let f = Folder::new();
    let rows: String = (0..1200).map(|i| format!("{{\"id\":{i},\"seq\":1,\"op\":\"c\"}}\n")).collect();
    f.write("c.jsonl", rows);
    f.run(&format!("{MERGE} c.jsonl"));
    let gone: String = (0..600).map(|i| format!("{{\"id\":{i},\"seq\":2,\"op\":\"d\"}}\n")).collect();
    f.write("d.jsonl", gone);
    let ran = f.run(&format!("{MERGE} d.jsonl --json"));
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (3, Some("TooManyDeleted")));
    assert_eq!(f.run(&format!("{MERGE} d.jsonl --max-deleted 50%")).code, 0);
    assert_eq!(f.rows("lake/t").len(), 600);
}

#[test]
fn missing_live_file_stops_the_run_and_is_reported_by_verify() {
    let f = Folder::new();
    f.write("c.jsonl", r#"{"id":1,"seq":1,"op":"c"}"#);
    f.run(&format!("{MERGE} c.jsonl"));
    let file = f.files("lake/t")[0].0.clone();
    std::fs::remove_file(&file).expect("the file exists");
    f.write("d.jsonl", r#"{"id":2,"seq":1,"op":"c"}"#);
    let ran = f.run(&format!("{MERGE} d.jsonl --json"));
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (3, Some("Diverged")));
    let found = f.run("verify lake/t --json");
    assert_eq!(found.code, 3);
    assert!(found.json()["diverged"][0].as_str().is_some_and(|d| d.contains("is missing")));
}

#[test]
fn show_of_a_missing_table_is_an_error() {
    let f = Folder::new();
    assert_eq!(f.run("show lake/none --json").json()["error"]["code"], "NoTable");
}
