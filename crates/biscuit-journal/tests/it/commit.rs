//! Commits: one winner, whatever the store answers.

use std::sync::Arc;

use biscuit_core::CommitId;
use biscuit_journal::{CommitOutcome, JournalOptions, WriterPolicy};
use biscuit_testkit::{FaultStore, InjectedFault, RecordingStore};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use serde_json::json;

use crate::table::{journal, journal_with, memory, names, put, read, set, set_on, texts};

#[tokio::test]
async fn of_two_runs_on_one_base_the_second_conflicts_and_leaves_nothing() {
    let storage = memory();
    let j = journal(&storage);
    set(&j, "one").await.expect("a commit");
    let base = j.observe().await.expect("a base");
    set_on(&j, &base, "two").await.expect("a commit");
    let e = set_on(&j, &base, "three").await.unwrap_err();
    assert_eq!(e.code(), "Conflict");
    assert_eq!(texts(&j).await, ["two"]);
    assert!(names(&storage, "/staging/").await.is_empty());
}

#[tokio::test]
async fn an_answer_lost_after_the_record_was_put_is_a_win() {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("a commit");
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    set(&journal(&storage.with_store(recording.clone())), "two").await.expect("a commit");
    let calls = recording.calls();
    let record = calls.all().iter().position(|c| c.starts_with("create") && c.ends_with("2.json")).expect("a record");
    let fresh = memory();
    set(&journal(&fresh), "one").await.expect("a commit");
    let lossy = FaultStore::new(fresh.store.clone(), InjectedFault::LoseAnswer, record as u64 + 1);
    let done = set(&journal(&fresh.with_store(Arc::new(lossy))), "two").await.expect("it is a win");
    assert_eq!((done.version, done.outcome), (2, CommitOutcome::Committed));
    assert_eq!(texts(&journal(&fresh)).await, ["two"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_unavailable_and_nothing_is_deleted() {
    let storage = memory();
    let j = journal(&storage);
    set(&j, "one").await.expect("a commit");
    let base = j.observe().await.expect("a base");
    put(&storage, "lake/.biscuit/t/journal/00000000000000000002.json", "{\"format\":1, torn").await;
    let e = set_on(&j, &base, "two").await.unwrap_err();
    assert_eq!(e.code(), "StoreUnavailable", "{e}");
    assert_eq!(names(&storage, "/staging/").await.len(), 1, "what was staged may be needed");
    assert_eq!(read(&storage.store, &format!("lake/t/{}", base.files[0].path)).await, "one");
}

#[tokio::test]
async fn a_change_of_nothing_writes_no_version() {
    let storage = memory();
    let j = journal(&storage);
    set(&j, "one").await.expect("a commit");
    let observed = j.observe().await.expect("a base");
    let mut replace = j.replace(&observed);
    replace.with_properties("absent", serde_json::Value::Null);
    replace.without_state("absent");
    let done = replace.commit().await.expect("nothing");
    assert_eq!((done.version, done.outcome), (1, CommitOutcome::Unchanged));
    assert!(names(&storage, "0002.").await.is_empty());
}

#[tokio::test]
async fn state_files_and_facts_are_carried_until_they_are_dropped() {
    let storage = memory();
    let j = journal(&storage);
    let observed = j.observe().await.expect("a base");
    let mut replace = j.replace(&observed);
    replace.with_state("bookmark", "seven".into()).await.expect("staged");
    replace.with_properties("key", json!(["id"]));
    replace.with_commit_id(&CommitId::new("job/run/x"));
    replace.commit().await.expect("a commit");
    set(&j, "one").await.expect("a commit");
    let head = j.head().await.expect("a head");
    assert_eq!(j.read_state(&head, &head.state["bookmark"]).await.expect("a state file"), "seven");
    assert_eq!((head.properties["key"].clone(), head.committed(&CommitId::new("job/run/x"))), (json!(["id"]), Some(1)));
    let observed = j.observe().await.expect("a base");
    let mut replace = j.replace(&observed);
    replace.without_state("bookmark");
    replace.with_properties("key", serde_json::Value::Null);
    replace.commit().await.expect("a commit");
    let head = j.head().await.expect("a head");
    assert!(head.state.is_empty() && head.properties.is_empty());
    assert!(names(&storage, "bookmark").await.is_empty(), "the dropped file is cleaned");
}

#[tokio::test]
async fn a_damaged_state_file_is_diverged() {
    let storage = memory();
    let j = journal(&storage);
    let observed = j.observe().await.expect("a base");
    let mut replace = j.replace(&observed);
    replace.with_state("bookmark", "seven".into()).await.expect("staged");
    replace.commit().await.expect("a commit");
    let head = j.head().await.expect("a head");
    put(&storage, &names(&storage, "bookmark").await[0], "eight").await;
    assert_eq!(j.read_state(&head, &head.state["bookmark"]).await.unwrap_err().code(), "Diverged");
}

#[tokio::test]
async fn a_put_below_the_newest_checkpoint_is_void() {
    let storage = memory();
    let mut options = JournalOptions::default().with_checkpoint_every(2);
    options.keep_history = 0;
    let j = journal_with(&storage, options);
    set(&j, "1").await.expect("a commit");
    let sleeping = j.observe().await.expect("a base");
    for text in ["2", "3", "4", "5", "6"] {
        set(&j, text).await.expect("a commit");
    }
    assert!(names(&storage, "0002.json").await.is_empty(), "old records were dropped");
    assert_eq!(set_on(&j, &sleeping, "zombie").await.unwrap_err().code(), "Conflict");
    assert_eq!(texts(&j).await, ["6"]);
    assert_eq!(set(&j, "7").await.expect("a commit").version, 7);
}

#[tokio::test]
async fn checkpoints_say_the_same_as_all_records() {
    let (often, never) = (memory(), memory());
    let a = journal_with(&often, JournalOptions::default().with_checkpoint_every(3));
    let b = journal_with(&never, JournalOptions::default().with_checkpoint_every(1000));
    for i in 0..10 {
        set(&a, &i.to_string()).await.expect("a commit");
        set(&b, &i.to_string()).await.expect("a commit");
    }
    assert_eq!(names(&often, ".checkpoint").await.len(), 3);
    assert!(names(&never, ".checkpoint").await.is_empty());
    assert_eq!(texts(&a).await, texts(&b).await);
    assert_eq!(a.head().await.expect("a head").version, b.head().await.expect("a head").version);
    assert_eq!(a.history().await.expect("a history").len(), 10);
}

/// An object of the journal with its checksum.
fn sealed(object: &serde_json::Value) -> String {
    let text = object.to_string();
    let open = text.strip_suffix('}').expect("an object");
    format!("{open},\"checksum\":\"crc32:{:08x}\"}}", crc32fast::hash(open.as_bytes()))
}

/// Prints how long a table of 5,000 versions takes to open on a local disk; what is asserted is what that depends on.
#[tokio::test]
async fn a_table_of_5000_versions_is_opened_by_a_few_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("a store");
    let storage = biscuit_journal::TableStorage::local(Arc::new(store));
    set(&journal(&storage), "one").await.expect("a commit");
    // Versions that change a fact: their records and marks are those of the first, with other numbers.
    let journals = folder.path().join("lake/.biscuit/t/journal");
    let read = |name: &str| std::fs::read_to_string(journals.join(name)).expect("it is there");
    let mut record: serde_json::Value = serde_json::from_str(&read("00000000000000000001.json")).expect("JSON");
    let done = sealed(&json!({"format": 3, "writer_id": record["writer_id"], "etags": {}}));
    for name in ["publish", "checksum"] {
        record.as_object_mut().expect("an object").remove(name);
    }
    for version in 2..=4990_u64 {
        record["version"] = json!(version);
        record["properties"] = json!({"fact": version});
        std::fs::write(journals.join(format!("{version:020}.json")), sealed(&record)).expect("a file");
        std::fs::write(journals.join(format!("{version:020}.done")), &done).expect("a file");
    }
    for _ in 4990..5000 {
        set(&journal(&storage), "more").await.expect("a commit");
    }
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    let began = std::time::Instant::now();
    let head = journal(&storage.with_store(recording.clone())).head().await.expect("a head");
    println!("5,000 versions were opened in {:?}", began.elapsed());
    assert_eq!((head.version, head.properties["fact"].clone()), (5000, json!(4990)));
    // One listing, the checkpoint of version 4992, and eight records with their marks.
    assert_eq!(recording.calls().all().len(), 1 + 1 + 8 * 2);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let storage = memory();
    put(&storage, "lake/.biscuit/t/journal/00000000000000000001.json", "{\"format\": 99}").await;
    assert_eq!(journal(&storage).observe().await.unwrap_err().code(), "NewerFormat");
}

/// A store that accepts put-if-absent and ignores it, as some do.
#[derive(Debug)]
pub(crate) struct Ignoring(pub(crate) Arc<dyn object_store::ObjectStore>);

impl std::fmt::Display for Ignoring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ignoring conditions")
    }
}

#[async_trait::async_trait]
impl object_store::ObjectStore for Ignoring {
    async fn put_opts(
        &self,
        location: &Path,
        payload: object_store::PutPayload,
        mut opts: object_store::PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        opts.mode = PutMode::Overwrite;
        self.0.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }
    async fn get_opts(
        &self,
        location: &Path,
        options: object_store::GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.0.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }
    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<object_store::ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: object_store::CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_that_ignores_put_if_absent_is_refused_unless_there_is_one_writer() {
    let storage = memory();
    let storage = storage.with_store(Arc::new(Ignoring(storage.store.clone())));
    let e = set(&journal(&storage), "one").await.unwrap_err();
    assert_eq!(e.code(), "NoPutIfAbsent", "{e}");
    assert!(storage.store.head(&Path::from("lake/.biscuit/t/root.json")).await.is_err());
    let alone = journal_with(&storage, JournalOptions::default().with_writers(WriterPolicy::One));
    set(&alone, "one").await.expect("one writer may");
}
