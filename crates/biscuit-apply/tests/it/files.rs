//! Which files and row groups a merge changes, and where new rows are placed.

use biscuit_apply::report::MergeReport;
use biscuit_apply::{ChangeFiles, ChangeFormat, Merge, MergeOptions, MergeSpec, RunMode, verify};
use biscuit_change::{BadRows, RowsOptions};
use biscuit_core::Outcome;
use biscuit_dataset::{Dataset, ParquetOptions};
use biscuit_testkit::RecordingStore;
use biscuit_testkit::internal::incompressible_text;
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::fmt::Write;
use std::sync::Arc;

use crate::lake::{self, serial, spec};

fn upserts(ids: impl IntoIterator<Item = i64>, seq: i64) -> String {
    ids.into_iter().fold(String::new(), |mut lines, id| {
        let text = incompressible_text(3_000, id.unsigned_abs());
        writeln!(lines, "{{\"id\":{id},\"seq\":{seq},\"v\":\"v{seq} of {id}: {text}\",\"op\":\"u\"}}")
            .expect("a String takes all");
        lines
    })
}

async fn merge(dataset: &Dataset, lines: &str) -> MergeReport {
    lake::merge_with(dataset, &spec(), &serial(), lines).await.expect("the merge succeeds")
}

/// The number of rows of each row group, by file.
async fn groups(dataset: &Dataset) -> Vec<Vec<i64>> {
    let files = dataset.view().await.expect("the table can be read").open_files().await.expect("the files are opened");
    files.iter().map(|f| f.metadata().metadata().row_groups().iter().map(|g| g.num_rows()).collect()).collect()
}

/// A table with the 1,000 ids 0, 10, 20 and so on, in ten row groups of one file, which is too large to be
/// read as a whole.
async fn ten_groups() -> Dataset {
    let dataset = lake::dataset(lake::memory());
    let options = serial().with_parquet(ParquetOptions::default().with_row_group_rows(100));
    lake::merge_with(&dataset, &spec(), &options, &upserts((0..1000).map(|i| i * 10), 1))
        .await
        .expect("the merge succeeds");
    assert_eq!(groups(&dataset).await, [vec![100; 10]]);
    dataset
}

#[tokio::test]
async fn only_row_groups_that_may_have_a_key_are_read_and_only_changed_ones_are_encoded() {
    let dataset = ten_groups().await;
    // The number of reads of the file: one for its footer, and one for each thing that is read.
    let gets = async |id: i64| {
        let (recorder, storage) = RecordingStore::storage(dataset.journal().storage());
        let recorded = lake::dataset(storage);
        let records = lake::changes(&dataset, &upserts([id], 2)).await.expect("the records are valid");
        let merge = Merge::new(recorded, spec(), serial()).expect("the specification is valid");
        merge.run(records, RunMode::DryRun).await.expect("the plan is made");
        recorder.calls().with(".parquet").iter().filter(|c| c.starts_with("get")).count()
    };
    // An id after all keys; an id between two keys of a row group; an existing key.
    assert_eq!((gets(99_999).await, gets(455).await, gets(450).await), (1, 2, 3));
    let report = merge(&dataset, &upserts([450], 2)).await;
    assert_eq!((report.files.rewritten, report.files.spliced, report.rows.updated), (1, 1, 1));
    assert_eq!(groups(&dataset).await, [vec![100; 10]]);
    assert!(verify(&dataset, &[]).await.expect("the table can be verified").is_sound());
}

#[tokio::test]
async fn late_records_change_no_file() {
    let dataset = ten_groups().await;
    let before = lake::objects(dataset.journal().storage().store.as_ref()).await;
    let report = merge(&dataset, &upserts([450, 460], 0)).await;
    assert_eq!((report.verdicts.late, report.outcome), (2, Outcome::Unchanged));
    assert_eq!(lake::objects(dataset.journal().storage().store.as_ref()).await, before);
}

#[tokio::test]
async fn new_rows_are_placed_by_key_as_long_as_there_is_room() {
    let dataset = ten_groups().await;
    // The third row group loses ten rows and gets twelve. Two do not fit and are placed after the last row group.
    let mut lines: String = (0..10).fold(String::new(), |mut s, i| {
        writeln!(s, "{{\"id\":{},\"seq\":2,\"op\":\"d\"}}", 2000 + i * 10).expect("a String takes all");
        s
    });
    lines.push_str(&upserts((0..12).map(|i| 2005 + i * 10), 2));
    let report = merge(&dataset, &lines).await;
    assert_eq!((report.rows.inserted, report.rows.deleted, report.files.spliced, report.files.added), (12, 10, 1, 0));
    assert_eq!(groups(&dataset).await, [[vec![100; 10], vec![2]].concat()]);
}

#[tokio::test]
async fn runs_that_only_add_rows_do_not_add_files() {
    let dataset = ten_groups().await;
    for run in 0..30 {
        merge(&dataset, &upserts((0..7).map(|i| 20_000 + run * 7 + i), 2)).await;
    }
    // 1,210 rows in one file: the last row group is filled before a new one begins.
    assert_eq!(groups(&dataset).await, [[vec![100; 12], vec![10]].concat()]);
    assert!(verify(&dataset, &[]).await.expect("the table can be verified").is_sound());
}

#[tokio::test]
async fn table_that_grows_by_a_few_rows_at_a_time_has_one_row_group() {
    let dataset = lake::dataset(lake::memory());
    for run in 0..20 {
        merge(&dataset, &upserts((0..5).map(|i| run * 5 + i), 1)).await;
    }
    assert_eq!(groups(&dataset).await, [vec![100]]);
}

#[tokio::test]
async fn text_and_composite_keys_are_found_by_statistics() {
    let dataset = lake::dataset(lake::memory());
    let spec = MergeSpec::new(["region", "code"], ["seq"]).expect("the specification is valid");
    let options = serial().with_parquet(ParquetOptions::default().with_row_group_rows(10));
    let line = |r: &str, c: u32, seq: u32, op: &str| {
        format!("{{\"region\":\"{r}\",\"code\":{c},\"seq\":{seq},\"op\":\"{op}\"}}\n")
    };
    let all: String = (0..100).map(|c| line(["north", "south", "east"][c as usize % 3], c, 1, "c")).collect();
    lake::merge_with(&dataset, &spec, &options, &all).await.expect("the merge succeeds");
    let lines =
        [line("east", 50, 2, "d"), line("south", 52, 2, "u"), line("east", 52, 2, "d"), line("west", 1, 1, "c")];
    let report = lake::merge_with(&dataset, &spec, &options, &lines.concat()).await.expect("the merge succeeds");
    assert_eq!((report.rows.deleted, report.rows.updated, report.rows.inserted), (1, 1, 1));
    assert_eq!((report.verdicts.unchanged, report.rows.after), (1, 100));
}

/// A Parquet file of change records that is too large to be read as a whole: two records of each key, unordered.
fn large_file(folder: &std::path::Path, null_at: Option<usize>) -> String {
    let rows = 80_000_usize;
    let row = |i: usize| (i * 7919) % rows;
    let ids: Int64Array = (0..rows).map(|i| (Some(i) != null_at).then_some((row(i) / 2) as i64)).collect();
    let seqs: Int64Array = (0..rows).map(|i| Some((row(i) % 2) as i64)).collect();
    let notes: StringArray = (0..rows).map(|i| Some(format!("{:0>150}", row(i)))).collect();
    let columns: [(&str, ArrayRef); 3] = [("id", Arc::new(ids)), ("seq", Arc::new(seqs)), ("note", Arc::new(notes))];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).expect("the batch is valid");
    let path = folder.join("changes.parquet");
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(30_000)).set_dictionary_enabled(false);
    let file = std::fs::File::create(&path).expect("the file is created");
    let mut writer =
        ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).expect("the writer is created");
    writer.write(&batch).expect("the rows are written");
    writer.close().expect("the file is closed");
    assert!(std::fs::metadata(&path).expect("the file exists").len() > 8 << 20);
    path.to_str().expect("the path is UTF-8").to_owned()
}

#[tokio::test]
async fn large_file_is_read_by_row_group_and_merged_by_key_range() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let files = ChangeFiles::new([large_file(folder.path(), None)], ChangeFormat::Rows(RowsOptions::default()));
    let parquet = ParquetOptions::default().with_row_group_rows(10_000);
    let options = MergeOptions::default().with_change_memory(2 << 20).with_parquet(parquet);
    let dataset = lake::dataset(lake::memory());
    let merge = Merge::new(dataset.clone(), spec(), options).expect("the specification is valid");
    let report = merge.input(files.clone()).run(RunMode::Commit).await.expect("the first load succeeds");
    assert_eq!((report.records, report.verdicts.inserted, report.verdicts.superseded), (80_000, 40_000, 40_000));
    let rows = lake::rows(&dataset).await;
    let column = |name: &str| -> Vec<i64> {
        let values = rows.iter().flat_map(|b| b.column_by_name(name).expect(name).as_primitive::<Int64Type>().values());
        values.copied().collect()
    };
    // One file, sorted by key, in full row groups, although ranges end at any row.
    let written =
        dataset.view().await.expect("the table can be read").open_files().await.expect("the files are opened");
    assert_eq!(written.iter().map(|f| f.group_starts()).collect::<Vec<_>>(), [[0, 10_000, 20_000, 30_000, 40_000]]);
    assert_eq!(column("id"), (0..40_000).collect::<Vec<_>>());
    assert!(column("seq").iter().all(|s| *s == 1), "the newest record stands");
    let again = merge.input(files.clone()).run(RunMode::Commit).await.expect("the second run succeeds");
    assert_eq!((again.outcome, again.verdicts.unchanged, again.verdicts.late), (Outcome::Unchanged, 40_000, 40_000));
}

/// New files are staged before the guards are checked.
#[tokio::test]
async fn large_run_that_fails_a_guard_leaves_no_files() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let rows = RowsOptions::default().with_bad_rows(BadRows::Quarantine);
    let files = ChangeFiles::new([large_file(folder.path(), Some(79_999))], ChangeFormat::Rows(rows));
    for (allowed, outcome) in [(0.0, Err("TooManyQuarantined")), (1.0, Ok((40_000, 1)))] {
        let storage = lake::memory();
        let options = MergeOptions::default().with_change_memory(2 << 20).with_bad_rows(BadRows::Quarantine, allowed);
        let merge = Merge::new(lake::dataset(storage.clone()), spec(), options).expect("the specification is valid");
        let ran = merge.input(files.clone()).run(RunMode::Commit).await;
        let counts = ran.map(|report| (report.verdicts.inserted, report.verdicts.quarantined));
        assert_eq!(counts.as_ref().map_err(|e| e.code()).copied(), outcome);
        assert_eq!(lake::objects(&storage.store).await.is_empty(), outcome.is_err());
    }
}

#[tokio::test]
async fn error_of_a_large_file_names_the_row_of_the_invalid_record() {
    let folder = tempfile::tempdir().expect("the folder is created");
    let path = large_file(folder.path(), Some(65_540));
    for memory in [2 << 20, usize::MAX] {
        let files = ChangeFiles::new([path.as_str()], ChangeFormat::Rows(RowsOptions::default()));
        let options = MergeOptions::default().with_change_memory(memory);
        let merge = Merge::new(lake::dataset(lake::memory()), spec(), options).expect("the specification is valid");
        let e = merge.input(files.clone()).run(RunMode::Commit).await.expect_err("a key is null");
        assert_eq!((e.code(), e.row(), e.file()), ("NullKey", Some(65_541), Some(path.as_str())));
    }
}
