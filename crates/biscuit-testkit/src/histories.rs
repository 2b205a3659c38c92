use std::collections::BTreeMap;

use proptest::prelude::*;

/// What a generated record does. Values are small numbers, so that equal ones come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKind {
    /// Sets all three columns; none is null.
    Full([Option<i64>; 3]),
    /// Sets the columns that have a value and leaves the others as they are.
    Sparse([Option<i64>; 3]),
    /// Sets the first two columns; the value of the third was not available.
    Unavailable([Option<i64>; 2]),
    /// Deletes the row.
    Delete,
    /// Deletes all rows.
    Truncate,
}

/// One record of a history: order numbers are unique, so that no two records of a key tie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrueRecord {
    /// The key; of no meaning for a truncate.
    pub key: i64,
    /// The order.
    pub order: i64,
    /// What it does.
    pub kind: RecordKind,
}

/// A history: records in the order in which they happened, and how they are delivered.
#[derive(Debug, Clone)]
pub struct History {
    /// As it happened, ascending by order.
    pub records: Vec<TrueRecord>,
    /// As it is delivered: runs of indices into `records`, in any order, some of them twice.
    pub deliveries: Vec<Vec<usize>>,
}

/// Which records a history may have.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryOptions {
    /// Sparse updates instead of full ones.
    pub sparse: bool,
    /// Values that were not available; only where there is a row to take them from.
    pub unavailable: bool,
    /// Truncates.
    pub truncates: bool,
}

/// Histories of up to 5 keys and 24 records, delivered in up to 5 runs, shuffled, with up to 6 records twice.
pub fn histories(options: HistoryOptions) -> impl Strategy<Value = History> {
    let value = prop::option::weighted(0.8, 0i64..4);
    let kind = (0u8..20, [value.clone(), value.clone(), value]).prop_map(move |(pick, v)| match pick {
        0..4 => RecordKind::Delete,
        4 if options.truncates => RecordKind::Truncate,
        5..10 if options.unavailable => RecordKind::Unavailable([v[0], v[1]]),
        _ if options.sparse => RecordKind::Sparse(v),
        _ => RecordKind::Full(v),
    });
    let record = (0i64..5, kind);
    prop::collection::vec(record, 1..24)
        .prop_map(|records| {
            let numbered = records.into_iter().enumerate();
            let records: Vec<TrueRecord> =
                numbered.map(|(i, (key, kind))| TrueRecord { key, order: 10 * (i as i64 + 1), kind }).collect();
            possible(records)
        })
        .prop_flat_map(|records| {
            let n = records.len();
            let twice = prop::collection::vec(0..n, 0..6);
            let order = twice.prop_flat_map(move |twice| {
                let all: Vec<usize> = (0..n).chain(twice).collect();
                let cuts = prop::collection::vec(0..=all.len(), 0..4);
                (Just(all).prop_shuffle(), cuts)
            });
            (Just(records), order)
        })
        .prop_map(|(records, (all, mut cuts))| {
            cuts.sort_unstable();
            let mut deliveries = Vec::new();
            let mut from = 0;
            for to in cuts.into_iter().chain([all.len()]) {
                deliveries.push(all[from..to].to_vec());
                from = to;
            }
            History { records, deliveries }
        })
}

/// An update whose value was not available can only follow a row: where there is none, it has the value.
fn possible(mut records: Vec<TrueRecord>) -> Vec<TrueRecord> {
    for i in 0..records.len() {
        let state = true_state(&records[..i]);
        if let RecordKind::Unavailable([a, b]) = records[i].kind
            && !state.contains_key(&records[i].key)
        {
            records[i].kind = RecordKind::Full([a, b, Some(9)]);
        }
    }
    records
}

/// The rows that a history leads to, by key: a plain replay, one record after the other.
pub fn true_state(records: &[TrueRecord]) -> BTreeMap<i64, [Option<i64>; 3]> {
    let mut sorted: Vec<&TrueRecord> = records.iter().collect();
    sorted.sort_by_key(|r| r.order);
    let mut rows: BTreeMap<i64, [Option<i64>; 3]> = BTreeMap::new();
    for r in sorted {
        match &r.kind {
            RecordKind::Full(v) => drop(rows.insert(r.key, *v)),
            RecordKind::Sparse(v) => {
                let row = rows.entry(r.key).or_default();
                for (cell, v) in row.iter_mut().zip(v) {
                    *cell = v.or(*cell);
                }
            }
            RecordKind::Unavailable([a, b]) => {
                let row = rows.entry(r.key).or_default();
                (row[0], row[1]) = (*a, *b);
            }
            RecordKind::Delete => drop(rows.remove(&r.key)),
            RecordKind::Truncate => rows.clear(),
        }
    }
    rows
}
