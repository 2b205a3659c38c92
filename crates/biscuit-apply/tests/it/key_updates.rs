//! Key changes: both halves, in any order, and unchanged values that were not sent.

use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeRecords, DebeziumOptions, DebeziumReader};
use biscuit_dataset::Dataset;
use biscuit_schema::Contract;
use biscuit_testkit::{assert_rows_eq, table};

use crate::lake;

const UNAVAILABLE: &str = "__debezium_unavailable_value";

fn event(op: &str, id: i64, lsn: i64, name: &str, bio: &str, headers: &str) -> String {
    let after = if op == "d" { "null".to_owned() } else { format!(r#"{{"id":{id},"name":"{name}","bio":"{bio}"}}"#) };
    format!(
        r#"{{"key":{{"id":{id}}},"headers":{{{headers}}},"value":{{"op":"{op}","before":null,"after":{after},"source":{{"schema":"s","table":"t","lsn":{lsn}}}}}}}"#
    )
}

fn to(id: i64) -> String {
    format!(r#""__debezium.newkey":{{"id":{id}}}"#)
}

fn from(id: i64) -> String {
    format!(r#""__debezium.oldkey":{{"id":{id}}}"#)
}

fn read_contract() -> Contract {
    let contract = Contract::from_json(
        r#"{"key":["id"],"columns":[{"name":"id","type":"bigint"},{"name":"name","type":"string"},{"name":"bio","type":"string"}]}"#,
    );
    contract.expect("the contract is valid")
}

fn read(lines: &[String]) -> ChangeRecords {
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(read_contract()));
    reader.read("events.jsonl", &lines.join("\n").into_bytes().into()).expect("the events are readable");
    reader.finish().expect("the records are readable")
}

async fn merge(dataset: &Dataset, lines: &[String]) -> biscuit_core::Result<()> {
    merge_with(dataset, lines, MergeOptions::default()).await
}

async fn merge_with(dataset: &Dataset, lines: &[String], options: MergeOptions) -> biscuit_core::Result<()> {
    let changes = read(lines);
    let spec = MergeSpec::new(["id"], changes.order.clone()).expect("the specification is valid");
    Merge::new(dataset.clone(), spec, options)?.run(changes, RunMode::Commit).await.map(drop)
}

/// Options that put every key in its own range on the disk.
fn on_disk() -> MergeOptions {
    MergeOptions::default().with_change_memory(1)
}

/// Key 1 is created, changed, moved to 2, changed there, and moved to 3. At the end, its bio is the one it had as key
/// 1.
fn story() -> Vec<String> {
    vec![
        event("c", 1, 10, "n1", "A", ""),
        event("u", 1, 20, "n2", "B", ""),
        event("d", 1, 30, "", "", &to(2)),
        event("c", 2, 30, "n3", UNAVAILABLE, &from(1)),
        event("u", 2, 40, "n4", UNAVAILABLE, ""),
        event("d", 2, 50, "", "", &to(3)),
        event("c", 3, 50, "n5", UNAVAILABLE, &from(2)),
    ]
}

async fn check(dataset: &Dataset) {
    let want = table("id:bigint | name:string | bio:string | __lsn:bigint\n3 | n5 | B | 50");
    assert_rows_eq!(lake::rows(dataset).await, want);
}

#[tokio::test]
async fn values_follow_a_row_from_key_to_key_in_one_run() {
    for options in [MergeOptions::default(), on_disk()] {
        let dataset = lake::dataset(lake::memory());
        let mut lines = story();
        // Unrelated keys.
        lines.extend((100..120).map(|id| event("c", id, 60, "x", "y", "")));
        lines.reverse();
        merge_with(&dataset, &lines, options.clone()).await.expect("the merge succeeds");
        let gone: Vec<String> = (100..120).map(|id| event("d", id, 70, "", "", "")).collect();
        merge_with(&dataset, &gone, options).await.expect("the merge succeeds");
        check(&dataset).await;
    }
}

#[tokio::test]
async fn values_follow_a_row_from_key_to_key_event_by_event() {
    let dataset = lake::dataset(lake::memory());
    for line in story() {
        merge(&dataset, &[line]).await.expect("the merge succeeds");
    }
    check(&dataset).await;
    for line in story() {
        merge(&dataset, &[line]).await.expect("the second run succeeds");
    }
    check(&dataset).await;
}

#[tokio::test]
async fn late_change_of_the_old_row_reaches_the_new_row() {
    let dataset = lake::dataset(lake::memory());
    let mut lines = story();
    let late = lines.remove(1);
    for line in &lines {
        merge(&dataset, std::slice::from_ref(line)).await.expect("the merge succeeds");
    }
    let before = table("id:bigint | name:string | bio:string | __lsn:bigint\n3 | n5 | A | 50");
    assert_rows_eq!(lake::rows(&dataset).await, before);
    merge(&dataset, &[late]).await.expect("the merge of the late change succeeds");
    check(&dataset).await;
}

#[tokio::test]
async fn create_half_may_come_first() {
    let dataset = lake::dataset(lake::memory());
    let s = story();
    let order = [0, 1, 3, 2, 4, 6, 5].map(|i: usize| s[i].clone());
    for line in order {
        merge(&dataset, &[line]).await.expect("the merge succeeds");
    }
    check(&dataset).await;
}

#[tokio::test]
async fn every_order_of_delivery_ends_in_the_same_row() {
    let s = story();
    // Every rotation, forwards and backwards. A record whose unchanged values are not known yet is refused, and
    // merged again later.
    for turn in 0..s.len() {
        for (backwards, options) in
            [false, true].into_iter().flat_map(|b| [(b, MergeOptions::default()), (b, on_disk())])
        {
            let mut order: Vec<String> = s[turn..].iter().chain(&s[..turn]).cloned().collect();
            if backwards {
                order.reverse();
            }
            let dataset = lake::dataset(lake::memory());
            let mut pending: Vec<String> = vec![];
            for line in order {
                pending.push(line);
                match merge_with(&dataset, &pending, options.clone()).await {
                    Ok(()) => pending.clear(),
                    Err(e) => assert_eq!(e.code(), "UnavailableWithoutPrior", "{e}"),
                }
            }
            assert!(pending.is_empty(), "{turn} {backwards}: refused at the end");
            check(&dataset).await;
        }
    }
}

#[tokio::test]
async fn create_without_headers_cannot_contain_the_placeholder() {
    let line = r#"{"op":"c","before":null,"after":{"id":1,"name":"n","bio":"__debezium_unavailable_value"},"source":{"schema":"s","table":"t","lsn":1}}"#;
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(read_contract()));
    let e = reader.read("x.jsonl", &line.as_bytes().to_vec().into()).unwrap_err();
    assert_eq!(e.code(), "AmbiguousPlaceholder");
    let wrapped = format!(r#"{{"key":{{"id":1}},"value":{line}}}"#);
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(read_contract()));
    let e = reader.read("x.jsonl", &wrapped.into_bytes().into()).unwrap_err();
    assert_eq!(e.code(), "AmbiguousPlaceholder", "with a key alone, it is not known whether there are headers");
    let with = event("c", 1, 1, "n", UNAVAILABLE, "");
    assert_eq!(read(&[with]).batches[0].present[2], None, "with headers it is an ordinary value");
}
