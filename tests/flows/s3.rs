//! Merges, recoveries and adoptions on S3, with the S3 client of object_store and a server with the S3 API.
//! `BISCUIT_TEST_S3` is its endpoint. It needs the buckets `biscuit-test`, and `biscuit-test-eu` in eu-west-1. The
//! tests are ignored; `.ci/run` starts servers and runs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use biscuit_apply::{RunMode, adopt};
use biscuit_aws::{AwsEnvironment, AwsOptions, bucket_region};
use biscuit_core::{Outcome, Result};
use biscuit_dataset::{Dataset, Location};
use biscuit_flows::process;
use biscuit_journal::{JournalOptions, TableStorage, WriterPolicy};
use biscuit_testkit::{
    FaultStore, InjectedFault, RecordingStore, assert_rows_eq, crash_at_every_call, pause_at_every_call, table,
};
use datafusion::prelude::SessionContext;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};

/// Returns the endpoint of the S3 server.
pub(crate) fn endpoint() -> String {
    std::env::var("BISCUIT_TEST_S3").expect("BISCUIT_TEST_S3 is the endpoint of an S3 server")
}

/// Returns a store for one test: a prefix in the bucket of the server.
pub(crate) async fn server(test: &str) -> TableStorage {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let aws = AwsEnvironment::new(AwsOptions::default().with_endpoint_url(endpoint()));
    let store = aws.store("biscuit-test").await.expect("the client is created");
    let prefix = format!("{test}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
    TableStorage::durable(Arc::new(PrefixStore::new(store, prefix)))
}

/// Opens the table as a single writer, so that put-if-absent is not probed in every round. One test below probes it.
pub(crate) fn dataset(storage: TableStorage) -> Dataset {
    let options = JournalOptions::default().with_writers(WriterPolicy::One);
    Dataset::new(Location::new(storage, "lake/t", "lake/t").expect("the place is valid"), options)
}

const CHANGES: &str = r#"
{"id":1,"seq":2,"day":"b","v":"moved","op":"u"}
{"id":2,"seq":2,"day":"b","v":null,"op":"d"}
{"id":4,"seq":2,"day":"c","v":"new","op":"c"}
"#;

async fn merge(storage: TableStorage, lines: &str) -> Result<()> {
    let mut reader = biscuit_change::RowsReader::new(biscuit_change::RowsOptions::default().with_op("op"));
    reader.read("c.jsonl", lines.to_owned().into_bytes().into())?;
    process::merge_changes(&dataset(storage), reader.finish()?).await.map(drop)
}

/// Returns a store with a table that another tool wrote.
async fn populated(test: &str) -> TableStorage {
    let storage = server(test).await;
    for (day, rows) in [("a", "1 | 1 | x"), ("b", "2 | 1 | y")] {
        let rows = table(&format!("id:bigint | seq:bigint | v:string\n{rows}"));
        let mut bytes = Vec::new();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).expect("the writer is created");
        writer.write(&rows).expect("the rows are written");
        writer.close().expect("the file is closed");
        let path = Path::from(format!("lake/t/day={day}/part-0.parquet"));
        storage.store.put(&path, bytes.into()).await.expect("the put succeeds");
    }
    storage
}

async fn check(storage: TableStorage, at: u64) {
    let dataset = dataset(storage);
    dataset.journal().recover_with_fence().await.expect("the recovery succeeds");
    let snapshot = dataset.view().await.expect("the table is readable");
    assert!(snapshot.observed.orphan_files.is_empty() && snapshot.observed.external.is_empty(), "call {at}");
    let frame = snapshot.load(&SessionContext::new()).await.expect("the frame is valid");
    let want = table("id:bigint | seq:bigint | day:string | v:string\n1 | 2 | b | moved\n4 | 2 | c | new");
    assert_rows_eq!(frame.collect().await.expect("the rows are readable"), want);
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn merge_on_s3_survives_a_crash_at_every_call() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let done = crash_at_every_call(fault, || populated("crash"), |s| merge(s, CHANGES), check).await;
        assert!(done.crashed > 20, "{done:?}");
    }
}

/// Merges a record that is older than the record of the sleeping run.
async fn meanwhile(storage: TableStorage, n: u32) -> Result<()> {
    let lines =
        [r#"{"id":1,"seq":0,"day":"a","v":"late","op":"u"}"#, r#"{"id":4,"seq":1,"day":"a","v":"older","op":"c"}"#];
    merge(storage, lines[n as usize - 1]).await
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn merge_on_s3_may_sleep_at_every_call() {
    let done =
        pause_at_every_call(InjectedFault::Pause, || populated("pause"), |s| merge(s, CHANGES), meanwhile, check).await;
    assert!(done.slept > 20, "{done:?}");
}

/// Returns a table whose version 1 is committed and not finished.
async fn unfinished() -> TableStorage {
    let storage = populated("recover").await;
    let (recorder, rehearsal) = RecordingStore::storage(&populated("rehearsal").await);
    merge(rehearsal, CHANGES).await.expect("the merge succeeds");
    let calls = recorder.calls();
    let record =
        calls.all().iter().position(|c| c.starts_with("create") && c.ends_with("1.json")).expect("the record is found");
    let dying = FaultStore::new(storage.store.clone(), InjectedFault::CrashAfter, record as u64 + 1);
    merge(storage.with_store(Arc::new(dying)), CHANGES).await.expect_err("the merge fails");
    storage
}

async fn recover(storage: TableStorage) -> Result<()> {
    dataset(storage).journal().recover().await.map(drop)
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn recovery_on_s3_survives_crashes_and_may_sleep() {
    crash_at_every_call(InjectedFault::Crash, unfinished, recover, check).await;
    pause_at_every_call(InjectedFault::Pause, unfinished, recover, meanwhile, check).await;
}

/// Returns a table with the right rows whose journal was deleted.
async fn orphaned() -> TableStorage {
    use futures::TryStreamExt;
    let storage = populated("adopt").await;
    merge(storage.clone(), CHANGES).await.expect("the merge succeeds");
    let state = Path::from("lake/.biscuit");
    let listed: Vec<_> = storage.store.list(Some(&state)).try_collect().await.expect("the listing succeeds");
    for object in listed {
        storage.store.delete(&object.location).await.expect("the delete succeeds");
    }
    storage
}

async fn take(storage: TableStorage) -> Result<()> {
    adopt(&dataset(storage), RunMode::Commit).await.map(drop)
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn adoption_on_s3_survives_crashes_and_may_sleep() {
    crash_at_every_call(InjectedFault::Crash, orphaned, take, check).await;
    let others = |s: TableStorage, n: u32| async move { if n == 1 { take(s).await } else { meanwhile(s, 2).await } };
    pause_at_every_call(InjectedFault::Pause, orphaned, take, others, check).await;
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn the_probe_of_put_if_absent_passes_on_s3() {
    let storage = server("probe").await;
    let careful = Dataset::new(
        Location::new(storage, "lake/t", "lake/t").expect("the place is valid"),
        JournalOptions::default(),
    );
    let mut reader = biscuit_change::RowsReader::new(biscuit_change::RowsOptions::default().with_op("op"));
    reader.read("c.jsonl", CHANGES.to_owned().into_bytes().into()).expect("the lines are readable");
    let report = process::merge_changes(&careful, reader.finish().expect("the records are readable"))
        .await
        .expect("the merge succeeds");
    assert_eq!((report.outcome, report.rows.after), (Outcome::Committed, 2));
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn a_bucket_that_does_not_exist_and_wrong_credentials_are_named_in_the_error() {
    let endpoint = endpoint();
    let aws = AwsEnvironment::new(AwsOptions::default().with_endpoint_url(endpoint));
    let store = aws.store("no-such-bucket").await.expect("the client is created");
    let location = Location::new(TableStorage::durable(store), "lake/t", "s3://no-such-bucket/lake/t");
    let dataset = Dataset::new(location.expect("the place is valid"), JournalOptions::default());
    let mut reader = biscuit_change::RowsReader::new(biscuit_change::RowsOptions::default());
    reader.read("c.jsonl", b"{\"id\":1,\"seq\":1}".to_vec().into()).expect("the line is read");
    let e = process::merge_changes(&dataset, reader.finish().expect("the records are readable")).await.unwrap_err();
    assert_eq!(e.code(), "NoSuchBucket", "{e}");
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn the_server_is_a_store_that_the_journal_can_use() {
    let storage = server("store").await;
    biscuit_testkit::conformance::check_store(&storage.store, &Path::from("root")).await;
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn a_bucket_says_its_region() {
    let endpoint = endpoint();
    let region = |bucket: &'static str| bucket_region(bucket, Some(&endpoint));
    assert_eq!(region("biscuit-test-eu").await.expect("the region is known"), "eu-west-1");
    assert_eq!(region("biscuit-test").await.expect("the region is known"), "us-east-1");
    assert_eq!(bucket_region("x", Some("http://127.0.0.1:9")).await.unwrap_err().code(), "NoRegion");
}
