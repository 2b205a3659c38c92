//! Merges into many small files: they become few large ones, with the right rows.

use std::sync::Arc;

use biscuit_apply::MergeOptions;
use biscuit_apply::report::MergeReport;
use biscuit_journal::TableStorage;
use biscuit_testkit::InjectedFault;
use biscuit_testkit::internal::crash_at_scaled_calls;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::Int64Type;

use crate::lake;

/// Number of rows of a file.
const ROWS: i64 = 5;

/// A table with these many small files. The keys of a file are its number times ten and the next ones; every third file
/// lacks the column `v`.
async fn small_files(files: i64, storage: TableStorage) -> TableStorage {
    for file in 0..files {
        let ids: Vec<i64> = (file * 10..file * 10 + ROWS).collect();
        let texts: ArrayRef = Arc::new(ids.iter().map(|id| Some(format!("old {id}"))).collect::<StringArray>());
        let seqs: ArrayRef = Arc::new(Int64Array::from_value(1, ids.len()));
        let ids: ArrayRef = Arc::new(Int64Array::from(ids));
        let mut columns = vec![("id", ids), ("seq", seqs)];
        if file % 3 != 2 {
            columns.push(("v", texts));
        }
        let rows = RecordBatch::try_from_iter(columns).expect("the columns have equal lengths");
        lake::put_external(&storage, &format!("lake/t/{file:03}.parquet"), &rows).await;
    }
    storage
}

/// Changes of some files: an update of the second row, a delete of the fourth one, and a new row.
fn lines(files: &[i64]) -> String {
    let of = |file: &i64| {
        let first = file * 10;
        format!(
            "{{\"id\":{},\"seq\":2,\"v\":\"new\",\"op\":\"u\"}}\n{{\"id\":{},\"seq\":2,\"op\":\"d\"}}\n{{\"id\":{},\"seq\":2,\"v\":\"more\",\"op\":\"c\"}}\n",
            first + 1,
            first + 3,
            first + 7
        )
    };
    files.iter().map(of).collect()
}

/// The rows of the table after [`lines`].
fn expected(files: i64, changed: &[i64]) -> Vec<(i64, i64, Option<String>)> {
    let mut rows = Vec::new();
    for file in 0..files {
        let is_changed = changed.contains(&file);
        for id in file * 10..file * 10 + ROWS {
            match id - file * 10 {
                1 if is_changed => rows.push((id, 2, Some("new".to_owned()))),
                3 if is_changed => {}
                _ => rows.push((id, 1, (file % 3 != 2).then(|| format!("old {id}")))),
            }
        }
        if is_changed {
            rows.push((file * 10 + 7, 2, Some("more".to_owned())));
        }
    }
    rows
}

async fn rows(storage: &TableStorage) -> Vec<(i64, i64, Option<String>)> {
    let mut all = Vec::new();
    for batch in lake::rows(&lake::dataset(storage.clone())).await {
        let number =
            |name: &str| batch.column_by_name(name).expect("the column exists").as_primitive::<Int64Type>().clone();
        let (ids, seqs) = (number("id"), number("seq"));
        let texts = datafusion::arrow::compute::cast(
            batch.column_by_name("v").expect("the column exists"),
            &datafusion::arrow::datatypes::DataType::Utf8,
        );
        let texts = texts.expect("the column is text").as_string::<i32>().clone();
        let text = |row: usize| texts.is_valid(row).then(|| texts.value(row).to_owned());
        all.extend((0..batch.num_rows()).map(|row| (ids.value(row), seqs.value(row), text(row))));
    }
    all.sort();
    all
}

async fn merge(storage: &TableStorage, changed: &[i64], options: MergeOptions) -> MergeReport {
    let merged = lake::merge_with(&lake::dataset(storage.clone()), &lake::spec(), &options, &lines(changed)).await;
    merged.expect("the merge succeeds")
}

#[tokio::test]
async fn changed_small_files_of_a_folder_become_one() {
    let (files, changed) = (12, [0, 1, 2, 4, 5, 6, 8, 9, 11]);
    let storage = small_files(files, lake::memory()).await;
    let report = merge(&storage, &changed, lake::serial()).await;
    let counts = (report.files.rewritten, report.files.joined, report.files.kept, report.files.removed);
    // The three unchanged files have fewer bytes than the changed ones, and are joined with them.
    assert_eq!(counts, (1, 11, 0, 0), "{:?}", report.files);
    assert_eq!(rows(&storage).await, expected(files, &changed));
    let again = merge(&storage, &changed, lake::serial()).await;
    assert_eq!((again.version, again.files.kept), (1, 1));
}

#[tokio::test]
async fn few_changed_files_are_rewritten_one_by_one() {
    let (files, changed) = (12, [0, 1, 2, 3, 4, 5, 6]);
    let storage = small_files(files, lake::memory()).await;
    let report = merge(&storage, &changed, lake::serial()).await;
    assert_eq!((report.files.rewritten, report.files.joined, report.files.kept), (7, 0, 5), "{:?}", report.files);
    assert_eq!(rows(&storage).await, expected(files, &changed));
}

#[tokio::test]
async fn joined_files_have_up_to_the_target_size_and_unchanged_ones_stay_if_they_are_more() {
    let (files, changed): (i64, Vec<i64>) = (100, (0..40).collect());
    let storage = small_files(files, lake::memory()).await;
    let size = lake::dataset(storage.clone()).view().await.expect("the table is read").files()[0].listed.size;
    let mut options = lake::serial();
    options.target_size = size * 20;
    let report = merge(&storage, &changed, options).await;
    let counts = &report.files;
    assert!(counts.joined >= 70 && counts.kept > 0 && counts.kept < 30, "{counts:?}");
    assert!((4..=6).contains(&counts.rewritten), "{counts:?}");
    assert_eq!(rows(&storage).await, expected(files, &changed));
}

#[tokio::test]
async fn file_without_remaining_rows_is_removed_beside_joined_ones() {
    let storage = small_files(10, lake::memory()).await;
    let gone: String = (0..ROWS).map(|id| format!("{{\"id\":{id},\"seq\":2,\"op\":\"d\"}}\n")).collect();
    let changed: Vec<i64> = (1..10).collect();
    let mut options = lake::serial();
    options.max_deleted = 100.0;
    let lines = format!("{gone}{}", lines(&changed));
    let dataset = lake::dataset(storage.clone());
    let report = lake::merge_with(&dataset, &lake::spec(), &options, &lines).await.expect("the merge succeeds");
    assert_eq!((report.files.rewritten, report.files.joined, report.files.removed), (1, 8, 1), "{:?}", report.files);
    let rest: Vec<_> = expected(10, &changed).into_iter().filter(|(id, ..)| *id >= 10).collect();
    assert_eq!(rows(&storage).await, rest);
}

#[tokio::test]
async fn joining_survives_a_crash_at_every_call() {
    let changed: Vec<i64> = (0..9).collect();
    let join = |storage: TableStorage| async {
        let lines = lines(&(0..9).collect::<Vec<_>>());
        lake::merge_with(&lake::dataset(storage), &lake::spec(), &lake::serial(), &lines).await.map(drop)
    };
    let check = |storage: TableStorage, at: u64| {
        let changed = changed.clone();
        async move {
            assert_eq!(rows(&storage).await, expected(10, &changed), "call {at}");
            let view = lake::dataset(storage).view().await.expect("the table is read");
            assert_eq!(view.files().len(), 1, "call {at}");
        }
    };
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let done = crash_at_scaled_calls(fault, || small_files(10, lake::memory()), join, check).await;
        assert!(done.crashed > 0, "{done:?}");
    }
}
