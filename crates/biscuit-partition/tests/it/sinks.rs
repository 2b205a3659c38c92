//! The sink of a periodic snapshot complies with the conformance suite.

use std::sync::Arc;

use biscuit_apply::{OrderAuthority, TombstonePolicy};
use biscuit_change::ChangeRecords;
use biscuit_core::{CommitId, Instant, Outcome, Run, RunId, Sink};
use biscuit_journal::TableStorage;
use biscuit_partition::{PeriodBasis, PeriodPlan, PeriodSink};
use biscuit_testkit::conformance::{SinkCase, check_storage_sink};
use biscuit_testkit::dataset_text;
use futures::FutureExt;

use crate::lab::{HISTORY, changes, dataset, effective, memory, months, spec, table};

fn at(text: &str) -> Instant {
    text.parse().expect("the instant is valid")
}

fn sink(storage: &TableStorage, periods: PeriodPlan, as_of: &str) -> PeriodSink {
    PeriodSink::new(table(storage, spec(), periods), at(as_of)).expect("the spec is repeatable")
}

async fn check(periods: PeriodPlan) {
    let records = |lines: &str| changes(lines).expect("the lines are valid");
    let case = SinkCase {
        first: records(HISTORY),
        second: records(
            r#"{"id":"k3","eff":"2024-01-20","v":"d","op":"c"}
{"id":"k1","eff":"2024-02-20","v":"e","op":"u"}"#,
        ),
        empty: records(""),
        failing: Some(records(
            r#"{"id":"k4","eff":"2024-01-30","v":"f","op":"c"}
{"id":"k5","eff":null,"v":"g","op":"c"}"#,
        )),
    };
    let open = move |storage: TableStorage| -> Arc<dyn Sink<ChangeRecords>> {
        Arc::new(sink(&storage, periods.clone(), "2024-02-29"))
    };
    let read = |storage: TableStorage| {
        async move {
            let text = dataset_text(&dataset(storage)).await.expect("the table can be read");
            text.lines().map(str::to_owned).collect()
        }
        .boxed()
    };
    check_storage_sink(&open, &read, &case).await;
}

#[tokio::test]
async fn sink_by_effective_time_passes_the_conformance_suite() {
    check(effective()).await;
}

#[tokio::test]
async fn sink_by_ingestion_passes_the_conformance_suite() {
    check(months(PeriodBasis::Ingestion)).await;
}

#[tokio::test]
async fn write_without_records_opens_periods_up_to_the_current_one() {
    let storage = memory();
    let run = Run::new("policies", RunId::new("1"), at("2024-02-29"));
    let february = sink(&storage, effective(), "2024-02-29");
    let receipt = february
        .write(&run, &CommitId::new("a"), changes(HISTORY).expect("the records are valid"))
        .await
        .expect("the write succeeds");
    assert_eq!((receipt.outcome, receipt.rows), (Outcome::Committed, 3));
    let april = sink(&storage, effective(), "2024-04-01");
    assert!(april.last_report().is_none());
    let receipt = april.write(&run, &CommitId::new("b"), ChangeRecords::default()).await.expect("the write succeeds");
    assert_eq!((receipt.outcome, receipt.rows), (Outcome::Committed, 0));
    let opened =
        april.last_report().expect("the report is readable").periods.into_iter().filter(|p| p.is_new).map(|p| p.period);
    assert_eq!(opened.collect::<Vec<_>>(), ["2024-03", "2024-04"]);
    let receipt = april.write(&run, &CommitId::new("b"), ChangeRecords::default()).await.expect("the write succeeds");
    assert_eq!(receipt.outcome, Outcome::Unchanged);
}

#[test]
fn spec_that_a_retry_would_apply_twice_is_refused() {
    for spec in [spec().with_authority(OrderAuthority::Reload), spec().with_tombstones(TombstonePolicy::Forget)] {
        let table = table(&memory(), spec, effective());
        assert_eq!(
            PeriodSink::new(table, at("2024-02-29")).expect_err("the value is refused").code(),
            "InvalidArguments"
        );
    }
}
