//! Durability on a local disk: each step is durable before the next one relies on it.

use std::sync::{Arc, Mutex};

use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_testkit::{InjectedFault, RecordingStore, pause_at_every_call};
use object_store::local::LocalFileSystem;

use crate::table::{journal, journal_with, set, texts};

/// The recorded calls of a run.
struct Log(Vec<String>);

impl Log {
    fn first(&self, of: &[&str]) -> usize {
        let at = self.0.iter().position(|c| of.iter().all(|t| c.contains(t)));
        at.unwrap_or_else(|| panic!("{of:?} is not among {:#?}", self.0))
    }

    fn exactly(&self, call: &str) -> usize {
        self.0.iter().position(|c| c == call).unwrap_or_else(|| panic!("{call} is not among {:#?}", self.0))
    }

    fn last(&self, of: &[&str]) -> usize {
        let at = self.0.iter().rposition(|c| of.iter().all(|t| c.contains(t)));
        at.unwrap_or_else(|| panic!("{of:?} is not among {:#?}", self.0))
    }

    fn in_order(&self, steps: &[(&str, usize)]) {
        for pair in steps.windows(2) {
            assert!(pair[0].1 < pair[1].1, "`{}` has to come before `{}`: {:#?}", pair[0].0, pair[1].0, self.0);
        }
    }
}

fn disk(folder: &tempfile::TempDir) -> TableStorage {
    TableStorage::local(Arc::new(
        LocalFileSystem::new_with_prefix(folder.path()).expect("the folder of the store exists"),
    ))
}

#[tokio::test]
async fn calls_of_a_commit_have_an_order_that_survives_a_loss_of_power() {
    let folder = tempfile::tempdir().expect("the folder is created");
    set(&journal(&disk(&folder)), "one").await.expect("the commit succeeds");
    let (recorder, storage) = RecordingStore::storage(&disk(&folder));
    let j = journal(&storage);
    let observed = j.observe().await.expect("the table can be observed");
    let mut table_commit = j.begin_commit(&observed);
    table_commit.stage("day=1", "txt", "two".into()).await.expect("the file is staged");
    table_commit.with_state("bookmark", "seven".into()).await.expect("the file is staged");
    observed.files.iter().for_each(|f| table_commit.remove(f));
    table_commit.commit().await.expect("the commit succeeds");
    let log = Log(recorder.calls().all().to_vec());
    log.in_order(&[
        ("the staged file is written", log.first(&["put", "/staging/1-", ".txt.staged"])),
        ("it is synced", log.first(&["sync ", "/staging/1-", ".txt.staged"])),
        ("its folder is synced", log.first(&["sync-folder", "/staging/1-"])),
        ("the folder of that is synced", log.exactly("sync-folder lake/.biscuit/t/staging")),
        ("the record is linked to its number", log.first(&["copy", "/journal/00000000000000000002.json"])),
    ]);
    log.in_order(&[
        ("the state file is written", log.first(&["put", "/state/1-", "bookmark"])),
        ("it is synced", log.first(&["sync ", "/state/1-", "bookmark"])),
        ("its folder is synced", log.first(&["sync-folder", "/state/1-"])),
        ("the record is linked to its number", log.first(&["copy", "/journal/00000000000000000002.json"])),
    ]);
    log.in_order(&[
        ("the record is written under another name", log.first(&["put", "0002.json.staged"])),
        ("it is synced", log.first(&["sync ", "0002.json.staged"])),
        ("it is linked to its number", log.first(&["copy", "/journal/00000000000000000002.json"])),
        ("the journal's folder is synced", log.first(&["sync-folder lake/.biscuit/t/journal"])),
        ("the first file is published", log.first(&["copy", " lake/t/day=1/biscuit-"])),
        ("the new folder is synced", log.first(&["sync-folder lake/t/day=1"])),
        ("the table's folder is synced", log.last(&["sync-folder lake/t"])),
        ("the finished mark is written", log.first(&["put", "0002.done.staged"])),
        ("it is synced", log.first(&["sync ", "0002.done.staged"])),
        ("it is linked", log.first(&["copy", "/journal/00000000000000000002.done"])),
        ("staging is deleted", log.first(&["delete", ".txt.staged"])),
    ]);
    let removed = log.first(&["delete lake/t/biscuit-"]);
    assert!(removed > log.first(&["sync-folder lake/.biscuit/t/journal"]), "{:#?}", log.0);
    assert_eq!(texts(&journal(&disk(&folder))).await, ["two"]);
}

#[tokio::test]
async fn partition_is_synced_before_its_replaced_files_are_deleted() {
    let folder = tempfile::tempdir().expect("the folder is created");
    set(&journal(&disk(&folder)), "one").await.expect("the commit succeeds");
    let (recorder, storage) = RecordingStore::storage(&disk(&folder));
    set(&journal(&storage), "two").await.expect("the commit succeeds");
    let log = Log(recorder.calls().all().to_vec());
    let (published, removed) = (log.first(&["copy", " lake/t/biscuit-"]), log.first(&["delete lake/t/biscuit-"]));
    let synced = log.0[published..removed].iter().any(|c| c == "sync-folder lake/t");
    assert!(synced, "{:#?}", log.0);
}

#[tokio::test]
async fn checkpoints_and_the_pointer_are_synced_before_they_get_their_names() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let (recorder, storage) = RecordingStore::storage(&disk(&folder));
    set(&journal_with(&storage, JournalOptions::default().with_checkpoint_every(1)), "one")
        .await
        .expect("the commit succeeds");
    let log = Log(recorder.calls().all().to_vec());
    for name in ["0001.checkpoint", "root.json"] {
        let staged = format!("{name}.staged");
        log.in_order(&[
            ("written", log.first(&["put", &staged])),
            ("synced", log.first(&["sync ", &staged])),
            ("linked", log.first(&["copy", &staged, name])),
        ]);
    }
    // The first commit created all folders up to `lake`, so their names are synced too.
    for made in ["lake/.biscuit/t", "lake/.biscuit", "lake"] {
        log.exactly(&format!("sync-folder {made}"));
    }
}

#[tokio::test]
async fn recovery_deletes_partial_files_of_killed_writes() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let storage = disk(&folder);
    let j = journal(&storage);
    for text in ["one", "two"] {
        set(&j, text).await.expect("the commit succeeds");
    }
    // A partial file of a process that was killed during a write. No listing of the store shows it.
    let dead = folder.path().join("lake/.biscuit/t/staging/1-00000000000000ff");
    std::fs::create_dir_all(&dead).expect("the folder is created");
    std::fs::write(dead.join("biscuit-00000000000000ff-00000.txt.staged#1"), "half").expect("the file is written");
    j.recover().await.expect("the recovery succeeds");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("lake/.biscuit/t/staging"))
        .map(|entries| entries.map(|e| e.expect("the entry is readable").file_name()).collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

/// On a disk, the process that finishes a version deletes the run folder in which a sleeping run is about to sync or
/// link its own files. The sleeper then finds that its version is finished, or that it has lost; it never reports
/// `StoreUnavailable`.
#[tokio::test]
async fn run_on_a_disk_that_sleeps_at_any_call_succeeds_or_conflicts() {
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        let folders = Mutex::new(Vec::new());
        let setup = || async {
            let folder = tempfile::tempdir().expect("the folder is created");
            let storage = disk(&folder);
            folders.lock().expect("no holder of this lock panics").push(folder);
            set(&journal(&storage), "one").await.expect("the commit succeeds");
            storage
        };
        let job = |s: TableStorage| async move { set(&journal(&s), "two").await.map(drop) };
        let other = |s: TableStorage, _| async move { set(&journal(&s), "three").await.map(drop) };
        let check = |s: TableStorage, at| async move {
            assert_eq!(texts(&journal(&s)).await.len(), 1, "asleep at call {at}");
        };
        let pauses = pause_at_every_call(pause, setup, job, other, check).await;
        assert!(pauses.slept > 20 && pauses.conflicts > 0, "{pauses:?}");
    }
}
