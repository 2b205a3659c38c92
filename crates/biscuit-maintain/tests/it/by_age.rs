//! Purges by age while other runs write: the journals are read after the listing.

use std::time::Duration;

use biscuit_core::Outcome;
use biscuit_maintain::{AgeLimit, PurgeEvent};
use biscuit_purge::{AllowedDeletes, KeepReason, PurgeDecision};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::hooked_store::{HookedStore, shared};
use crate::lab::{carried_out, decisions, deletes, journal, memory, names, overlap, purge, put, set, texts};

const LIVE: PurgeDecision = PurgeDecision::Keep(KeepReason::Live);

/// Everything is older than this limit, by a clock that is ahead.
fn everything() -> AgeLimit {
    AgeLimit::older_than(Duration::ZERO)
}

#[tokio::test]
async fn file_that_is_published_between_probe_and_listing_is_kept() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    put(&storage, "lake/old.csv", "x").await;
    let other = table.clone();
    let store = HookedStore::ahead(&storage).before_listing(async move { set(&other, "two").await });
    let purge = purge(&storage, shared(store), "lake").allowing(overlap());
    let planned = purge.plan_by_age(&everything()).await.unwrap();
    let files = names(&storage, "lake/t").await;
    assert_eq!(files.len(), 1, "the commit has replaced the first file");
    assert_eq!(decisions(&planned, &files[0]), [LIVE], "the new file is listed, and the journal names it");
    assert_eq!(deletes(&planned), ["lake/old.csv"]);
    assert_eq!(carried_out(&purge, &planned).await.counts.deleted, 1);
    assert_eq!(texts(&table).await, ["two"]);
}

#[tokio::test]
async fn file_of_the_purged_table_itself_is_kept() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    let plan = async |allow: AllowedDeletes, text: &'static str| {
        let other = table.clone();
        let store = HookedStore::ahead(&storage).before_listing(async move { set(&other, text).await });
        purge(&storage, shared(store), "lake/t").allowing(allow).plan_by_age(&everything()).await
    };
    let e = plan(AllowedDeletes::default(), "two").await.unwrap_err();
    assert_eq!(e.code(), "LiveFiles", "{e}");
    let planned = plan(overlap(), "three").await.unwrap();
    assert_eq!((decisions(&planned, "lake/t/"), planned.is_empty()), (vec![LIVE], true));
    assert_eq!(texts(&table).await, ["three"]);
}

#[tokio::test]
async fn table_that_is_created_between_probe_and_listing_is_kept() {
    let storage = memory();
    put(&storage, "lake/old.csv", "x").await;
    let table = journal(&storage, "lake/t");
    let other = table.clone();
    let store = HookedStore::ahead(&storage).before_listing(async move { set(&other, "first").await });
    let purge = purge(&storage, shared(store), "lake").allowing(overlap());
    let planned = purge.plan_by_age(&everything()).await.unwrap();
    assert_eq!(decisions(&planned, "lake/t/"), [LIVE]);
    let state = decisions(&planned, "lake/.biscuit/t/");
    assert!(!state.is_empty() && state.iter().all(|d| *d == PurgeDecision::Keep(KeepReason::State)), "{state:?}");
    carried_out(&purge, &planned).await;
    assert_eq!(texts(&table).await, ["first"]);
}

#[tokio::test]
async fn file_that_is_published_after_the_listing_is_not_in_the_plan() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    put(&storage, "lake/old.csv", "x").await;
    let other = table.clone();
    let store = HookedStore::ahead(&storage).after_listing(async move { set(&other, "two").await });
    // The listing has nothing but the replaced file and the old one.
    let mut allowed = overlap();
    allowed.empty = true;
    let purge = purge(&storage, shared(store), "lake").allowing(allowed);
    let planned = purge.plan_by_age(&everything()).await.unwrap();
    let files = names(&storage, "lake/t").await;
    assert_eq!(decisions(&planned, &files[0]), []);
    carried_out(&purge, &planned).await;
    assert_eq!(texts(&table).await, ["two"]);
}

#[tokio::test]
async fn nothing_is_planned_while_a_version_that_was_committed_meanwhile_is_unfinished() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    put(&storage, "lake/old.csv", "x").await;
    let (other, raw) = (table.clone(), storage.clone());
    // Without its done mark, the version is that of a run which has committed and not yet published everything.
    let store = HookedStore::ahead(&storage).before_listing(async move {
        set(&other, "two").await;
        let mark = Path::from(format!("lake/.biscuit/t/journal/{:020}.done", 2));
        raw.store.delete(&mark).await.expect("the mark exists");
    });
    let e = purge(&storage, shared(store), "lake").allowing(overlap()).plan_by_age(&everything()).await.unwrap_err();
    assert_eq!(e.code(), "Unfinished", "{e}");
}

#[tokio::test]
async fn object_that_is_written_during_the_listing_is_never_old() {
    let storage = memory();
    put(&storage, "raw/old.csv", "x").await;
    let raw = storage.clone();
    let store = HookedStore::on_time(&storage).before_listing(async move { put(&raw, "raw/new.csv", "y").await });
    let limit = AgeLimit::before("2999-01-01".parse().unwrap());
    let planned = purge(&storage, shared(store), "raw").plan_by_age(&limit).await.unwrap();
    assert_eq!(decisions(&planned, "raw/new.csv"), [PurgeDecision::Keep(KeepReason::AfterListing)]);
}

#[tokio::test]
async fn staged_file_of_a_run_that_is_under_way_survives_every_plan() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    put(&storage, "lake/old.csv", "x").await;
    let observed = table.observe().await.unwrap();
    let mut table_commit = table.begin_commit(&observed);
    table_commit.stage("", "txt", "two".into()).await.unwrap();
    assert_eq!(names(&storage, "lake/.biscuit/t/staging").await.len(), 1);

    let around = purge(&storage, shared(HookedStore::ahead(&storage)), "lake").allowing(overlap());
    let planned = around.plan_by_age(&everything()).await.unwrap();
    assert_eq!(decisions(&planned, "/staging/"), [PurgeDecision::Keep(KeepReason::State)]);
    assert_eq!(carried_out(&around, &planned).await.counts.deleted, 1);

    observed.files.iter().for_each(|f| table_commit.remove(f));
    table_commit.commit().await.expect("the run commits");
    assert_eq!(texts(&table).await, ["two"]);
}

#[tokio::test]
async fn probe_is_first_and_planning_deletes_nothing() {
    let storage = memory();
    put(&storage, "raw/a.csv", "x").await;
    put(&storage, "raw/b.csv", "x").await;
    let mut allow = AllowedDeletes::default();
    allow.empty = true;
    let store = shared(HookedStore::ahead(&storage));
    let purge = purge(&storage, store.clone(), "raw").allowing(allow);
    let planned = purge.plan_by_age(&everything()).await.unwrap();
    assert_eq!(store.steps(), ["look", "list"]);
    assert_eq!(names(&storage, "raw").await, ["raw/a.csv", "raw/b.csv"]);
    assert_eq!((planned.totals().objects, planned.caveat().is_some()), (2, true));

    put(&storage, "raw/b.csv", "of another program").await;
    let mut lines = vec![];
    let mut each = |event: PurgeEvent<'_>| lines.extend(event.json_lines());
    let outcome = purge.carry_out(&planned, &mut each).await.unwrap();
    assert_eq!((outcome.outcome, outcome.counts.deleted), (Outcome::PurgedWithExceptions, 1));
    assert!(outcome.emptied_folders.is_empty(), "an object was kept");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.concat().contains("\"reason\":\"changed\""), "{lines:?}");
    assert_eq!(names(&storage, "raw").await, ["raw/b.csv"]);
}

#[tokio::test]
async fn kept_objects_follow_the_outcomes_of_their_plan() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    put(&storage, "lake/old.csv", "x").await;
    let purge = purge(&storage, shared(HookedStore::ahead(&storage)), "lake").allowing(overlap());
    let planned = purge.plan_by_age(&everything()).await.unwrap();
    let mut lines = vec![];
    purge.carry_out(&planned, &mut |event| lines.extend(event.json_lines())).await.unwrap();
    assert!(lines[0].contains("\"outcome\":\"deleted\""), "{}", lines[0]);
    let kept = planned.totals().kept.values().sum::<u64>();
    assert_eq!(lines.iter().filter(|line| line.contains("\"action\":\"keep\"")).count() as u64, kept);
    assert_eq!(lines.len() as u64, 1 + kept);
}

#[tokio::test]
async fn emptied_folder_has_a_planned_delete_and_no_file_that_remains() {
    use biscuit_rewrite::RunMode;

    let storage = memory();
    for key in ["t/day=1/a", "t/day=1/_SUCCESS", "t/day=2/a", "t/day=2/b", "t/day=3/_SUCCESS"] {
        put(&storage, key, "x").await;
    }
    let line = |key: &str| format!("{{\"key\":\"{key}\",\"size\":1,\"action\":\"delete\"}}\n");
    let plan = line("t/day=1/a") + &line("t/day=2/a");
    let purge = purge(&storage, shared(HookedStore::on_time(&storage)), "t");
    let planned = purge.plan_stored("plan.jsonl", plan.as_bytes()).await.unwrap();
    let emptied = async |mode: RunMode| {
        let folders = ["t", "t/day=1", "t/day=2", "t/day=3", "elsewhere"];
        purge.place().emptied_folders(planned.plans(), folders, mode).await.unwrap().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(emptied(RunMode::DryRun).await, ["t/day=1"]);
    assert_eq!(emptied(RunMode::Commit).await, [] as [&str; 0], "nothing is deleted yet");
    carried_out(&purge, &planned).await;
    assert_eq!(emptied(RunMode::Commit).await, ["t/day=1"], "the third day was empty before");
}
