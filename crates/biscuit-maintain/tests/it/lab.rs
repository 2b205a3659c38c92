//! A small table of texts in memory, and purges of its folder.

use std::sync::Arc;

use biscuit_journal::{Journal, JournalOptions, TableStorage};
use biscuit_maintain::report::PurgeOutcome;
use biscuit_maintain::{DeletePlace, FolderPurge, PlannedPurge};
use biscuit_purge::{AllowedDeletes, PurgeDecision, PurgePlan, PurgeStore};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

pub(crate) fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

pub(crate) fn journal(storage: &TableStorage, table: &str) -> Journal {
    Journal::new(storage.clone(), Path::from(table), JournalOptions::default())
}

/// Replaces the whole table by one file with this text.
pub(crate) async fn set(journal: &Journal, text: &str) {
    let observed = journal.observe().await.expect("the table can be observed");
    let mut table_commit = journal.begin_commit(&observed);
    table_commit.stage("", "txt", text.to_owned().into()).await.expect("the file is staged");
    observed.files.iter().for_each(|f| table_commit.remove(f));
    table_commit.commit().await.expect("the commit succeeds");
}

/// The texts of the table's files.
pub(crate) async fn texts(journal: &Journal) -> Vec<String> {
    let observed = journal.view().await.expect("the table can be read");
    let mut texts = Vec::new();
    for file in &observed.files {
        let path = Path::from(format!("{}/{}", journal.table(), file.path));
        let content = journal.storage().store.get(&path).await.expect("the file exists");
        let content = content.bytes().await.expect("the bytes are readable");
        texts.push(String::from_utf8(content.to_vec()).expect("the file is text"));
    }
    texts
}

pub(crate) async fn put(storage: &TableStorage, path: &str, text: &str) {
    storage.store.put(&Path::from(path), text.to_owned().into()).await.expect("the put succeeds");
}

/// Paths of all objects below a folder, sorted.
pub(crate) async fn names(storage: &TableStorage, folder: &str) -> Vec<String> {
    let listed = storage.store.list(Some(&Path::from(folder)));
    let mut names: Vec<String> =
        listed.map_ok(|m| m.location.to_string()).try_collect().await.expect("the listing succeeds");
    names.sort();
    names
}

/// A purge of a folder, whose objects are listed and deleted through `store`.
pub(crate) fn purge(storage: &TableStorage, store: Arc<dyn PurgeStore>, folder: &str) -> FolderPurge {
    FolderPurge::new(DeletePlace::new(store, "memory://lab/", folder), storage.clone())
}

/// Allows a purge of a folder around a table.
pub(crate) fn overlap() -> AllowedDeletes {
    let mut allow = AllowedDeletes::default();
    allow.overlap = true;
    allow
}

/// Keys that the plans delete.
pub(crate) fn deletes(planned: &PlannedPurge) -> Vec<String> {
    planned.plans().iter().flat_map(PurgePlan::deletes).map(|object| object.listed.path).collect()
}

/// Decisions about the objects whose keys contain a text.
pub(crate) fn decisions(planned: &PlannedPurge, part: &str) -> Vec<PurgeDecision> {
    let objects = planned.plans().iter().flat_map(PurgePlan::objects);
    objects.filter(|(object, _)| object.key().contains(part)).map(|(_, decision)| decision).collect()
}

pub(crate) async fn carried_out(purge: &FolderPurge, planned: &PlannedPurge) -> PurgeOutcome {
    purge.carry_out(planned, &mut |_| {}).await.expect("the purge succeeds")
}
