//! The rows are those of a plain replay: for any order of the records, any batches, any runs, and any repetition.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::Result;
use biscuit_merge::{ChangeColumns, MergeSpec, ReductionReport, TiePolicy, merge_and_retain_last};
use biscuit_schema::internal::conform;
use proptest::prelude::*;
use serde_json::Value;

use crate::memory::Memory;
use crate::replay::{Change, History, Kinds, Orders, Record, Row, Rows, histories, parse, record, replay, row};
use crate::rows::{batch, objects};

fn batches(delivery: &[Vec<Record>]) -> Vec<RecordBatch> {
    delivery.iter().map(|records| batch(&records.iter().map(record).collect::<Vec<_>>())).collect()
}

/// Returns the current rows, sorted descending by key: the reduction keeps this order.
fn current(rows: &Rows) -> RecordBatch {
    batch(&rows.iter().rev().map(row).collect::<Vec<Value>>())
}

/// Returns the current rows in a table that has all columns before the first run. If `b` got its type later, a record
/// of a run without any value in `b` would count as a full image without this column, also where its nulls are ignored.
fn typed(rows: &Rows) -> RecordBatch {
    let types = [("id", DataType::Int64), ("seq", DataType::Int64), ("a", DataType::Utf8), ("b", DataType::Utf8)];
    let schema = Arc::new(Schema::new(types.map(|(name, t)| Field::new(name, t, true)).to_vec()));
    match rows.is_empty() {
        true => RecordBatch::new_empty(schema),
        false => conform(&current(rows), &schema, "the current rows").expect("the types are known"),
    }
}

fn merge(
    current: &RecordBatch,
    delivery: &[Vec<Record>],
    spec: &MergeSpec,
) -> Result<(Vec<(i64, Row)>, ReductionReport)> {
    let columns = ChangeColumns::default().with_op("op");
    // Without rows the columns of the table are not known.
    let current = Some(current).filter(|rows| rows.num_rows() > 0);
    let (rows, report) =
        merge_and_retain_last(current.map_or(&[], std::slice::from_ref), &batches(delivery), spec, &columns)?;
    Ok((parse(&objects(&rows)), report))
}

/// Returns the rows in the order of the result: current rows in their order, then new rows sorted by key.
fn in_order(before: &Rows, after: &Rows) -> Vec<(i64, Row)> {
    let kept = before.keys().rev().filter(|key| after.contains_key(key));
    let new = after.keys().filter(|key| !before.contains_key(key));
    kept.chain(new).map(|key| (*key, after[key].clone())).collect()
}

/// Checks the rows and the report of one delivery of a history. Returns the report.
fn check(history: &History, delivery: &[Vec<Record>]) -> ReductionReport {
    let (rows, report) =
        merge(&current(&history.current), delivery, &history.nulls.spec()).expect("the records are valid");
    let (before, after) = (&history.current, replay(&history.current, &history.records, history.nulls));
    assert_eq!(rows, in_order(before, &after));
    let records = delivery.iter().map(|records| records.len() as u64).sum::<u64>();
    assert_eq!((report.records, report.verdicts.total()), (records, records), "{report:?}");
    let count = |of: &Rows, without: &Rows| of.keys().filter(|key| !without.contains_key(key)).count() as u64;
    assert_eq!((report.rows.before, report.rows.after), (before.len() as u64, after.len() as u64));
    assert_eq!((report.rows.inserted, report.rows.deleted), (count(&after, before), count(before, &after)));
    report
}

fn one_reduction(history: &History) {
    let mut sorted = history.delivery.concat();
    sorted.sort_by_key(|record| record.order);
    let each: Vec<Vec<Record>> = sorted.iter().map(|record| vec![record.clone()]).collect();
    let report = check(history, &history.delivery);
    // Each record has the same verdict wherever it comes.
    assert_eq!(check(history, &[sorted]), report);
    assert_eq!(check(history, &each), report);
}

fn runs_with_memory(history: &History) {
    let mut memory = Memory::new(&history.nulls.spec(), &typed(&history.current)).expect("the rows are valid");
    for records in &history.delivery {
        let verdicts = memory.run(&batches(std::slice::from_ref(records))).expect("the records are valid");
        assert_eq!(verdicts.total(), records.len() as u64, "{verdicts:?}");
    }
    let rows: Rows = parse(&memory.rows().expect("the rows are readable")).into_iter().collect();
    assert_eq!(rows, replay(&history.current, &history.records, history.nulls));
}

/// Runs without memory, one after the other, on the rows of the run before. The records come in their order.
fn runs_in_order(history: &History) {
    let mut rows = history.current.clone();
    let mut left = history.records.as_slice();
    for n in history.delivery.iter().map(Vec::len) {
        let (run, rest) = left.split_at(n.min(left.len()));
        rows = merge(&current(&rows), &[run.to_vec()], &history.nulls.spec())
            .expect("the records are valid")
            .0
            .into_iter()
            .collect();
        left = rest;
    }
    assert!(left.is_empty(), "a delivery has at least all records");
    assert_eq!(rows, replay(&history.current, &history.records, history.nulls));
}

/// Whether two records of a key have the same order and different content.
fn is_ambiguous(records: &[Record]) -> bool {
    let same = |a: &Record, b: &Record| a.key == b.key && a.order == b.order;
    let keyed = || records.iter().filter(|record| record.change != Change::Truncate);
    keyed().any(|a| keyed().any(|b| same(a, b) && a.change != b.change))
}

/// Whether a record that is applied has the order of the current row of its key and different content.
fn corrects(history: &History) -> bool {
    let truncates = history.records.iter().filter(|record| record.change == Change::Truncate);
    let truncated = truncates.map(|record| record.order).max();
    let differs = |row: &Row, change: &Change| match change {
        Change::Image(cells) => {
            let mut changed = (0..2).filter(|c| cells[*c] != row.cells[*c]);
            changed.any(|c| cells[c].is_some() || !history.nulls.are_ignored_in(c))
        }
        Change::Delete => true,
        Change::Unchanged(_) | Change::Truncate => false,
    };
    history.records.iter().filter(|record| Some(record.order) > truncated).any(|record| {
        let row = history.current.get(&record.key).filter(|row| row.order == record.order);
        row.is_some_and(|row| differs(row, &record.change))
    })
}

fn ties(history: &History) {
    for policy in [TiePolicy::LaterRunWins, TiePolicy::Fail] {
        let refused = is_ambiguous(&history.records) || (policy == TiePolicy::Fail && corrects(history));
        let spec = history.nulls.spec().with_ties(policy);
        match merge(&current(&history.current), &history.delivery, &spec) {
            Ok((rows, _)) => {
                assert!(!refused, "{policy:?} accepts two records of one order");
                assert_eq!(
                    rows,
                    in_order(&history.current, &replay(&history.current, &history.records, history.nulls))
                );
            }
            Err(e) => assert!(refused && e.code() == "AmbiguousOrder", "{policy:?}: {e}"),
        }
    }
}

/// Deletes that are older than the rows change nothing, however many there are.
fn late_deletes(history: &History, ages: &[i64]) {
    let rows = &history.current;
    let late = |(key, row): (&i64, &Row), age: &i64| {
        let change = Change::Delete;
        Record { key: *key, order: row.order - age, change }
    };
    let records: Vec<Record> = rows.iter().zip(ages.iter().cycle()).map(|(row, age)| late(row, age)).collect();
    let n = records.len() as u64;
    let (after, report) = merge(&current(rows), &[records], &history.nulls.spec()).expect("the records are valid");
    assert_eq!((after, report.verdicts.late), (in_order(rows, rows), n));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn records_may_come_in_any_order_and_in_any_batches(h in histories(Kinds::All, Orders::Distinct)) {
        one_reduction(&h);
    }

    #[test]
    fn records_may_come_in_any_runs_if_states_are_remembered(h in histories(Kinds::Complete, Orders::Distinct)) {
        runs_with_memory(&h);
    }

    #[test]
    fn runs_in_the_order_of_the_records_need_no_memory(h in histories(Kinds::All, Orders::Distinct)) {
        runs_in_order(&h);
    }

    #[test]
    fn equal_orders_are_decided_by_the_tie_policy(h in histories(Kinds::Complete, Orders::Tied)) {
        ties(&h);
    }

    #[test]
    fn late_deletes_do_not_remove_newer_rows(
        h in histories(Kinds::Complete, Orders::Distinct),
        ages in prop::collection::vec(1_i64..100, 1..4),
    ) {
        late_deletes(&h, &ages);
    }
}
