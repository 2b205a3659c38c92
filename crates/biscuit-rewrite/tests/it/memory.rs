//! The memory budget: fewer row groups at a time, or an error.

use biscuit_rewrite::unit::ForcedRewrite;
use datafusion::arrow::array::RecordBatch;

use crate::lab::{Lab, file, flat, footer, plain, read};

fn groups() -> Vec<RecordBatch> {
    (0..8).map(|g| flat(&(g * 100..(g + 1) * 100).collect::<Vec<_>>(), "old")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_for_one_row_group_is_enough() {
    let lab = Lab::with(file(&groups(), plain())).await;
    let bytes = lab.only_file().await;
    let metadata = footer(&bytes);
    let one =
        metadata.row_groups().iter().map(|g| 2 * g.compressed_size() + 4 * (g.total_byte_size() / g.num_rows() * 8192));
    let largest = one.max().expect("there is a group") as usize;
    let unit = lab.unit().await.with_removed(&[0]).with_force(ForcedRewrite::Rewrite);
    let written = lab.try_run(unit, largest + largest / 4).await.expect("row groups wait for each other's memory");
    assert_eq!((written[0].encoded, read(&lab.only_file().await).num_rows()), (8, 799));
}

#[tokio::test]
async fn row_group_that_exceeds_the_memory_is_an_error_with_the_file_name() {
    let lab = Lab::with(file(&groups(), plain())).await;
    let unit = lab.unit().await.with_removed(&[0]);
    let e = lab.try_run(unit, 1000).await.expect_err("the row group exceeds the memory");
    assert_eq!(e.code(), "MemoryExhausted");
    assert!(e.message().contains("part-0.parquet"), "{e}");
}
