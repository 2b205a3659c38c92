//! The sink of a merge complies with the conformance suite.

use std::sync::Arc;

use biscuit_apply::{MergeOptions, MergeSink, MergeSpec, OrderAuthority, TombstonePolicy};
use biscuit_change::{ChangeRecords, RowsOptions, RowsReader};
use biscuit_core::{CommitId, Instant, Outcome, Run, RunId, Sink};
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_testkit::conformance::{SinkCase, check_storage_sink};
use biscuit_testkit::dataset_text;
use futures::FutureExt;
use object_store::memory::InMemory;

fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

fn dataset(storage: &TableStorage) -> Dataset {
    Dataset::new(
        Location::new(storage.clone(), "lake/t", "lake/t").expect("the place is valid"),
        JournalOptions::default(),
    )
}

fn spec() -> MergeSpec {
    MergeSpec::new(["id"], ["seq"]).expect("the spec is valid")
}

fn records(lines: &'static str) -> ChangeRecords {
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
    if !lines.is_empty() {
        reader.read("changes.jsonl", lines.into()).expect("the lines are valid");
    }
    reader.finish().expect("the lines are valid")
}

fn sink(storage: &TableStorage) -> MergeSink {
    MergeSink::new(dataset(storage))
        .with_options(MergeOptions::default().with_parallelism(1))
        .with_spec(spec())
        .expect("the spec is repeatable")
}

fn run() -> Run {
    Run::new("customers", RunId::new("1"), Instant::from_micros(0))
}

const FIRST: &str = r#"{"id": 1, "seq": 1, "v": "a", "op": "c"}
{"id": 2, "seq": 2, "v": "b", "op": "c"}
{"id": 3, "seq": 3, "v": "c", "op": "c"}"#;

#[tokio::test]
async fn merge_sink_passes_the_conformance_suite() {
    let case = SinkCase {
        first: records(FIRST),
        second: records(
            r#"{"id": 1, "seq": 4, "v": "d", "op": "u"}
{"id": 2, "seq": 5, "op": "d"}"#,
        ),
        empty: records(""),
        failing: Some(records(
            r#"{"id": 1, "seq": 6, "v": "e", "op": "u"}
{"id": 2, "seq": null, "v": "f", "op": "u"}"#,
        )),
    };
    let open = |storage: TableStorage| -> Arc<dyn Sink<ChangeRecords>> { Arc::new(sink(&storage)) };
    let read = |storage: TableStorage| {
        async move {
            let text = dataset_text(&dataset(&storage)).await.expect("the table can be read");
            text.lines().map(str::to_owned).collect()
        }
        .boxed()
    };
    check_storage_sink(&open, &read, &case).await;
}

#[tokio::test]
async fn receipt_counts_records_and_the_report_counts_rows() {
    let sink = sink(&memory());
    assert!(sink.last_report().is_none());
    let empty = sink.write(&run(), &CommitId::new("empty"), records("")).await.expect("the write succeeds");
    assert_eq!((empty.outcome, empty.rows, sink.last_report()), (Outcome::Unchanged, 0, None));
    let receipt = sink.write(&run(), &CommitId::new("a"), records(FIRST)).await.expect("the write succeeds");
    assert_eq!((receipt.outcome, receipt.rows), (Outcome::Committed, 3));
    assert_eq!(receipt.place, "lake/t version 1");
    let rows = sink.last_report().expect("the report is readable").rows;
    assert_eq!((rows.before, rows.after, rows.inserted), (0, 3, 3));
}

#[tokio::test]
async fn key_and_order_of_the_records_are_the_default() {
    let storage = memory();
    let sink = MergeSink::new(dataset(&storage)).with_options(MergeOptions::default().with_parallelism(1));
    let e = sink.write(&run(), &CommitId::new("a"), records(FIRST)).await.expect_err("the records have no key");
    assert_eq!(e.code(), "InvalidArguments");
    let mut changes = records(FIRST);
    (changes.key, changes.order) = (vec!["id".to_owned()], vec!["seq".to_owned()]);
    let receipt = sink.write(&run(), &CommitId::new("a"), changes).await.expect("the write succeeds");
    assert_eq!((receipt.outcome, receipt.rows), (Outcome::Committed, 3));
}

#[test]
fn spec_that_a_retry_would_apply_twice_is_refused() {
    for spec in [
        spec().with_authority(OrderAuthority::Reload),
        spec().with_tombstones(TombstonePolicy::Forget),
        spec().with_drop_columns(["id"]),
    ] {
        assert_eq!(
            MergeSink::new(dataset(&memory())).with_spec(spec).expect_err("the value is refused").code(),
            "InvalidArguments"
        );
    }
}
