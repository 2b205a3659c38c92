//! Crashes and pauses at every call: each object is in the output once.

use std::sync::Arc;

use biscuit_bookmark::{Bookmark, ReadMode, RunOutput, SourcePlace, list};
use biscuit_core::Result;
use biscuit_journal::{Journal, JournalOptions, TableStorage};
use biscuit_testkit::{InjectedFault, crash_at_every_call, pause_at_every_call};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::lab::run;

fn journal(storage: &TableStorage) -> Journal {
    Journal::new(storage.clone(), Path::from("lake/t"), JournalOptions::default())
}

async fn setup() -> TableStorage {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    for name in ["a", "b"] {
        storage.store.put(&Path::from(format!("raw/{name}")), name.into()).await.expect("the test bench works");
    }
    job(storage.clone()).await.expect("the test bench works");
    storage.store.put(&Path::from("raw/c"), "c".into()).await.expect("the test bench works");
    storage
}

/// Appends the content of every new object.
async fn job(storage: TableStorage) -> Result<()> {
    let journal = journal(&storage);
    let observed = journal.observe().await?;
    let state = Bookmark::new("raw")?.load(&journal, &observed.head).await?;
    let selection = state.select(&list(&[SourcePlace::new(&storage, "mem://", "raw")?]).await?, &ReadMode::Advance)?;
    let mut table_commit = journal.begin_commit(&observed);
    for object in &selection.objects {
        let path = Path::from(object.url().trim_start_matches("mem://"));
        let read = async { storage.store.get(&path).await?.bytes().await };
        table_commit.stage("", "txt", read.await.map_err(|e| biscuit_journal::store_error("read", &path, e))?).await?;
    }
    if let Some(change) = state.advance(&selection, &run("r"), RunOutput::default())? {
        table_commit.with_extras(change).await?;
    }
    table_commit.commit().await.map(drop)
}

async fn check(storage: TableStorage, _: u64) {
    let mut rows = Vec::new();
    for file in journal(&storage).observe().await.expect("the test bench works").files {
        let path = Path::from(format!("lake/t/{}", file.path));
        let bytes =
            storage.store.get(&path).await.expect("the test bench works").bytes().await.expect("the test bench works");
        rows.push(String::from_utf8(bytes.to_vec()).expect("the test bench works"));
    }
    rows.sort();
    assert_eq!(rows, ["a", "b", "c"]);
}

#[tokio::test]
async fn b08_after_a_crash_at_any_call_each_object_is_in_the_output_once() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let crashes = crash_at_every_call(fault, setup, job, check).await;
        assert!(crashes.crashed > 10, "{crashes:?}");
    }
}

#[tokio::test]
async fn each_object_is_read_once_while_a_run_sleeps_at_any_call() {
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        let pauses = pause_at_every_call(pause, setup, job, |storage, _| job(storage), check).await;
        assert!(pauses.slept > 10 && pauses.conflicts > 0, "{pauses:?}");
    }
}
