//! The process: exit codes, streams, reports and signals.

use std::fmt::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binary::Folder;

const MERGE: &str = "merge --target lake/t --format rows --key id --order seq --op op --changes";
const ONE: &str = "{\"id\":1,\"seq\":1,\"v\":\"a\",\"op\":\"c\"}\n";

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

#[test]
fn every_exit_code_has_its_cause() {
    let f = Folder::new();
    f.write("c.jsonl", ONE);
    assert_eq!(f.run(&format!("{MERGE} c.jsonl")).code, 0, "done");
    assert_eq!(f.run(&format!("{MERGE} c.jsonl")).code, 0, "nothing to do");
    assert_eq!(f.run("merge --no-such-option").code, 2, "wrong use");
    assert_eq!(f.run(&format!("{MERGE} nowhere.jsonl")).code, 2, "no such file");
    f.write("bad.jsonl", "{\"id\":null,\"seq\":2,\"op\":\"c\"}\n");
    assert_eq!(f.run(&format!("{MERGE} bad.jsonl")).code, 3, "bad data");
    std::fs::remove_file(&f.files("lake/t")[0].0).expect("the path exists");
    assert_eq!(f.run("show lake/t").code, 3, "diverged");
    // No server listens on this port.
    let away = "show s3://bucket/t --endpoint-url http://127.0.0.1:9 --region us-east-1";
    let quick = [("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"), ("AWS_EC2_METADATA_DISABLED", "true")];
    let out = with_env(&f, away, &quick);
    assert_eq!(out.status.code(), Some(5), "unavailable: {}", String::from_utf8_lossy(&out.stderr));
    let none =
        [("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_CONFIG_FILE", "/none"), ("AWS_SHARED_CREDENTIALS_FILE", "/none")];
    let out = with_env(&f, away, &none);
    assert_eq!(out.status.code(), Some(6), "no credentials: {}", String::from_utf8_lossy(&out.stderr));
}

fn with_env(f: &Folder, words: &str, env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biscuit"));
    for name in std::env::vars().map(|(k, _)| k).filter(|k| k.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.args(words.split_whitespace()).current_dir(f.path()).env_remove("RUST_LOG").envs(env.iter().copied());
    command.output().expect("the binary starts")
}

#[test]
fn standard_output_has_only_the_report_and_logs_can_be_json_lines() {
    let f = Folder::new();
    f.write("c.jsonl", ONE);
    let ran = f.run(&format!("{MERGE} c.jsonl --json --log-format json"));
    assert_eq!(ran.json()["outcome"], "committed");
    let logs: Vec<Value> = ran.err.lines().map(|l| serde_json::from_str(l).expect("the line is valid JSON")).collect();
    assert!(logs.iter().any(|l| l["fields"]["message"] == "reading changes"), "{}", ran.err);
    let text = f.run(&format!("{MERGE} c.jsonl"));
    assert!(text.out.starts_with("unchanged: version 1") && text.err.contains("reading changes"), "{}", text.err);
    assert!(!text.err.contains('\u{1b}'), "no bar and no colours where there is no terminal: {:?}", text.err);
}

#[test]
fn error_is_text_on_standard_error_or_json_on_standard_output() {
    let f = Folder::new();
    f.write("bad.jsonl", "{\"id\":null,\"seq\":2,\"op\":\"c\"}\n");
    let text = f.run(&format!("{MERGE} bad.jsonl"));
    assert!(text.out.is_empty() && last_line(&text.err).starts_with("error: NullKey"), "{}{}", text.out, text.err);
    let json = f.run(&format!("{MERGE} bad.jsonl --json"));
    assert_eq!(json.json()["error"]["code"], "NullKey");
    assert!(!json.err.contains("NullKey"), "{}", json.err);
}

#[test]
fn report_contains_the_costs_and_is_also_written_to_a_file() {
    let f = Folder::new();
    f.write("c.jsonl", ONE);
    let ran = f.run(&format!("{MERGE} c.jsonl --json --report reports/today.json"));
    let report = ran.json();
    let n = |name: &str| report["requests"][name].as_u64().unwrap_or_default();
    assert!(n("get") > 0 && n("put") > 0 && n("list") > 0 && n("copy") > 0 && n("head") > 0, "{report}");
    assert!(report["bytes_read"].as_u64() > Some(0) && report["bytes_written"].as_u64() > Some(100), "{report}");
    assert!(report["seconds"].as_f64() > Some(0.0) && report["peak_memory_bytes"].as_u64() > Some(1 << 20), "{report}");
    let written = std::fs::read_to_string(f.path().join("reports/today.json")).expect("the report is readable");
    assert_eq!(serde_json::from_str::<Value>(&written).expect("the JSON is valid")["outcome"], "committed");
    // An error is a report as well. A report that cannot be written is an error, but undoes nothing.
    f.write("bad.jsonl", "{\"id\":null,\"seq\":2,\"op\":\"c\"}\n");
    assert_eq!(f.run(&format!("{MERGE} bad.jsonl --report reports/bad.json")).code, 3);
    let written = std::fs::read_to_string(f.path().join("reports/bad.json")).expect("the report is readable");
    assert_eq!(serde_json::from_str::<Value>(&written).expect("the JSON is valid")["error"]["code"], "NullKey");
    let refused = f.run("history lake/t --report ftp://nowhere/x");
    assert!(refused.code == 2 && refused.out.contains("finished") && refused.err.contains("report"), "{}", refused.err);
}

#[test]
fn reader_that_closes_the_pipe_early_is_not_a_failure() {
    let f = Folder::new();
    let lines: String =
        (0..20_000).map(|i| format!("{{\"id\":{i},\"seq\":1,\"v\":\"{i:0100}\",\"op\":\"c\"}}\n")).collect();
    f.write("c.jsonl", lines);
    f.run(&format!("{MERGE} c.jsonl"));
    let shell = format!("'{}' show lake/t --json | head -1", env!("CARGO_BIN_EXE_biscuit"));
    let out = Command::new("bash").args(["-c", &format!("set -o pipefail; {shell}")]).current_dir(f.path()).output();
    let out = out.expect("the shell runs");
    assert!(out.status.success() && out.stdout.starts_with(b"{\"id\""), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Returns changes for this number of partitions. Many partitions make staging and publishing slow enough for a
/// signal.
fn many(partitions: u32, seq: u32) -> String {
    let mut lines = String::new();
    for day in 0..partitions {
        writeln!(lines, "{{\"id\":{day},\"seq\":{seq},\"day\":{day},\"v\":\"{seq}\",\"op\":\"u\"}}")
            .expect("writing to a String cannot fail");
    }
    lines
}

const PARTITIONS: u32 = 400;

/// Creates a table of many partitions, and a file with changes for all of them.
fn prepared() -> Folder {
    let f = Folder::new();
    f.write("first.jsonl", many(PARTITIONS, 1));
    f.write("second.jsonl", many(PARTITIONS, 2));
    assert_eq!(f.run(&format!("{MERGE} first.jsonl --partition-by day")).code, 0);
    f
}

/// Merges the second changes, and sends a signal as soon as `when` is true for the state root.
fn signalled(f: &Folder, options: &str, signal: &str, when: impl Fn(&Path) -> bool) -> Output {
    let child: Child = Command::new(env!("CARGO_BIN_EXE_biscuit"))
        .args(format!("{MERGE} second.jsonl --json {options}").split_whitespace())
        .current_dir(f.path())
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let state = f.path().join("lake/.biscuit/t");
    let patience = Instant::now() + Duration::from_secs(60);
    while !when(&state) && Instant::now() < patience {
        std::thread::sleep(Duration::from_micros(500));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("the command `kill` runs");
    assert!(sent.success(), "the process had ended already");
    child.wait_with_output().expect("the process ends")
}

fn is_staging(state: &Path) -> bool {
    std::fs::read_dir(state.join("staging")).is_ok_and(|mut d| d.next().is_some())
}

fn is_committed(state: &Path) -> bool {
    state.join("journal/00000000000000000002.json").exists()
}

#[test]
fn signal_before_the_commit_leaves_the_table_unchanged() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let f = prepared();
        let before = f.files("lake/t");
        let out = signalled(&f, "", signal, is_staging);
        assert_eq!(out.status.code(), Some(code), "{}", String::from_utf8_lossy(&out.stderr));
        let error: Value = serde_json::from_slice(&out.stdout).expect("the report is readable");
        assert_eq!(
            (error["error"]["kind"].as_str(), error["error"]["code"].as_str()),
            (Some("interrupted"), Some("Interrupted"))
        );
        assert_eq!(f.files("lake/t"), before, "the table is unchanged");
        assert_eq!(f.run("history lake/t --json").json()["versions"].as_array().map(Vec::len), Some(1));
        // The same run can be repeated.
        assert_eq!(f.run(&format!("{MERGE} second.jsonl")).code, 0);
        assert_eq!(f.rows("lake/t").iter().filter(|r| r.contains("\"v\":\"2\"")).count(), PARTITIONS as usize);
        assert!(f.files("lake/.biscuit/t/staging").is_empty());
    }
}

#[test]
fn signal_after_the_commit_lets_the_run_finish() {
    let f = prepared();
    let out = signalled(&f, "--grace 60s", "-TERM", is_committed);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&out.stdout).expect("the report is readable");
    assert_eq!((report["outcome"].as_str(), report["version"].as_u64()), (Some("committed"), Some(2)));
    assert_eq!(f.run("recover lake/t --json").json()["outcome"], "unchanged");
    assert_eq!(f.rows("lake/t").iter().filter(|r| r.contains("\"v\":\"2\"")).count(), PARTITIONS as usize);
}

#[test]
fn without_grace_a_recovery_finishes_the_committed_version() {
    let f = prepared();
    let out = signalled(&f, "--grace 0", "-TERM", is_committed);
    assert_eq!(out.status.code(), Some(143), "{}", String::from_utf8_lossy(&out.stderr));
    let error: Value = serde_json::from_slice(&out.stdout).expect("the report is readable");
    assert!(
        error["error"]["message"].as_str().is_some_and(|m| m.contains("version 2") && m.contains("biscuit recover")),
        "{error}"
    );
    // Readers already see the committed version.
    assert_eq!(f.rows("lake/t").iter().filter(|r| r.contains("\"v\":\"2\"")).count(), PARTITIONS as usize);
    let recovered = f.run("recover lake/t --json").json();
    assert_eq!((recovered["outcome"].as_str(), recovered["rolled_forward"].as_u64()), (Some("recovered"), Some(2)));
    assert_eq!(f.files("lake/t").len(), PARTITIONS as usize);
    assert_eq!(f.run("verify lake/t").code, 0);
}

const SEVERAL: &str = r#"{"id":1,"v":"a","__op":"c","__lsn":1,"__table":"t","__schema":"s"}
{"id":7,"w":"b","__op":"c","__lsn":2,"__table":"u","__schema":"s"}
{"id":1,"v":"c","__op":"u","__lsn":3,"__table":"t","__schema":"s"}
{"x":"1","__op":"c","__lsn":4,"__table":"keyless","__schema":"s"}
{"id":"one","__op":"c","__lsn":5,"__table":"bad","__schema":"s"}
"#;

#[test]
fn all_tables_of_the_files_are_merged_in_one_pass() {
    let f = Folder::new();
    f.write("e.jsonl", SEVERAL);
    let contract = |column: &str, key: &str| {
        format!(
            "{{{key}\"columns\":[{{\"name\":\"id\",\"type\":\"bigint\"}},{{\"name\":\"{column}\",\"type\":\"string\"}}]}}"
        )
    };
    f.write("contracts/s.t.json", contract("v", "\"key\":[\"id\"],"));
    f.write("contracts/s.u.json", contract("w", "\"key\":[\"id\"],"));
    f.write("contracts/s.keyless.json", contract("x", ""));
    f.write("contracts/s.bad.json", contract("v", "\"key\":[\"id\"],"));
    let words = [
        "merge",
        "--format",
        "debezium",
        "--changes",
        "e.jsonl",
        "--table",
        "*",
        "--target",
        "lake/{schema}/{table}",
        "--schema",
        "contracts/{schema}.{table}.json",
        "--json",
    ];
    let ran = f.run_with(&words);
    let report = ran.json();
    assert_eq!((ran.code, report["outcome"].as_str()), (3, Some("committed")), "{report}");
    let tables = report["tables"].as_array().expect("the tables are an array");
    let of = |name: &str| tables.iter().find(|t| t["table"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
    assert_eq!(of("s.t")["verdicts"]["inserted"], 1);
    assert_eq!(of("s.u")["rows"]["after"], 1);
    assert_eq!(of("s.keyless")["error"]["code"], "KeylessRecords");
    assert_eq!(of("s.bad")["error"]["row"], 5);
    assert_eq!(f.rows("lake/s/t"), [r#"{"id":1,"v":"c","__lsn":3}"#]);
    assert_eq!(f.rows("lake/s/u"), [r#"{"id":7,"w":"b","__lsn":2}"#]);
    let text = f.run_with(&words[..words.len() - 1]);
    assert!(
        text.out.contains("s.t\nunchanged: version 1") && text.out.contains("error       KeylessRecords"),
        "{}",
        text.out
    );
    let refused = f.run("merge --format debezium --changes e.jsonl --table * --target lake/t");
    assert!(refused.code == 2 && refused.err.contains("{table}"), "{}", refused.err);
}

/// Needs an S3 server with a bucket `biscuit-test`. `BISCUIT_TEST_S3` is its endpoint.
#[test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
fn table_on_s3_works_with_only_a_profile() {
    let endpoint = std::env::var("BISCUIT_TEST_S3").expect("BISCUIT_TEST_S3 is the endpoint of an S3 server");
    let f = Folder::new();
    f.write("c.jsonl", ONE);
    f.write("config", format!("[profile lake]\nregion = us-east-1\nendpoint_url = {endpoint}\n"));
    f.write("credentials", "[lake]\naws_access_key_id = one\naws_secret_access_key = two\n");
    let path = |name: &str| f.path().join(name).to_string_lossy().into_owned();
    let (config, credentials) = (path("config"), path("credentials"));
    let files = [("AWS_CONFIG_FILE", config.as_str()), ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str())];
    let table = format!("s3a://biscuit-test/cli-{}/t", std::process::id());
    let run = |words: &str| {
        let out = with_env(&f, &format!("{words} --profile lake"), &files);
        assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("the text is UTF-8")
    };
    let merge = format!("merge --target {table} --format rows --key id --order seq --op op --changes c.jsonl --json");
    let report: Value = serde_json::from_str(&run(&merge)).expect("the report is readable");
    assert_eq!((report["outcome"].as_str(), report["rows"]["after"].as_u64()), (Some("committed"), Some(1)));
    assert!(report["requests"]["put"].as_u64() > Some(48), "the probe is 48 puts: {report}");
    let again: Value = serde_json::from_str(&run(&merge)).expect("the report is readable");
    assert_eq!((again["outcome"].as_str(), again["requests"]["put"].as_u64()), (Some("unchanged"), Some(0)));
    assert_eq!(run(&format!("show {table} --json")).trim(), r#"{"id":1,"seq":1,"v":"a"}"#);
    for command in ["history", "verify", "recover", "adopt", "quarantine list"] {
        run(&format!("{command} {table} --report {table}-reports/{}.json", command.replace(' ', "-")));
    }
    let out = with_env(&f, "show s3://no-such-bucket/t --profile lake", &files);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(6) && text.contains("NoSuchBucket"), "{text}");
}
