//! Commits: exactly one run wins, whatever the store answers.

use std::sync::Arc;

use biscuit_core::{CommitId, Outcome};
use biscuit_journal::{JournalOptions, WriterPolicy};
use biscuit_testkit::{FaultStore, InjectedFault, RecordingStore};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use serde_json::json;

use crate::table::{journal, journal_with, memory, names, put, read, set, set_on, texts};

#[tokio::test]
async fn second_of_two_runs_on_one_base_conflicts_and_leaves_no_files() {
    let storage = memory();
    let j = journal(&storage);
    set(&j, "one").await.expect("the commit succeeds");
    let base = j.observe().await.expect("the table can be observed");
    set_on(&j, &base, "two").await.expect("the commit succeeds");
    let e = set_on(&j, &base, "three").await.unwrap_err();
    assert_eq!(e.code(), "Conflict");
    assert_eq!(texts(&j).await, ["two"]);
    assert!(names(&storage, "/staging/").await.is_empty());
}

#[tokio::test]
async fn lost_answer_to_the_put_of_the_record_is_a_success() {
    let storage = memory();
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    set(&journal(&storage.with_store(recording.clone())), "two").await.expect("the commit succeeds");
    let calls = recording.calls();
    let record =
        calls.all().iter().position(|c| c.starts_with("create") && c.ends_with("2.json")).expect("the record is found");
    let fresh = memory();
    set(&journal(&fresh), "one").await.expect("the commit succeeds");
    let lossy = FaultStore::new(fresh.store.clone(), InjectedFault::LoseAnswer, record as u64 + 1);
    let done = set(&journal(&fresh.with_store(Arc::new(lossy))), "two").await.expect("the commit succeeds");
    assert_eq!((done.version, done.outcome), (2, Outcome::Committed));
    assert_eq!(texts(&journal(&fresh)).await, ["two"]);
}

#[tokio::test]
async fn unreadable_record_is_unavailable_and_nothing_is_deleted() {
    let storage = memory();
    let j = journal(&storage);
    set(&j, "one").await.expect("the commit succeeds");
    let base = j.observe().await.expect("the table can be observed");
    put(&storage, "lake/.biscuit/t/journal/00000000000000000002.json", "{\"format\":1, torn").await;
    let e = set_on(&j, &base, "two").await.unwrap_err();
    assert_eq!(e.code(), "StoreUnavailable", "{e}");
    assert_eq!(names(&storage, "/staging/").await.len(), 1, "the staged file may be needed");
    assert_eq!(read(&storage.store, &format!("lake/t/{}", base.files[0].path)).await, "one");
}

#[tokio::test]
async fn empty_change_writes_no_version() {
    let storage = memory();
    let j = journal(&storage);
    set(&j, "one").await.expect("the commit succeeds");
    let observed = j.observe().await.expect("the table can be observed");
    let mut table_commit = j.begin_commit(&observed);
    table_commit.with_property("absent", serde_json::Value::Null);
    table_commit.without_state("absent");
    let done = table_commit.commit().await.expect("an empty commit succeeds");
    assert_eq!((done.version, done.outcome), (1, Outcome::Unchanged));
    assert!(names(&storage, "0002.").await.is_empty());
}

#[tokio::test]
async fn state_files_and_properties_carry_on_until_they_are_removed() {
    let storage = memory();
    let j = journal(&storage);
    let observed = j.observe().await.expect("the table can be observed");
    let mut table_commit = j.begin_commit(&observed);
    table_commit.with_state("bookmark", "seven".into()).await.expect("the file is staged");
    table_commit.with_property("key", json!(["id"]));
    table_commit.with_commit_id(&CommitId::new("job/run/x"));
    table_commit.commit().await.expect("the commit succeeds");
    set(&j, "one").await.expect("the commit succeeds");
    let head = j.head().await.expect("the head can be read");
    assert_eq!(j.read_state(&head, &head.state["bookmark"]).await.expect("the state file is readable"), "seven");
    assert_eq!(
        (head.properties["key"].clone(), head.version_of_commit(&CommitId::new("job/run/x"))),
        (json!(["id"]), Some(1))
    );
    let observed = j.observe().await.expect("the table can be observed");
    let mut table_commit = j.begin_commit(&observed);
    table_commit.without_state("bookmark");
    table_commit.with_property("key", serde_json::Value::Null);
    table_commit.commit().await.expect("the commit succeeds");
    let head = j.head().await.expect("the head can be read");
    assert!(head.state.is_empty() && head.properties.is_empty());
    assert!(names(&storage, "bookmark").await.is_empty(), "the removed state file is deleted");
}

#[tokio::test]
async fn a_damaged_state_file_is_diverged() {
    let storage = memory();
    let j = journal(&storage);
    let observed = j.observe().await.expect("the table can be observed");
    let mut table_commit = j.begin_commit(&observed);
    table_commit.with_state("bookmark", "seven".into()).await.expect("the file is staged");
    table_commit.commit().await.expect("the commit succeeds");
    let head = j.head().await.expect("the head can be read");
    put(&storage, &names(&storage, "bookmark").await[0], "eight").await;
    assert_eq!(j.read_state(&head, &head.state["bookmark"]).await.unwrap_err().code(), "Diverged");
}

#[tokio::test]
async fn record_that_is_put_below_the_newest_checkpoint_is_void() {
    let storage = memory();
    let mut options = JournalOptions::default().with_checkpoint_every(2);
    options.keep_history = 0;
    let j = journal_with(&storage, options);
    set(&j, "1").await.expect("the commit succeeds");
    let sleeping = j.observe().await.expect("the table can be observed");
    for text in ["2", "3", "4", "5", "6"] {
        set(&j, text).await.expect("the commit succeeds");
    }
    assert!(names(&storage, "0002.json").await.is_empty(), "old records were dropped");
    assert_eq!(set_on(&j, &sleeping, "zombie").await.unwrap_err().code(), "Conflict");
    assert_eq!(texts(&j).await, ["6"]);
    assert_eq!(set(&j, "7").await.expect("the commit succeeds").version, 7);
}

#[tokio::test]
async fn checkpoints_contain_the_same_as_all_records() {
    let (often, never) = (memory(), memory());
    let a = journal_with(&often, JournalOptions::default().with_checkpoint_every(3));
    let b = journal_with(&never, JournalOptions::default().with_checkpoint_every(1000));
    for i in 0..10 {
        set(&a, &i.to_string()).await.expect("the commit succeeds");
        set(&b, &i.to_string()).await.expect("the commit succeeds");
    }
    assert_eq!(names(&often, ".checkpoint").await.len(), 3);
    assert!(names(&never, ".checkpoint").await.is_empty());
    assert_eq!(texts(&a).await, texts(&b).await);
    assert_eq!(
        a.head().await.expect("the head can be read").version,
        b.head().await.expect("the head is readable").version
    );
    assert_eq!(a.history().await.expect("the history is readable").len(), 10);
}

/// Serializes an object of the journal with its checksum as the last member.
fn sealed(object: &serde_json::Value) -> String {
    let text = object.to_string();
    let open = text.strip_suffix('}').expect("the value is an object");
    format!("{open},\"checksum\":\"crc32:{:08x}\"}}", crc32fast::hash(open.as_bytes()))
}

/// Prints how long it takes to open a table of 5,000 versions on a local disk. The assertion is on the number of
/// calls, which the time depends on.
#[tokio::test]
async fn table_of_5000_versions_is_opened_with_a_few_reads() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let store =
        object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("the folder of the store exists");
    let storage = biscuit_journal::TableStorage::local(Arc::new(store));
    set(&journal(&storage), "one").await.expect("the commit succeeds");
    // Versions 2 to 4,990 change a property. Their records and marks are made from the first one, with other numbers.
    let journals = folder.path().join("lake/.biscuit/t/journal");
    let read = |name: &str| std::fs::read_to_string(journals.join(name)).expect("the file exists");
    let mut record: serde_json::Value =
        serde_json::from_str(&read("00000000000000000001.json")).expect("the JSON is valid");
    let done = sealed(&json!({"format": 3, "writer_id": record["writer_id"], "etags": {}}));
    for name in ["publish", "checksum"] {
        record.as_object_mut().expect("the value is an object").remove(name);
    }
    for version in 2..=4990_u64 {
        record["version"] = json!(version);
        record["properties"] = json!({"fact": version});
        std::fs::write(journals.join(format!("{version:020}.json")), sealed(&record)).expect("the file is written");
        std::fs::write(journals.join(format!("{version:020}.done")), &done).expect("the file is written");
    }
    for _ in 4990..5000 {
        set(&journal(&storage), "more").await.expect("the commit succeeds");
    }
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    let began = std::time::Instant::now();
    let head = journal(&storage.with_store(recording.clone())).head().await.expect("the head can be read");
    println!("5,000 versions were opened in {:?}", began.elapsed());
    assert_eq!((head.version, head.properties["fact"].clone()), (5000, json!(4990)));
    // One listing, the checkpoint of version 4,992, and eight records with their marks.
    assert_eq!(recording.calls().all().len(), 1 + 1 + 8 * 2);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let storage = memory();
    put(&storage, "lake/.biscuit/t/journal/00000000000000000001.json", "{\"format\": 99}").await;
    assert_eq!(journal(&storage).observe().await.unwrap_err().code(), "NewerFormat");
}

/// A store that accepts put-if-absent and ignores the condition, as some stores do.
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
async fn store_that_ignores_put_if_absent_is_refused_unless_single_writer() {
    let storage = memory();
    let storage = storage.with_store(Arc::new(Ignoring(storage.store.clone())));
    let e = set(&journal(&storage), "one").await.unwrap_err();
    assert_eq!(e.code(), "NoPutIfAbsent", "{e}");
    assert!(storage.store.head(&Path::from("lake/.biscuit/t/root.json")).await.is_err());
    let alone = journal_with(&storage, JournalOptions::default().with_writers(WriterPolicy::One));
    set(&alone, "one").await.expect("a single writer may commit");
}
