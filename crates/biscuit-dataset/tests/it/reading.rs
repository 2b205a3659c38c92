//! Reading of tables, including tables of other writers.

use std::sync::Arc;

use biscuit_dataset::{WriteMode, WriteOptions};
use biscuit_testkit::internal::incompressible_text;
use biscuit_testkit::{FaultStore, InjectedFault, RecordingStore, assert_rows_eq, table};
use datafusion::prelude::{SessionContext, col, lit};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::lake::{dataset, load, memory, paths, rows, write};

#[tokio::test]
async fn filters_on_partitions_choose_the_files_that_are_opened() {
    let storage = memory();
    let options = WriteOptions::default().with_partition_by(["day"]);
    // The files are larger than the end that is read with the footer.
    let text = [1, 2, 3].map(|seed| incompressible_text(200_000, seed));
    let [a, b, c] = &text;
    let all = table(&format!("v:string | day:date\n{a} | 2024-01-01\n{b} | 2024-01-02\n{c} | 2024-01-03"));
    write(&dataset(&storage), &all, WriteMode::Append, &options).await.expect("the write succeeds");
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    let d = dataset(&storage.with_store(recording.clone()));
    let frame = load(&d).await;
    let before = recording.calls().all().len();
    let day = datafusion::common::ScalarValue::Date32(Some(19_724));
    let some = frame
        .filter(col("day").eq(lit(day)))
        .expect("the filter is valid")
        .collect()
        .await
        .expect("the rows are readable");
    assert_rows_eq!(some, table(&format!("v:string | day:date\n{b} | 2024-01-02")));
    let calls = recording.calls();
    let opened: Vec<_> = calls.all()[before..].iter().filter(|c| c.contains("day=")).collect();
    assert!(!opened.is_empty() && opened.iter().all(|c| c.contains("day=2024-01-02")), "{opened:?}");
}

#[tokio::test]
async fn filters_on_rows_give_the_right_rows() {
    let d = dataset(&memory());
    write(&d, &table("v:int | s:string\n1 | a\n2 | b\n3 | c"), WriteMode::Append, &WriteOptions::default())
        .await
        .expect("the write succeeds");
    let some = load(&d).await.filter(col("v").gt(lit(1)).and(col("s").not_eq(lit("c")))).expect("the filter is valid");
    assert_rows_eq!(some.collect().await.expect("the rows are readable"), table("v:int | s:string\n2 | b"));
}

#[tokio::test]
async fn files_with_other_columns_and_narrower_types_are_one_table() {
    let d = dataset(&memory());
    write(&d, &table("v:int | old:string\n1 | x"), WriteMode::Append, &WriteOptions::default())
        .await
        .expect("the write succeeds");
    write(&d, &table("new:date | v:bigint\n2024-01-01 | 3000000000"), WriteMode::Append, &WriteOptions::default())
        .await
        .expect("the write succeeds");
    let want = table("v:bigint | old:string | new:date\n1 | x | null\n3000000000 | null | 2024-01-01");
    assert_rows_eq!(rows(&d).await, want);
}

#[tokio::test]
async fn times_in_milliseconds_are_read_as_the_tables_microseconds() {
    use datafusion::arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray};
    let d = dataset(&memory());
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(1_709_208_000_123), None]));
    let rows_in_millis = RecordBatch::try_from_iter_with_nullable([("at", times, true)]).expect("the batch is valid");
    write(&d, &rows_in_millis, WriteMode::Append, &WriteOptions::default()).await.expect("the write succeeds");
    let want = table("at:timestamp\n2024-02-29T12:00:00.123\nnull");
    assert_rows_eq!(rows(&d).await, want);
    let after =
        load(&d).await.filter(col("at").gt(lit(datafusion::common::ScalarValue::TimestampMicrosecond(Some(0), None))));
    assert_eq!(after.expect("the filter is valid").count().await.expect("the rows are readable"), 1);
}

#[tokio::test]
async fn partition_columns_of_external_tables_get_the_type_of_their_values() {
    let storage = memory();
    let source = dataset(&storage);
    write(&source, &table("v:int\n1"), WriteMode::Append, &WriteOptions::default()).await.expect("the write succeeds");
    let file = Path::from(format!("lake/t/{}", paths(&source).await[0]));
    let other = memory();
    for folder in ["y=2024/c=01/d=2024-01-01", "y=2025/c=2/d=2024-02-29"] {
        let bytes =
            storage.store.get(&file).await.expect("the file is found").bytes().await.expect("the bytes are read");
        other
            .store
            .put(&Path::parse(format!("lake/t/{folder}/part-0.parquet")).expect("the path is valid"), bytes.into())
            .await
            .expect("the put succeeds");
    }
    let want = table("v:int | y:bigint | c:string | d:date\n1 | 2024 | 01 | 2024-01-01\n1 | 2025 | 2 | 2024-02-29");
    assert_rows_eq!(rows(&dataset(&other)).await, want);
}

#[tokio::test]
async fn folders_with_different_partition_columns_are_refused() {
    let storage = memory();
    for path in ["lake/t/a=1/x.parquet", "lake/t/b=1/x.parquet"] {
        storage.store.put(&Path::from(path), "x".into()).await.expect("the put succeeds");
    }
    assert_eq!(dataset(&storage).view().await.unwrap_err().code(), "MixedPartitioning");
    let storage = memory();
    storage.store.put(&Path::from("lake/t/2024/x.parquet"), "x".into()).await.expect("the put succeeds");
    assert_eq!(dataset(&storage).view().await.unwrap_err().code(), "NotHivePath");
}

#[tokio::test]
async fn a_reader_sees_a_committed_version_that_is_not_published_yet() {
    // The write dies at each of its calls. A reader sees either the old rows or the new ones.
    let (old, new) = (table("v:int | p:string\n1 | a\n2 | b"), table("v:int | p:string\n3 | a\n4 | b"));
    let options = WriteOptions::default().with_partition_by(["p"]);
    let (mut seen_old, mut seen_new) = (0, 0);
    for at in 1.. {
        let storage = memory();
        write(&dataset(&storage), &old, WriteMode::Append, &options).await.expect("the write succeeds");
        let faulty = Arc::new(FaultStore::new(storage.store.clone(), InjectedFault::Crash, at));
        let done = write(&dataset(&storage.with_store(faulty.clone())), &new, WriteMode::ReplaceAll, &options).await;
        let got = rows(&dataset(&storage)).await;
        match biscuit_testkit::diff_rows(&got, std::slice::from_ref(&old)) {
            None => seen_old += 1,
            Some(_) => {
                assert_rows_eq!(got, new);
                seen_new += 1;
            }
        }
        if done.is_ok() && !faulty.has_struck() {
            break;
        }
    }
    assert!(seen_old > 5 && seen_new > 5, "{seen_old} {seen_new}");
}

#[tokio::test]
async fn deleted_file_fails_the_reader_instead_of_giving_a_part_of_the_rows() {
    let storage = memory();
    let d = dataset(&storage);
    // The files are larger than the end that is read with the footer, so their rows are read after they are deleted.
    for seed in [1, 2] {
        let rows = table(&format!("v:string\n{}", incompressible_text(200_000, seed)));
        write(&d, &rows, WriteMode::Append, &WriteOptions::default()).await.expect("the write succeeds");
    }
    let frame = load(&d).await;
    let new = table("v:string\n3");
    write(&d, &new, WriteMode::ReplaceAll, &WriteOptions::default()).await.expect("the write succeeds");
    assert!(frame.collect().await.is_err());
    assert_rows_eq!(rows(&d).await, new);
}

#[tokio::test]
async fn loaded_rows_can_be_written_back() {
    let d = dataset(&memory());
    write(&d, &table("v:int\n1\n2"), WriteMode::Append, &WriteOptions::default()).await.expect("the write succeeds");
    let base = d.observe().await.expect("the table is observed");
    let doubled = base.load(&SessionContext::new()).await.expect("the frame is valid");
    let doubled = doubled.select(vec![(col("v") + col("v")).alias("v")]).expect("the projection is valid");
    base.write(doubled, WriteMode::ReplaceAll, &WriteOptions::default()).await.expect("the write succeeds");
    assert_rows_eq!(rows(&d).await, table("v:int\n2\n4"));
}

/// A table of external files whose partition column is in the files as well.
async fn with_column_in_files(rows: &[(&str, &str)]) -> biscuit_dataset::Dataset {
    let storage = memory();
    for (path, content) in rows {
        let batch = table(content);
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(vec![], batch.schema(), None).expect("the writer is created");
        writer.write(&batch).expect("the rows are written");
        let bytes = writer.into_inner().expect("the file is complete");
        storage.store.put(&Path::from(format!("lake/t/{path}")), bytes.into()).await.expect("the put succeeds");
    }
    dataset(&storage)
}

#[tokio::test]
async fn partition_column_that_is_also_in_the_files_is_read_once() {
    let d = with_column_in_files(&[
        ("region=eu/a.parquet", "id:bigint | region:string | v:int\n1 | eu | 1\n2 | eu | 2"),
        ("region=us/b.parquet", "id:bigint | region:string | v:int\n3 | us | 3"),
    ])
    .await;
    let want = table("id:bigint | v:int | region:string\n1 | 1 | eu\n2 | 2 | eu\n3 | 3 | us");
    assert_rows_eq!(rows(&d).await, want);
    let filtered = load(&d)
        .await
        .filter(col("region").eq(lit("us")))
        .expect("the filter is valid")
        .collect()
        .await
        .expect("the rows are readable");
    assert_rows_eq!(filtered, table("id:bigint | v:int | region:string\n3 | 3 | us"));
    // The column has another type than in the path, and the same value.
    let d = with_column_in_files(&[("m=01/a.parquet", "id:bigint | m:int\n1 | 1")]).await;
    assert_eq!(rows(&d).await.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
}

#[tokio::test]
async fn file_that_contradicts_its_path_is_refused() {
    for content in ["id:bigint | region:string\n1 | eu\n2 | us", "id:bigint | region:string\n1 | us\n2 | us"] {
        let d = with_column_in_files(&[("region=eu/a.parquet", content)]).await;
        let e = d.view().await.expect("the table is readable").open_files().await.unwrap_err();
        assert_eq!(
            (e.code(), e.column(), e.file()),
            ("PartitionMismatch", Some("region"), Some("region=eu/a.parquet"))
        );
        let values: Vec<_> = e.details().iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(values, [("in the path", "eu"), ("in the row", "us")]);
    }
}
