//! Tests of the job on a lake in memory.

use std::sync::Arc;

use biscuit_apply::{MergeOptions, MergeSink};
use biscuit_change::{ChangeRecords, DebeziumOptions, DebeziumReader};
use biscuit_core::{Instant, Job, Outcome, Result, Run, RunId};
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_testkit::{InjectedFault, MemorySource, RecordingSink, assert_rows_snapshot, crash_at_every_call};
use customer_state::CustomerState;
use datafusion::arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use object_store::memory::InMemory;

const FILES: [&[u8]; 3] = [
    include_bytes!("../data/snapshot.jsonl.gz"),
    include_bytes!("../data/stream-1.jsonl.gz"),
    include_bytes!("../data/stream-2.jsonl.gz"),
];

fn read(table: &str, files: &[usize]) -> ChangeRecords {
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_table(table));
    for &i in files {
        reader.read(&format!("{i}.jsonl.gz"), &FILES[i].into()).expect("the sample is valid");
    }
    reader.finish().expect("the sample has keys and orders")
}

fn run() -> Run {
    Run::new("customer-state", RunId::new("test"), Instant::from_micros(0))
}

fn dataset(storage: &TableStorage, table: &str) -> Dataset {
    let place = format!("lake/{table}");
    Dataset::new(Location::new(storage.clone(), &place, &place).expect("the path is valid"), JournalOptions::default())
}

fn job(storage: &TableStorage, files: &[usize]) -> CustomerState {
    job_of(storage, read("public.customer", files), read("public.orders", files))
}

fn job_of(storage: &TableStorage, customers: ChangeRecords, orders: ChangeRecords) -> CustomerState {
    let sink = |table| {
        let options = MergeOptions::default().with_parallelism(1);
        Arc::new(MergeSink::new(dataset(storage, table)).with_options(options))
    };
    CustomerState {
        customer_changes: Arc::new(MemorySource::of(customers)),
        order_changes: Arc::new(MemorySource::of(orders)),
        customers: sink("customer"),
        orders: sink("orders"),
    }
}

async fn rows(storage: &TableStorage, table: &str, columns: &[&str]) -> Vec<RecordBatch> {
    let frame = dataset(storage, table)
        .view()
        .await
        .expect("the table can be observed")
        .load(&SessionContext::new())
        .await
        .expect("the table can be loaded");
    frame.select_columns(columns).expect("the columns exist").collect().await.expect("the table can be read")
}

fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

#[tokio::test]
async fn sample_is_merged_to_the_current_state() {
    let storage = memory();
    job(&storage, &[0, 1, 2]).run(&run()).await.expect("the run succeeds");
    assert_rows_snapshot!("customers", rows(&storage, "customer", &["id", "name", "balance", "level", "birth"]).await);
    assert_rows_snapshot!(
        "orders",
        rows(&storage, "orders", &["customer_id", "order_no", "amount", "qty", "status"]).await
    );
}

#[tokio::test]
async fn three_runs_give_the_same_rows_as_one_and_a_fourth_changes_nothing() {
    let (once, thrice) = (memory(), memory());
    job(&once, &[0, 1, 2]).run(&run()).await.expect("the run succeeds");
    for file in 0..3 {
        job(&thrice, &[file]).run(&run()).await.expect("the run succeeds");
    }
    for table in ["customer", "orders"] {
        let all = biscuit_testkit::dataset_text(&dataset(&once, table)).await.expect("the table can be read");
        assert_eq!(all, biscuit_testkit::dataset_text(&dataset(&thrice, table)).await.expect("the table can be read"));
    }
    let again = job(&thrice, &[0, 1, 2]).run(&run()).await.expect("the run succeeds");
    assert_eq!(again.customers.outcome, Outcome::Unchanged);
    assert_eq!(again.orders.outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn job_survives_a_crash_at_every_call() {
    let expected = {
        let storage = memory();
        job(&storage, &[0, 1]).run(&run()).await.expect("the run succeeds");
        biscuit_testkit::dataset_text(&dataset(&storage, "orders")).await.expect("the table can be read")
    };
    let (customers, orders) = (read("public.customer", &[0, 1]), read("public.orders", &[0, 1]));
    let work = |storage: TableStorage| {
        let job = job_of(&storage, customers.clone(), orders.clone());
        async move { job.run(&run()).await.map(drop) }
    };
    let check = |storage: TableStorage, _| {
        let expected = expected.clone();
        async move {
            assert_eq!(
                biscuit_testkit::dataset_text(&dataset(&storage, "orders")).await.expect("the table can be read"),
                expected
            );
        }
    };
    crash_at_every_call(InjectedFault::Crash, || async { memory() }, work, check).await;
}

#[tokio::test]
async fn each_table_gets_its_own_changes_under_its_own_commit_id() -> Result<()> {
    let customers = Arc::new(RecordingSink::counting(|c: &ChangeRecords| c.len() as u64));
    let orders = Arc::new(RecordingSink::counting(|c: &ChangeRecords| c.len() as u64));
    let mut job = job(&memory(), &[0]);
    (job.customers, job.orders) = (customers.clone(), orders.clone());
    let outcome = job.run(&run()).await?;
    assert_eq!(customers.written()[0].commit.as_str(), "customer-state/test/customer");
    assert_eq!(orders.written()[0].value.key, ["customer_id", "order_no"]);
    assert_eq!(outcome.customers.rows, customers.written()[0].value.len() as u64);
    assert_eq!(job.run(&run().with_attempt(2)).await?.customers.outcome, Outcome::Unchanged);
    Ok(())
}
