//! Writing of tables and of single files.

use biscuit_core::{CommitId, Outcome};
use biscuit_dataset::{FileSizing, Location, ParquetOptions, WriteMode, WriteOptions, write_single};
use biscuit_journal::{TableStorage, WriterPolicy};
use biscuit_testkit::{assert_rows_eq, table};
use object_store::ObjectStoreExt;

use crate::lake::{dataset, folders, frame, load, memory, paths, rows, write};

fn by_day() -> WriteOptions {
    WriteOptions::default().with_partition_by(["day"])
}

#[tokio::test]
async fn partitions_of_all_types_are_read_back() {
    let d = dataset(&memory());
    let all = table(
        "v:int | t:string | n:bigint | d:date | b:boolean | m:decimal(6,2) | at:timestamp
         1 | a/b=c%  ü:? | -5 | 2024-02-29 | true | 1.50 | 2024-02-29T10:30:00
         2 | 0123 | 7 | 1969-12-31 | false | -0.01 | 1969-12-31T23:59:59.123456
         3 | null | null | null | null | null | null",
    );
    let options = WriteOptions::default().with_partition_by(["t", "n", "d", "b", "m", "at"]);
    write(&d, &all, WriteMode::Append, &options).await.expect("the write succeeds");
    assert!(
        paths(&d).await.iter().any(|p| p.starts_with("t=__HIVE_DEFAULT_PARTITION__/n=__HIVE_DEFAULT_PARTITION__/"))
    );
    assert!(
        paths(&d).await.iter().any(|p| p.contains("t=a%2Fb%3Dc%25  ü%3A%3F/n=-5/d=2024-02-29/b=true/m=1.50/")),
        "{:?}",
        paths(&d).await
    );
    assert_rows_eq!(rows(&d).await, all);
}

#[tokio::test]
async fn partitions_of_all_types_are_read_back_on_disk() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let store =
        object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("the folder of the store exists");
    let d = dataset(&TableStorage::local(std::sync::Arc::new(store)));
    let all = table("v:int | t:string\n1 | a/b=c%25 ü:?\n2 | null\n3 | #[x]");
    write(&d, &all, WriteMode::Append, &WriteOptions::default().with_partition_by(["t"]))
        .await
        .expect("the write succeeds");
    assert!(folder.path().join("lake/t/t=a%2Fb%3Dc%2525 ü%3A%3F").is_dir());
    assert_rows_eq!(rows(&d).await, all);
}

#[tokio::test]
async fn values_without_a_hive_path_are_refused_and_change_nothing() {
    let storage = memory();
    let d = dataset(&storage);
    for (rows, by, code) in [
        (table("v:int | t:string\n1 | \"\""), "t", "PartitionValue"),
        (table("v:int | t:string\n1 | __HIVE_DEFAULT_PARTITION__"), "t", "PartitionValue"),
        (table("v:int | t:double\n1 | 1.5"), "t", "PartitionType"),
        (table("v:int\n1"), "t", "MissingColumn"),
    ] {
        let e =
            write(&d, &rows, WriteMode::Append, &WriteOptions::default().with_partition_by([by])).await.unwrap_err();
        assert_eq!(e.code(), code, "{e}");
    }
    assert!(paths(&d).await.is_empty());
}

// Case X16 of the purge tests.
#[tokio::test]
async fn replacing_partitions_leaves_the_others_alone() {
    let d = dataset(&memory());
    write(&d, &table("v:int | day:string\n1 | a\n2 | b\n3 | b"), WriteMode::Append, &by_day())
        .await
        .expect("the write succeeds");
    let before = paths(&d).await;
    write(&d, &table("v:int | day:string\n9 | b"), WriteMode::ReplacePartitions, &by_day())
        .await
        .expect("the write succeeds");
    assert_eq!(paths(&d).await[0], before[0], "the file of partition a is the same");
    assert_rows_eq!(rows(&d).await, table("v:int | day:string\n1 | a\n9 | b"));
    assert_eq!(folders(&d).await, ["day=a", "day=b"]);
}

#[tokio::test]
async fn table_is_emptied_only_on_explicit_request() {
    let d = dataset(&memory());
    write(&d, &table("v:int\n1"), WriteMode::Append, &WriteOptions::default()).await.expect("the write succeeds");
    let none = table("v:int");
    let e = write(&d, &none, WriteMode::ReplaceAll, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(e.code(), "EmptyReplacement");
    assert_rows_eq!(rows(&d).await, table("v:int\n1"));
    let done = write(&d, &none, WriteMode::ReplaceAllEvenByNothing, &WriteOptions::default())
        .await
        .expect("the write succeeds");
    assert_eq!(done.outcome, Outcome::Committed);
    let empty = load(&d).await;
    assert_eq!(empty.schema().field(0).name(), "v", "the columns are kept");
    assert_eq!(empty.count().await.expect("the rows are counted"), 0);
}

#[tokio::test]
async fn other_partition_columns_than_those_of_the_table_are_refused() {
    let d = dataset(&memory());
    write(&d, &table("v:int | day:string\n1 | a"), WriteMode::Append, &by_day()).await.expect("the write succeeds");
    let e =
        write(&d, &table("v:int | day:string\n1 | a"), WriteMode::Append, &WriteOptions::default()).await.unwrap_err();
    assert_eq!((e.code(), e.message()), ("PartitioningDiffers", "the table is partitioned by day, not by nothing"));
}

#[tokio::test]
async fn a_commit_id_is_written_once() {
    let d = dataset(&memory());
    let id = CommitId::new("job/1/out");
    for _ in 0..2 {
        let snapshot = d.observe().await.expect("the table is observed");
        let options = WriteOptions::default();
        snapshot
            .write_as(frame(&table("v:int\n1")), WriteMode::Append, &options, Some(&id))
            .await
            .expect("the write succeeds");
    }
    assert_rows_eq!(rows(&d).await, table("v:int\n1"));
}

#[tokio::test]
async fn a_write_on_an_old_base_conflicts() {
    let d = dataset(&memory());
    let old = d.observe().await.expect("the table is observed");
    write(&d, &table("v:int\n1"), WriteMode::Append, &WriteOptions::default()).await.expect("the write succeeds");
    let e = old.write(frame(&table("v:int\n2")), WriteMode::Append, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(e.code(), "Conflict");
    assert_rows_eq!(rows(&d).await, table("v:int\n1"));
}

fn numbers(n: i64) -> datafusion::arrow::array::RecordBatch {
    use datafusion::arrow::array::{ArrayRef, Int64Array};
    let column: ArrayRef = std::sync::Arc::new(Int64Array::from_iter_values(
        (0..n).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15u64 as i64)),
    ));
    datafusion::arrow::array::RecordBatch::try_from_iter([("v", column)]).expect("the batch is valid")
}

#[tokio::test]
async fn files_have_the_chosen_number_or_size() {
    for (sizing, files) in
        [(FileSizing::Files(3), 3..=3), (FileSizing::Files(1), 1..=1), (FileSizing::TargetSize(64 << 10), 4..=20)]
    {
        let d = dataset(&memory());
        let parquet = ParquetOptions::default().with_row_group_rows(4096);
        let options = WriteOptions::default().with_sizing(sizing).with_parquet(parquet);
        write(&d, &numbers(50_000), WriteMode::Append, &options).await.expect("the write succeeds");
        assert!(files.contains(&paths(&d).await.len()), "{sizing:?}: {}", paths(&d).await.len());
        assert_eq!(load(&d).await.count().await.expect("the rows are counted"), 50_000);
    }
    let d = dataset(&memory());
    let options = WriteOptions::default().with_sizing(FileSizing::Files(5));
    write(&d, &table("v:int\n1\n2"), WriteMode::Append, &options).await.expect("the write succeeds");
    assert_eq!(paths(&d).await.len(), 2, "there is no file without rows");
}

#[tokio::test]
async fn small_memory_makes_small_row_groups_with_the_same_rows() {
    let d = dataset(&memory());
    let options = WriteOptions::default().with_memory(64 << 10);
    write(&d, &numbers(100_000), WriteMode::Append, &options).await.expect("the write succeeds");
    assert_eq!(load(&d).await.count().await.expect("the rows are counted"), 100_000);
}

#[tokio::test]
async fn single_file_is_replaced_only_if_unchanged() {
    let storage = memory();
    let place = Location::new(storage.clone(), "out/report.parquet", "out/report.parquet").expect("the place is valid");
    let options = ParquetOptions::default();
    for n in 1..3 {
        let rows = frame(&table("v:int\n1\n2"));
        assert_eq!(
            write_single(&place, rows, WriterPolicy::Many, &options).await.expect("the write succeeds"),
            2,
            "{n}"
        );
    }
    assert!(storage.store.head(place.path()).await.is_ok());
}

#[tokio::test]
async fn single_file_on_disk_is_replaced_only_by_a_promised_single_writer() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let place = Location::parse(folder.path().join("r.parquet").to_str().expect("the text is UTF-8"))
        .expect("the place is valid");
    let one = || frame(&table("v:int\n1"));
    let options = ParquetOptions::default();
    write_single(&place, one(), WriterPolicy::Many, &options).await.expect("it is new");
    let e = write_single(&place, one(), WriterPolicy::Many, &options).await.unwrap_err();
    assert_eq!(e.code(), "NoConditionalOverwrite");
    write_single(&place, one(), WriterPolicy::One, &options).await.expect("one writer may write");
}
