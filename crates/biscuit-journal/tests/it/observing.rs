//! Observing a table: which files are part of it.

use biscuit_journal::{ExternalFiles, JournalOptions};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::table::{journal, journal_with, memory, names, put, read, set, set_on, texts};

#[tokio::test]
async fn hidden_empty_and_marker_files_are_not_data() {
    let storage = memory();
    for name in ["_SUCCESS", ".part.crc", "_temporary/0/x", "a=1/.x", "x.crc", "f_$folder$"] {
        put(&storage, &format!("lake/t/{name}"), "text").await;
    }
    put(&storage, "lake/t/empty", "").await;
    put(&storage, "lake/t/a=1/data", "text").await;
    put(&storage, "lake/t_backup/data", "text").await;
    let observed = journal(&storage).observe().await.expect("the table can be observed");
    assert_eq!(observed.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["a=1/data"]);
}

#[tokio::test]
async fn external_files_are_adopted_by_the_first_commit_and_then_checked() {
    let storage = memory();
    put(&storage, "lake/t/theirs", "x").await;
    let j = journal(&storage);
    let observed = j.observe().await.expect("the table can be observed");
    assert_eq!(observed.external.len(), 1);
    let mut table_commit = j.begin_commit(&observed);
    table_commit.stage("", "txt", "ours".into()).await.expect("the file is staged");
    assert_eq!(table_commit.commit().await.expect("the commit succeeds").adopted, 1);
    assert!(j.observe().await.expect("the table can be observed").external.is_empty());
    put(&storage, "lake/t/theirs", "changed").await;
    assert_eq!(j.observe().await.unwrap_err().code(), "Diverged");
}

#[tokio::test]
async fn external_files_are_refused_or_ignored_by_option() {
    let storage = memory();
    put(&storage, "lake/t/theirs", "x").await;
    let refuse = journal_with(&storage, JournalOptions::default().with_external_files(ExternalFiles::Fail));
    assert_eq!(refuse.observe().await.unwrap_err().code(), "ExternalFiles");
    let ignore = journal_with(&storage, JournalOptions::default().with_external_files(ExternalFiles::Ignore));
    assert_eq!(set(&ignore, "ours").await.expect("the commit succeeds").adopted, 0);
    assert_eq!(texts(&ignore).await, ["ours"]);
    assert_eq!(read(&storage.store, "lake/t/theirs").await, "x");
}

#[tokio::test]
async fn biscuit_files_without_a_journal_are_diverged() {
    let storage = memory();
    put(&storage, "lake/t/biscuit-00000000000000ff-00000.txt", "x").await;
    assert_eq!(journal(&storage).observe().await.unwrap_err().code(), "Diverged");
}

#[tokio::test]
async fn a_missing_live_file_is_diverged() {
    let storage = memory();
    let j = journal(&storage);
    set(&j, "one").await.expect("the commit succeeds");
    storage.store.delete(&Path::from(names(&storage, "lake/t/").await[0].as_str())).await.expect("the delete succeeds");
    let e = j.observe().await.unwrap_err();
    assert!(e.code() == "Diverged" && e.message().contains("is missing"), "{e}");
}

#[tokio::test]
async fn orphan_files_are_not_read_and_the_next_commit_deletes_them() {
    let storage = memory();
    let j = journal(&storage);
    set(&j, "one").await.expect("the commit succeeds");
    put(&storage, "lake/t/biscuit-00000000000000ff-00000.txt", "orphan file").await;
    assert_eq!(j.observe().await.expect("the table can be observed").orphan_files.len(), 1);
    assert_eq!(texts(&j).await, ["one"]);
    assert_eq!(set(&j, "two").await.expect("the commit succeeds").orphan_files, 1);
    assert!(names(&storage, "00000000000000ff").await.is_empty());
}

#[tokio::test]
async fn changed_file_is_kept_and_reported_as_an_exception() {
    let storage = memory();
    put(&storage, "lake/t/theirs", "x").await;
    let j = journal(&storage);
    let observed = j.observe().await.expect("the table can be observed");
    put(&storage, "lake/t/theirs", "written meanwhile").await;
    let done = set_on(&j, &observed, "ours").await.expect("the commit succeeds");
    assert_eq!((done.exceptions[0].path.as_str(), done.exceptions[0].code.as_str()), ("theirs", "Changed"));
    assert_eq!(read(&storage.store, "lake/t/theirs").await, "written meanwhile");
}

#[tokio::test]
async fn another_state_root_is_refused_and_the_pointer_leads_to_the_right_one() {
    let storage = memory();
    let moved = journal(&storage).with_state_root(Path::from("elsewhere/t"));
    set(&moved, "one").await.expect("the commit succeeds");
    assert_eq!(set(&journal(&storage), "two").await.unwrap_err().code(), "StateRootMismatch");
    let found = journal(&storage).follow_pointer().await.expect("the pointer is readable");
    assert_eq!(found.state_root(), moved.state_root());
    set(&found, "two").await.expect("the commit succeeds");
    assert_eq!(texts(&found).await, ["two"]);
}

#[tokio::test]
async fn a_copy_of_a_table_does_not_write_to_the_state_of_the_original() {
    use futures::TryStreamExt;
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let all: Vec<object_store::ObjectMeta> =
        storage.store.list(None).try_collect().await.expect("the listing succeeds");
    for object in all {
        let copy = Path::from(format!("copy/{}", object.location));
        storage.store.copy(&object.location, &copy).await.expect("the copy succeeds");
    }
    let copy = biscuit_journal::Journal::new(storage.clone(), Path::from("copy/lake/t"), JournalOptions::default());
    assert_eq!(copy.clone().follow_pointer().await.unwrap_err().code(), "StateRootMismatch");
    assert_eq!(copy.observe().await.unwrap_err().code(), "StateRootMismatch");
    assert_eq!(texts(&journal(&storage)).await, ["one"]);
}
