//! Comparison of two sets of rows, with their differences as text.

use std::collections::BTreeMap;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;

use crate::snapshot::cells;

/// Significance of the order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowOrdering {
    /// Rows are a multiset: each must occur equally often on both sides.
    AnyOrder,
    /// Rows must be in the same order.
    SameOrder,
}

/// Returns the differences of two sets of rows, one line each, or `None` if they are equal.
///
/// Rows are compared as a multiset, columns by name, and values by type: 1 differs from 1.0 and from true, null from
/// an empty text, and 0.0 from -0.0. NaN equals NaN.
pub fn diff_rows(left: &[RecordBatch], right: &[RecordBatch]) -> Option<String> {
    diff_rows_with(left, right, RowOrdering::AnyOrder)
}

/// Compares rows like [`diff_rows`], in the given order or in any order.
///
/// ```
/// use biscuit_testkit::{RowOrdering, diff_rows_with, table};
///
/// let ascending = [table("id:bigint\n1\n2")];
/// let descending = [table("id:bigint\n2\n1")];
/// assert_eq!(diff_rows_with(&ascending, &descending, RowOrdering::AnyOrder), None);
/// let diff = diff_rows_with(&ascending, &descending, RowOrdering::SameOrder);
/// assert_eq!(diff.as_deref(), Some("-0: 1\n+0: 2\n-1: 2\n+1: 1\n"));
/// ```
pub fn diff_rows_with(left: &[RecordBatch], right: &[RecordBatch], matching: RowOrdering) -> Option<String> {
    let names = |rows: &[RecordBatch]| rows.first().map(|b| column_types(&b.schema())).unwrap_or_default();
    let (lc, rc) = (names(left), names(right));
    // An empty side has no schema to compare.
    if !left.is_empty() && !right.is_empty() && lc != rc {
        let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>, sign: char| {
            let missing = a.iter().filter(|(n, t)| b.get(*n) != Some(t));
            missing.map(|(n, t)| format!("{sign}column {n}: {t}\n")).collect::<String>()
        };
        return Some(only(&lc, &rc, '-') + &only(&rc, &lc, '+'));
    }
    let (l, r) = (row_texts(left), row_texts(right));
    match matching {
        RowOrdering::SameOrder => in_order(&l, &r),
        RowOrdering::AnyOrder => as_bags(l, r),
    }
}

fn column_types(schema: &Schema) -> BTreeMap<String, String> {
    let field = |f: &std::sync::Arc<datafusion::arrow::datatypes::Field>| {
        let t = biscuit_schema::type_name(f.data_type()).unwrap_or_else(|| f.data_type().to_string());
        (f.name().clone(), t)
    };
    schema.fields().iter().map(field).collect()
}

/// Returns the rows as text, with their columns sorted by name.
fn row_texts(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for batch in batches {
        let mut order: Vec<usize> = (0..batch.num_columns()).collect();
        order.sort_by(|a, b| batch.schema().field(*a).name().cmp(batch.schema().field(*b).name()));
        let sorted = batch.project(&order).expect("indices come from this batch");
        // Both sides need the same order of columns, so it cannot be that of the left side.
        rows.extend(cells(&sorted));
    }
    rows
}

fn as_bags(mut left: Vec<Vec<String>>, mut right: Vec<Vec<String>>) -> Option<String> {
    left.sort();
    right.sort();
    // Merges two sorted lists: the smaller row exists on one side only.
    let (mut l, mut r) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut out = String::new();
    loop {
        match (l.peek(), r.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                l.next();
                r.next();
            }
            (Some(a), b) if b.is_none_or(|b| a < b) => {
                out.push_str(&format!("-{}\n", a.join(" | ")));
                l.next();
            }
            (_, Some(b)) => {
                out.push_str(&format!("+{}\n", b.join(" | ")));
                r.next();
            }
            (Some(_), None) => unreachable!("the guard above takes this case"),
        }
    }
    (!out.is_empty()).then_some(out)
}

fn in_order(left: &[Vec<String>], right: &[Vec<String>]) -> Option<String> {
    let mut out = String::new();
    for i in 0..left.len().max(right.len()) {
        let (a, b) = (left.get(i), right.get(i));
        if a != b {
            out.push_str(&a.map_or(String::new(), |a| format!("-{i}: {}\n", a.join(" | "))));
            out.push_str(&b.map_or(String::new(), |b| format!("+{i}: {}\n", b.join(" | "))));
        }
    }
    (!out.is_empty()).then_some(out)
}
