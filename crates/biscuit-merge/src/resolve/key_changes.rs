//! Key changes: values that a record does not contain follow a row from its old key to its new key.
//! A key change is a delete of the old key and a create of the new key, with the same order. The halves may come in
//! any order and in different runs. The state of the old key connects them with an entry, which begins in one of two
//! ways:
//! - The delete half comes first: the entry stores an image of the row (`applied` is false) until the create half
//!   asks for its values.
//! - The create half comes first, while the old row is still there: it copies the values from the row, and the entry
//!   remembers which columns it took (`applied` is true).
//!
//! In both cases, later records that are older than the key change also update what the key change moved.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use biscuit_core::Error;

use crate::codes;
use crate::records::key_change::KeyChangeKind;
use crate::resolve::change_set::{ChangeRecord, ChangeSet};
use crate::resolve::key_in_progress::{KeyInProgress, ResolveError};
use crate::resolve::key_state::{ColumnState, KeyChangeState, KeyState};
use crate::resolve::target_rows::{RowRef, TargetRows};

/// Origin of a value for a row that has moved to another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueSource {
    /// By a record of this order, which may be a repetition.
    ByRecord,
    /// From the row of an older key, at the order of the key change.
    ByMove,
}

/// Both halves of key changes, and late records of rows that have moved.
pub(crate) struct KeyMoves<'a> {
    /// Records and keys of the run.
    pub(crate) set: &'a ChangeSet,
    /// Columns of the table.
    pub(crate) schema: &'a SchemaRef,
    /// Rows to which records and states refer.
    pub(crate) tables: &'a TargetRows,
}

impl KeyMoves<'_> {
    /// Applies the delete half: stores an image of the row, unless the create half was applied already.
    pub(crate) fn keep_image(&self, record: &ChangeRecord, works: &mut [KeyInProgress], at: usize) {
        let Some((KeyChangeKind::To, to)) = record.link else { return };
        let to_bytes: Arc<[u8]> = self.set.keys.bytes(to).into();
        let order = &record.order;
        // The create half was applied if the new key has a state of its order or a later one. If the new key was
        // itself moved to another key later, its state may come from other records, and nothing follows from its
        // order.
        let arrived = works.iter().find(|w| w.key == to).is_some_and(|w| {
            let newest = w.now.live.as_ref().unwrap_or(&w.now.base);
            newest >= order && !w.now.key_changes.iter().any(|m| m.at > *order)
        });
        let now = &mut works[at].now;
        // A repeated delete must not replace the image with an empty one.
        let repeated = now.live.is_none() && now.base == *order;
        if arrived || repeated || now.key_changes.iter().any(|m| m.to == to_bytes && m.at == *order) {
            return;
        }
        let columns = match now.live {
            // Columns that are newer than the key change are not part of the row that moved.
            Some(_) => {
                (0..self.schema.fields().len()).map(|c| column_state(now, c)).filter(|c| c.order < *order).collect()
            }
            None => vec![],
        };
        now.key_changes.push(KeyChangeState { to: to_bytes, at: order.clone(), applied: false, columns });
    }

    /// Applies the create half: returns the values of columns that the record does not contain, taken from the row of
    /// the old key.
    pub(crate) fn resolve_key_change(
        &self,
        record: &ChangeRecord,
        works: &mut [KeyInProgress],
        at: usize,
    ) -> Result<Vec<(usize, Option<RowRef>)>, ResolveError> {
        let Some((KeyChangeKind::From, from)) = record.link else { return Ok(vec![]) };
        let (present_columns, row) = self.set.present_columns_of(record);
        // The row brings the columns that the record does not give: unchanged values, and ignored nulls.
        let asked: Vec<usize> =
            (0..self.schema.fields().len()).filter(|&c| !present_columns.has_column(row, c)).collect();
        let to_bytes: Arc<[u8]> = self.set.keys.bytes(record.key).into();
        let order = &record.order;
        let Some(old) = works.iter().position(|w| w.key == from) else { return Ok(vec![]) };
        let entry = works[old].now.key_changes.iter().position(|m| m.to == to_bytes && m.at == *order);
        // A complete record needs no image any more.
        if asked.is_empty() {
            entry.map(|e| works[old].now.key_changes.remove(e));
            return Ok(vec![]);
        }
        let now = &works[at].now;
        // Applied before: this record is a repetition. The state of a key that has moved on later does not show that.
        let done = asked.iter().all(|&c| now.column(c).0 >= order) && !now.key_changes.iter().any(|m| m.at > *order);
        if entry.is_some_and(|e| works[old].now.key_changes[e].applied) || done {
            return Ok(vec![]);
        }
        // The image of the delete half; without one, the current row of the old key.
        let image: Vec<ColumnState> = match entry {
            Some(e) => works[old].now.key_changes[e].columns.clone(),
            None if works[old].now.live.is_some() => asked.iter().map(|&c| column_state(&works[old].now, c)).collect(),
            None => vec![],
        };
        let mut kept = Vec::with_capacity(asked.len());
        for &c in &asked {
            let known = image.iter().find(|s| s.column == c && s.order < *order && s.value.is_some());
            match known {
                Some(known) => kept.push(known.clone()),
                // An ignored null without an earlier value is a null. An unchanged value without an earlier value is
                // an error.
                None if present_columns.is_unavailable(row, c) => return Err(self.unavailable(record, c)),
                None => {}
            }
        }
        let resolved = kept.iter().map(|s| (s.column, s.value)).collect();
        let applied_change = KeyChangeState { to: to_bytes, at: order.clone(), applied: true, columns: kept };
        // The entry remains, although its values are not needed any more: late records of the old key find the new
        // key with it.
        match entry {
            Some(e) => works[old].now.key_changes[e] = applied_change,
            None => works[old].now.key_changes.push(applied_change),
        }
        Ok(resolved)
    }

    /// Applies a record of the old key that is older than a key change to what the key change moved, also after the
    /// create half was applied.
    /// Example: key 1 has bio A at order 10 and moves to key 2 at order 30, where the create half has no bio. Then a
    /// record of key 1 at order 20 arrives with bio B. The entry of key 1 gets (B, 20) in place of (A, 10). The
    /// register of bio at key 2, which still has the order 30 of the key change, gets B. A bio at key 2 with order 40
    /// is newer and remains.
    /// A row may have moved several times, so the new values go through a work list from key to key. It ends because
    /// each step follows a key change of a greater order, also if the row returns to an earlier key.
    pub(crate) fn apply_late_to_key_changes(
        &self,
        record: &ChangeRecord,
        values: Vec<(usize, Option<RowRef>)>,
        works: &mut [KeyInProgress],
        at: usize,
    ) {
        let mut late = vec![(at, record.order.clone(), values, ValueSource::ByRecord)];
        while let Some((at, order, values, by)) = late.pop() {
            let mut fills = Vec::new();
            for m in works[at].now.key_changes.iter_mut().filter(|m| m.at > order) {
                let mut filled = Vec::new();
                for &(c, value) in &values {
                    match m.columns.iter_mut().find(|s| s.column == c) {
                        // The record that gave the value was repeated. An applied entry has no values to compare,
                        // only orders.
                        Some(s)
                            if by == ValueSource::ByRecord
                                && s.order == order
                                && (m.applied || self.tables.is_same_value(s.value, value, c)) =>
                        {
                            continue;
                        }
                        Some(s) if s.order <= order => (s.order, s.value) = (order.clone(), value),
                        None if !m.applied => m.columns.push(ColumnState { column: c, order: order.clone(), value }),
                        _ => continue,
                    }
                    filled.push((c, value));
                }
                // Before the create half is applied, the image has the values and nothing needs to be passed on.
                if m.applied && !filled.is_empty() {
                    fills.push((m.to.clone(), m.at.clone(), filled));
                }
            }
            for (to, order, filled) in fills {
                let key = self.set.keys.find(&to);
                let Some(next) = works.iter().position(|w| Some(w.key) == key) else { continue };
                let work = &mut works[next];
                for (c, value) in &filled {
                    // Only if the register still has the value of the key change; every other value is newer.
                    if *work.now.column(*c).0 == order {
                        work.now.set_column(*c, &order, *value);
                        work.touched = true;
                    }
                }
                late.push((next, order, filled, ValueSource::ByMove));
            }
        }
    }

    /// Returns the columns that a record gives, with their values.
    pub(crate) fn given_columns(&self, record: &ChangeRecord) -> Vec<(usize, Option<RowRef>)> {
        let (present_columns, row) = self.set.present_columns_of(record);
        let present = (0..self.schema.fields().len()).filter(|&c| present_columns.has_column(row, c));
        present.map(|c| (c, Some(record.at))).collect()
    }

    /// Returns the error of a record whose unchanged value is not known.
    pub(crate) fn unavailable(&self, record: &ChangeRecord, column: usize) -> ResolveError {
        let (file, row) = self.set.place(record.at);
        let name = self.schema.field(column).name();
        let message = format!(
            "column `{name}` has an unchanged value that was not sent, and no earlier value is known; merge the earlier records first, or quarantine this record and retry it later"
        );
        let error = Error::new(codes::UNAVAILABLE_WITHOUT_PRIOR, message).with_column(name).at(file, row);
        ResolveError { at: Some(record.at), error: error.with_detail("key", self.set.key_text(record.key)) }
    }
}

/// Returns the register of a column, or what stands for it in the rest of the row.
fn column_state(state: &KeyState, column: usize) -> ColumnState {
    let (order, value) = state.column(column);
    ColumnState { column, order: order.clone(), value }
}
