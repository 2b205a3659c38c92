//! The rows depend only on the set of records: any order, any split, any replay.

use biscuit_apply::{
    ChangeFormat, IgnoreNull, Merge, MergeInput, MergeOptions, MergeSpec, RunMode, quarantined_records,
};
use biscuit_change::{BadRows, RowsOptions, RowsReader};
use biscuit_dataset::{Dataset, ParquetOptions};
use biscuit_testkit::internal::{History, true_state};
use biscuit_testkit::internal::{HistoryOptions, RecordKind, TrueRecord, histories};
use biscuit_testkit::{FaultStore, InjectedFault};
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::lake::{self, serial, spec};

fn line(r: &TrueRecord) -> String {
    let cell = |v: &Option<i64>| v.map_or("null".to_owned(), |v| format!("\"v{v}\""));
    let row = |op: &str, a: String, b: String, c: String| {
        format!("{{\"id\":{},\"seq\":{},\"a\":{a},\"b\":{b},\"c\":{c},\"op\":\"{op}\"}}\n", r.key, r.order)
    };
    let null = || "null".to_owned();
    match &r.kind {
        RecordKind::Full([a, b, c]) | RecordKind::Sparse([a, b, c]) => row("u", cell(a), cell(b), cell(c)),
        RecordKind::Unavailable([a, b]) => row("u", cell(a), cell(b), "\"__debezium_unavailable_value\"".to_owned()),
        RecordKind::Delete => row("d", null(), null(), null()),
        RecordKind::Truncate => format!("{{\"id\":null,\"seq\":{},\"op\":\"t\"}}\n", r.order),
    }
}

type Rows = BTreeMap<i64, [Option<i64>; 3]>;

async fn deliver(history: &History, spec: &MergeSpec, options: &MergeOptions) -> Rows {
    let dataset = lake::dataset(lake::memory());
    let mut pending = String::new();
    for (i, delivery) in history.deliveries.iter().enumerate() {
        let lines: String = delivery.iter().map(|&i| line(&history.records[i])).collect();
        pending.push_str(&lines);
        match lake::merge_with(&dataset, spec, options, &pending).await {
            Ok(_) => pending.clear(),
            // An unchanged value may not be known yet: such a run is refused, and is repeated later.
            Err(e) if e.code() == "UnavailableWithoutPrior" && i + 1 < history.deliveries.len() => {}
            Err(e) => panic!("{e}\n{pending}"),
        }
    }
    rows_of(&dataset).await
}

async fn rows_of(dataset: &Dataset) -> Rows {
    let mut rows = Rows::new();
    for batch in lake::rows(dataset).await {
        let ids = batch.column_by_name("id").expect("the column `id` exists").as_primitive::<Int64Type>();
        let cell = |name: &str, r: usize| {
            let column = batch.column_by_name(name)?.as_string::<i32>();
            column.is_valid(r).then(|| column.value(r).trim_start_matches('v').parse().expect("the value is a number"))
        };
        for r in 0..batch.num_rows() {
            assert!(rows.insert(ids.value(r), ["a", "b", "c"].map(|c| cell(c, r))).is_none(), "a key twice");
        }
    }
    rows
}

/// Delivers with a fault at a call of every run. A failed run is repeated without faults.
async fn deliver_with_faults(history: &History, spec: &MergeSpec, faults: &[(InjectedFault, u64)]) -> Rows {
    let storage = lake::memory();
    let lines = |d: &[usize]| d.iter().map(|&i| line(&history.records[i])).collect::<String>();
    for (delivery, (fault, at)) in history.deliveries.iter().zip(faults.iter().cycle()) {
        let faulty = storage.with_store(Arc::new(FaultStore::new(storage.store.clone(), *fault, *at)));
        let lines = lines(delivery);
        if lake::merge_with(&lake::dataset(faulty), spec, &serial(), &lines).await.is_err() {
            let again = lake::merge_with(&lake::dataset(storage.clone()), spec, &serial(), &lines).await;
            again.unwrap_or_else(|e| panic!("after {fault:?} at call {at}: {e}\n{lines}"));
        }
    }
    let dataset = lake::dataset(storage);
    assert!(dataset.observe().await.expect("the table is observed").observed.orphan_files.is_empty());
    rows_of(&dataset).await
}

/// Delivers with a quarantine: records whose unchanged values are not known yet are quarantined, and retried in the
/// end.
async fn deliver_with_quarantine(history: &History, spec: &MergeSpec, options: MergeOptions) -> Rows {
    let dataset = lake::dataset(lake::memory());
    let options = options.with_bad_rows(BadRows::Quarantine, 100.0);
    let merge = Merge::new(dataset.clone(), spec.clone(), options).expect("the specification is valid");
    let schema = Schema::new(["a", "b", "c"].map(|n| Field::new(n, DataType::Utf8, true)).to_vec());
    let rows = || {
        let rows = RowsOptions::default().with_op("op").with_bad_rows(BadRows::Quarantine);
        rows.with_expected(Arc::new(schema.clone()))
    };
    for (n, delivery) in history.deliveries.iter().enumerate() {
        let lines: String = delivery.iter().map(|&i| line(&history.records[i])).collect();
        if lines.is_empty() {
            continue;
        }
        let mut reader = RowsReader::new(rows());
        reader.read(&format!("{n}.jsonl"), lines.into_bytes().into()).expect("the lines are readable");
        let report = merge
            .run(reader.finish().expect("the records are readable"), RunMode::Commit)
            .await
            .expect("invalid records are quarantined");
        assert_eq!(report.verdicts.total(), report.records);
    }
    merge
        .input(MergeInput::Quarantined(ChangeFormat::Rows(rows())))
        .run(RunMode::Commit)
        .await
        .expect("the retry succeeds");
    let left = quarantined_records(&dataset).await.expect("the quarantine is readable");
    assert!(left.is_empty(), "all unchanged values are known: {left:?}");
    rows_of(&dataset).await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("the runtime starts").block_on(future)
}

/// Faults without torn writes: puts are atomic on S3 and in memory, and so are the objects of the journal on a disk.
fn faults() -> impl Strategy<Value = Vec<(InjectedFault, u64)>> {
    let fault = prop_oneof![
        Just(InjectedFault::Fail),
        Just(InjectedFault::Crash),
        Just(InjectedFault::CrashAfter),
        Just(InjectedFault::LoseAnswer),
        Just(InjectedFault::Refuse),
    ];
    prop::collection::vec((fault, 1..120_u64), 4)
}

fn check(history: &History, spec: &MergeSpec, options: &MergeOptions) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the runtime starts");
    let got = runtime.block_on(deliver(history, spec, options));
    assert_eq!(got, true_state(&history.records));
}

/// Options that put every key in its own part on the disk.
fn on_disk() -> MergeOptions {
    serial().with_change_memory(1)
}

/// Delivers to two tables, to one of them with all records on the disk. The reports have to be equal.
async fn deliver_twice(history: &History, spec: &MergeSpec, options: &MergeOptions) -> [Rows; 2] {
    let tables = [lake::dataset(lake::memory()), lake::dataset(lake::memory())];
    let with = [options.clone(), options.clone().with_change_memory(1)];
    for delivery in &history.deliveries {
        let lines: String = delivery.iter().map(|&i| line(&history.records[i])).collect();
        let mut reports = Vec::new();
        for (table, options) in tables.iter().zip(&with) {
            let report = lake::merge_with(table, spec, options, &lines).await.expect("the merge succeeds");
            reports.push((report.outcome, report.records, report.verdicts, report.rows, report.partitions));
        }
        assert_eq!(reports[0], reports[1], "{lines}");
    }
    [rows_of(&tables[0]).await, rows_of(&tables[1]).await]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: biscuit_testkit::internal::scaled(96), ..ProptestConfig::default() })]

    #[test]
    fn full_images_may_come_in_any_order_and_split(h in histories(HistoryOptions { truncates: true, ..Default::default() })) {
        check(&h, &spec(), &serial());
    }

    #[test]
    fn sparse_updates_may_come_in_any_order_and_split(h in histories(HistoryOptions { sparse: true, truncates: true, ..Default::default() })) {
        check(&h, &spec().with_ignore_null(IgnoreNull::All), &serial());
    }

    #[test]
    fn unchanged_values_may_come_in_any_order_and_split(h in histories(HistoryOptions { unavailable: true, ..Default::default() })) {
        check(&h, &spec(), &serial());
    }

    #[test]
    fn dropped_order_columns_are_remembered(h in histories(HistoryOptions { unavailable: true, truncates: false, sparse: false })) {
        check(&h, &spec().with_drop_columns(["seq"]), &serial());
    }

    #[test]
    fn dropped_orders_of_sparse_updates_are_remembered(h in histories(HistoryOptions { sparse: true, truncates: true, ..Default::default() })) {
        check(&h, &spec().with_drop_columns(["seq"]).with_ignore_null(IgnoreNull::All), &serial());
    }

    #[test]
    fn row_groups_of_two_rows_make_no_difference(h in histories(HistoryOptions { sparse: true, truncates: true, ..Default::default() })) {
        let parquet = ParquetOptions::default().with_row_group_rows(2);
        check(&h, &spec().with_ignore_null(IgnoreNull::All), &serial().with_parquet(parquet));
    }

    #[test]
    fn records_on_the_disk_make_no_difference(h in histories(HistoryOptions { sparse: true, truncates: true, ..Default::default() })) {
        let options = serial().with_partition_by(["a"]).with_parquet(ParquetOptions::default().with_row_group_rows(2));
        for spec in [spec().with_ignore_null(IgnoreNull::All), spec().with_ignore_null(IgnoreNull::All).with_drop_columns(["seq"])] {
            let want = true_state(&h.records);
            assert_eq!(block_on(deliver_twice(&h, &spec, &options)), [want.clone(), want]);
        }
    }

    #[test]
    fn faults_make_no_difference_after_a_rerun(h in histories(HistoryOptions { sparse: true, truncates: true, ..Default::default() }), faults in faults()) {
        let spec = spec().with_ignore_null(IgnoreNull::All);
        assert_eq!(block_on(deliver_with_faults(&h, &spec, &faults)), true_state(&h.records));
    }

    #[test]
    fn quarantined_records_make_no_difference_after_a_retry(h in histories(HistoryOptions { unavailable: true, ..Default::default() })) {
        for options in [serial(), on_disk()] {
            assert_eq!(block_on(deliver_with_quarantine(&h, &spec(), options)), true_state(&h.records));
        }
    }

    #[test]
    fn partitions_and_parallelism_make_no_difference(h in histories(HistoryOptions { truncates: true, ..Default::default() })) {
        check(&h, &spec(), &MergeOptions::default().with_partition_by(["a"]).with_parallelism(4));
    }
}
