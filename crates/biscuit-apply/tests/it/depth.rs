//! How many requests of an operation wait for each other, on a store where each request takes the same time.

use biscuit_apply::report::MergeReport;
use biscuit_apply::{ChangeFiles, ChangeFormat, FoundFile, Merge, RunMode};
use biscuit_change::{ChangeRecords, RowsOptions};
use biscuit_core::ObjectRef;
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_testkit::{RequestDepth, request_depth};
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::lake;

async fn records(storage: &TableStorage, lines: &str) -> ChangeRecords {
    lake::changes(&lake::dataset(storage.clone()), lines).await.expect("the lines are valid")
}

/// Merges records, and returns the requests of the run.
async fn merge(storage: &TableStorage, lines: &str) -> (MergeReport, RequestDepth) {
    let records = records(storage, lines).await;
    request_depth(storage, async |storage| {
        let run = Merge::new(lake::dataset(storage), lake::spec(), lake::serial()).expect("the options are valid");
        run.run(records, RunMode::Commit).await.expect("the merge succeeds")
    })
    .await
}

const FIRST: &str = r#"
{"id":1,"seq":1,"v":"a","op":"c"}
{"id":2,"seq":1,"v":"b","op":"c"}
{"id":3,"seq":1,"v":"c","op":"c"}
"#;

const SECOND: &str = r#"
{"id":1,"seq":2,"v":"x","op":"u"}
{"id":2,"seq":2,"v":null,"op":"d"}
"#;

/// Merges change files into a table as `biscuit merge` does, and returns the requests of all of it: following the pointer,
/// observing, reading the columns and the files, and the merge.
async fn command(storage: &TableStorage, lines: &str) -> (MergeReport, RequestDepth) {
    storage.store.put(&Path::from("in/1.jsonl"), lines.to_owned().into()).await.expect("the object is stored");
    request_depth(storage, async |storage| {
        let dataset = lake::dataset(storage.clone());
        let (dataset, version) = dataset.follow_and_observe().await.expect("the table is observed");
        let observed = std::time::Instant::now();
        let columns = version.current_schema().await.expect("the columns are known");
        let options = RowsOptions::default().with_op("op").with_expected(columns);
        let input = storage.store.head(&Path::from("in/1.jsonl")).await.expect("the object exists");
        let listed = ObjectRef::new("in/1.jsonl", input.size, input.e_tag);
        let file = FoundFile::new(listed, storage.store.clone(), input.location);
        let files = ChangeFiles::found(vec![file], ChangeFormat::Rows(options));
        let merge = Merge::new(dataset, lake::spec(), lake::serial()).expect("the options are valid");
        merge.input(files).on_recent(version, observed).run(RunMode::Commit).await.expect("the merge succeeds")
    })
    .await
}

/// The requests of [`command`] for its input: one finds the file, one reads it for the types of its columns, and one for its
/// records.
const INPUT: u64 = 3;

#[tokio::test(start_paused = true)]
async fn command_has_few_dependent_requests() {
    let first = least(async || {
        let (report, requests) = command(&lake::memory(), FIRST).await;
        assert_eq!(report.version, 1);
        requests
    });
    let first = first.await;
    assert!(first.depth <= 11 + INPUT, "{first:?}");
    let second = least(async || {
        let storage = lake::memory();
        command(&storage, FIRST).await;
        let (report, requests) = command(&storage, SECOND).await;
        assert_eq!(report.version, 2);
        requests
    });
    let second = second.await;
    assert!(second.depth <= 11 + INPUT, "{second:?}");
    let nothing = least(async || {
        let storage = lake::memory();
        command(&storage, FIRST).await;
        let (report, requests) = command(&storage, "\n").await;
        assert_eq!(report.version, 1);
        requests
    });
    let nothing = nothing.await;
    // The file is opened for the number of its rows.
    assert!(nothing.depth <= 3 + INPUT, "{nothing:?}");
}

/// The second table of a folder, whose store was probed for the first one.
#[tokio::test(start_paused = true)]
async fn remembered_probe_saves_requests() {
    let requests = async |storage: &TableStorage, table: &str| {
        let merge = |storage: TableStorage| async move {
            let location = Location::new(storage, table, table).expect("the path is valid");
            let dataset = Dataset::new(location, JournalOptions::default());
            let records = lake::changes(&dataset, FIRST).await.expect("the lines are valid");
            let run = Merge::new(dataset, lake::spec(), lake::serial()).expect("the options are valid");
            run.run(records, RunMode::Commit).await.expect("the merge succeeds");
        };
        request_depth(storage, merge).await.1
    };
    let storage = lake::memory();
    let (first, second) = (requests(&storage, "lake/a").await, requests(&storage, "lake/b").await);
    assert!(second.depth < first.depth && second.requests + 48 <= first.requests, "{first:?} {second:?}");
}

/// Returns the lowest depth of three measurements. The paused clock advances while a thread encodes, so that on a busy
/// machine a request may be counted as if it had waited for another one. A measured depth is never too low.
async fn least(measure: impl AsyncFn() -> RequestDepth) -> RequestDepth {
    let mut least = measure().await;
    for _ in 0..2 {
        let again = measure().await;
        if again.depth < least.depth {
            least = again;
        }
    }
    least
}

#[tokio::test(start_paused = true)]
async fn first_write_has_few_dependent_requests() {
    let requests = least(async || {
        let (report, requests) = merge(&lake::memory(), FIRST).await;
        assert_eq!(report.version, 1);
        requests
    });
    let requests = requests.await;
    assert!(requests.depth <= 11, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn merge_into_one_file_has_few_dependent_requests() {
    let requests = least(async || {
        let storage = lake::memory();
        merge(&storage, FIRST).await;
        let (report, requests) = merge(&storage, SECOND).await;
        assert_eq!(report.version, 2);
        requests
    });
    let requests = requests.await;
    assert!(requests.depth <= 11, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn run_without_new_records_has_few_dependent_requests() {
    let storage = lake::memory();
    merge(&storage, FIRST).await;
    let (report, requests) = merge(&storage, "").await;
    assert_eq!(report.version, 1);
    assert!(requests.depth <= 3, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn reading_a_table_has_few_dependent_requests() {
    let storage = lake::memory();
    merge(&storage, FIRST).await;
    // As `biscuit show` does.
    let (rows, requests) = request_depth(&storage, async |storage| {
        let (_, version) = lake::dataset(storage).follow_and_view().await.expect("the table is observed");
        let frame = version.load(&SessionContext::new()).await.expect("the table can be read");
        frame.collect().await.expect("the rows can be read")
    })
    .await;
    assert_eq!(rows.iter().map(|b| b.num_rows()).sum::<usize>(), 3);
    assert!(requests.depth <= 3, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn partitions_are_published_side_by_side() {
    let lines = |seq: u32, partitions: u32| -> String {
        (0..partitions).map(|day| format!("{{\"id\":{day},\"seq\":{seq},\"day\":\"{day}\",\"op\":\"u\"}}\n")).collect()
    };
    let depth_of = async |partitions: u32| {
        let storage = lake::memory();
        let options = lake::serial().with_partition_by(["day"]);
        lake::merge_with(&lake::dataset(storage.clone()), &lake::spec(), &options, &lines(1, partitions))
            .await
            .expect("the first merge succeeds");
        let (report, requests) = merge(&storage, &lines(2, partitions)).await;
        assert_eq!((report.version, report.files.rewritten), (2, u64::from(partitions)));
        requests.depth
    };
    let (one, many) = (depth_of(1).await, depth_of(16).await);
    assert!(many <= 2 * one, "{many} instead of {one}");
}
