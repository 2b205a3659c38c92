//! On a local disk nothing counts before it would survive a loss of power.

use std::sync::{Arc, Mutex};

use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_testkit::{InjectedFault, RecordingStore, pause_at_every_call};
use object_store::local::LocalFileSystem;

use crate::table::{journal, journal_with, set, texts};

/// The calls of a run, to be looked at one after the other.
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
    TableStorage::local(Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("a store")))
}

#[tokio::test]
async fn writes_syncs_links_and_deletes_come_in_the_order_that_survives_a_loss_of_power() {
    let folder = tempfile::tempdir().expect("a folder");
    set(&journal(&disk(&folder)), "one").await.expect("a commit");
    let (recorder, storage) = RecordingStore::storage(&disk(&folder));
    let j = journal(&storage);
    let observed = j.observe().await.expect("a base");
    let mut replace = j.replace(&observed);
    replace.stage("day=1", "txt", "two".into()).await.expect("staged");
    replace.with_state("bookmark", "seven".into()).await.expect("staged");
    observed.files.iter().for_each(|f| replace.remove(f));
    replace.commit().await.expect("a commit");
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
async fn a_partition_is_synced_before_what_it_replaces_is_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    set(&journal(&disk(&folder)), "one").await.expect("a commit");
    let (recorder, storage) = RecordingStore::storage(&disk(&folder));
    set(&journal(&storage), "two").await.expect("a commit");
    let log = Log(recorder.calls().all().to_vec());
    let (published, removed) = (log.first(&["copy", " lake/t/biscuit-"]), log.first(&["delete lake/t/biscuit-"]));
    let synced = log.0[published..removed].iter().any(|c| c == "sync-folder lake/t");
    assert!(synced, "{:#?}", log.0);
}

#[tokio::test]
async fn checkpoints_and_the_pointer_are_whole_and_synced_before_they_have_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let (recorder, storage) = RecordingStore::storage(&disk(&folder));
    set(&journal_with(&storage, JournalOptions::default().with_checkpoint_every(1)), "one").await.expect("a commit");
    let log = Log(recorder.calls().all().to_vec());
    for name in ["0001.checkpoint", "root.json"] {
        let staged = format!("{name}.staged");
        log.in_order(&[
            ("written", log.first(&["put", &staged])),
            ("synced", log.first(&["sync ", &staged])),
            ("linked", log.first(&["copy", &staged, name])),
        ]);
    }
    // The first commit made the folders up to the lake's: their names are synced too.
    for made in ["lake/.biscuit/t", "lake/.biscuit", "lake"] {
        log.exactly(&format!("sync-folder {made}"));
    }
}

#[tokio::test]
async fn nothing_but_the_journal_stays_beside_the_table() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = disk(&folder);
    let j = journal(&storage);
    for text in ["one", "two"] {
        set(&j, text).await.expect("a commit");
    }
    // What a process leaves that is killed in the middle of a write: no listing shows it.
    let dead = folder.path().join("lake/.biscuit/t/staging/1-00000000000000ff");
    std::fs::create_dir_all(&dead).expect("a folder");
    std::fs::write(dead.join("biscuit-00000000000000ff-00000.txt.staged#1"), "half").expect("a file");
    j.recover().await.expect("a recovery");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("lake/.biscuit/t/staging"))
        .map(|entries| entries.map(|e| e.expect("an entry").file_name()).collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

/// On a disk whoever finishes a version deletes the folder in which a sleeper is about to sync or link its own files: the sleeper finds its
/// version done, or has lost, and never says that the store was not there.
#[tokio::test]
async fn a_run_on_a_disk_that_sleeps_at_any_call_ends_quietly_or_has_to_run_again() {
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        let folders = Mutex::new(Vec::new());
        let setup = || async {
            let folder = tempfile::tempdir().expect("a folder");
            let storage = disk(&folder);
            folders.lock().expect("no holder of this lock panics").push(folder);
            set(&journal(&storage), "one").await.expect("a commit");
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
