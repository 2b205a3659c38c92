//! A table of periods on S3: the server makes the copies with which new periods begin, and the rows are right after a
//! crash at any request.

use biscuit_apply::{MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeRecords, RowsOptions, RowsReader};
use biscuit_core::Result;
use biscuit_journal::TableStorage;
use biscuit_partition::report::PeriodTableReport;
use biscuit_partition::{Granularity, PeriodBasis, PeriodCalendar, PeriodPlan, PeriodTable};
use biscuit_testkit::{InjectedFault, RecordingStore, assert_rows_eq, crash_at_every_call, table};
use datafusion::prelude::SessionContext;

use crate::s3::{dataset, server};

const HISTORY: &str = r#"
{"id":1,"since":"2024-01-10","v":"a","op":"c"}
{"id":2,"since":"2024-02-07","v":"c","op":"c"}
"#;
const LATE: &str = r#"
{"id":3,"since":"2024-01-15","v":"late","op":"c"}
{"id":2,"since":"2024-02-20","v":"","op":"d"}
"#;

fn changes(lines: &str) -> Result<ChangeRecords> {
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
    if !lines.is_empty() {
        reader.read("c.jsonl", lines.to_owned().into_bytes().into())?;
    }
    reader.finish()
}

fn snapshots(storage: TableStorage) -> Result<PeriodTable> {
    let periods =
        PeriodPlan::new(PeriodCalendar::new(Granularity::Month, "UTC")?, PeriodBasis::Effective("since".to_owned()));
    let options = MergeOptions::default().with_parallelism(1);
    PeriodTable::new(dataset(storage), MergeSpec::new(["id"], ["since"])?, options, periods)
}

async fn run(storage: TableStorage, lines: &str, as_of: &str) -> Result<PeriodTableReport> {
    snapshots(storage)?.run(changes(lines)?, as_of.parse()?, RunMode::Commit).await
}

async fn with_history() -> TableStorage {
    let storage = server("periods").await;
    run(storage.clone(), HISTORY, "2024-02-28").await.expect("the history is readable");
    storage
}

async fn check(storage: TableStorage, at: u64) {
    dataset(storage.clone()).journal().recover_with_fence().await.expect("the recovery succeeds");
    let found = dataset(storage.clone()).view().await.expect("the table is readable");
    assert!(found.observed.orphan_files.is_empty() && found.observed.external.is_empty(), "call {at}");
    let frame = dataset(storage).load(&SessionContext::new()).await.expect("the frame is valid");
    let want = table(
        "id:bigint | since:string | v:string | period:string
         1 | 2024-01-10 | a    | 2024-01
         3 | 2024-01-15 | late | 2024-01
         1 | 2024-01-10 | a    | 2024-02
         3 | 2024-01-15 | late | 2024-02",
    );
    assert_rows_eq!(frame.collect().await.expect("the rows are readable"), want);
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn late_records_on_s3_survive_a_crash_at_every_call() {
    let late = |storage: TableStorage| async move { run(storage, LATE, "2024-02-29").await.map(drop) };
    let done = crash_at_every_call(InjectedFault::CrashAfter, with_history, late, check).await;
    assert!(done.crashed > 20, "{done:?}");
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn new_period_on_s3_is_copied_by_the_server() {
    let storage = with_history().await;
    let recorder = std::sync::Arc::new(RecordingStore::new(storage.store.clone()));
    let report =
        run(storage.with_store(recorder.clone()), "", "2024-04-05").await.expect("the run of two new months succeeds");
    assert_eq!(report.periods.iter().map(|p| p.files.copied).sum::<u64>(), 2);
    let calls = recorder.calls();
    assert!(calls.with("get lake/t/").is_empty(), "no file of the table is read: {:?}", calls.with("get lake/t/"));
    let copies = calls.all().iter().filter(|c| c.starts_with("copy lake/t/period=")).count();
    assert_eq!(copies, 2, "{:?}", calls.all());
}
