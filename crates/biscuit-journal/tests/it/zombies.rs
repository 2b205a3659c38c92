//! Sleeping runs that wake up after others have gone on, and misleading answers of the store.

use std::sync::Arc;

use biscuit_core::{CommitId, Outcome, Result};
use biscuit_journal::{Journal, JournalOptions, ObservedTable, TableStorage};
use biscuit_testkit::{FaultStore, InjectedFault, RecordingStore, StoreCalls, pause_at_every_call};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::table::{journal, journal_with, memory, names, put, set, set_on, texts};

/// Returns the calls of a run that sets "two" on a table with "one".
async fn rehearsal() -> StoreCalls {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    set(&journal(&storage.with_store(recording.clone())), "two").await.expect("the commit succeeds");
    recording.calls()
}

/// Returns the number of the first call that contains all of these texts.
fn call(calls: &StoreCalls, of: &[&str]) -> u64 {
    let at = calls.all().iter().position(|c| of.iter().all(|t| c.contains(t)));
    at.unwrap_or_else(|| panic!("{of:?} is not among {:?}", calls.all())) as u64 + 1
}

/// Runs a job that sets "two" and sleeps at a call until `meanwhile` has finished.
async fn asleep_at<F: Future<Output = ()>>(
    fault: InjectedFault,
    of: &[&str],
    meanwhile: impl FnOnce(TableStorage) -> F,
) -> (TableStorage, Result<biscuit_journal::CommitSummary>) {
    let at = call(&rehearsal().await, of);
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let sleepy = FaultStore::new(storage.store.clone(), fault, at);
    let j = journal(&storage.with_store(Arc::new(sleepy.clone())));
    let others = async {
        assert!(sleepy.wait_for_pause().await);
        meanwhile(storage.clone()).await;
        sleepy.resume();
    };
    let (answer, ()) = futures::join!(set(&j, "two"), others);
    (storage, answer)
}

#[tokio::test]
async fn a_fence_ends_a_run_that_sleeps_before_its_commit() {
    let fence = |s: TableStorage| async move {
        let done = journal(&s).recover_with_fence().await.expect("the fence succeeds");
        assert_eq!((done.fence, done.cleaned), (Some(2), 1));
    };
    let (storage, answer) = asleep_at(InjectedFault::Pause, &["create", "2.json"], fence).await;
    assert_eq!(answer.unwrap_err().code(), "Conflict");
    assert_eq!(texts(&journal(&storage)).await, ["one"]);
    assert!(names(&storage, "/staging/").await.is_empty());
}

#[tokio::test]
async fn cleaned_staging_of_a_live_run_is_a_conflict() {
    for of in [["head", "/staging/"], ["copy", "/staging/"], ["create", "2.json"]] {
        let (storage, answer) = asleep_at(InjectedFault::Pause, &of, |s| async move {
            set(&journal(&s), "other").await.expect("the commit succeeds");
            assert!(names(&s, "/staging/").await.is_empty(), "the staged files of the sleeping run were deleted");
        })
        .await;
        assert_eq!(answer.unwrap_err().code(), "Conflict", "asleep at {of:?}");
        assert_eq!(texts(&journal(&storage)).await, ["other"]);
        assert!(names(&storage, "/staging/").await.is_empty());
    }
}

#[tokio::test]
async fn run_that_sleeps_before_a_publish_finds_its_version_finished() {
    let (storage, answer) = asleep_at(InjectedFault::Pause, &["copy", " lake/t/biscuit-"], |s| async move {
        set(&journal(&s), "three").await.expect("the commit succeeds");
    })
    .await;
    assert_eq!(answer.expect("the version of the sleeping run stands").version, 2);
    assert_eq!(texts(&journal(&storage)).await, ["three"]);
    assert!(journal(&storage).observe().await.expect("the table can be observed").orphan_files.is_empty());
}

#[tokio::test]
async fn run_that_sleeps_before_a_delete_deletes_no_newer_files() {
    let (storage, answer) = asleep_at(InjectedFault::Pause, &["head", "2.done"], |s| async move {
        set(&journal(&s), "three").await.expect("the commit succeeds");
    })
    .await;
    assert_eq!(answer.expect("the version of the sleeping run stands").version, 2);
    assert_eq!(texts(&journal(&storage)).await, ["three"]);
}

#[tokio::test]
async fn late_copy_of_a_sleeping_run_is_an_orphan_file_that_the_next_commit_deletes() {
    // The copy was under way when the process fell asleep, and takes effect after everything else.
    let (storage, answer) = asleep_at(InjectedFault::PauseAfter, &["copy", " lake/t/biscuit-"], |s| async move {
        let landed = names(&s, "lake/t/").await;
        set(&journal(&s), "three").await.expect("the commit succeeds");
        let two = landed.iter().find(|n| n.contains("biscuit-")).expect("the object is found").clone();
        put(&s, &two, "two").await;
    })
    .await;
    assert_eq!(answer.expect("the version of the sleeping run stands").version, 2);
    let j = journal(&storage);
    assert_eq!(texts(&j).await, ["three"]);
    assert_eq!(j.observe().await.expect("the table can be observed").orphan_files.len(), 1);
    assert_eq!(set(&j, "four").await.expect("the commit succeeds").orphan_files, 1);
    assert_eq!(names(&storage, "lake/t/").await.len(), 1);
}

#[tokio::test]
async fn put_that_is_refused_with_409_without_a_winner_is_repeated() {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let refusing =
        FaultStore::new(storage.store.clone(), InjectedFault::Refuse, call(&rehearsal().await, &["create", "2.json"]));
    let done = set(&journal(&storage.with_store(Arc::new(refusing))), "two").await.expect("the second try wins");
    assert_eq!((done.version, done.outcome), (2, Outcome::Committed));
    assert_eq!(texts(&journal(&storage)).await, ["two"]);
}

/// Adds a file to the table in a commit with this id.
async fn add(j: &Journal, observed: &ObservedTable, id: &str, text: &str) -> Result<biscuit_journal::CommitSummary> {
    let mut table_commit = j.begin_commit(observed);
    table_commit.with_commit_id(&CommitId::new(id));
    table_commit.stage("", "txt", text.to_owned().into()).await?;
    table_commit.commit().await
}

#[tokio::test]
async fn two_live_attempts_of_a_run_write_once() {
    let storage = memory();
    let j = journal(&storage);
    let base = j.observe().await.expect("the table can be observed");
    add(&j, &base, "job/run-7/orders", "seven").await.expect("attempt 1 succeeds");
    assert_eq!(add(&j, &base, "job/run-7/orders", "seven").await.unwrap_err().code(), "Conflict");
    let now = j.observe().await.expect("the table can be observed");
    let again = add(&j, &now, "job/run-7/orders", "seven").await.expect("attempt 2 succeeds again");
    assert_eq!((again.version, again.outcome), (1, Outcome::Unchanged));
    assert_eq!(texts(&j).await, ["seven"]);
    assert!(names(&storage, "/staging/").await.is_empty(), "the staged files of attempt 2 were deleted");
}

#[tokio::test]
async fn an_attempt_may_sleep_at_every_call_while_the_other_finishes() {
    let attempt = |s: TableStorage| async move {
        let j = journal(&s);
        let observed = j.observe().await?;
        add(&j, &observed, "job/run-7/orders", "seven").await.map(drop)
    };
    let others = |s: TableStorage, n: u32| async move {
        let j = journal(&s);
        let observed = j.observe().await?;
        let (id, text) = if n == 1 { ("job/run-7/orders", "seven") } else { ("job/run-8/orders", "eight") };
        add(&j, &observed, id, text).await.map(drop)
    };
    let check = |s: TableStorage, at: u64| async move {
        let mut retained = texts(&journal(&s)).await;
        retained.sort();
        assert_eq!(retained, ["eight", "seven"], "call {at}");
    };
    let setup = || async { memory() };
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        let done = pause_at_every_call(pause, setup, attempt, others, check).await;
        assert!(done.slept > 20, "{done:?}");
    }
}

#[tokio::test]
async fn void_record_is_not_in_the_history() {
    let mut options = JournalOptions::default().with_checkpoint_every(1);
    options.keep_history = 0;
    let storage = memory();
    let j = journal_with(&storage, options);
    set(&j, "1").await.expect("the commit succeeds");
    let sleeping = j.observe().await.expect("the table can be observed");
    for text in ["2", "3", "4"] {
        set(&j, text).await.expect("the commit succeeds");
    }
    assert_eq!(set_on(&j, &sleeping, "zombie").await.unwrap_err().code(), "Conflict");
    let versions: Vec<u64> =
        j.history().await.expect("the history is readable").iter().map(|v| v.record.version).collect();
    assert!(!versions.contains(&2), "{versions:?}");
    assert_eq!(texts(&j).await, ["4"]);
    assert_eq!(set(&j, "5").await.expect("the commit succeeds").version, 5);
}

/// A store with inconsistent listings may return one that is older than the head.
#[tokio::test]
async fn a_listing_older_than_the_head_is_refused_and_nothing_is_deleted() {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let old = names(&storage, "lake/t/").await[0].clone();
    set(&journal(&storage), "two").await.expect("the commit succeeds");
    let new = names(&storage, "lake/t/").await[0].clone();
    // Simulates such a listing: the new file does not exist yet, and the old file still exists.
    storage.store.delete(&Path::from(new.as_str())).await.expect("the delete succeeds");
    put(&storage, &old, "one").await;
    assert_eq!(set(&journal(&storage), "three").await.unwrap_err().code(), "Diverged");
    assert_eq!(names(&storage, "lake/t/").await, [old]);
}

#[tokio::test]
async fn two_jobs_that_name_different_state_roots_have_one_winner() {
    let storage = memory();
    let a = journal(&storage).with_state_root(Path::from("states/a"));
    let b = journal(&storage).with_state_root(Path::from("states/b"));
    let (on_a, on_b) =
        (a.observe().await.expect("the table can be observed"), b.observe().await.expect("the base is observed"));
    set_on(&a, &on_a, "a").await.expect("the commit succeeds");
    assert_eq!(set_on(&b, &on_b, "b").await.unwrap_err().code(), "StateRootMismatch");
    assert_eq!(texts(&a).await, ["a"]);
    assert_eq!(b.view().await.unwrap_err().code(), "StateRootMismatch");
}
