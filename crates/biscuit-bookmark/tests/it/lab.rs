//! A test bench: an output, and a source with a listing that the test defines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use biscuit_bookmark::{
    Bookmark, BookmarkOptions, BookmarkState, InputSelection, ListedInput, ObjectExplanation, ReadMode, RunOutput,
    SourcePlace, list,
};
use biscuit_core::{Instant, Result, Run, RunId};
use biscuit_journal::{Journal, JournalOptions, ObservedTable, TableStorage};
use biscuit_purge::{
    DeleteOutcome, ListedObject, ListedVersions, MultipartUpload, ObjectListing, PurgeStore, StoreProbe,
};
use object_store::memory::InMemory;
use object_store::path::Path;

/// A store with a listing that the test defines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<BTreeMap<String, ListedObject>>>);

#[async_trait]
impl PurgeStore for Shelf {
    async fn list(&self, prefix: &str, _: ListedVersions) -> Result<ObjectListing> {
        let shelf = self.0.lock().expect("the test bench works");
        let folder = format!("{prefix}/");
        Ok(shelf.values().filter(|l| l.key().starts_with(&folder)).cloned().collect())
    }

    async fn probe(&self, _: &str) -> Result<StoreProbe> {
        unreachable!("bookmarks do not probe stores")
    }

    async fn list_uploads(&self, _: &str) -> Result<Option<Vec<MultipartUpload>>> {
        Ok(None)
    }

    async fn delete(&self, _: &[ListedObject]) -> Vec<DeleteOutcome> {
        unreachable!("bookmarks delete nothing")
    }

    async fn abort_upload(&self, _: &MultipartUpload) -> DeleteOutcome {
        unreachable!("bookmarks abort nothing")
    }

    fn batch_size(&self) -> usize {
        1
    }
}

/// Returns a time on the day of the cases.
pub(crate) fn at(time: &str) -> Instant {
    let full = if time.contains('T') { format!("{time}:00Z") } else { format!("2024-02-29T{time}:00Z") };
    full.parse().expect("the test bench works")
}

/// An output, and a source whose objects have times that the test defines.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    pub(crate) journal: Journal,
    pub(crate) shelf: Shelf,
    pub(crate) storage: TableStorage,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let storage = TableStorage::durable(Arc::new(InMemory::new()));
        let journal = Journal::new(storage.clone(), Path::from("lake/t"), JournalOptions::default());
        Self { journal, shelf: Shelf::default(), storage }
    }

    pub(crate) fn put(&self, name: &str, time: &str, etag: &str) {
        self.put_sized(name, time, etag, 10);
    }

    pub(crate) fn put_sized(&self, name: &str, time: &str, etag: &str, size: u64) {
        let key = format!("raw/{name}");
        let mut listed = ListedObject::new(&key, size, Some(format!("\"{etag}\"")));
        listed.modified = Some(at(time));
        self.shelf.0.lock().expect("the test bench works").insert(key, listed);
    }

    pub(crate) fn archive(&self, name: &str, class: &str) {
        let mut shelf = self.shelf.0.lock().expect("the test bench works");
        shelf.get_mut(&format!("raw/{name}")).expect("the test bench works").storage_class = Some(class.to_owned());
    }

    pub(crate) fn remove(&self, name: &str) {
        self.shelf
            .0
            .lock()
            .expect("the test bench works")
            .remove(&format!("raw/{name}"))
            .expect("the test bench works");
    }

    pub(crate) fn place_of(&self, folder: &str) -> SourcePlace {
        let place = SourcePlace::new(&self.storage, "mem://", folder).expect("the test bench works");
        place.with_lister(Arc::new(self.shelf.clone()))
    }

    pub(crate) async fn input_of(&self, folder: &str) -> ListedInput {
        list(&[self.place_of(folder)]).await.expect("the test bench works")
    }

    pub(crate) async fn input(&self) -> ListedInput {
        self.input_of("raw").await
    }

    pub(crate) async fn observe(&self) -> ObservedTable {
        self.journal.observe().await.expect("the test bench works")
    }

    pub(crate) async fn state(&self, options: &BookmarkOptions) -> BookmarkState {
        self.state_of("b", options).await
    }

    pub(crate) async fn state_of(&self, name: &str, options: &BookmarkOptions) -> BookmarkState {
        let bookmark = Bookmark::new(name).expect("the test bench works").with_options(options.clone());
        bookmark.load(&self.journal, &self.observe().await.head).await.expect("the test bench works")
    }

    pub(crate) async fn select_with(&self, options: &BookmarkOptions, mode: &ReadMode) -> Result<InputSelection> {
        self.state(options).await.select(&self.input().await, mode)
    }

    pub(crate) async fn select(&self, mode: &ReadMode) -> InputSelection {
        self.select_with(&BookmarkOptions::default(), mode).await.expect("the test bench works")
    }

    /// Runs a job that reads new objects and writes a file. Returns the names of the objects.
    pub(crate) async fn run(&self, id: &str) -> Vec<String> {
        self.run_with(id, &BookmarkOptions::default()).await
    }

    pub(crate) async fn run_with(&self, id: &str, options: &BookmarkOptions) -> Vec<String> {
        let observed = self.observe().await;
        let state = self.state(options).await;
        let selection = state.select(&self.input().await, &ReadMode::Advance).expect("the test bench works");
        let mut table_commit = self.journal.begin_commit(&observed);
        if let Some(change) = state.advance(&selection, &run(id), RunOutput::default()).expect("the test bench works") {
            table_commit.stage("", "csv", id.to_owned().into()).await.expect("the test bench works");
            table_commit.with_extras(change).await.expect("the test bench works");
        }
        table_commit.commit().await.expect("the test bench works");
        names(&selection)
    }

    pub(crate) async fn explain(&self, name: &str) -> ObjectExplanation {
        let state = self.state(&BookmarkOptions::default()).await;
        state.explain(&self.input().await, &format!("mem://raw/{name}")).expect("the test bench works")
    }

    /// Returns names and checksums of all state files, and all properties.
    pub(crate) async fn remembered(&self) -> String {
        let head = self.observe().await.head;
        let files: Vec<_> = head.state.iter().map(|(name, f)| format!("{name} {}", f.checksum)).collect();
        format!("{files:?} {:?}", head.properties)
    }
}

pub(crate) fn run(id: &str) -> Run {
    Run::new("job", RunId::new(id), Instant::from_micros(0))
}

pub(crate) fn names(selection: &InputSelection) -> Vec<String> {
    selection.objects.iter().map(|o| o.url().trim_start_matches("mem://raw/").to_owned()).collect()
}
