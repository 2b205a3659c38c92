//! Random change histories for property tests, and a plain replay as the expected result.

use std::collections::BTreeMap;

use proptest::prelude::*;

/// Operation of a generated record. Values are small numbers, so that equal values occur.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum RecordKind {
    /// Sets all three columns. A value may be null.
    Full([Option<i64>; 3]),
    /// Sets the columns that have a value. The others are unchanged.
    Sparse([Option<i64>; 3]),
    /// Sets the first two columns. The third one is an unchanged value, which the database did not send.
    Unavailable([Option<i64>; 2]),
    /// Deletes the row.
    Delete,
    /// Deletes all rows.
    Truncate,
}

/// A record of a history. Order numbers are unique, so that no two records of a key tie.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrueRecord {
    /// Key of the row; ignored for a truncate.
    pub key: i64,
    /// Order number.
    pub order: i64,
    /// Operation.
    pub kind: RecordKind,
}

/// A history of changes, and its delivery.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct History {
    /// Records in the order in which they happened.
    pub records: Vec<TrueRecord>,
    /// Delivery of the records: for each run, indices into `records`, in any order. Some records are delivered twice.
    pub deliveries: Vec<Vec<usize>>,
}

/// Kinds of records that a history may contain.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct HistoryOptions {
    /// Sparse updates instead of full ones.
    pub sparse: bool,
    /// Unchanged values that were not sent, for keys that have a row.
    pub unavailable: bool,
    /// Truncates.
    pub truncates: bool,
}

/// Returns a strategy for histories of up to 5 keys and 23 records. They are shuffled and delivered in up to 4 runs,
/// with up to 5 records delivered twice.
pub fn histories(options: HistoryOptions) -> impl Strategy<Value = History> {
    let value = prop::option::weighted(0.8, 0i64..4);
    let kind = (0u8..20, [value.clone(), value.clone(), value]).prop_map(move |(pick, v)| match pick {
        // Of 20 equally likely picks, 4 are deletes, 1 is a truncate and 5 are updates with an unchanged value, if
        // the options allow them; all others set values.
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
            make_possible(records)
        })
        .prop_flat_map(|records| {
            let n = records.len();
            let twice = prop::collection::vec(0..n, 0..6);
            let order = twice.prop_flat_map(move |twice| {
                // Deliver every record once and some twice, shuffled, and cut the sequence into runs at random
                // places.
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

/// Replaces updates that are impossible: an unchanged value needs an existing row. Without a row the update sets the
/// value.
fn make_possible(mut records: Vec<TrueRecord>) -> Vec<TrueRecord> {
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

/// Returns the rows after a history, by key. This is a plain replay, one record after the other.
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
