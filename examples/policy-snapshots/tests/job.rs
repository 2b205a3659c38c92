//! Tests of the months after each delivery, on a lake in memory.

use std::sync::Arc;

use biscuit_core::{Instant, Outcome};
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_testkit::{assert_rows_snapshot, dataset_text};
use object_store::memory::InMemory;
use policy_snapshots::{Policies, delivery};

fn at(text: &str) -> Instant {
    text.parse().expect("the instant is valid")
}

fn dataset() -> Dataset {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    Dataset::new(
        Location::new(storage, "lake/policies", "policies").expect("the path is valid"),
        JournalOptions::default(),
    )
}

async fn deliver(policies: &Policies, day: &str) -> biscuit_partition::report::PeriodTableReport {
    let changes =
        delivery(&format!("{}/data/{day}.jsonl", env!("CARGO_MANIFEST_DIR"))).await.expect("the delivery can be read");
    policies.deliver(changes, at(day)).await.expect("the run succeeds")
}

#[tokio::test]
async fn each_delivery_changes_the_months_that_it_concerns() {
    let dataset = dataset();
    let policies = Policies::new(dataset.clone()).expect("the policies are valid");
    deliver(&policies, "2024-01-31").await;
    let report = deliver(&policies, "2024-02-29").await;
    assert_eq!(report.pending, 1, "one record takes effect in April");
    insta::assert_snapshot!("on_time", dataset_text(&dataset).await.expect("the rows are readable"));
    deliver(&policies, "2024-03-31").await;
    insta::assert_snapshot!("late_and_back_dated", dataset_text(&dataset).await.expect("the rows are readable"));
    let april =
        policies.deliver(biscuit_change::ChangeRecords::default(), at("2024-04-10")).await.expect("April opens");
    assert_eq!((april.opened, april.pending), (1, 0));
    assert_rows_snapshot!(
        "april",
        policies.as_of(at("2024-04-10")).await.expect("April exists").collect().await.expect("the rows are readable")
    );
    assert_rows_snapshot!(
        "okafor",
        policies
            .history("P-100")
            .await
            .expect("the states are readable")
            .collect()
            .await
            .expect("the rows are readable")
    );
}

#[tokio::test]
async fn delivering_the_same_files_again_changes_nothing() {
    let policies = Policies::new(dataset()).expect("the policies are valid");
    for day in ["2024-01-31", "2024-02-29", "2024-03-31"] {
        deliver(&policies, day).await;
    }
    for day in ["2024-03-31", "2024-01-31", "2024-02-29"] {
        assert_eq!(deliver(&policies, day).await.outcome, Outcome::Unchanged);
    }
}
