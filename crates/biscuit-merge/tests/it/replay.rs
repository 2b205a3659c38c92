//! Random change records, and a plain replay of them as the expected result.

use std::collections::BTreeMap;

use biscuit_merge::{IgnoreNull, MergeSpec, PLACEHOLDER};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The columns `a` and `b` of a row. Values are small numbers, so that equal values occur.
pub(crate) type Cells = [Option<u8>; 2];

/// Effect of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Sets both columns.
    Image(Cells),
    /// Sets `a`. The value of `b` was not sent, because it did not change.
    Unchanged(Option<u8>),
    /// Deletes the row.
    Delete,
    /// Deletes all rows.
    Truncate,
}

/// A change record. A truncate does not use its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: i64,
    pub(crate) order: i64,
    pub(crate) change: Change,
}

/// A row and the order of its newest record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) order: i64,
    pub(crate) cells: Cells,
}

/// Rows by key.
pub(crate) type Rows = BTreeMap<i64, Row>;

/// Meaning of a null in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// A null is a value.
    Stored,
    /// A null is an unchanged value.
    Ignored,
    /// A null is an unchanged value in `b`, and a value in `a`.
    IgnoredInB,
}

impl Nulls {
    /// Returns the specification of a merge with this meaning of nulls.
    pub(crate) fn spec(self) -> MergeSpec {
        let ignored = match self {
            Self::Stored => IgnoreNull::None,
            Self::Ignored => IgnoreNull::All,
            Self::IgnoredInB => IgnoreNull::named(&["b".to_owned()]),
        };
        MergeSpec::new(["id"], ["seq"]).expect("the specification is valid").with_ignore_null(ignored)
    }

    /// Whether a null is an unchanged value in the column with this index.
    pub(crate) fn are_ignored_in(self, column: usize) -> bool {
        self == Self::Ignored || (self == Self::IgnoredInB && column == 1)
    }
}

/// Returns the rows after the records. Rows and records are replayed one after the other in their order; a record
/// follows a row of the same order, and a truncate follows both.
pub(crate) fn replay(current: &Rows, records: &[Record], nulls: Nulls) -> Rows {
    enum Event<'a> {
        Row(&'a Row),
        Change(&'a Change),
    }
    let mut events = BTreeMap::new();
    for (key, row) in current {
        events.insert((row.order, 0, *key), Event::Row(row));
    }
    for Record { key, order, change } in records {
        let place = if *change == Change::Truncate { 2 } else { 1 };
        events.insert((*order, place, *key), Event::Change(change));
    }
    let mut rows = Rows::new();
    for ((order, _, key), event) in events {
        let before = rows.get(&key).map_or([None; 2], |row: &Row| row.cells);
        let merged = |c: usize, new: Option<u8>| if nulls.are_ignored_in(c) { new.or(before[c]) } else { new };
        match event {
            Event::Row(row) => drop(rows.insert(key, row.clone())),
            Event::Change(Change::Image([a, b])) => {
                rows.insert(key, Row { order, cells: [merged(0, *a), merged(1, *b)] });
            }
            Event::Change(Change::Unchanged(a)) => {
                rows.insert(key, Row { order, cells: [merged(0, *a), before[1]] });
            }
            Event::Change(Change::Delete) => drop(rows.remove(&key)),
            Event::Change(Change::Truncate) => rows.clear(),
        }
    }
    rows
}

fn text(cell: Option<u8>) -> Value {
    cell.map_or(Value::Null, |n| format!("v{n}").into())
}

/// Returns a record as a JSON object with an operation code.
pub(crate) fn record(record: &Record) -> Value {
    let Record { key, order, change } = record;
    match change {
        Change::Image([a, b]) => json!({"id": key, "seq": order, "a": text(*a), "b": text(*b), "op": "u"}),
        Change::Unchanged(a) => json!({"id": key, "seq": order, "a": text(*a), "b": PLACEHOLDER, "op": "u"}),
        Change::Delete => json!({"id": key, "seq": order, "a": null, "b": null, "op": "d"}),
        Change::Truncate => json!({"id": null, "seq": order, "a": null, "b": null, "op": "t"}),
    }
}

/// Returns a row as a JSON object.
pub(crate) fn row((key, row): (&i64, &Row)) -> Value {
    json!({"id": key, "seq": row.order, "a": text(row.cells[0]), "b": text(row.cells[1])})
}

/// Parses rows in the order of the list. A column of which no value was ever known is missing.
pub(crate) fn parse(rows: &[Value]) -> Vec<(i64, Row)> {
    let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or_else(|| panic!("`{name}` of {row}"));
    let digit = |text: &str| text.trim_start_matches('v').parse().unwrap_or_else(|_| panic!("`{text}` is not a value"));
    let cell = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).map(digit);
    let parsed = |row: &Value| Row { order: number(row, "seq"), cells: ["a", "b"].map(|name| cell(row, name)) };
    rows.iter().map(|row| (number(row, "id"), parsed(row))).collect()
}

/// Current rows, change records in the order in which they happened, and a delivery of the records.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) nulls: Nulls,
    pub(crate) current: Rows,
    pub(crate) records: Vec<Record>,
    /// Batches of records in any order. Some records are delivered twice.
    pub(crate) delivery: Vec<Vec<Record>>,
}

/// Which kinds of records a history has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// All kinds.
    All,
    /// Without unchanged values that were not sent: a run before the one with the value cannot use them.
    Complete,
}

/// Orders of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orders {
    /// No two records or rows have the same order.
    Distinct,
    /// Few orders, so that many are equal.
    Tied,
}

fn cells() -> impl Strategy<Value = Cells> {
    let cell = || prop::option::weighted(0.65, 0_u8..4);
    [cell(), cell()]
}

/// Returns histories of up to 4 keys and 23 records. They are shuffled and cut into up to 5 batches, with up to 5
/// records delivered twice.
pub(crate) fn histories(kinds: Kinds, orders: Orders) -> impl Strategy<Value = History> {
    let change = prop_oneof![
        3 => Just(Change::Delete),
        1 => Just(Change::Truncate),
        4 => prop::option::weighted(0.65, 0_u8..4).prop_map(Change::Unchanged),
        12 => cells().prop_map(Change::Image),
    ];
    let records = prop::collection::vec((-1_i64..3, 0_i64..6, change), 1..24);
    let current = prop::collection::btree_map(-1_i64..3, (0_i64..16, cells()), 0..5);
    let nulls = prop_oneof![Just(Nulls::Stored), Just(Nulls::Ignored), Just(Nulls::IgnoredInB)];
    (nulls, current, records)
        .prop_map(move |(nulls, current, records)| {
            let row = |(n, cells)| match orders {
                Orders::Distinct => Row { order: 10 * n + 5, cells },
                Orders::Tied => Row { order: n / 4, cells },
            };
            let current: Rows = current.into_iter().map(|(key, given)| (key, row(given))).collect();
            let order = |at: i64, n: i64| if orders == Orders::Distinct { 10 * (at + 1) } else { n };
            let numbered = (0_i64..).zip(records);
            let records: Vec<Record> =
                numbered.map(|(at, (key, n, change))| Record { key, order: order(at, n), change }).collect();
            let may_miss = nulls == Nulls::Stored && kinds == Kinds::All && orders == Orders::Distinct;
            let records = possible(&current, records, may_miss);
            (nulls, current, records)
        })
        .prop_flat_map(|(nulls, current, records)| {
            let n = records.len();
            let delivery = prop::collection::vec(0..n, 0..6).prop_flat_map(move |twice| {
                let all: Vec<usize> = (0..n).chain(twice).collect();
                let cuts = prop::collection::vec(0..=all.len(), 0..5);
                (Just(all).prop_shuffle(), cuts)
            });
            (Just(nulls), Just(current), Just(records), delivery)
        })
        .prop_map(|(nulls, current, records, (all, mut cuts))| {
            cuts.sort_unstable();
            let ends = cuts.into_iter().chain([all.len()]);
            let batch = |from: usize, to: usize| all[from..to].iter().map(|i| records[*i].clone()).collect();
            let delivery = ends.scan(0, |from, to| Some(batch(std::mem::replace(from, to), to))).collect();
            History { nulls, current, records, delivery }
        })
}

/// Replaces updates that are impossible: an unchanged value needs a row. Without one, and if `may_miss` is false, the
/// update sets the value.
fn possible(current: &Rows, mut records: Vec<Record>, may_miss: bool) -> Vec<Record> {
    for i in 0..records.len() {
        let Record { key, order, change: Change::Unchanged(a) } = records[i] else { continue };
        let older: Rows = current.iter().filter(|(_, row)| row.order < order).map(|(k, r)| (*k, r.clone())).collect();
        if !may_miss || !replay(&older, &records[..i], Nulls::Stored).contains_key(&key) {
            records[i].change = Change::Image([a, Some(9)]);
        }
    }
    records
}
