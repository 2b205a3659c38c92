//! A table with every kind of file, a change of it, and the files that may exist after that.

use std::sync::{Arc, Mutex};

use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_journal::TableStorage;
use biscuit_testkit::{FaultStore, InjectedFault, RecordingStore, assert_rows_eq, table};
use object_store::local::LocalFileSystem;

use crate::lake;

pub(crate) fn spec() -> MergeSpec {
    MergeSpec::new(["id"], ["seq"]).expect("the specification is valid")
}

pub(crate) const FIRST: &str = r#"
{"id":1,"seq":1,"day":"a","v":"x","op":"c"}
{"id":2,"seq":1,"day":"b","v":"y","op":"c"}
{"id":3,"seq":1,"day":"b","v":"z","op":"c"}
"#;
pub(crate) const SECOND: &str = r#"
{"id":1,"seq":2,"day":"b","v":"moved","op":"u"}
{"id":2,"seq":2,"day":"b","v":null,"op":"d"}
{"id":4,"seq":2,"day":"c","v":"new","op":"c"}
{"id":9,"seq":2,"day":"f","v":"changed","op":"u"}
"#;

/// A table with two partitions of Biscuit, an external file of which one row changes, and an external file that does
/// not change.
pub(crate) async fn populated(storage: TableStorage) -> TableStorage {
    let dataset = lake::dataset(storage.clone());
    let options = MergeOptions::default().with_partition_by(["day"]).with_parallelism(1);
    lake::merge_with(&dataset, &spec(), &options, FIRST).await.expect("the first merge succeeds");
    let external = table("id:bigint | seq:bigint | v:string\n 9 | 1 | theirs\n 8 | 1 | kept");
    lake::put_external(&storage, "lake/t/day=f/part-0.parquet", &external).await;
    let other = table("id:bigint | seq:bigint | v:string\n 7 | 1 | untouched");
    lake::put_external(&storage, "lake/t/day=g/part-0.parquet", &other).await;
    storage
}

pub(crate) async fn merge_second(storage: TableStorage) -> biscuit_core::Result<()> {
    let dataset = lake::dataset(storage);
    let records = lake::changes(&dataset, SECOND).await?;
    let options = MergeOptions::default().with_parallelism(1);
    Merge::new(dataset, spec(), options)?.run(records, RunMode::Commit).await.map(drop)
}

/// A local disk that exists as long as `folders`.
pub(crate) fn disk(folders: &Mutex<Vec<tempfile::TempDir>>) -> TableStorage {
    let folder = tempfile::tempdir().expect("the folder is created");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("the folder of the store exists");
    folders.lock().expect("no thread panicked while it had the lock").push(folder);
    TableStorage::local(Arc::new(store))
}

/// A storage after a merge of [`SECOND`] that died after its commit record was written.
pub(crate) async fn died_after_its_record(fresh: impl Fn() -> TableStorage) -> TableStorage {
    let rehearsal = populated(fresh()).await;
    let recording = Arc::new(RecordingStore::new(rehearsal.store.clone()));
    merge_second(rehearsal.with_store(recording.clone())).await.expect("the merge succeeds");
    let calls = recording.calls();
    // In memory, the record is created; on a disk, it is linked to its name.
    let names_it = |c: &String| (c.starts_with("create") || c.starts_with("copy")) && c.ends_with("0002.json");
    let record = calls.all().iter().position(names_it).expect("the record is found");
    let storage = populated(fresh()).await;
    let dying = FaultStore::new(storage.store.clone(), InjectedFault::CrashAfter, record as u64 + 1);
    merge_second(storage.with_store(Arc::new(dying))).await.expect_err("the merge fails");
    storage
}

/// Checks that there are no orphan files, staged files or unadopted external files, and that the unchanged external
/// file is at its place.
pub(crate) async fn nothing_is_left_over(storage: &TableStorage, at: u64) {
    let snapshot = lake::dataset(storage.clone()).observe().await.expect("the table is observed");
    assert!(snapshot.observed.orphan_files.is_empty(), "orphan files after call {at}");
    assert!(snapshot.observed.external.is_empty(), "the external file is adopted");
    let objects = lake::objects(&storage.store).await;
    let names: Vec<&String> = objects.iter().map(|(n, _)| n).collect();
    assert!(
        names.iter().any(|n| n.as_str() == "lake/t/day=g/part-0.parquet"),
        "the unchanged external file is missing"
    );
    let staged: Vec<_> = names.iter().filter(|n| n.contains("/staging/")).collect();
    assert!(staged.is_empty(), "call {at}: {staged:?}");
    let live = names.iter().filter(|n| n.starts_with("lake/t/")).count();
    assert_eq!(live, snapshot.files().len());
}

/// Checks the rows of the table after the merge of [`SECOND`].
pub(crate) async fn has_the_rows_of_the_second(storage: &TableStorage) {
    let want = table(
        "id:bigint | seq:bigint | day:string | v:string
         1 | 2 | b | moved
         3 | 1 | b | z
         4 | 2 | c | new
         9 | 2 | f | changed
         8 | 1 | f | kept
         7 | 1 | g | untouched",
    );
    assert_rows_eq!(lake::rows(&lake::dataset(storage.clone())).await, want);
}
