//! Purges of orphan files while other runs write.

use std::time::Duration;

use biscuit_core::Outcome;
use biscuit_maintain::OrphanLimit;
use biscuit_purge::JobMarker;
use biscuit_rewrite::RunMode;

use crate::hooked_store::{HookedStore, shared};
use crate::lab::{carried_out, deletes, journal, memory, names, purge, put, set, texts};

const DEAD: &str = "lake/.biscuit/t/staging/0-00000000000000bb/x.txt.staged";
const PERHAPS_ALIVE: &str = "lake/.biscuit/t/staging/1-00000000000000cc/x.txt.staged";
const ORPHAN: &str = "lake/t/biscuit-00000000000000aa-00000.txt";

fn any_age() -> OrphanLimit {
    OrphanLimit::default().with_age(Duration::ZERO)
}

#[tokio::test]
async fn journal_decides_which_staged_files_are_dead_and_age_does_not() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    for path in [DEAD, PERHAPS_ALIVE, ORPHAN] {
        put(&storage, path, "x").await;
    }
    let purge = purge(&storage, shared(HookedStore::ahead(&storage)), "lake/t");
    for mode in [RunMode::DryRun, RunMode::Commit] {
        let planned = purge.plan_orphans(&any_age(), mode).await.unwrap();
        assert_eq!(deletes(&planned), [ORPHAN, DEAD], "the folder comes first, then the state root");
    }
    let planned = purge.plan_orphans(&any_age(), RunMode::Commit).await.unwrap();
    let outcome = carried_out(&purge, &planned).await;
    assert_eq!((outcome.outcome, outcome.counts.deleted), (Outcome::Purged, 2));
    assert!(outcome.cleanup_error.is_none() && outcome.emptied_folders.is_empty());
    assert_eq!(names(&storage, "lake/.biscuit/t/staging").await, [PERHAPS_ALIVE]);
    assert_eq!(texts(&table).await, ["one"]);
}

#[tokio::test]
async fn run_that_is_under_way_commits_after_a_purge_of_orphans() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    let observed = table.observe().await.unwrap();
    let mut table_commit = table.begin_commit(&observed);
    table_commit.stage("", "txt", "two".into()).await.unwrap();
    let purge = purge(&storage, shared(HookedStore::ahead(&storage)), "lake/t");
    let planned = purge.plan_orphans(&any_age(), RunMode::Commit).await.unwrap();
    assert!(planned.is_empty(), "{:?}", deletes(&planned));
    carried_out(&purge, &planned).await;
    observed.files.iter().for_each(|f| table_commit.remove(f));
    table_commit.commit().await.expect("the run commits");
    assert_eq!(texts(&table).await, ["two"]);
}

#[tokio::test]
async fn files_that_are_published_during_the_plan_are_not_orphans() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    let (before, after) = (table.clone(), table.clone());
    let store = HookedStore::ahead(&storage)
        .before_listing(async move { set(&before, "two").await })
        .after_listing(async move { set(&after, "three").await });
    let purge = purge(&storage, shared(store), "lake/t");
    let planned = purge.plan_orphans(&any_age(), RunMode::Commit).await.unwrap();
    assert!(planned.is_empty(), "{:?}", deletes(&planned));
    carried_out(&purge, &planned).await;
    assert_eq!(texts(&table).await, ["three"]);
}

#[tokio::test]
async fn table_that_is_created_in_a_folder_named_like_a_leftover_is_kept() {
    let storage = memory();
    put(&storage, "lake/.spark-staging-1/part-0", "x").await;
    let table = journal(&storage, "lake/_temporary");
    let other = table.clone();
    let store = HookedStore::ahead(&storage).before_listing(async move { set(&other, "rows").await });
    let purge = purge(&storage, shared(store), "lake");
    let planned = purge.plan_orphans(&any_age(), RunMode::Commit).await.unwrap();
    assert_eq!(deletes(&planned), ["lake/.spark-staging-1/part-0"]);
    carried_out(&purge, &planned).await;
    assert_eq!(texts(&table).await, ["rows"]);
}

#[tokio::test]
async fn leftovers_of_other_programs_are_deleted_by_age_and_markers_on_request() {
    let storage = memory();
    for name in ["raw/_temporary/0/part", "raw/_SUCCESS", "raw/a.csv"] {
        put(&storage, name, "x").await;
    }
    let plan = async |limit: OrphanLimit| {
        let purge = purge(&storage, shared(HookedStore::ahead(&storage)), "raw");
        purge.plan_orphans(&limit, RunMode::DryRun).await.unwrap()
    };
    let young = plan(OrphanLimit::default()).await;
    assert_eq!((young.is_empty(), young.totals().kept["newer"]), (true, 1), "the default is a day");
    assert_eq!(deletes(&plan(any_age()).await), ["raw/_temporary/0/part"]);
    let mut both = deletes(&plan(any_age().with_markers([JobMarker::Success])).await);
    both.sort();
    assert_eq!(both, ["raw/_SUCCESS", "raw/_temporary/0/part"]);
}
