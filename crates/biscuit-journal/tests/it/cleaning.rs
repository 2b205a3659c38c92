//! Recovery: unfinished versions are finished, and objects of dead runs are deleted.

use std::sync::Arc;

use biscuit_journal::DivergedPolicy;
use biscuit_testkit::{FaultStore, InjectedFault, RecordingStore};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::table::{journal, memory, names, set, set_on, texts};

/// Returns the number of the first call that contains a text, while "two" is set on a table with "one".
pub(crate) async fn call(text: &str) -> u64 {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    set(&journal(&storage.with_store(recording.clone())), "two").await.expect("the commit succeeds");
    let calls = recording.calls();
    calls.all().iter().position(|c| c.contains(text)).unwrap_or_else(|| panic!("{text}: {:?}", calls.all())) as u64 + 1
}

/// Returns a table with "one", on which a run that set "two" died at a call.
pub(crate) async fn died_at(at: u64, fault: InjectedFault) -> biscuit_journal::TableStorage {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let dying = FaultStore::new(storage.store.clone(), fault, at);
    set(&journal(&storage.with_store(Arc::new(dying))), "two").await.expect_err("the run dies");
    storage
}

#[tokio::test]
async fn crash_before_the_record_changes_nothing_and_a_fence_cleans_up() {
    let storage = died_at(call("2.json").await, InjectedFault::Crash).await;
    let j = journal(&storage);
    assert_eq!(texts(&j).await, ["one"]);
    assert_eq!(names(&storage, "/staging/").await.len(), 1);
    assert_eq!(
        j.recover().await.expect("the recovery succeeds").cleaned,
        0,
        "a live run may still need the staged file"
    );
    let fenced = j.recover_with_fence().await.expect("the recovery succeeds");
    assert_eq!((fenced.fence, fenced.cleaned), (Some(2), 1));
    assert!(names(&storage, "/staging/").await.is_empty());
    assert_eq!(texts(&j).await, ["one"]);
}

#[tokio::test]
async fn crash_after_the_record_shows_the_new_version_and_any_run_finishes_it() {
    let storage = died_at(call("2.json").await, InjectedFault::CrashAfter).await;
    let j = journal(&storage);
    let view = j.view().await.expect("the table can be read");
    assert_eq!((view.head.version, view.files.len()), (2, 1));
    let staged = view.head.live[&view.files[0].path].staged.clone().expect("it is staged");
    assert!(staged.starts_with("staging/1-"));
    let recovered = j.recover().await.expect("the recovery succeeds");
    assert_eq!(recovered.rolled_forward, Some(2));
    assert_eq!(texts(&j).await, ["two"]);
    assert_eq!(names(&storage, "lake/t/").await.len(), 1);
    assert_eq!(j.recover().await.expect("the second recovery succeeds").rolled_forward, None);
}

#[tokio::test]
async fn lost_staged_file_is_reported_and_nothing_is_removed() {
    let storage = died_at(call("2.json").await, InjectedFault::CrashAfter).await;
    let staged = names(&storage, "/staging/").await;
    storage.store.delete(&Path::from(staged[0].as_str())).await.expect("the delete succeeds");
    let e = journal(&storage).recover().await.unwrap_err();
    assert_eq!(e.code(), "LostStaging");
    assert_eq!(names(&storage, "lake/t/").await.len(), 1, "the old file is still there");
}

#[tokio::test]
async fn the_next_run_cleans_up_after_a_dead_one() {
    let storage = died_at(call("2.json").await, InjectedFault::Crash).await;
    set(&journal(&storage), "two").await.expect("the commit succeeds");
    assert!(names(&storage, "/staging/").await.is_empty());
    assert_eq!(texts(&journal(&storage)).await, ["two"]);
}

#[tokio::test]
async fn a_torn_staged_file_is_never_committed() {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let tearing = FaultStore::new(storage.store.clone(), InjectedFault::Torn, call("/staging/").await);
    set(&journal(&storage.with_store(Arc::new(tearing))), "two").await.expect_err("the write is torn");
    assert_eq!(texts(&journal(&storage)).await, ["one"]);
}

#[tokio::test]
async fn recovery_deletes_the_objects_of_a_dead_probe() {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    crate::table::put(&storage, "lake/.biscuit/t/probe/00000000000000ff-0", "7").await;
    assert_eq!(journal(&storage).recover().await.expect("the recovery succeeds").cleaned, 1);
    assert!(names(&storage, "/probe/").await.is_empty());
}

#[tokio::test]
async fn trial_copy_is_not_adopted_as_a_file_of_the_table() {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let live = names(&storage, "lake/t/").await;
    crate::table::put(&storage, "lake/t/_biscuit-trial-0-00000000000000ff", "one").await;
    crate::table::put(&storage, &live[0], "changed").await;
    let adopting = journal(&storage).with_diverged(DivergedPolicy::Adopt);
    let observed = adopting.observe().await.expect("the table is adopted");
    let file = live[0].trim_start_matches("lake/t/");
    assert_eq!(observed.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), [file]);
    assert_eq!(observed.orphan_files.len(), 1);
    set_on(&adopting, &observed, "two").await.expect("the commit succeeds");
    assert_eq!(names(&storage, "lake/t/").await.len(), 1);
}
