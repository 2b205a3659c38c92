//! Which files and row groups a merge touches, and where new rows go.

use biscuit_dataset::{Dataset, ParquetOptions};
use biscuit_merge::{Merge, MergeOptions, MergeReport, MergeSpec, Mode, verify};
use biscuit_testkit::RecordingStore;
use std::fmt::Write;

use crate::lake;

fn spec() -> MergeSpec {
    MergeSpec::new(["id"], ["seq"]).expect("a spec")
}

fn options() -> MergeOptions {
    MergeOptions::default().with_parallelism(1)
}

fn upserts(ids: impl IntoIterator<Item = i64>, seq: i64) -> String {
    ids.into_iter().fold(String::new(), |mut lines, id| {
        writeln!(lines, "{{\"id\":{id},\"seq\":{seq},\"v\":\"v{seq} of {id}\",\"op\":\"u\"}}")
            .expect("a String takes all");
        lines
    })
}

async fn merge(dataset: &Dataset, lines: &str) -> MergeReport {
    lake::merge_with(dataset, &spec(), &options(), lines).await.expect("a merge")
}

/// Rows of the row groups of each file.
async fn groups(dataset: &Dataset) -> Vec<Vec<i64>> {
    let files = dataset.view().await.expect("a view").open_files().await.expect("files");
    files.iter().map(|f| f.metadata().metadata().row_groups().iter().map(|g| g.num_rows()).collect()).collect()
}

/// A table of 1,000 ids, 0, 10, 20 and so on, in ten row groups of one file.
async fn ten_groups() -> Dataset {
    let dataset = lake::dataset(lake::memory());
    let options = options().with_parquet(ParquetOptions::default().with_row_group_rows(100));
    lake::merge_with(&dataset, &spec(), &options, &upserts((0..1000).map(|i| i * 10), 1)).await.expect("a merge");
    assert_eq!(groups(&dataset).await, [vec![100; 10]]);
    dataset
}

#[tokio::test]
async fn only_row_groups_that_may_hold_a_key_are_read_and_only_those_that_do_are_encoded() {
    let dataset = ten_groups().await;
    // How often the file is asked for bytes: once for its footer, and for what is looked at.
    let gets = async |id: i64| {
        let (recorder, storage) = RecordingStore::storage(dataset.journal().storage());
        let recorded = lake::dataset(storage);
        let records = lake::changes(&dataset, &upserts([id], 2)).await.expect("records");
        let merge = Merge::new(recorded, spec(), options()).expect("a merge");
        merge.run(records, Mode::DryRun).await.expect("a plan");
        recorder.calls().with(".parquet").iter().filter(|c| c.starts_with("get")).count()
    };
    // Behind all keys; between two keys of a row group; a key.
    assert_eq!((gets(99_999).await, gets(455).await, gets(450).await), (1, 2, 3));
    let report = merge(&dataset, &upserts([450], 2)).await;
    assert_eq!((report.files.rewritten, report.files.spliced, report.rows.updated), (1, 1, 1));
    assert_eq!(groups(&dataset).await, [vec![100; 10]]);
    assert!(verify(&dataset, &[]).await.expect("a look").is_sound());
}

#[tokio::test]
async fn records_that_are_late_touch_no_file() {
    let dataset = ten_groups().await;
    let before = lake::objects(dataset.journal().storage().store.as_ref()).await;
    let report = merge(&dataset, &upserts([450, 460], 0)).await;
    assert_eq!((report.verdicts.late, report.outcome), (2, "unchanged"));
    assert_eq!(lake::objects(dataset.journal().storage().store.as_ref()).await, before);
}

#[tokio::test]
async fn new_rows_go_where_their_keys_are_as_long_as_there_is_room() {
    let dataset = ten_groups().await;
    // The third row group loses ten rows and gets twelve; two find no room in it and go behind.
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
async fn runs_that_only_add_rows_leave_no_trail_of_files() {
    let dataset = ten_groups().await;
    for run in 0..30 {
        merge(&dataset, &upserts((0..7).map(|i| 20_000 + run * 7 + i), 2)).await;
    }
    // 1,210 rows in one file: the last row group is filled before another is begun.
    assert_eq!(groups(&dataset).await, [[vec![100; 12], vec![10]].concat()]);
    assert!(verify(&dataset, &[]).await.expect("a look").is_sound());
}

#[tokio::test]
async fn a_table_that_grows_a_few_rows_at_a_time_has_one_row_group() {
    let dataset = lake::dataset(lake::memory());
    for run in 0..20 {
        merge(&dataset, &upserts((0..5).map(|i| run * 5 + i), 1)).await;
    }
    assert_eq!(groups(&dataset).await, [vec![100]]);
}

#[tokio::test]
async fn text_and_composite_keys_are_found_in_row_groups_too() {
    let dataset = lake::dataset(lake::memory());
    let spec = MergeSpec::new(["region", "code"], ["seq"]).expect("a spec");
    let options = options().with_parquet(ParquetOptions::default().with_row_group_rows(10));
    let line = |r: &str, c: u32, seq: u32, op: &str| {
        format!("{{\"region\":\"{r}\",\"code\":{c},\"seq\":{seq},\"op\":\"{op}\"}}\n")
    };
    let all: String = (0..100).map(|c| line(["north", "south", "east"][c as usize % 3], c, 1, "c")).collect();
    lake::merge_with(&dataset, &spec, &options, &all).await.expect("a merge");
    let lines =
        [line("east", 50, 2, "d"), line("south", 52, 2, "u"), line("east", 52, 2, "d"), line("west", 1, 1, "c")];
    let report = lake::merge_with(&dataset, &spec, &options, &lines.concat()).await.expect("a merge");
    assert_eq!((report.rows.deleted, report.rows.updated, report.rows.inserted), (1, 1, 1));
    assert_eq!((report.verdicts.unchanged, report.rows.after), (1, 100));
}
