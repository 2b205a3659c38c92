//! Checks of stores and tables, and recovery.

use std::sync::Arc;

use biscuit_core::{Outcome, SystemClock};
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::JournalOptions;
use biscuit_maintain::report::StoreVerdict;
use biscuit_maintain::{DeletePlace, RecoveryFence, check_store, recover_table, verify_table};
use biscuit_purge::AnyStore;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::lab::{journal, memory, names, put, set};

#[tokio::test]
async fn store_in_memory_is_safe_for_many_writers_and_no_object_remains() {
    let storage = memory();
    let place = DeletePlace::new(Arc::new(AnyStore::new(storage.store.clone())), "memory://lab/", "lake/t");
    let report = check_store(&journal(&storage, "lake/t"), &place, &SystemClock).await.unwrap();
    assert_eq!((report.verdict, report.errors.len()), (StoreVerdict::ManyWriters, 0), "{report:?}");
    let ok = |what: &str| report.checks.iter().find(|c| c.check == what).map(|c| c.ok);
    assert_eq!(
        (ok("put if absent"), ok("conditional delete"), ok("the store's clock")),
        (Some(true), Some(false), Some(true))
    );
    assert_eq!(ok("list versions"), None, "only S3 has versions");
    assert!(report.checks.iter().all(|c| !c.needed_for.is_empty()) && report.clock_difference_seconds.is_some());
    assert_eq!(names(&storage, "lake").await, [] as [&str; 0]);
}

#[tokio::test]
async fn recovery_finishes_a_version_and_a_fence_is_always_a_change() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "one").await;
    assert_eq!(recover_table(&table, RecoveryFence::None).await.unwrap().outcome, Outcome::Unchanged);
    put(&storage, "lake/.biscuit/t/staging/1-00000000000000cc/x.txt.staged", "perhaps alive").await;
    assert_eq!(recover_table(&table, RecoveryFence::None).await.unwrap().outcome, Outcome::Unchanged);
    let fenced = recover_table(&table, RecoveryFence::Commit).await.unwrap();
    assert_eq!((fenced.outcome, fenced.report.fence), (Outcome::Recovered, Some(2)));
    assert_eq!(names(&storage, "lake/.biscuit/t/staging").await, [] as [&str; 0]);
    let json = serde_json::to_value(&fenced).unwrap();
    assert_eq!((&json["outcome"], &json["fence"]), (&"recovered".into(), &2.into()));
}

#[tokio::test]
async fn table_with_a_missing_file_is_unsound() {
    let storage = memory();
    let table = journal(&storage, "lake/t");
    set(&table, "not Parquet").await;
    let location = Location::new(storage.clone(), "lake/t", "lake/t").unwrap();
    let dataset = Dataset::new(location, JournalOptions::default());
    let unreadable = verify_table(&dataset, &[]).await.unwrap();
    assert_eq!((unreadable.outcome, unreadable.is_sound(), unreadable.report.unreadable.len()), ("unsound", false, 1));
    let file = names(&storage, "lake/t").await.remove(0);
    storage.store.delete(&Path::from(file)).await.unwrap();
    let missing = verify_table(&dataset, &[]).await.unwrap();
    let json = serde_json::to_value(&missing).unwrap();
    assert_eq!((&json["outcome"], json["diverged"].as_array().map(Vec::len)), (&"unsound".into(), Some(1)));
}
