//! Copies of live files and of staged files: their form on a disk, and the content names in the journal.

use std::sync::Arc;

use biscuit_core::ObjectRef;
use biscuit_journal::{Journal, JournalOptions, TableStorage};
use biscuit_testkit::{FaultStore, InjectedFault, RecordingStore, crash_at_every_call};
use object_store::local::LocalFileSystem;

use crate::table::{journal, journal_with, memory, names, put, read, set, texts};

fn disk(folder: &tempfile::TempDir) -> TableStorage {
    TableStorage::local(Arc::new(
        LocalFileSystem::new_with_prefix(folder.path()).expect("the folder of the store exists"),
    ))
}

/// Adds a copy of the first file of the table in the folder `b`, and a new file in `c` with a copy of it in `d`.
async fn copy(journal: &Journal) -> biscuit_core::Result<()> {
    let observed = journal.observe().await?;
    let mut table_commit = journal.begin_commit(&observed);
    let stager = table_commit.stager();
    let source = &observed.files[0];
    let rows = observed.head.live[&source.path].rows;
    let copied = stager.copy_file(source, "b", rows, &observed.head.content_name(source)).await?;
    let mut writer = stager.writer("c", "txt");
    writer.write("new".into()).await?;
    let new = writer.finish().await?;
    let again = stager.copy_staged(new.entry(), "d").await?;
    for file in [copied, new, again] {
        table_commit.publish(file);
    }
    table_commit.commit().await.map(drop)
}

fn contents(files: &[ObjectRef], head: &biscuit_journal::TableHead) -> Vec<String> {
    files.iter().map(|f| head.content_name(f)).collect()
}

async fn check(storage: TableStorage, _: u64) {
    let j = journal(&storage);
    assert_eq!(texts(&j).await, ["old", "old", "new", "new"]);
    let observed = j.observe().await.expect("the table can be observed");
    let contents = contents(&observed.files, &observed.head);
    assert_eq!(
        (contents[0] == contents[1], contents[2] == contents[3], contents[1] == contents[2]),
        (true, true, false)
    );
    assert!(observed.orphan_files.is_empty());
    assert!(names(&storage, "/staging/").await.is_empty());
}

#[tokio::test]
async fn copies_survive_a_crash_at_every_call() {
    let setup = || async {
        let storage = memory();
        set(&journal(&storage), "old").await.expect("the commit succeeds");
        storage
    };
    let job = |storage: TableStorage| async move {
        let j = journal(&storage);
        // If the version was committed before the crash, a recovery is enough.
        if j.view().await?.files.len() == 1 { copy(&j).await } else { j.recover().await.map(drop) }
    };
    let check = |storage: TableStorage, at| async move {
        let j = journal(&storage);
        let observed = j.observe().await.expect("the table can be observed");
        assert_eq!(observed.files.len(), 4, "call {at}");
        let mut texts = texts(&j).await;
        texts.sort();
        assert_eq!(texts, ["new", "new", "old", "old"], "call {at}");
    };
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter, InjectedFault::LoseAnswer] {
        let done = crash_at_every_call(fault, setup, job, check).await;
        assert!(done.crashed > 0, "{done:?}");
    }
}

#[tokio::test]
async fn identical_files_are_known_after_a_checkpoint() {
    let storage = memory();
    let j = journal_with(&storage, JournalOptions::default().with_checkpoint_every(2));
    let observed = j.observe().await.expect("the table can be observed");
    let mut table_commit = j.begin_commit(&observed);
    table_commit.stage("z", "txt", "old".into()).await.expect("the file is staged");
    table_commit.commit().await.expect("the commit succeeds");
    copy(&j).await.expect("the commit succeeds");
    let mut sorted = texts(&j).await;
    sorted.sort();
    assert_eq!(sorted, ["new", "new", "old", "old"]);
    let observed = j.observe().await.expect("the table can be observed");
    let by_path = |start: &str| {
        let file = observed.files.iter().find(|f| f.path.starts_with(start)).expect("the file is found");
        observed.head.content_name(file)
    };
    assert_eq!(by_path("b/"), by_path("z/"));
    assert_eq!(by_path("c/"), by_path("d/"));
    assert_ne!(by_path("b/"), by_path("c/"));
}

#[cfg(unix)]
#[tokio::test]
async fn copies_on_a_disk_are_separate_files_unless_hard_links_are_allowed() {
    use std::os::unix::fs::MetadataExt;
    for hard_links in [false, true] {
        let folder = tempfile::tempdir().expect("the folder is created");
        let (recorder, storage) = RecordingStore::storage(&disk(&folder));
        let options = JournalOptions::default();
        let options = if hard_links { options.with_hard_links() } else { options };
        let j = journal_with(&storage, options);
        set(&j, "old").await.expect("the commit succeeds");
        copy(&j).await.expect("the commit succeeds");
        check(storage.clone(), 0).await;
        let links: Vec<u64> = names(&storage, "lake/t/")
            .await
            .iter()
            .map(|name| std::fs::metadata(folder.path().join(name)).expect("the file exists").nlink())
            .collect();
        assert_eq!(links, if hard_links { [2; 4] } else { [1; 4] }, "links of each file");
        let calls = recorder.calls();
        let record = calls.all().iter().position(|c| c.ends_with("0002.json")).expect("the record is found");
        let before = calls.all()[..record].iter().filter(|c| c.starts_with("sync ") && c.contains("/staging/1-"));
        let synced: std::collections::BTreeSet<_> = before.filter(|c| c.ends_with(".txt.staged")).collect();
        assert_eq!(synced.len(), 3, "all staged files are durable before the commit: {:#?}", calls.all());
    }
}

#[tokio::test]
async fn changed_source_is_not_copied() {
    let storage = memory();
    let j = journal(&storage);
    put(&storage, "lake/t/part-0.txt", "theirs").await;
    let observed = j.observe().await.expect("the table can be observed");
    let source = observed.files[0].clone();
    assert!(
        observed.head.content_name(&source).starts_with("part-0.txt "),
        "the name of the content contains the ETag"
    );
    put(&storage, "lake/t/part-0.txt", "other!").await;
    let table_commit = j.begin_commit(&observed);
    let stager = table_commit.stager();
    let e = stager.copy_file(&source, "b", None, "x").await.expect_err("the source is another file");
    assert_eq!(e.code(), "Conflict", "{e}");
    let mut large = source.clone();
    large.size = 5 << 30;
    assert_eq!(
        stager.copy_file(&large, "b", None, "x").await.expect_err("the file is too large").code(),
        "FileTooLarge"
    );
    table_commit.abandon().await.expect("the staged files are deleted");
    assert_eq!(read(&storage.store, "lake/t/part-0.txt").await, "other!");
    let failing = FaultStore::new(storage.store.clone(), InjectedFault::Fail, 0);
    let j = journal(&storage.with_store(Arc::new(failing)));
    let e = j.begin_commit(&observed).stager().copy_file(&source, "b", None, "x").await.expect_err("the store fails");
    assert_ne!(e.code(), "Internal", "{e}");
}
