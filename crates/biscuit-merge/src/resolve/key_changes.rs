use std::sync::Arc;

use biscuit_change::KeyChangeKind;

use crate::changes::change_set::ChangeRecord;
use crate::resolve::key_state::{ColumnState, KeyChangeState, KeyState};
use crate::resolve::resolver::{KeyInProgress, KeyResolver, ResolveError};
use crate::target::rows::RowRef;

/// Where a value for a row that has moved on comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueSource {
    /// From a record of that order, which may be a repeated one.
    ByRecord,
    /// From the row of an older key, at the order of the key update.
    ByMove,
}

/// Key updates: values that were not available follow a row from key to key, whichever half comes first.
impl KeyResolver<'_> {
    /// The delete half of a key update keeps the row as it was, unless the create half has come already.
    pub(crate) fn keep_image(&self, record: &ChangeRecord, works: &mut [KeyInProgress], at: usize) {
        let Some((KeyChangeKind::To, to)) = record.link else { return };
        let to_bytes: Arc<[u8]> = self.set.keys.bytes(to).into();
        let order = &record.order;
        // The create half has come if the new key has a state of that order or later; but where it has moved on since,
        // that state may be one of other records.
        let arrived = works.iter().find(|w| w.key == to).is_some_and(|w| {
            let newest = w.now.live.as_ref().unwrap_or(&w.now.base);
            newest >= order && !w.now.key_changes.iter().any(|m| m.at > *order)
        });
        let now = &mut works[at].now;
        let repeated = now.live.is_none() && now.base == *order;
        if arrived || repeated || now.key_changes.iter().any(|m| m.to == to_bytes && m.at == *order) {
            return;
        }
        let columns = match now.live {
            Some(_) => {
                (0..self.schema.fields().len()).map(|c| column_state(now, c)).filter(|c| c.order < *order).collect()
            }
            None => vec![],
        };
        now.key_changes.push(KeyChangeState { to: to_bytes, at: order.clone(), applied: false, columns });
    }

    /// The create half of a key update takes values that were not available from the row of the old key.
    pub(crate) fn resolve_key_change(
        &self,
        record: &ChangeRecord,
        works: &mut [KeyInProgress],
        at: usize,
    ) -> Result<Vec<(usize, Option<RowRef>)>, ResolveError> {
        let Some((KeyChangeKind::From, from)) = record.link else { return Ok(vec![]) };
        let (present_columns, row) = self.set.present_columns_of(record);
        // What the record does not give the row brings along: values that were not available, and ignored nulls.
        let asked: Vec<usize> = (0..self.schema.fields().len()).filter(|&c| !present_columns.gives(row, c)).collect();
        let to_bytes: Arc<[u8]> = self.set.keys.bytes(record.key).into();
        let order = &record.order;
        let Some(old) = works.iter().position(|w| w.key == from) else { return Ok(vec![]) };
        let entry = works[old].now.key_changes.iter().position(|m| m.to == to_bytes && m.at == *order);
        if asked.is_empty() {
            entry.map(|e| works[old].now.key_changes.remove(e));
            return Ok(vec![]);
        }
        let now = &works[at].now;
        let done = asked.iter().all(|&c| now.column(c).0 >= order) && !now.key_changes.iter().any(|m| m.at > *order);
        if entry.is_some_and(|e| works[old].now.key_changes[e].applied) || done {
            return Ok(vec![]);
        }
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
                None if present_columns.is_unavailable(row, c) => return Err(self.unavailable(record, c)),
                None => {}
            }
        }
        let resolved = kept.iter().map(|s| (s.column, s.value)).collect();
        let repartitioned = KeyChangeState { to: to_bytes, at: order.clone(), applied: true, columns: kept };
        match entry {
            Some(e) => works[old].now.key_changes[e] = repartitioned,
            None => works[old].now.key_changes.push(repartitioned),
        }
        Ok(resolved)
    }

    /// A record older than a key update changes what the update moved, also after the create half took it.
    pub(crate) fn late_for_moves(
        &self,
        record: &ChangeRecord,
        present: Vec<(usize, Option<RowRef>)>,
        works: &mut [KeyInProgress],
        at: usize,
    ) {
        let mut late = vec![(at, record.order.clone(), present, ValueSource::ByRecord)];
        while let Some((at, order, present, by)) = late.pop() {
            let mut fills = Vec::new();
            for m in works[at].now.key_changes.iter_mut().filter(|m| m.at > order) {
                let mut filled = Vec::new();
                for &(c, value) in &present {
                    match m.columns.iter_mut().find(|s| s.column == c) {
                        // The record that gave the value may come again.
                        Some(s)
                            if by == ValueSource::ByRecord
                                && s.order == order
                                && (m.applied || self.tables.same(s.value, value, c)) =>
                        {
                            continue;
                        }
                        Some(s) if s.order <= order => (s.order, s.value) = (order.clone(), value),
                        None if !m.applied => m.columns.push(ColumnState { column: c, order: order.clone(), value }),
                        _ => continue,
                    }
                    filled.push((c, value));
                }
                if m.applied && !filled.is_empty() {
                    fills.push((m.to.clone(), m.at.clone(), filled));
                }
            }
            for (to, order, filled) in fills {
                let key = self.set.keys.find(&to);
                let Some(next) = works.iter().position(|w| Some(w.key) == key) else { continue };
                let work = &mut works[next];
                for (c, value) in &filled {
                    if *work.now.column(*c).0 == order {
                        work.now.set(*c, &order, *value);
                        work.touched = true;
                    }
                }
                late.push((next, order, filled, ValueSource::ByMove));
            }
        }
    }

    pub(crate) fn given_columns(&self, record: &ChangeRecord) -> Vec<(usize, Option<RowRef>)> {
        let (present_columns, row) = self.set.present_columns_of(record);
        let present = (0..self.schema.fields().len()).filter(|&c| present_columns.gives(row, c));
        present.map(|c| (c, Some(record.at))).collect()
    }
}

fn column_state(state: &KeyState, column: usize) -> ColumnState {
    let (order, value) = state.column(column);
    ColumnState { column, order: order.clone(), value }
}
