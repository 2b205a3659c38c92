//! The rows depend on nothing but the set of records: any order, any split, any replay.

use biscuit_merge::{IgnoreNull, MergeOptions, MergeSpec};
use biscuit_testkit::{History, HistoryOptions, RecordKind, TrueRecord, histories, true_state};
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::Int64Type;
use proptest::prelude::*;
use std::collections::BTreeMap;

use crate::lake;

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
    let mut waiting = String::new();
    for (i, delivery) in history.deliveries.iter().enumerate() {
        let lines: String = delivery.iter().map(|&i| line(&history.records[i])).collect();
        waiting.push_str(&lines);
        match lake::merge_with(&dataset, spec, options, &waiting).await {
            Ok(_) => waiting.clear(),
            // A value may not be known before the run that brings it: such a run is refused, and comes again.
            Err(e) if e.code() == "UnavailableWithoutPrior" && i + 1 < history.deliveries.len() => {}
            Err(e) => panic!("{e}\n{waiting}"),
        }
    }
    let mut rows = Rows::new();
    for batch in lake::rows(&dataset).await {
        let ids = batch.column_by_name("id").expect("id").as_primitive::<Int64Type>();
        let cell = |name: &str, r: usize| {
            let column = batch.column_by_name(name)?.as_string::<i32>();
            column.is_valid(r).then(|| column.value(r).trim_start_matches('v').parse().expect("a number"))
        };
        for r in 0..batch.num_rows() {
            assert!(rows.insert(ids.value(r), ["a", "b", "c"].map(|c| cell(c, r))).is_none(), "a key twice");
        }
    }
    rows
}

fn check(history: &History, spec: &MergeSpec, options: &MergeOptions) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let got = runtime.block_on(deliver(history, spec, options));
    assert_eq!(got, true_state(&history.records));
}

fn spec() -> MergeSpec {
    MergeSpec::new(["id"], ["seq"]).expect("a spec")
}

fn serial() -> MergeOptions {
    MergeOptions::default().with_parallelism(1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn full_images_in_any_order_and_any_split(h in histories(HistoryOptions { truncates: true, ..Default::default() })) {
        check(&h, &spec(), &serial());
    }

    #[test]
    fn sparse_updates_in_any_order_and_any_split(h in histories(HistoryOptions { sparse: true, truncates: true, ..Default::default() })) {
        check(&h, &spec().with_ignore_null(IgnoreNull::All), &serial());
    }

    #[test]
    fn unavailable_values_in_any_order_and_any_split(h in histories(HistoryOptions { unavailable: true, ..Default::default() })) {
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
    fn partitions_and_parallelism_make_no_difference(h in histories(HistoryOptions { truncates: true, ..Default::default() })) {
        check(&h, &spec(), &MergeOptions::default().with_partition_by(["a"]).with_parallelism(4));
    }
}
