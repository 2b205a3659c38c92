//! Ownership of folders: tables must be beside one another, in a store without folders.

use std::sync::Arc;

use biscuit_core::Result;
use biscuit_journal::{Journal, JournalOptions, OtherTableFormats, TableStorage};
use biscuit_testkit::{FaultStore, InjectedFault, RecordingStore};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::table::{journal, memory, names, put, set};

fn table(storage: &TableStorage, path: &str) -> Journal {
    Journal::new(storage.clone(), Path::parse(path).expect("the path is valid"), JournalOptions::default())
}

fn code<T>(result: Result<T>) -> &'static str {
    result.err().map_or("", |e| e.code())
}

#[tokio::test]
async fn table_inside_or_around_another_table_is_refused() {
    let storage = memory();
    set(&table(&storage, "lake/a"), "outer").await.expect("the commit succeeds");
    for inside in ["lake/a/b", "lake/a/b/c", "lake/.biscuit/a", "lake/.biscuit/x", "lake/a/.biscuit/x"] {
        assert_eq!(code(set(&table(&storage, inside), "inner").await), "OverlapsTable", "{inside}");
    }
    assert_eq!(code(set(&table(&storage, "lake"), "around").await), "OverlapsTable");
    set(&table(&storage, "lake/ab"), "beside").await.expect("a name that begins alike is beside");
    assert_eq!(names(&storage, ".txt").await.len(), 2);
}

#[tokio::test]
async fn moved_state_root_is_neither_inside_a_table_nor_contains_one() {
    let storage = memory();
    set(&table(&storage, "lake/a").with_state_root("states/a".into()), "x").await.expect("the commit succeeds");
    for (path, state) in [("lake/b", "lake/a/state"), ("lake/b", "states/a/journal"), ("lake/b", "states/a/b")] {
        assert_eq!(
            code(set(&table(&storage, path).with_state_root(state.into()), "y").await),
            "OverlapsTable",
            "{state}"
        );
    }
    for path in ["states/a", "states/a/x", "states"] {
        assert_eq!(code(set(&table(&storage, path), "y").await), "OverlapsTable", "{path}");
    }
}

/// Two runs begin a table at the same time, one inside the folder of the other. At most one commits, at whichever
/// call the other run sleeps meanwhile.
#[tokio::test]
async fn two_concurrent_runs_do_not_make_nested_tables() {
    let rehearsal = memory();
    let recording = Arc::new(RecordingStore::new(rehearsal.store.clone()));
    set(&table(&rehearsal.with_store(recording.clone()), "lake/a"), "outer").await.expect("the commit succeeds");
    for at in 1..=recording.calls().all().len() as u64 {
        let storage = memory();
        let sleepy = FaultStore::new(storage.store.clone(), InjectedFault::Pause, at);
        let outer = table(&storage.with_store(Arc::new(sleepy.clone())), "lake/a");
        let meanwhile = async {
            let paused = sleepy.wait_for_pause().await;
            let inner = set(&table(&storage, "lake/a/b"), "inner").await;
            sleepy.resume();
            paused.then_some(inner)
        };
        let (outer, inner) = futures::join!(set(&outer, "outer"), meanwhile);
        let Some(inner) = inner else { continue };
        assert!(outer.is_err() || inner.is_err(), "call {at}: both were committed");
        for refused in [outer.err(), inner.err()].into_iter().flatten() {
            assert_eq!(refused.code(), "OverlapsTable", "call {at}: {refused}");
        }
    }
}

#[tokio::test]
async fn refused_claim_is_withdrawn() {
    let storage = memory();
    let outer = table(&storage, "lake/a");
    let observed = outer.observe().await.expect("the place is free for a table");
    set(&table(&storage, "lake/a/b"), "inner").await.expect("the commit succeeds");
    let mut table_commit = outer.begin_commit(&observed);
    table_commit.stage("", "txt", "outer".into()).await.expect("the file is staged");
    assert_eq!(code(table_commit.commit().await), "OverlapsTable");
    // Only the probe of the store is remembered.
    let left = names(&storage, "lake/.biscuit/").await;
    assert_eq!(left, ["lake/.biscuit/put-if-absent.json"], "neither a pointer nor staged files remain");
    set(&table(&storage, "lake/a/b"), "again").await.expect("the other table continues");
}

#[tokio::test]
async fn readers_do_not_see_the_files_of_a_table_inside_the_folder() {
    let storage = memory();
    set(&table(&storage, "lake/a"), "outer").await.expect("the commit succeeds");
    // Simulates that the objects of a table were copied into the folder by hand.
    let inner = memory();
    set(&table(&inner, "lake/a/b"), "inner").await.expect("the commit succeeds");
    let objects: Vec<_> = inner.store.list(None).try_collect().await.expect("the listing succeeds");
    for object in objects {
        let bytes = inner.store.get_opts(&object.location, Default::default()).await.expect("the object exists");
        let text =
            String::from_utf8(bytes.bytes().await.expect("the bytes are read").to_vec()).expect("the text is UTF-8");
        put(&storage, object.location.as_ref(), &text).await;
    }
    let outer = table(&storage, "lake/a");
    let viewed = outer.view().await.expect("the table can be read");
    assert_eq!((viewed.files.len(), viewed.external.len(), viewed.orphan_files.len()), (1, 0, 0));
    assert!(outer.orphaned_objects().await.expect("the listing succeeds").orphan_files.is_empty());
    assert_eq!(code(outer.observe().await), "OverlapsTable");
}

#[tokio::test]
async fn folders_of_other_formats_are_refused_unless_they_are_allowed() {
    for log in ["_delta_log/0.json", "metadata/v1.metadata.json", ".hoodie/x", "schema/schema-0"] {
        let storage = memory();
        put(&storage, &format!("lake/t/{log}"), "{}").await;
        put(&storage, "lake/t/part-0", "row").await;
        assert_eq!(code(journal(&storage).view().await), "OtherTableFormat", "{log}");
        assert_eq!(code(set(&table(&storage, "lake/t/x/y"), "y").await), "OtherTableFormat", "{log}");
        let options = JournalOptions::default().with_other_formats(OtherTableFormats::Allow);
        let allowed = Journal::new(storage.clone(), Path::from("lake/t"), options);
        assert!(!allowed.view().await.expect("the table can be read").files.is_empty(), "{log}");
    }
}

#[tokio::test]
async fn names_that_differ_only_by_case_or_unicode_form_are_refused() {
    let storage = memory();
    set(&table(&storage, "lake/\u{c4}pfel"), "x").await.expect("the commit succeeds");
    for other in ["lake/\u{e4}pfel", "lake/A\u{308}pfel"] {
        assert_eq!(code(set(&table(&storage, other), "y").await), "LooksAlike", "{other}");
    }
    set(&table(&storage, "other/\u{e4}pfel"), "y").await.expect("the other folder is set");
}
