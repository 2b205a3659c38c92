//! Retained files, and the objects of dead runs.

use std::time::Duration;

use biscuit_journal::JournalOptions;
use biscuit_testkit::{InjectedFault, crash_at_every_call};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::cleaning::{call, died_at};
use crate::table::{journal, journal_with, memory, names, set, texts};

fn holding(storage: &biscuit_journal::TableStorage) -> biscuit_journal::Journal {
    journal_with(storage, JournalOptions::default().with_retention(Duration::from_secs(60)).with_checkpoint_every(2))
}

#[tokio::test]
async fn replaced_file_is_retained_and_is_not_part_of_the_table() {
    let storage = memory();
    let j = holding(&storage);
    for text in ["one", "two", "three", "four"] {
        set(&j, text).await.expect("the commit succeeds");
    }
    assert_eq!(texts(&j).await, ["four"]);
    assert_eq!(names(&storage, "lake/t/").await.len(), 4, "no file was deleted");
    let observed = j.observe().await.expect("the table can be observed");
    assert_eq!((observed.files.len(), observed.retained.len()), (1, 3));
    assert!(observed.orphan_files.is_empty() && observed.external.is_empty());
    // A run without a retention deletes the files that it replaces, and no retained file.
    set(&journal(&storage), "five").await.expect("the commit succeeds");
    assert_eq!(names(&storage, "lake/t/").await.len(), 4);
}

#[tokio::test]
async fn retained_files_have_their_times_and_are_released_as_one_step() {
    let storage = memory();
    let j = holding(&storage);
    for text in ["one", "two", "three"] {
        set(&j, text).await.expect("the commit succeeds");
    }
    let found = j.retained_files().await.expect("the listing succeeds");
    assert_eq!(found.files.len(), 2);
    let record = |v: u64| Path::from(format!("lake/.biscuit/t/journal/{v:020}.json"));
    for (file, since, stays) in &found.files {
        let version = found.observed.head.retained[&file.path].since;
        let at =
            storage.store.head(&record(version)).await.expect("the record exists").last_modified.timestamp_micros();
        assert_eq!((since.as_micros(), *stays), (at, Duration::from_secs(60)));
    }
    let first = found.files[0].0.clone();
    let committed = j.release_files(&found.observed, std::slice::from_ref(&first)).await.expect("the release succeeds");
    assert!(committed.exceptions.is_empty());
    assert_eq!(names(&storage, "lake/t/").await.len(), 2);
    let left = j.retained_files().await.expect("the listing succeeds");
    assert_eq!(left.files.iter().map(|f| &f.0).collect::<Vec<_>>(), [&found.files[1].0]);
    assert_eq!(texts(&j).await, ["three"]);
}

#[tokio::test]
async fn retention_counts_from_the_checkpoint_if_the_record_was_dropped() {
    let storage = memory();
    let j = holding(&storage);
    for text in ["one", "two", "three", "four", "five"] {
        set(&j, text).await.expect("the commit succeeds");
    }
    for v in [2, 3] {
        storage
            .store
            .delete(&Path::from(format!("lake/.biscuit/t/journal/{v:020}.json")))
            .await
            .expect("the delete succeeds");
    }
    let found = j.retained_files().await.expect("the listing succeeds");
    assert_eq!(found.files.len(), 4);
    let time = async |name: &str| {
        let path = Path::from(format!("lake/.biscuit/t/journal/{name}"));
        storage.store.head(&path).await.expect("the object exists").last_modified.timestamp_micros()
    };
    let (checkpoint, four) = (time("00000000000000000002.checkpoint").await, time("00000000000000000004.json").await);
    let five = time("00000000000000000005.json").await;
    let mut times: Vec<i64> = found.files.iter().map(|f| f.1.as_micros()).collect();
    times.sort_unstable();
    assert_eq!(times, [checkpoint, four, four, five], "no time is before the file was replaced");
}

#[tokio::test]
async fn overwritten_retained_file_is_an_external_file() {
    let storage = memory();
    let j = holding(&storage);
    storage.store.put(&Path::from("lake/t/part-0.txt"), "zero".into()).await.expect("the put succeeds");
    set(&j, "one").await.expect("the commit succeeds");
    assert_eq!(j.observe().await.expect("the table can be observed").retained.len(), 1);
    storage.store.put(&Path::from("lake/t/part-0.txt"), "again".into()).await.expect("the put succeeds");
    let observed = j.observe().await.expect("the table can be observed");
    assert_eq!((observed.retained.len(), observed.external.len()), (0, 1));
    // An adopted file is no longer retained.
    let mut table_commit = j.begin_commit(&observed);
    table_commit.stage("", "txt", "two".into()).await.expect("the file is staged");
    table_commit.commit().await.expect("the commit succeeds");
    let head = j.head().await.expect("the head can be read");
    assert!(head.live.contains_key("part-0.txt") && !head.retained.contains_key("part-0.txt"));
}

#[tokio::test]
async fn a_release_survives_a_crash_at_every_call() {
    async fn retained() -> biscuit_journal::TableStorage {
        let storage = memory();
        for text in ["one", "two", "three"] {
            set(&holding(&storage), text).await.expect("the commit succeeds");
        }
        storage
    }
    async fn release(storage: biscuit_journal::TableStorage) -> biscuit_core::Result<()> {
        let j = holding(&storage);
        j.recover().await?;
        let found = j.retained_files().await?;
        let files: Vec<_> = found.files.iter().map(|f| f.0.clone()).collect();
        j.release_files(&found.observed, &files).await.map(drop)
    }
    async fn check(storage: biscuit_journal::TableStorage, at: u64) {
        let j = holding(&storage);
        j.recover_with_fence().await.expect("the recovery succeeds");
        release(storage.clone()).await.expect("the second release succeeds");
        assert_eq!(texts(&j).await, ["three"], "call {at}");
        assert_eq!(names(&storage, "lake/t/").await.len(), 1, "call {at}");
        assert!(j.head().await.expect("the head can be read").retained.is_empty(), "call {at}");
    }
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let done = crash_at_every_call(fault, retained, release, check).await;
        assert!(done.crashed > 8, "{done:?}");
    }
}

#[tokio::test]
async fn orphaned_objects_are_staged_files_of_dead_runs_and_orphan_files() {
    // A run that died before its record.
    let storage = died_at(call("2.json").await, InjectedFault::Crash).await;
    let j = journal(&storage);
    let orphan = Path::from("lake/t/biscuit-00000000000000aa-00000.txt");
    let found = j.orphaned_objects().await.expect("the listing succeeds");
    assert!(found.dead.is_empty(), "its base is the newest version, so the run may be alive");
    // The next version proves that the run is dead, and cleans up. Objects that are written for its base afterwards
    // are dead as well.
    set(&j, "two").await.expect("the commit succeeds");
    storage.store.put(&orphan, "orphan file".into()).await.expect("the put succeeds");
    let staged = Path::from("lake/.biscuit/t/staging/0-00000000000000bb/x.txt.staged");
    storage.store.put(&staged, "dead".into()).await.expect("the put succeeds");
    let found = j.orphaned_objects().await.expect("the listing succeeds");
    assert_eq!(found.dead.iter().map(|o| &o.location).collect::<Vec<_>>(), [&staged]);
    assert_eq!(
        found.orphan_files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
        ["biscuit-00000000000000aa-00000.txt"]
    );
}

#[tokio::test]
async fn retained_file_with_another_etag_is_still_retained_and_can_be_released() {
    let storage = memory();
    storage.store.put(&Path::from("lake/t/part-0.txt"), "zero".into()).await.expect("the put succeeds");
    let j = holding(&storage);
    for text in ["one", "two"] {
        set(&j, text).await.expect("the commit succeeds");
    }
    // Simulates a restore, which gives the files new ETags.
    let retained = j.observe().await.expect("the table can be observed").retained;
    assert_eq!(retained.len(), 2);
    for file in &retained {
        let path = Path::from(format!("lake/t/{}", file.path));
        let bytes =
            storage.store.get(&path).await.expect("the file is found").bytes().await.expect("the bytes are read");
        storage.store.put(&path, bytes.into()).await.expect("the put succeeds");
    }
    assert_eq!(texts(&j).await, ["two"], "no removed row is back");
    assert_eq!(j.observe().await.expect("the table can be observed").retained.len(), 2);
    let found = j.retained_files().await.expect("the listing succeeds");
    let files: Vec<_> = found.files.iter().map(|f| f.0.clone()).collect();
    assert!(j.release_files(&found.observed, &files).await.expect("the release succeeds").exceptions.is_empty());
    assert_eq!(names(&storage, "lake/t/").await.len(), 1);
}

#[tokio::test]
async fn release_leaves_orphan_files_and_external_files_unchanged() {
    let storage = memory();
    let j = holding(&storage);
    for text in ["one", "two"] {
        set(&j, text).await.expect("the commit succeeds");
    }
    for name in ["biscuit-00000000000000aa-00000.txt", "part-0.txt"] {
        storage.store.put(&Path::from(format!("lake/t/{name}")), "x".into()).await.expect("the put succeeds");
    }
    let found = j.retained_files().await.expect("the listing succeeds");
    let files: Vec<_> = found.files.iter().map(|f| f.0.clone()).collect();
    let committed = j.release_files(&found.observed, &files).await.expect("the release succeeds");
    assert_eq!((committed.adopted, committed.orphan_files), (0, 0));
    assert_eq!(names(&storage, "lake/t/").await.len(), 3);
    let observed = j.observe().await.expect("the table can be observed");
    assert_eq!((observed.external.len(), observed.orphan_files.len(), observed.retained.len()), (1, 1, 0));
}
