//! Erasure of subjects: afterwards no byte of the table or its state contains their values, and the subjects do not
//! come back.

use std::collections::BTreeMap;
use std::time::Duration;

use biscuit_apply::internal::stored_key_metadata;
use biscuit_apply::report::MergeReport;
use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode, quarantined_records, readmit};
use biscuit_change::{BadRows, DebeziumOptions, DebeziumReader, RowsOptions, RowsReader};
use biscuit_core::Outcome;
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_partition::report::ForgetReport;
use biscuit_partition::{ErasureSubjects, forget};
use biscuit_testkit::InjectedFault;
use biscuit_testkit::internal::{crash_at_scaled_calls, extrapolated};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::lab::{changes, dataset, effective, memory, rows, run, spec, table};

/// A table whose replaced files are retained for a day.
fn slow(storage: &TableStorage) -> Dataset {
    let location = Location::new(storage.clone(), "lake/t", "lake/t").expect("the path is below the root");
    Dataset::new(location, JournalOptions::default().with_retention(Duration::from_secs(86_400)))
}

fn by_seq() -> MergeSpec {
    MergeSpec::new(["id"], ["seq"]).expect("the spec is valid")
}

async fn merge_into(dataset: &Dataset, spec: &MergeSpec, lines: &str) -> biscuit_core::Result<MergeReport> {
    let options = MergeOptions::default().with_parallelism(1).with_bad_rows(BadRows::Quarantine, 100.0);
    let merge = Merge::new(dataset.clone(), spec.clone(), options)?;
    let report = merge.run(changes(lines)?, RunMode::Commit).await?;
    assert_eq!(report.verdicts.total(), report.records, "{:?}", report.verdicts);
    Ok(report)
}

async fn merge(dataset: &Dataset, lines: &str) -> MergeReport {
    merge_into(dataset, &by_seq(), lines).await.expect("the merge succeeds")
}

async fn erased(dataset: &Dataset, column: &str, values: &[&str]) -> ForgetReport {
    let snapshot = dataset.observe().await.expect("the table is readable");
    let subjects = ErasureSubjects::new(column, values.iter().copied());
    forget(snapshot, &subjects, &[], RunMode::Commit).await.expect("the erasure succeeds")
}

/// Returns all bytes of all objects and of the decompressed pages of Parquet files, by path.
async fn bytes(storage: &TableStorage) -> BTreeMap<String, Vec<u8>> {
    let listed: Vec<_> = storage.store.list(None).try_collect().await.expect("the listing succeeds");
    let mut all = BTreeMap::new();
    for object in listed {
        let content = storage
            .store
            .get(&object.location)
            .await
            .expect("the object exists")
            .bytes()
            .await
            .expect("the bytes are readable");
        let mut bytes = content.to_vec();
        if content.starts_with(b"PAR1") {
            let reader = SerializedFileReader::new(content).expect("the file is Parquet");
            for group in 0..reader.num_row_groups() {
                let group = reader.get_row_group(group).expect("the row group is readable");
                for column in 0..group.num_columns() {
                    let mut pages = group.get_column_page_reader(column).expect("the pages are readable");
                    while let Some(page) = pages.get_next_page().expect("the page is readable") {
                        bytes.extend_from_slice(page.buffer());
                    }
                }
            }
        }
        all.insert(object.location.to_string(), bytes);
    }
    all
}

/// Returns the objects that contain a text, as it is or in base64.
async fn objects_with(storage: &TableStorage, text: &str) -> Vec<String> {
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let mut found = vec![];
    for (path, bytes) in bytes(storage).await {
        if has(&bytes, text.as_bytes()) || base64_forms(text).iter().any(|form| has(&bytes, form.as_bytes())) {
            found.push(path);
        }
    }
    found
}

/// Returns the base64 forms of a text at the three possible offsets, without the characters that depend on the bytes
/// around it.
fn base64_forms(text: &str) -> Vec<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let form = |skipped: usize| {
        let bits: Vec<bool> = text.bytes().flat_map(|b| (0..8).rev().map(move |bit| b >> bit & 1 == 1)).collect();
        let sextets = bits[skipped..].chunks_exact(6);
        sextets.map(|s| char::from(DIGITS[s.iter().fold(0, |all, bit| all * 2 + usize::from(*bit))])).collect()
    };
    vec![form(0), form(4), form(2)]
}

async fn count(dataset: &Dataset) -> usize {
    let snapshot = dataset.view().await.expect("the table is readable");
    let files = snapshot.open_files().await.expect("the files open");
    usize::try_from(files.iter().map(biscuit_dataset::OpenFile::rows).sum::<u64>()).expect("the count is small")
}

const FIRST: &str = r#"
{"id":"canary-7","seq":1,"v":"first","op":"u"}
{"id":"other","seq":1,"v":"stays","op":"u"}
"#;

#[tokio::test]
async fn erased_subject_is_in_no_object_and_does_not_come_back() {
    let storage = memory();
    let d = slow(&storage);
    merge(&d, FIRST).await;
    merge(&d, r#"{"id":"canary-7","seq":2,"v":"second","op":"u"}"#).await;
    // A delete leaves a tombstone in the key metadata.
    merge(
        &d,
        r#"{"id":"canary-9","seq":3,"v":"third","op":"u"}
{"id":"canary-9","seq":4,"op":"d"}"#,
    )
    .await;
    assert!(objects_with(&storage, "canary").await.len() > 2);
    let report = erased(&d, "id", &["canary-7", "canary-9"]).await;
    assert_eq!(
        (report.erased.outcome, report.erased.erased, report.keys, report.forgotten),
        (Outcome::Committed, 1, 1, 2)
    );
    assert!(report.erased.retained_files > 0, "{report:?}");
    assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0]);
    for (lines, forgotten) in [(FIRST, 1), (r#"{"id":"canary-9","seq":99,"v":"new","op":"u"}"#, 1)] {
        let again = merge(&d, lines).await;
        assert_eq!(again.verdicts.forgotten, forgotten, "{:?}", again.verdicts);
    }
    assert_eq!((objects_with(&storage, "canary").await, count(&d).await), (vec![], 1));
    let same = erased(&d, "id", &["canary-7", "canary-9"]).await;
    assert_eq!((same.erased.outcome, same.forgotten), (Outcome::Unchanged, 0));
    let not: Vec<&str> = report.not_covered.iter().map(|place| place.code).collect();
    assert_eq!(not, ["Copies", "RunsUnderWay"]);
    // Other subjects are not forgotten, and a forgotten subject can be readmitted.
    assert_eq!(merge(&d, r#"{"id":"other","seq":5,"v":"x","op":"u"}"#).await.verdicts.updated, 1);
    assert_eq!(readmit(&d, "id", &["canary-7".to_owned()]).await.unwrap(), 1);
    assert_eq!(merge(&d, FIRST).await.verdicts.inserted, 1);
    assert_eq!(readmit(&d, "id", &["canary-7".to_owned()]).await.unwrap_err().code(), "NotForgotten");
    assert_eq!(merge(&d, r#"{"id":"canary-9","seq":99,"v":"new","op":"u"}"#).await.verdicts.forgotten, 1);
}

#[tokio::test]
async fn subject_that_was_never_stored_is_forgotten_too() {
    let storage = memory();
    let d = dataset(storage.clone());
    merge(&d, r#"{"id":5,"seq":1,"v":"a","op":"u"}"#).await;
    let report = erased(&d, "id", &["7"]).await;
    assert_eq!((report.erased.outcome, report.erased.erased, report.forgotten), (Outcome::Committed, 0, 1));
    assert_eq!(merge(&d, r#"{"id":7,"seq":1,"v":"a","op":"u"}"#).await.verdicts.forgotten, 1);
    assert_eq!(count(&d).await, 1);
}

#[tokio::test]
async fn subject_stays_forgotten_without_tombstones() {
    let d = dataset(memory());
    let spec = by_seq().with_tombstones(biscuit_apply::TombstonePolicy::Forget);
    let lines = r#"{"id":"canary","seq":1,"v":"a","op":"u"}"#;
    merge_into(&d, &spec, lines).await.unwrap();
    erased(&d, "id", &["canary"]).await;
    assert_eq!(merge_into(&d, &spec, lines).await.unwrap().verdicts.forgotten, 1);
    assert_eq!(count(&d).await, 0);
}

#[tokio::test]
async fn rows_erased_by_a_column_other_than_the_key_do_not_come_back() {
    let storage = memory();
    let d = dataset(storage.clone());
    let lines = r#"
{"id":1,"seq":1,"v":"canary@example.com","op":"u"}
{"id":2,"seq":1,"v":"b@example.com","op":"u"}
"#;
    merge(&d, lines).await;
    let report = erased(&d, "v", &["canary@example.com"]).await;
    assert_eq!((report.erased.erased, report.forgotten), (1, 1));
    assert!(report.not_covered.iter().any(|place| place.code == "Replay"), "{report:?}");
    assert_eq!(merge(&d, lines).await.verdicts.forgotten, 1);
    assert_eq!((objects_with(&storage, "canary").await, count(&d).await), (vec![], 1));
}

#[tokio::test]
async fn pending_and_retracted_records_are_erased_and_do_not_come_back() {
    let storage = memory();
    let t = table(&storage, spec(), effective().with_retracts("instead"));
    let later = r#"
{"id":"canary-1","eff":"2024-01-05","v":"now","op":"c"}
{"id":"canary-1","eff":"2024-05-05","v":"canary-later","op":"u"}
{"id":"k2","eff":"2024-05-07","v":"waits","op":"c"}
{"id":"canary-1","eff":"2024-01-20","instead":"2024-01-06","v":"corrected","op":"u"}
"#;
    run(&t, later, "2024-02-10").await.unwrap();
    let with = objects_with(&storage, "canary").await;
    for file in ["pending", "retracted"] {
        assert!(with.iter().any(|path| path.ends_with(file)), "{file}: {with:?}");
    }
    let report = erased(&dataset(storage.clone()), "id", &["canary-1"]).await;
    assert_eq!((report.pending, report.retracted, report.forgotten), (1, 1, 1), "{report:?}");
    assert!(report.erased.erased > 1, "in each period: {report:?}");
    assert!(report.not_covered.iter().any(|place| place.code == "FolderNames"));
    assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0]);
    let again = run(&t, later, "2024-02-10").await.unwrap();
    assert_eq!(again.verdicts.forgotten, 3);
    assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0]);
    run(&t, "", "2024-06-01").await.unwrap();
    let all = rows(&storage, &["id"]).await;
    assert_eq!(all["2024-06"], ["k2"]);
    let built = t.rebuild(&t.periods().await.unwrap(), changes(later).unwrap(), RunMode::Commit).await.unwrap();
    assert_eq!(built.verdicts.forgotten, 3);
    assert!(
        t.verify(&changes(later).unwrap()).await.unwrap().iter().all(biscuit_partition::report::PeriodAudit::is_sound)
    );
    assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0]);
}

/// An event of Debezium. The header names the key of the other half of a key change.
fn event(op: &str, id: &str, lsn: u32, bio: &str, header: &str) -> String {
    let after = if op == "d" { "null".to_owned() } else { format!(r#"{{"id":"{id}","bio":"{bio}"}}"#) };
    format!(
        r#"{{"key":{{"id":"{id}"}},"headers":{{{header}}},"value":{{"op":"{op}","before":null,"after":{after},"source":{{"schema":"s","table":"t","lsn":{lsn}}}}}}}"#
    )
}

fn header(which: &str, id: &str) -> String {
    format!(r#""__debezium.{which}key":{{"id":"{id}"}}"#)
}

async fn merge_events(dataset: &Dataset, lines: &[String]) -> biscuit_core::Result<MergeReport> {
    let columns = r#"{"key":["id"],"columns":[{"name":"id","type":"string"},{"name":"bio","type":"string"}]}"#;
    let contract = biscuit_schema::Contract::from_json(columns).expect("the contract is valid");
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract));
    reader.read("events.jsonl", &lines.join("\n").into_bytes().into())?;
    let changes = reader.finish()?;
    let spec = MergeSpec::new(["id"], changes.order.clone()).expect("the spec is valid");
    Merge::new(dataset.clone(), spec, MergeOptions::default().with_parallelism(1))?.run(changes, RunMode::Commit).await
}

const UNAVAILABLE: &str = "__debezium_unavailable_value";

#[tokio::test]
async fn erasure_after_a_key_change_removes_the_old_key_and_its_image() {
    let story = [
        event("c", "canary-old", 10, "canary-bio", ""),
        event("d", "canary-old", 30, "", &header("new", "canary-new")),
        event("c", "canary-new", 30, UNAVAILABLE, &header("old", "canary-old")),
    ];
    // Both halves, and a single half whose other half has not arrived: its row is in the metadata of the old key.
    for (halves, column, values, erased_rows) in [
        (3, "id", vec!["canary-old", "canary-new"], 1),
        (2, "id", vec!["canary-old", "canary-new"], 0),
        (2, "bio", vec!["canary-bio"], 0),
    ] {
        let storage = memory();
        let d = dataset(storage.clone());
        merge_events(&d, &story[..halves]).await.unwrap();
        assert!(!objects_with(&storage, "canary").await.is_empty());
        let report = erased(&d, column, &values).await;
        assert_eq!(report.erased.erased, erased_rows, "{column}: {report:?}");
        assert!(report.keys > 0, "{column}: {report:?}");
        assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0], "{column}, {halves}");
        assert_eq!(merge_events(&d, &story).await.unwrap().verdicts.forgotten, 3, "{column}, {halves}");
        assert_eq!((objects_with(&storage, "canary").await, count(&d).await), (vec![], 0), "{column}, {halves}");
        assert_eq!(stored_key_metadata(&d).await.unwrap(), []);
    }
}

#[tokio::test]
async fn half_of_a_key_change_with_a_forgotten_key_is_an_ordinary_record() {
    let storage = memory();
    let d = dataset(storage.clone());
    merge_events(&d, &[event("c", "old", 10, "bio", "")]).await.unwrap();
    erased(&d, "id", &["canary"]).await;
    let halves = [
        event("d", "old", 30, "", &header("new", "canary")),
        event("c", "canary", 30, UNAVAILABLE, &header("old", "old")),
        event("d", "canary", 40, "", &header("new", "other")),
        event("c", "other", 40, "own", &header("old", "canary")),
    ];
    let report = merge_events(&d, &halves).await.unwrap();
    assert_eq!((report.verdicts.forgotten, report.verdicts.deleted, report.verdicts.inserted), (2, 1, 1));
    assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0]);
    // The value was only in the forgotten row, so it cannot be taken over.
    let asks = event("c", "third", 50, UNAVAILABLE, &header("old", "canary"));
    assert_eq!(merge_events(&d, &[asks]).await.unwrap_err().code(), "UnavailableWithoutPrior");
}

#[tokio::test]
async fn quarantined_records_are_erased_and_not_quarantined_again() {
    let storage = memory();
    let d = dataset(storage.clone());
    let lines = r#"
{"id":"canary","seq":1,"v":"a","op":"u"}
{"id":"canary","seq":2,"v":"b","op":"?"}
{"id":"other","seq":2,"v":"b","op":"?"}
"#;
    let refused = |lines: &str| {
        let mut reader = RowsReader::new(RowsOptions::default().with_op("op").with_bad_rows(BadRows::Quarantine));
        reader.read("changes.jsonl", lines.to_owned().into_bytes().into())?;
        reader.finish()
    };
    let merge = Merge::new(d.clone(), by_seq(), MergeOptions::default().with_bad_rows(BadRows::Quarantine, 100.0));
    let merge = merge.unwrap();
    assert_eq!(merge.run(refused(lines).unwrap(), RunMode::Commit).await.unwrap().verdicts.quarantined, 2);
    let theirs: Vec<_> = quarantined_records(&d).await.unwrap().into_iter().map(|q| q.refused).collect();
    let theirs: Vec<_> = theirs.into_iter().filter(|r| r.raw.windows(6).any(|w| w == b"canary")).collect();
    let version = d.view().await.unwrap().observed.head.version;
    let snapshot = d.observe().await.unwrap();
    let report = forget(snapshot, &ErasureSubjects::new("id", ["canary"]), &theirs, RunMode::Commit).await.unwrap();
    assert_eq!((report.quarantined, report.erased.version), (1, version + 1));
    assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0]);
    let again = merge.run(refused(lines).unwrap(), RunMode::Commit).await.unwrap();
    assert_eq!((again.verdicts.forgotten, again.verdicts.quarantined), (2, 1), "{:?}", again.verdicts);
    assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0]);
    assert_eq!(quarantined_records(&d).await.unwrap().len(), 1);
}

#[tokio::test]
async fn erasure_removes_the_subject_from_a_compacted_table() {
    let storage = memory();
    let d = slow(&storage);
    for seq in 1..6 {
        merge(&d, &format!(r#"{{"id":"k{seq}","seq":{seq},"v":"canary-{seq}","op":"u"}}"#)).await;
    }
    biscuit_rewrite::compact(&d, &biscuit_rewrite::CompactOptions::default(), RunMode::Commit).await.unwrap();
    assert!(objects_with(&storage, "canary-3").await.len() > 1);
    erased(&d, "id", &["k3"]).await;
    assert_eq!(objects_with(&storage, "canary-3").await, [] as [String; 0]);
    assert_eq!((objects_with(&storage, "canary-4").await.is_empty(), count(&d).await), (false, 4));
}

/// A table with a row, a retained file, a tombstone, and pending records.
async fn populated() -> TableStorage {
    let storage = memory();
    let t = table(&storage, spec(), effective());
    let lines = r#"
{"id":"canary","eff":"2024-01-05","v":"now","op":"c"}
{"id":"canary","eff":"2024-05-05","v":"later","op":"u"}
{"id":"k2","eff":"2024-01-07","v":"stays","op":"c"}
"#;
    run(&t, lines, "2024-02-10").await.expect("the run succeeds");
    let options = biscuit_apply::MergeOptions::default().with_parallelism(1);
    let slow = biscuit_partition::PeriodTable::new(slow(&storage), spec(), options, effective())
        .expect("the options are valid");
    run(&slow, r#"{"id":"canary","eff":"2024-01-08","v":"newer","op":"u"}"#, "2024-02-10")
        .await
        .expect("the run succeeds");
    storage
}

#[tokio::test]
async fn crash_at_any_call_of_an_erasure_leaves_all_of_it_or_none() {
    for fault in [InjectedFault::Fail, InjectedFault::Crash, InjectedFault::LoseAnswer] {
        let job = async |storage: TableStorage| {
            let snapshot = dataset(storage).observe().await?;
            forget(snapshot, &ErasureSubjects::new("id", ["canary"]), &[], RunMode::Commit).await.map(drop)
        };
        let check = |storage: TableStorage, call| async move {
            assert_eq!(objects_with(&storage, "canary").await, [] as [String; 0], "after call {call}");
            let all = rows(&storage, &["id"]).await;
            assert_eq!(all.values().flatten().collect::<Vec<_>>(), ["k2", "k2"], "after call {call}");
        };
        assert!(extrapolated(crash_at_scaled_calls(fault, populated, job, check).await.crashed) > 10);
    }
}

#[tokio::test]
async fn dry_run_reports_the_same_and_changes_nothing() {
    let storage = populated().await;
    let before = crate::lab::objects(&storage).await;
    let subjects = ErasureSubjects::new("id", ["canary"]);
    let planned =
        forget(dataset(storage.clone()).view().await.unwrap(), &subjects, &[], RunMode::DryRun).await.unwrap();
    assert_eq!(crate::lab::objects(&storage).await, before);
    let done =
        forget(dataset(storage.clone()).observe().await.unwrap(), &subjects, &[], RunMode::Commit).await.unwrap();
    assert_eq!((planned.erased.outcome, done.erased.outcome), (Outcome::Planned, Outcome::Committed));
    let counts = |r: &ForgetReport| (r.erased.erased, r.erased.retained_files, r.pending, r.keys, r.forgotten);
    assert_eq!(counts(&planned), counts(&done));
    assert!(done.pending == 1 && done.erased.retained_files > 0, "{done:?}");
}
