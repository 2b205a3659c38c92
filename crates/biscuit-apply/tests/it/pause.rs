//! A run that pauses at any storage call, while two others finish, does no harm when it continues.

use std::sync::Mutex;

use biscuit_apply::{Merge, MergeOptions, RunMode};
use biscuit_dataset::Dataset;
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_testkit::internal::{extrapolated, pause_at_scaled_calls};
use biscuit_testkit::{InjectedFault, assert_rows_eq, table};

use crate::lake;
use crate::zoo::{self, SECOND, populated, spec};

/// Changes that are merged during the pause: new rows, and newer and older changes of the keys of the paused run.
const MEANWHILE: [&str; 2] = [
    r#"
{"id":1,"seq":3,"day":"a","v":"back","op":"u"}
{"id":5,"seq":1,"day":"c","v":"fifth","op":"c"}
"#,
    r#"
{"id":4,"seq":1,"day":"a","v":"older","op":"c"}
{"id":5,"seq":2,"day":"b","v":"fifth, moved","op":"u"}
{"id":3,"seq":2,"day":"b","v":null,"op":"d"}
"#,
];

/// A checkpoint after every version, and no retained records: a paused run may write a record number that was
/// deleted.
fn forgetful(storage: TableStorage) -> Dataset {
    let mut options = JournalOptions::default().with_checkpoint_every(1);
    options.keep_history = 0;
    let dataset = lake::dataset(storage);
    let journal =
        biscuit_journal::Journal::new(dataset.journal().storage().clone(), dataset.journal().table().clone(), options);
    dataset.with_journal(journal)
}

async fn merge(dataset: Dataset, lines: &str) -> biscuit_core::Result<()> {
    let records = lake::changes(&dataset, lines).await?;
    let options = MergeOptions::default().with_parallelism(1);
    Merge::new(dataset, spec(), options)?.run(records, RunMode::Commit).await.map(drop)
}

async fn check(storage: TableStorage, at: u64) {
    let dataset = lake::dataset(storage.clone());
    // The next run deletes whatever the paused run has left.
    dataset.journal().recover_with_fence().await.expect("the recovery succeeds");
    let want = table(
        "id:bigint | seq:bigint | day:string | v:string
         1 | 3 | a | back
         4 | 2 | c | new
         5 | 2 | b | fifth, moved
         9 | 2 | f | changed
         8 | 1 | f | kept
         7 | 1 | g | untouched",
    );
    assert_rows_eq!(lake::rows(&dataset).await, want);
    zoo::nothing_is_left_over(&storage, at).await;
}

async fn others(storage: TableStorage, n: u32) -> biscuit_core::Result<()> {
    merge(lake::dataset(storage), MEANWHILE[n as usize - 1]).await
}

#[tokio::test]
async fn merge_may_pause_at_every_call_in_memory() {
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        let job = |s| merge(lake::dataset(s), SECOND);
        let done = pause_at_scaled_calls(pause, || populated(lake::memory()), job, others, check).await;
        assert!(
            extrapolated(done.slept) > 50 && extrapolated(done.conflicts) > 20 && done.conflicts < done.calls,
            "{done:?}"
        );
    }
}

#[tokio::test]
async fn merge_may_pause_at_every_call_while_journal_records_are_deleted() {
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        let job = |s| merge(forgetful(s), SECOND);
        let others = |s, n: u32| merge(forgetful(s), MEANWHILE[n as usize - 1]);
        pause_at_scaled_calls(pause, || populated(lake::memory()), job, others, check).await;
    }
}

#[tokio::test]
async fn merge_may_pause_at_every_call_on_disk() {
    let folders: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
    let setup = || async { populated(zoo::disk(&folders)).await };
    let job = |s| merge(lake::dataset(s), SECOND);
    pause_at_scaled_calls(InjectedFault::Pause, setup, job, others, check).await;
}

/// A table whose version 2 is committed and not finished.
async fn unfinished() -> TableStorage {
    zoo::died_after_its_record(lake::memory).await
}

#[tokio::test]
async fn recovery_may_pause_at_every_call() {
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        let recover = |s| async move { lake::dataset(s).journal().recover().await.map(drop) };
        let done = pause_at_scaled_calls(pause, unfinished, recover, others, check).await;
        assert!(extrapolated(done.slept) > 10, "{done:?}");
    }
    let folders: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
    let recover = |s| async move { lake::dataset(s).journal().recover().await.map(drop) };
    let on_disk = || zoo::died_after_its_record(|| zoo::disk(&folders));
    pause_at_scaled_calls(InjectedFault::Pause, on_disk, recover, others, check).await;
}

#[tokio::test]
async fn recovery_with_a_fence_may_pause_at_every_call() {
    let recover = |s| async move { lake::dataset(s).journal().recover_with_fence().await.map(drop) };
    let done = pause_at_scaled_calls(InjectedFault::Pause, unfinished, recover, others, check).await;
    assert!(extrapolated(done.slept) > 20, "{done:?}");
}

/// A read during commits returns all rows of one version, whichever it is.
#[tokio::test]
async fn reader_may_pause_at_every_call() {
    let count = std::sync::Arc::new(Mutex::new(Vec::new()));
    let read = |s: TableStorage| {
        let count = count.clone();
        async move {
            let frame = lake::dataset(s).load(&datafusion::prelude::SessionContext::new()).await?;
            match frame.collect().await {
                Ok(rows) => count.lock().expect("no thread panicked while it had the lock").push(lake::count(&rows)),
                // After the first row, the read may fail, but it never returns part of the rows.
                Err(e) => assert!(["NotFound", "not found", "newer"].iter().any(|w| e.to_string().contains(w)), "{e}"),
            }
            Ok(())
        }
    };
    let setup = || async {
        let storage = populated(lake::memory()).await;
        merge(lake::dataset(storage.clone()), SECOND).await.expect("the merge succeeds");
        storage
    };
    pause_at_scaled_calls(InjectedFault::Pause, setup, read, others, check).await;
    let counts = count.lock().expect("no thread panicked while it had the lock").clone();
    assert!(counts.iter().all(|n| *n == 6), "6 rows before, 7 between, 6 after: {counts:?}");
}
