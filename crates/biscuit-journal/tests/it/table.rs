//! A small table of texts.

use std::sync::Arc;

use biscuit_core::Result;
use biscuit_journal::{CommitSummary, Journal, JournalOptions, ObservedTable, TableStorage};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

pub(crate) fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

pub(crate) fn journal(storage: &TableStorage) -> Journal {
    journal_with(storage, JournalOptions::default())
}

pub(crate) fn journal_with(storage: &TableStorage, options: JournalOptions) -> Journal {
    Journal::new(storage.clone(), Path::from("lake/t"), options)
}

/// Replaces the whole table by one file with this text.
pub(crate) async fn set(journal: &Journal, text: &str) -> Result<CommitSummary> {
    let observed = journal.observe().await?;
    set_on(journal, &observed, text).await
}

pub(crate) async fn set_on(journal: &Journal, observed: &ObservedTable, text: &str) -> Result<CommitSummary> {
    let mut table_commit = journal.begin_commit(observed);
    table_commit.stage("", "txt", text.to_owned().into()).await?;
    observed.files.iter().for_each(|f| table_commit.remove(f));
    table_commit.commit().await
}

/// The texts of the table's files.
pub(crate) async fn texts(journal: &Journal) -> Vec<String> {
    let observed = journal.view().await.expect("the table can be read");
    let mut texts = Vec::new();
    for f in &observed.files {
        texts.push(read(&journal.storage().store, &format!("lake/t/{}", f.path)).await);
    }
    texts
}

pub(crate) async fn read(store: &dyn ObjectStore, path: &str) -> String {
    let got = store.get(&Path::from(path)).await.expect("the object exists").bytes().await.expect("the bytes are read");
    String::from_utf8(got.to_vec()).expect("the text is UTF-8")
}

pub(crate) async fn put(storage: &TableStorage, path: &str, text: &str) {
    storage.store.put(&Path::from(path), text.to_owned().into()).await.expect("the put succeeds");
}

pub(crate) async fn names(storage: &TableStorage, with: &str) -> Vec<String> {
    let all: Vec<String> =
        storage.store.list(None).map_ok(|m| m.location.to_string()).try_collect().await.expect("the listing succeeds");
    all.into_iter().filter(|n| n.contains(with)).collect()
}
