//! New files whose rows are produced while they are written.

use biscuit_dataset::ParquetOptions;
use biscuit_rewrite::RewriteUnit;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use object_store::path::Path;

use crate::lab::{Lab, file, flat, footer, plain, read};

fn batches() -> Vec<RecordBatch> {
    (0..11).map(|b| flat(&(b * 30..(b + 1) * 30).collect::<Vec<_>>(), "new")).collect()
}

async fn lab() -> (Lab, RewriteUnit) {
    let lab = Lab::with(file(&[flat(&[1], "old")], plain())).await;
    let unit = RewriteUnit::from_sources(vec![], lab.unit().await.schema, "day=1");
    (lab, unit.with_parquet(ParquetOptions::default().with_row_group_rows(100)))
}

async fn rows_of_groups(lab: &Lab) -> Vec<i64> {
    let file = lab.only_file().await;
    let all = batches();
    let want = concat_batches(&all[0].schema(), &all).expect("the batches have one schema");
    assert_eq!(read(&file).columns(), want.columns());
    footer(&file).row_groups().iter().map(|g| g.num_rows()).collect()
}

#[tokio::test]
async fn row_groups_are_full_for_any_batch_size() {
    let (lab, unit) = lab().await;
    let written = lab.write(unit, &batches(), 1 << 30).await;
    assert_eq!((written.len(), written[0].encoded, written[0].file.rows), (1, 4, Some(330)));
    assert!(written[0].file.path.starts_with("day=1/"));
    assert_eq!(rows_of_groups(&lab).await, [100, 100, 100, 30]);
}

#[tokio::test]
async fn row_group_ends_early_if_memory_is_exhausted() {
    let (lab, unit) = lab().await;
    lab.write(unit, &batches(), 1000).await;
    assert_eq!(rows_of_groups(&lab).await, [30; 11]);
}

#[tokio::test]
async fn file_ends_at_its_maximum_size() {
    let (one, unit) = lab().await;
    let whole = one.write(unit.clone(), &batches(), 1 << 30).await[0].file.size;
    let (several, _) = lab().await;
    let written = several.write(unit.with_max_file_size(whole / 2), &batches(), 1 << 30).await;
    let rows: Vec<u64> = written.iter().filter_map(|w| w.file.rows).collect();
    assert!(rows.len() > 1 && rows.iter().sum::<u64>() == 330, "{rows:?}");
    assert!(
        rows.split_last().expect("the path has a file").1.iter().all(|rows| rows % 100 == 0),
        "row groups are full: {rows:?}"
    );
}

#[tokio::test]
async fn stopped_writer_leaves_no_file() {
    let (lab, unit) = lab().await;
    assert_eq!(lab.give_up(unit, &batches()).await, [Path::from("lake/t/part-0.parquet")]);
}
