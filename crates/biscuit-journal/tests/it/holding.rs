//! Files that stay for a while after they were replaced, and what dead runs leave.

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
async fn a_replaced_file_stays_for_a_while_and_is_no_part_of_the_table() {
    let storage = memory();
    let j = holding(&storage);
    for text in ["one", "two", "three", "four"] {
        set(&j, text).await.expect("a commit");
    }
    assert_eq!(texts(&j).await, ["four"]);
    assert_eq!(names(&storage, "lake/t/").await.len(), 4, "none was deleted");
    let observed = j.observe().await.expect("a table");
    assert_eq!((observed.files.len(), observed.retained.len()), (1, 3));
    assert!(observed.orphan_files.is_empty() && observed.external.is_empty());
    // A run that holds nothing deletes its own files, and none of the held ones.
    set(&journal(&storage), "five").await.expect("a commit");
    assert_eq!(names(&storage, "lake/t/").await.len(), 4);
}

#[tokio::test]
async fn held_files_say_since_when_and_are_released_as_one_step() {
    let storage = memory();
    let j = holding(&storage);
    for text in ["one", "two", "three"] {
        set(&j, text).await.expect("a commit");
    }
    let found = j.retained_files().await.expect("a look");
    assert_eq!(found.files.len(), 2);
    let record = |v: u64| Path::from(format!("lake/.biscuit/t/journal/{v:020}.json"));
    for (file, since, stays) in &found.files {
        let version = found.observed.head.retained[&file.path].since;
        let at = storage.store.head(&record(version)).await.expect("a record").last_modified.timestamp_micros();
        assert_eq!((since.as_micros(), *stays), (at, Duration::from_secs(60)));
    }
    let first = found.files[0].0.clone();
    let committed = j.release(&found.observed, std::slice::from_ref(&first)).await.expect("a release");
    assert!(committed.exceptions.is_empty());
    assert_eq!(names(&storage, "lake/t/").await.len(), 2);
    let left = j.retained_files().await.expect("a look");
    assert_eq!(left.files.iter().map(|f| &f.0).collect::<Vec<_>>(), [&found.files[1].0]);
    assert_eq!(texts(&j).await, ["three"]);
}

#[tokio::test]
async fn where_records_were_dropped_a_held_file_counts_from_the_checkpoint() {
    let storage = memory();
    let j = holding(&storage);
    for text in ["one", "two", "three", "four", "five"] {
        set(&j, text).await.expect("a commit");
    }
    for v in [2, 3] {
        storage.store.delete(&Path::from(format!("lake/.biscuit/t/journal/{v:020}.json"))).await.expect("a delete");
    }
    let found = j.retained_files().await.expect("a look");
    assert_eq!(found.files.len(), 4);
    let time = async |name: &str| {
        let path = Path::from(format!("lake/.biscuit/t/journal/{name}"));
        storage.store.head(&path).await.expect("it is there").last_modified.timestamp_micros()
    };
    let (checkpoint, four) = (time("00000000000000000002.checkpoint").await, time("00000000000000000004.json").await);
    let five = time("00000000000000000005.json").await;
    let mut times: Vec<i64> = found.files.iter().map(|f| f.1.as_micros()).collect();
    times.sort_unstable();
    assert_eq!(times, [checkpoint, four, four, five], "never earlier than they were replaced");
}

#[tokio::test]
async fn a_held_file_that_somebody_wrote_over_is_theirs() {
    let storage = memory();
    let j = holding(&storage);
    storage.store.put(&Path::from("lake/t/part-0.txt"), "zero".into()).await.expect("a put");
    set(&j, "one").await.expect("a commit");
    assert_eq!(j.observe().await.expect("a table").retained.len(), 1);
    storage.store.put(&Path::from("lake/t/part-0.txt"), "again".into()).await.expect("a put");
    let observed = j.observe().await.expect("a table");
    assert_eq!((observed.retained.len(), observed.external.len()), (0, 1));
    // Adopted, it is not held any more.
    let mut replace = j.replace(&observed);
    replace.stage("", "txt", "two".into()).await.expect("a stage");
    replace.commit().await.expect("a commit");
    let head = j.head().await.expect("a head");
    assert!(head.live.contains_key("part-0.txt") && !head.retained.contains_key("part-0.txt"));
}

#[tokio::test]
async fn a_release_survives_a_crash_at_every_call() {
    async fn retained() -> biscuit_journal::TableStorage {
        let storage = memory();
        for text in ["one", "two", "three"] {
            set(&holding(&storage), text).await.expect("a commit");
        }
        storage
    }
    async fn release(storage: biscuit_journal::TableStorage) -> biscuit_core::Result<()> {
        let j = holding(&storage);
        j.recover().await?;
        let found = j.retained_files().await?;
        let files: Vec<_> = found.files.iter().map(|f| f.0.clone()).collect();
        j.release(&found.observed, &files).await.map(drop)
    }
    async fn check(storage: biscuit_journal::TableStorage, at: u64) {
        let j = holding(&storage);
        j.recover_with_fence().await.expect("a recovery");
        release(storage.clone()).await.expect("once more");
        assert_eq!(texts(&j).await, ["three"], "call {at}");
        assert_eq!(names(&storage, "lake/t/").await.len(), 1, "call {at}");
        assert!(j.head().await.expect("a head").retained.is_empty(), "call {at}");
    }
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let done = crash_at_every_call(fault, retained, release, check).await;
        assert!(done.crashed > 8, "{done:?}");
    }
}

#[tokio::test]
async fn leftovers_are_what_dead_runs_staged_and_ghosts_and_nothing_else() {
    // A run that died before its record.
    let storage = died_at(call("2.json").await, InjectedFault::Crash).await;
    let j = journal(&storage);
    let orphan = Path::from("lake/t/biscuit-00000000000000aa-00000.txt");
    let found = j.orphaned_objects().await.expect("a look");
    assert!(found.dead.is_empty(), "its base is the newest version: it may be alive");
    // The next version shows that it is dead, and cleans up; what comes after it is dead as well.
    set(&j, "two").await.expect("a commit");
    storage.store.put(&orphan, "orphan file".into()).await.expect("a put");
    let staged = Path::from("lake/.biscuit/t/staging/0-00000000000000bb/x.txt.staged");
    storage.store.put(&staged, "dead".into()).await.expect("a put");
    let found = j.orphaned_objects().await.expect("a look");
    assert_eq!(found.dead.iter().map(|o| &o.location).collect::<Vec<_>>(), [&staged]);
    assert_eq!(
        found.orphan_files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
        ["biscuit-00000000000000aa-00000.txt"]
    );
}

#[tokio::test]
async fn a_held_file_with_another_etag_is_still_held_and_can_be_released() {
    let storage = memory();
    storage.store.put(&Path::from("lake/t/part-0.txt"), "zero".into()).await.expect("a put");
    let j = holding(&storage);
    for text in ["one", "two"] {
        set(&j, text).await.expect("a commit");
    }
    // A restore, which gives files new ETags.
    let retained = j.observe().await.expect("a table").retained;
    assert_eq!(retained.len(), 2);
    for file in &retained {
        let path = Path::from(format!("lake/t/{}", file.path));
        let bytes = storage.store.get(&path).await.expect("a file").bytes().await.expect("bytes");
        storage.store.put(&path, bytes.into()).await.expect("a put");
    }
    assert_eq!(texts(&j).await, ["two"], "no row is back");
    assert_eq!(j.observe().await.expect("a table").retained.len(), 2);
    let found = j.retained_files().await.expect("a look");
    let files: Vec<_> = found.files.iter().map(|f| f.0.clone()).collect();
    assert!(j.release(&found.observed, &files).await.expect("a release").exceptions.is_empty());
    assert_eq!(names(&storage, "lake/t/").await.len(), 1);
}

#[tokio::test]
async fn a_release_deletes_what_was_held_and_leaves_ghosts_and_foreign_files_as_they_are() {
    let storage = memory();
    let j = holding(&storage);
    for text in ["one", "two"] {
        set(&j, text).await.expect("a commit");
    }
    for name in ["biscuit-00000000000000aa-00000.txt", "part-0.txt"] {
        storage.store.put(&Path::from(format!("lake/t/{name}")), "x".into()).await.expect("a put");
    }
    let found = j.retained_files().await.expect("a look");
    let files: Vec<_> = found.files.iter().map(|f| f.0.clone()).collect();
    let committed = j.release(&found.observed, &files).await.expect("a release");
    assert_eq!((committed.adopted, committed.orphan_files), (0, 0));
    assert_eq!(names(&storage, "lake/t/").await.len(), 3);
    let observed = j.observe().await.expect("a table");
    assert_eq!((observed.external.len(), observed.orphan_files.len(), observed.retained.len()), (1, 1, 0));
}
