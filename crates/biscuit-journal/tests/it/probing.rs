//! The probe of a store before the first version of a table, which is remembered for further tables.

use std::sync::Arc;

use biscuit_core::{Clock, SystemClock};
use biscuit_journal::{Journal, JournalOptions, TableStorage};
use biscuit_testkit::RecordingStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use crate::table::{memory, names, put, set, texts};

const REMEMBERED: &str = "lake/.biscuit/put-if-absent.json";

/// Begins a table, and returns how many puts probed the store.
async fn probes(storage: &TableStorage, table: &str) -> usize {
    let recorder = Arc::new(RecordingStore::new(storage.store.clone()));
    let storage = storage.with_store(recorder.clone());
    let journal = Journal::new(storage, Path::from(table), JournalOptions::default());
    set(&journal, "one").await.expect("the commit succeeds");
    recorder.calls().with("/probe/").iter().filter(|call| call.starts_with("create")).count()
}

#[tokio::test]
async fn store_is_probed_once_for_the_tables_of_a_folder() {
    let storage = memory();
    let (first, second, elsewhere) =
        (probes(&storage, "lake/a").await, probes(&storage, "lake/b").await, probes(&storage, "other/a").await);
    assert!(first > 0 && elsewhere > 0, "{first} {elsewhere}");
    assert_eq!(second, 0);
    assert_eq!(names(&storage, "put-if-absent").await, [REMEMBERED, "other/.biscuit/put-if-absent.json"]);
}

#[tokio::test]
async fn probe_of_another_store_does_not_count() {
    let now = SystemClock.now();
    // A copy of the objects in another store is younger than the time in the object says.
    for (content, counts) in [
        (format!("{{\"format\":3,\"at\":\"{now}\"}}"), true),
        (format!("{{\"format\":3,\"at\":\"{}\"}}", now.saturating_sub(std::time::Duration::from_secs(16 * 60))), false),
        (format!("{{\"format\":2,\"at\":\"{now}\"}}"), false),
        ("{}".to_owned(), false),
        ("not JSON".to_owned(), false),
    ] {
        let storage = memory();
        put(&storage, REMEMBERED, &content).await;
        assert_eq!(probes(&storage, "lake/a").await == 0, counts, "{content}");
    }
}

#[tokio::test]
async fn disk_is_probed_for_each_table_and_has_no_further_object() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("the folder exists");
    let storage = TableStorage::local(Arc::new(store));
    for table in ["lake/a", "lake/put-if-absent.json"] {
        let journal = Journal::new(storage.clone(), Path::from(table), JournalOptions::default());
        set(&journal, "one").await.expect("the commit succeeds");
        assert_eq!(journal.view().await.expect("the table can be read").files.len(), 1);
    }
    assert!(!folder.path().join(REMEMBERED).is_file());
}

#[tokio::test]
async fn pointer_is_followed_and_observed_at_once() {
    let storage = memory();
    let elsewhere = || {
        let journal = Journal::new(storage.clone(), Path::from("lake/t"), JournalOptions::default());
        journal.with_state_root(Path::from("state/t"))
    };
    set(&elsewhere(), "one").await.expect("the commit succeeds");
    let journal = || Journal::new(storage.clone(), Path::from("lake/t"), JournalOptions::default());
    assert_eq!(journal().observe().await.unwrap_err().code(), "StateRootMismatch");
    let (followed, observed) = journal().follow_and_observe().await.expect("the table is observed");
    assert_eq!((followed.state_root().as_ref(), observed.head.version), ("state/t", 1));
    let (followed, viewed) = followed.follow_and_view().await.expect("the table is viewed");
    assert_eq!((followed.state_root().as_ref(), viewed.head.version), ("state/t", 1));
    let (followed, viewed) = journal().follow_and_view().await.expect("the table is viewed");
    assert_eq!((texts(&followed).await, viewed.files.len()), (vec!["one".to_owned()], 1));
}
