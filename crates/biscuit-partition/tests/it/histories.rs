//! Random histories: every period, read as plain Parquet, equals the complete rebuild in SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_apply::MergeSpec;
use biscuit_core::Outcome;
use biscuit_partition::PeriodTable;
use biscuit_testkit::{FaultStore, InjectedFault};
use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::lab::{self, effective, objects, run, texts};

const PERIODS: [(&str, &str); 5] = [
    ("2024-01", "2024-02-01T00:00:00"),
    ("2024-02", "2024-03-01T00:00:00"),
    ("2024-03", "2024-04-01T00:00:00"),
    ("2024-04", "2024-05-01T00:00:00"),
    ("2024-05", "2024-06-01T00:00:00"),
];

/// Instants inside of periods and between them.
const TIMES: [&str; 11] = [
    "2024-01-01T00:00:00",
    "2024-01-20T10:00:00",
    "2024-02-01T00:00:00",
    "2024-02-10T00:00:00",
    "2024-02-29T23:59:59",
    "2024-03-01T00:00:00",
    "2024-03-15T12:00:00",
    "2024-04-02T00:00:00",
    "2024-04-30T23:59:59",
    "2024-05-01T00:00:00",
    "2024-05-20T00:00:00",
];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    id: u8,
    seq: u8,
    op: &'static str,
    time: usize,
}

impl Event {
    fn eff(&self) -> &'static str {
        TIMES[self.time]
    }

    /// Value of the event. It is a function of the event, so events with equal key and order are equal.
    fn v(&self) -> String {
        format!("{}.{}.{}.{}", self.id, self.seq, self.time, self.op)
    }

    fn line(&self) -> String {
        let Self { id, seq, op, .. } = self;
        format!(r#"{{"id":{id},"seq":{seq},"eff":"{}","v":"{}","op":"{op}"}}"#, self.eff(), self.v())
    }
}

/// The order of the records of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ord {
    Eff,
    Seq,
}

impl Ord {
    fn spec(self) -> MergeSpec {
        let column = if self == Self::Eff { "eff" } else { "seq" };
        MergeSpec::new(["id"], [column]).expect("the spec is valid").with_op_rank(["c", "u", "d"])
    }

    fn sql(self) -> &'static str {
        if self == Self::Eff { "eff" } else { "seq" }
    }
}

fn ops() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("c"), 4 => Just("u"), 3 => Just("d")]
}

/// Generates events such that events with the same key, order and operation are equal.
fn events(ord: Ord) -> impl Strategy<Value = Vec<Event>> {
    let event = (0..4_u8, 0..10_u8, ops(), 0..TIMES.len());
    let event = event.prop_map(|(id, seq, op, time)| Event { id, seq, op, time });
    prop::collection::vec(event, 1..24).prop_map(move |events| {
        let mut by_order: BTreeMap<(u8, usize, &str), Event> = BTreeMap::new();
        for e in events {
            let order = if ord == Ord::Eff { e.time } else { usize::from(e.seq) };
            // Ordered by effective time, the sequence number must not distinguish records.
            let e = if ord == Ord::Eff { Event { seq: 0, ..e } } else { e };
            by_order.entry((e.id, order, e.op)).or_insert(e);
        }
        by_order.into_values().collect()
    })
}

/// A run: its records, its month, and the storage call at which its first attempt crashes, if any.
#[derive(Debug, Clone)]
struct Run {
    records: Vec<Index>,
    month: usize,
    crash: Option<u64>,
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let run = (prop::collection::vec(any::<Index>(), 0..12), 0..5_usize, prop::option::weighted(0.6, 0..120_u64));
    prop::collection::vec(run.prop_map(|(records, month, crash)| Run { records, month, crash }), 1..4)
}

fn as_of(month: usize) -> String {
    format!("{}-10", PERIODS[month].0)
}

/// Returns the rows of each period: the newest record of each key among those that take effect before the end of the
/// period.
async fn truth(events: &[Event], ord: Ord) -> BTreeMap<String, Vec<String>> {
    let ctx = SessionContext::new();
    let text = |f: fn(&Event) -> String| Arc::new(events.iter().map(|e| Some(f(e))).collect::<StringArray>());
    let number = |f: fn(&Event) -> i64| Arc::new(Int64Array::from_iter_values(events.iter().map(f)));
    let table = RecordBatch::try_from_iter([
        ("id", number(|e| e.id.into()) as _),
        ("seq", number(|e| e.seq.into()) as _),
        (
            "rank",
            number(|e| ["c", "u", "d"].iter().position(|op| *op == e.op).expect("the operation has a rank") as i64)
                as _,
        ),
        ("eff", text(|e| e.eff().to_owned()) as _),
        ("v", text(Event::v) as _),
    ]);
    ctx.register_batch("events", table.expect("the columns have equal lengths")).expect("the table is registered");
    let periods = RecordBatch::try_from_iter([
        ("period", Arc::new(StringArray::from_iter_values(PERIODS.iter().map(|p| p.0))) as _),
        ("until", Arc::new(StringArray::from_iter_values(PERIODS.iter().map(|p| p.1))) as _),
    ]);
    ctx.register_batch("periods", periods.expect("the columns have equal lengths")).expect("the table is registered");
    let sql = format!(
        "select period, id, v from (
            select period, id, v, rank, row_number() over (partition by period, id order by {} desc, rank desc) as n
            from events join periods on eff < until)
         where n = 1 and rank < 2",
        ord.sql()
    );
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for batch in ctx.sql(&sql).await.expect("the query is valid").collect().await.expect("the rows are readable") {
        for (period, row) in texts(&batch, &["period"]).into_iter().zip(texts(&batch, &["id", "v"])) {
            rows.entry(period).or_default().push(row);
        }
    }
    rows.values_mut().for_each(|rows| rows.sort());
    rows
}

async fn holds(events: Vec<Event>, runs: Vec<Run>, rebuilt: Vec<usize>, spills: bool, ord: Ord) {
    let storage = lab::memory();
    let periods = || {
        let first = effective().calendar.parse("2024-01").expect("the period is valid");
        effective().with_first(first)
    };
    // Either all records fit in memory, or none: then they are spilled to disk and merged key by key.
    let options = if spills { lab::options().with_change_memory(1) } else { lab::options() };
    let table = |storage| lab::table_with(&storage, ord.spec(), options.clone(), periods());
    let lines = |picked: &[Event]| picked.iter().map(Event::line).collect::<Vec<_>>().join("\n");
    let ask = |table: PeriodTable, lines: String, month: usize| async move { run(&table, &lines, &as_of(month)).await };
    for Run { records, month, crash } in &runs {
        let picked: Vec<Event> = records.iter().map(|i| i.get(&events).clone()).collect();
        if let Some(call) = crash {
            let dying = FaultStore::new(storage.store.clone(), InjectedFault::Crash, *call);
            let dying = storage.with_store(Arc::new(dying));
            // The run may finish before that call.
            let _ = ask(table(dying), lines(&picked), *month).await;
        }
        // The input of an interrupted run is read again, at the latest by the last run.
        if crash.is_none_or(|call| call % 2 == 0) {
            ask(table(storage.clone()), lines(&picked), *month).await.expect("the run succeeds");
        }
    }
    // All events again, in another order, with the last month open.
    let mut all = events.clone();
    all.reverse();
    ask(table(storage.clone()), lines(&all), 4).await.expect("the last run succeeds");
    let truth = truth(&events, ord).await;
    assert_eq!(lab::rows(&storage, &["id", "v"]).await, truth, "{events:#?} {runs:#?}");
    let before = objects(&storage).await;
    let report = ask(table(storage.clone()), lines(&events), 4).await.expect("the rerun succeeds");
    assert_eq!(report.outcome, Outcome::Unchanged);
    assert_eq!(objects(&storage).await, before);
    // Rebuild some periods and run everything once more, which checks the key metadata as well.
    let table = table(storage.clone());
    let rebuilt: Vec<_> =
        rebuilt.iter().map(|m| effective().calendar.parse(PERIODS[*m].0).expect("the period is valid")).collect();
    if !rebuilt.is_empty() {
        let records = lab::changes(&lines(&events)).expect("the records are valid");
        table.rebuild(&rebuilt, records, biscuit_apply::RunMode::Commit).await.expect("the rebuild succeeds");
        assert_eq!(lab::rows(&storage, &["id", "v"]).await, truth, "after a rebuild of {rebuilt:?}: {events:#?}");
        let report = ask(table, lines(&events), 4).await.expect("the rerun succeeds");
        assert_eq!(report.outcome, Outcome::Unchanged, "{rebuilt:?} {report:#?} {events:#?}");
    }
}

fn check(ord: Ord) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the runtime starts");
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let cases = cases.unwrap_or_else(|| biscuit_testkit::internal::scaled(1000));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rebuilt = prop::collection::vec(0..5_usize, 0..3);
    proptest!(config, |(events in events(ord), runs in runs(), rebuilt in rebuilt, spills in prop::bool::weighted(0.2))| {
        runtime.block_on(holds(events, runs, rebuilt, spills, ord));
    });
}

#[test]
fn every_period_equals_the_sql_rebuild_ordered_by_effective_time() {
    check(Ord::Eff);
}

#[test]
fn every_period_equals_the_sql_rebuild_ordered_by_sequence_number() {
    check(Ord::Seq);
}
