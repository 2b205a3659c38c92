//! How many requests of an operation wait for each other, on a store where each request takes the same time.

use biscuit_apply::report::MergeReport;
use biscuit_apply::{Merge, RunMode};
use biscuit_change::ChangeRecords;
use biscuit_journal::TableStorage;
use biscuit_testkit::{RequestDepth, request_depth};
use datafusion::prelude::SessionContext;

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
    assert!(requests.depth <= 12, "{requests:?}");
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
    assert!(requests.depth <= 14, "{requests:?}");
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
    let (rows, requests) = request_depth(&storage, async |storage| {
        let frame = lake::dataset(storage).load(&SessionContext::new()).await.expect("the table can be read");
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
