//! Retained files: their deletion is a version of the table.

use std::time::Duration;

use biscuit_core::Outcome;
use biscuit_journal::{Journal, JournalOptions, TableStorage};
use biscuit_maintain::FolderPurge;
use biscuit_rewrite::RunMode;
use object_store::path::Path;

use crate::hooked_store::{HookedStore, shared};
use crate::lab::{carried_out, deletes, memory, names, purge, put, set, texts};

/// A table that retains replaced files for a minute.
fn retaining(storage: &TableStorage) -> Journal {
    let options = JournalOptions::default().with_retention(Duration::from_secs(60));
    Journal::new(storage.clone(), Path::from("lake/t"), options)
}

/// A purge by a clock that is an hour ahead, so that every retention is over.
fn late(storage: &TableStorage) -> FolderPurge {
    purge(storage, shared(HookedStore::ahead(storage)), "lake/t")
}

#[tokio::test]
async fn retained_files_are_released_after_their_retention() {
    let storage = memory();
    let table = retaining(&storage);
    set(&table, "one").await;
    set(&table, "two").await;
    let purge = late(&storage);
    let early = purge.plan_retained(Duration::from_secs(2 * 3600), RunMode::Commit).await.unwrap();
    assert_eq!((early.is_empty(), early.totals().kept["retained"]), (true, 1));
    assert_eq!(carried_out(&purge, &early).await.outcome, Outcome::Unchanged);
    assert_eq!(table.head().await.unwrap().version, 2, "a purge without due files commits no version");

    let planned = purge.plan_retained(Duration::ZERO, RunMode::Commit).await.unwrap();
    assert_eq!((deletes(&planned).len(), names(&storage, "lake/t").await.len()), (1, 2));
    let outcome = carried_out(&purge, &planned).await;
    assert_eq!((outcome.outcome, outcome.counts.deleted, outcome.emptied_folders.len()), (Outcome::Purged, 1, 0));
    assert_eq!((table.head().await.unwrap().version, names(&storage, "lake/t").await.len()), (3, 1));
    assert_eq!(texts(&table).await, ["two"]);
}

#[tokio::test]
async fn commit_between_plan_and_release_is_a_conflict_and_deletes_nothing() {
    let storage = memory();
    let table = retaining(&storage);
    set(&table, "one").await;
    set(&table, "two").await;
    let purge = late(&storage);
    let planned = purge.plan_retained(Duration::ZERO, RunMode::Commit).await.unwrap();
    set(&table, "three").await;
    let e = purge.carry_out(&planned, &mut |_| {}).await.unwrap_err();
    assert_eq!(e.code(), "Conflict", "{e}");
    assert_eq!((names(&storage, "lake/t").await.len(), texts(&table).await), (3, vec!["three".to_owned()]));
    let again = purge.plan_retained(Duration::ZERO, RunMode::Commit).await.unwrap();
    assert_eq!(carried_out(&purge, &again).await.counts.deleted, 2);
    assert_eq!(texts(&table).await, ["three"]);
}

#[tokio::test]
async fn folder_without_a_journal_has_no_retained_files() {
    let storage = memory();
    put(&storage, "lake/junk/a", "x").await;
    let purge = purge(&storage, shared(HookedStore::on_time(&storage)), "lake/junk");
    let e = purge.plan_retained(Duration::ZERO, RunMode::DryRun).await.unwrap_err();
    assert_eq!(e.code(), "NoJournal");
    assert!(e.message().starts_with("`memory://lab/lake/junk` is not a table"), "{e}");
}
