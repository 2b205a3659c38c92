//! Stored plans: a plan of yesterday does not delete what is part of a table today.

use std::time::Duration;

use biscuit_journal::TableStorage;
use biscuit_maintain::AgeLimit;
use biscuit_purge::AllowedDeletes;

use crate::hooked_store::{HookedStore, shared};
use crate::lab::{carried_out, deletes, journal, memory, names, purge, put, texts};

/// Plans to delete everything below `lake`, and stores the plan.
async fn plan_of_everything(storage: &TableStorage) -> String {
    let mut allow = AllowedDeletes::default();
    allow.empty = true;
    let purge = purge(storage, shared(HookedStore::ahead(storage)), "lake").allowing(allow);
    let planned = purge.plan_by_age(&AgeLimit::older_than(Duration::ZERO)).await.expect("the folder can be purged");
    planned.plans().iter().flat_map(|plan| plan.json_lines()).map(|line| line + "\n").collect()
}

/// Makes the files in the folder of a table part of it, and adds one.
async fn adopt(storage: TableStorage) {
    let table = journal(&storage, "lake/t");
    let observed = table.observe().await.expect("the table can be observed");
    let mut change = table.begin_commit(&observed);
    change.stage("", "txt", "two".into()).await.expect("the file is staged");
    change.commit().await.expect("the commit succeeds");
}

#[tokio::test]
async fn file_that_becomes_part_of_a_table_before_the_listing_stops_the_plan() {
    let storage = memory();
    put(&storage, "lake/t/part-0.txt", "one").await;
    let plan = plan_of_everything(&storage).await;
    assert!(plan.contains("lake/t/part-0.txt"), "{plan}");
    let store = HookedStore::on_time(&storage).before_listing(adopt(storage.clone()));
    let e = purge(&storage, shared(store), "lake").plan_stored("plan.jsonl", plan.as_bytes()).await.unwrap_err();
    assert_eq!(e.code(), "LiveFiles", "{e}");
    let mut found = texts(&journal(&storage, "lake/t")).await;
    found.sort();
    assert_eq!(found, ["one", "two"]);
}

#[tokio::test]
async fn object_of_a_state_root_stops_the_plan() {
    let storage = memory();
    adopt(storage.clone()).await;
    let record = format!("lake/.biscuit/t/journal/{:020}.json", 1);
    let plan = format!("{{\"key\":\"{record}\",\"size\":1,\"action\":\"delete\"}}");
    let purge = purge(&storage, shared(HookedStore::on_time(&storage)), "lake");
    let e = purge.plan_stored("evil.jsonl", plan.as_bytes()).await.unwrap_err();
    assert_eq!(e.code(), "LiveFiles", "{e}");
    let e = purge.plan_stored("plan.jsonl", &[0xff]).await.unwrap_err();
    assert_eq!(e.code(), "UnreadablePlan", "{e}");
}

#[tokio::test]
async fn stored_plan_deletes_its_unchanged_objects_and_nothing_newer() {
    let storage = memory();
    put(&storage, "lake/a.csv", "1").await;
    put(&storage, "lake/b.csv", "2").await;
    let plan = plan_of_everything(&storage).await;
    put(&storage, "lake/b.csv", "changed").await;
    put(&storage, "lake/c.csv", "3").await;
    let purge = purge(&storage, shared(HookedStore::on_time(&storage)), "lake");
    let planned = purge.plan_stored("plan.jsonl", plan.as_bytes()).await.unwrap();
    assert_eq!(deletes(&planned), ["lake/a.csv", "lake/b.csv"]);
    let outcome = carried_out(&purge, &planned).await;
    assert_eq!((outcome.counts.deleted, outcome.counts.kept["changed"]), (1, 1));
    assert_eq!(names(&storage, "lake").await, ["lake/b.csv", "lake/c.csv"]);
}
