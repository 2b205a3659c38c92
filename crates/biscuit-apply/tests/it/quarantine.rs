//! Invalid records are quarantined with their reasons, in the commit of the output, and can be retried.

use std::sync::Mutex;

use biscuit_apply::report::MergeReport;
use biscuit_apply::{ChangeFormat, Merge, MergeInput, MergeOptions, MergeSpec, RunMode, quarantined_records};
use biscuit_change::{BadRows, ChangeRecords, DebeziumOptions, DebeziumReader, RowsOptions, RowsReader};
use biscuit_core::{Outcome, Result};
use biscuit_dataset::Dataset;
use biscuit_journal::TableStorage;
use biscuit_testkit::internal::{crash_at_scaled_calls, extrapolated, pause_at_scaled_calls};
use biscuit_testkit::{InjectedFault, assert_rows_eq, table};

use crate::{lake, zoo};

const MIXED: &str = r#"{"id":1,"seq":1,"v":"good","op":"c"}
{"id":2,"seq":"soon","v":"bad order","op":"c"}
{"id":null,"seq":1,"v":"bad key","op":"c"}
{"id":3,"seq":1,"v":"bad op","op":"x"}
{"id":4,"seq":1,"v":"tie","op":"c"}
{"id":4,"seq":1,"v":"other tie","op":"c"}
{"id":5,"seq":1,"v":"__debezium_unavailable_value","op":"u"}
{"id":6,"seq"
{"id":7,"seq":1,"v":"good","op":"c"}
"#;

fn options() -> RowsOptions {
    let expected = table("id:bigint | seq:bigint | v:string").schema();
    RowsOptions::default().with_op("op").with_expected(expected).with_bad_rows(BadRows::Quarantine)
}

fn read(options: RowsOptions, file: &str, bytes: impl Into<Vec<u8>>) -> Result<ChangeRecords> {
    let mut reader = RowsReader::new(options);
    reader.read(file, bytes.into().into())?;
    reader.finish()
}

fn merge_into(dataset: &Dataset, max_quarantined: f64) -> Merge {
    let spec = MergeSpec::new(["id"], ["seq"]).expect("the specification is valid");
    let options = MergeOptions::default().with_parallelism(1).with_bad_rows(BadRows::Quarantine, max_quarantined);
    Merge::new(dataset.clone(), spec, options).expect("the specification is valid")
}

async fn run(dataset: &Dataset, changes: ChangeRecords) -> Result<MergeReport> {
    let report = merge_into(dataset, 100.0).run(changes, RunMode::Commit).await?;
    assert_eq!(report.verdicts.total(), report.records, "{:?}", report.verdicts);
    Ok(report)
}

/// Row, code and column of each quarantined record.
async fn held(dataset: &Dataset) -> Vec<(u64, String, Option<String>)> {
    let mut held: Vec<_> = quarantined_records(dataset)
        .await
        .expect("the quarantine is readable")
        .into_iter()
        .map(|q| (q.refused.row, q.refused.code, q.refused.column))
        .collect();
    held.sort();
    held
}

fn reasons() -> Vec<(u64, String, Option<String>)> {
    let reason = |row, code: &str, column: Option<&str>| (row, code.to_owned(), column.map(str::to_owned));
    vec![
        reason(2, "Unparseable", Some("seq")),
        reason(3, "NullKey", Some("id")),
        reason(4, "UnknownOp", Some("op")),
        reason(5, "AmbiguousOrder", None),
        reason(6, "AmbiguousOrder", None),
        reason(7, "UnavailableWithoutPrior", Some("v")),
        reason(8, "InvalidJson", None),
    ]
}

#[tokio::test]
async fn invalid_records_are_quarantined_and_the_others_are_merged() {
    let dataset = lake::dataset(lake::memory());
    let report = run(&dataset, read(options(), "c.jsonl", MIXED).expect("the records are readable"))
        .await
        .expect("the merge succeeds");
    assert_eq!((report.records, report.verdicts.quarantined, report.verdicts.inserted), (9, 7, 2));
    assert_rows_eq!(lake::rows(&dataset).await, table("id:bigint | seq:bigint | v:string\n1 | 1 | good\n7 | 1 | good"));
    assert_eq!(held(&dataset).await, reasons());
    let raw: Vec<u8> =
        quarantined_records(&dataset).await.expect("the quarantine is readable").swap_remove(0).refused.raw;
    assert!(MIXED.contains(std::str::from_utf8(&raw).expect("the text is UTF-8").trim_end()));
}

#[tokio::test]
async fn rerun_quarantines_no_record_twice() {
    let storage = lake::memory();
    let dataset = lake::dataset(storage.clone());
    run(&dataset, read(options(), "c.jsonl", MIXED).expect("the records are readable"))
        .await
        .expect("the merge succeeds");
    let before = lake::objects(&storage.store).await;
    let again = run(&dataset, read(options(), "c.jsonl", MIXED).expect("the records are readable"))
        .await
        .expect("the second run succeeds");
    assert_eq!((again.outcome, again.verdicts.quarantined), (Outcome::Unchanged, 7));
    assert_eq!(lake::objects(&storage.store).await, before);
}

#[tokio::test]
async fn too_many_invalid_records_commit_nothing() {
    let storage = lake::memory();
    let dataset = lake::dataset(storage.clone());
    let changes = read(options(), "c.jsonl", MIXED).expect("the records are readable");
    let e = merge_into(&dataset, 50.0).run(changes, RunMode::Commit).await.unwrap_err();
    assert_eq!(e.code(), "TooManyQuarantined");
    assert!(e.message().contains("7 of 9 records cannot be used (77.8 %), and at most 50 %"), "{e}");
    assert!(lake::objects(&storage.store).await.is_empty());
}

#[tokio::test]
async fn run_with_only_invalid_records_commits_a_version() {
    let dataset = lake::dataset(lake::memory());
    let changes = read(options(), "c.jsonl", r#"{"id":null,"seq":1,"op":"c"}"#).expect("the records are readable");
    let report = run(&dataset, changes).await.expect("the merge succeeds");
    assert_eq!((report.outcome, report.version), (Outcome::Committed, 1));
    assert_eq!(held(&dataset).await.len(), 1);
}

#[tokio::test]
async fn retried_records_leave_the_quarantine_if_they_are_valid() {
    let dataset = lake::dataset(lake::memory());
    run(&dataset, read(options(), "c.jsonl", MIXED).expect("the records are readable"))
        .await
        .expect("the merge succeeds");
    let merge = merge_into(&dataset, 0.0);
    let same = merge
        .input(MergeInput::Quarantined(ChangeFormat::Rows(options())))
        .run(RunMode::Commit)
        .await
        .expect("the retry succeeds");
    assert_eq!((same.outcome, same.verdicts.quarantined), (Outcome::Unchanged, 7));
    assert_eq!(held(&dataset).await, reasons());
    // The earlier value of the unchanged value has come meanwhile.
    let prior = r#"{"id":5,"seq":0,"v":"known now","op":"c"}"#;
    run(&dataset, read(options(), "d.jsonl", prior).expect("the records are readable"))
        .await
        .expect("the merge succeeds");
    let retried = merge
        .input(MergeInput::Quarantined(ChangeFormat::Rows(options())))
        .run(RunMode::Commit)
        .await
        .expect("the retry succeeds");
    assert_eq!((retried.outcome, retried.verdicts.quarantined, retried.verdicts.updated), (Outcome::Committed, 6, 1));
    let want = table("id:bigint | seq:bigint | v:string\n1 | 1 | good\n7 | 1 | good\n5 | 1 | known now");
    assert_rows_eq!(lake::rows(&dataset).await, want);
    assert_eq!(held(&dataset).await.len(), 6);
    let raw = quarantined_records(&dataset).await.expect("the quarantine is readable");
    assert!(raw.iter().all(|q| q.version == 1), "they keep their version");
}

#[tokio::test]
async fn retry_with_a_corrected_type_merges_the_records() {
    let contract = |t: &str| {
        let text = format!(
            r#"{{"columns":[{{"name":"id","type":"bigint"}},{{"name":"seq","type":"bigint"}},{{"name":"v","type":"{t}"}}]}}"#
        );
        biscuit_schema::Contract::from_json(&text).expect("the contract is valid")
    };
    let dataset = lake::dataset(lake::memory());
    let options = |t: &str| RowsOptions::default().with_contract(contract(t)).with_bad_rows(BadRows::Quarantine);
    let csv = "id,seq,v\n1,1,10\n2,1,99999999999\n3,1,x\n";
    run(&dataset, read(options("int"), "c.csv", csv).expect("the records are readable"))
        .await
        .expect("the merge succeeds");
    assert_eq!(held(&dataset).await.iter().map(|h| h.0).collect::<Vec<_>>(), [3, 4]);
    let retried = merge_into(&dataset, 0.0)
        .input(MergeInput::Quarantined(ChangeFormat::Rows(options("bigint"))))
        .run(RunMode::Commit)
        .await
        .expect("the retry succeeds");
    assert_eq!((retried.verdicts.inserted, retried.verdicts.quarantined), (1, 1));
    assert_rows_eq!(
        lake::rows(&dataset).await,
        table("id:bigint | seq:bigint | v:bigint\n1 | 1 | 10\n2 | 1 | 99999999999")
    );
    assert_eq!(held(&dataset).await, [(4, "Unparseable".to_owned(), Some("v".to_owned()))]);
}

#[tokio::test]
async fn parquet_rows_keep_their_types_in_the_quarantine() {
    let dataset = lake::dataset(lake::memory());
    let rows = table(
        "id:bigint | seq:bigint | paid:decimal(8,2) | op:string\n1 | 1 | 1.50 | c\n2 | 1 | 2.50 | ?\n3 | 1 | 3.50 | c",
    );
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).expect("the writer is created");
    writer.write(&rows).expect("the rows are written");
    writer.close().expect("the file is closed");
    let options = || RowsOptions::default().with_op("op").with_bad_rows(BadRows::Quarantine);
    run(&dataset, read(options(), "c.parquet", bytes).expect("the records are readable"))
        .await
        .expect("the merge succeeds");
    assert_eq!(held(&dataset).await, [(2, "UnknownOp".to_owned(), Some("op".to_owned()))]);
    let without_op = RowsOptions::default().with_bad_rows(BadRows::Quarantine);
    let spec = MergeSpec::new(["id"], ["seq"]).expect("the specification is valid").with_drop_columns(["op"]);
    let merge = Merge::new(dataset.clone(), spec, MergeOptions::default()).expect("the specification is valid");
    let retried = merge
        .input(MergeInput::Quarantined(ChangeFormat::Rows(without_op)))
        .run(RunMode::Commit)
        .await
        .expect("the retry succeeds");
    assert_eq!(retried.verdicts.inserted, 1);
    let want = table("id:bigint | seq:bigint | paid:decimal(8,2)\n1 | 1 | 1.50\n2 | 1 | 2.50\n3 | 1 | 3.50");
    assert_rows_eq!(lake::rows(&dataset).await, want);
    assert!(held(&dataset).await.is_empty());
}

#[tokio::test]
async fn invalid_envelopes_are_quarantined() {
    let schema = r#"{"type":"struct","fields":[{"field":"after","type":"struct","fields":[{"field":"id","type":"int64"},{"field":"v","type":"int32"}]}]}"#;
    let line = |payload: &str| {
        format!(r#"{{"key":{{"id":1}},"headers":{{}},"value":{{"schema":{schema},"payload":{payload}}}}}"#)
    };
    let event = |id: i64, v: &str, lsn: i64, op: &str| {
        line(&format!(r#"{{"op":"{op}","after":{{"id":{id},"v":{v}}},"source":{{"table":"t","lsn":{lsn}}}}}"#))
    };
    let lines = [
        event(1, "1", 1, "c"),
        event(2, "\"x\"", 2, "c"),
        event(3, "3", 3, "?"),
        line(r#"{"op":"c","source":{"table":"t","lsn":4}}"#),
        "no json".to_owned(),
        event(6, "6", 6, "c"),
    ];
    let options = DebeziumOptions::default().with_bad_rows(BadRows::Quarantine);
    let mut reader = DebeziumReader::new(options.clone());
    reader.read("e.jsonl", &lines.join("\n").into_bytes().into()).expect("the lines are readable");
    let changes = reader.finish().expect("the records are readable");
    let dataset = lake::dataset(lake::memory());
    let spec = MergeSpec::new(changes.key.clone(), changes.order.clone()).expect("the specification is valid");
    let options = MergeOptions::default().with_bad_rows(BadRows::Quarantine, 100.0);
    let merge = Merge::new(dataset.clone(), spec, options).expect("the specification is valid");
    let report = merge.run(changes, RunMode::Commit).await.expect("the merge succeeds");
    assert_eq!((report.records, report.verdicts.inserted, report.verdicts.quarantined), (6, 2, 4));
    let codes: Vec<String> = held(&dataset).await.into_iter().map(|h| h.1).collect();
    assert_eq!(codes, ["WrongType", "UnknownOp", "MissingImage", "InvalidJson"]);
    let format = ChangeFormat::Debezium(DebeziumOptions::default());
    let again =
        merge.input(MergeInput::Quarantined(format.clone())).run(RunMode::Commit).await.expect("the retry succeeds");
    assert_eq!((again.outcome, again.verdicts.quarantined), (Outcome::Unchanged, 4));
}

async fn quarantining(storage: TableStorage) -> Result<()> {
    run(&lake::dataset(storage), read(options(), "c.jsonl", MIXED)?).await.map(drop)
}

async fn is_right(storage: TableStorage, at: u64) {
    let dataset = lake::dataset(storage.clone());
    assert_eq!(held(&dataset).await, reasons(), "call {at}");
    assert_eq!(lake::count(&lake::rows(&dataset).await), 2, "call {at}");
}

#[tokio::test]
async fn run_with_quarantine_survives_a_crash_at_every_call() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter, InjectedFault::Fail, InjectedFault::LoseAnswer] {
        let setup = || async { lake::memory() };
        let done = crash_at_scaled_calls(fault, setup, quarantining, is_right).await;
        assert!(extrapolated(done.crashed) > 20, "{done:?}");
    }
    let folders: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
    crash_at_scaled_calls(InjectedFault::Crash, || async { zoo::disk(&folders) }, quarantining, is_right).await;
}

#[tokio::test]
async fn run_with_quarantine_may_pause_at_every_call() {
    // During the pause, another attempt of the run, and then a retry of all quarantined records.
    let others = |s: TableStorage, n: u32| async move {
        match n {
            1 => quarantining(s).await,
            _ => merge_into(&lake::dataset(s), 0.0)
                .input(MergeInput::Quarantined(ChangeFormat::Rows(options())))
                .run(RunMode::Commit)
                .await
                .map(drop),
        }
    };
    pause_at_scaled_calls(InjectedFault::Pause, || async { lake::memory() }, quarantining, others, is_right).await;
}

#[tokio::test]
async fn record_without_its_original_form_stops_the_run() {
    let dataset = lake::dataset(lake::memory());
    let kept_nothing = options().with_bad_rows(BadRows::Fail);
    let changes = read(kept_nothing, "c.jsonl", r#"{"id":null,"seq":1,"op":"c"}"#).expect("the records are readable");
    assert_eq!(merge_into(&dataset, 100.0).run(changes, RunMode::Commit).await.unwrap_err().code(), "NullKey");
}
