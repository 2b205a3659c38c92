//! The decision of a merge: applies the records of keys to their prior states, and gives each record its verdict.
//! The functions are pure. A truncate or a tombstone is an order below which nothing counts, and rows are registers
//! by column (see `key_state.rs`).

use crate::codes;
use crate::records::op::ChangeOp;
use crate::records::refused::BadRows;
use arrow::datatypes::SchemaRef;
use biscuit_core::{Error, Result};

use crate::keys::record_order::RecordOrder;
use crate::report::RecordVerdicts;
use crate::resolve::change_set::{ChangeRecord, ChangeSet};
use crate::resolve::key_changes::KeyMoves;
use crate::resolve::key_in_progress::{KeyInProgress, ResolveError};
use crate::resolve::key_state::KeyState;
use crate::resolve::outcome::{KeyOutcome, RowChange};
use crate::resolve::target_rows::{RowRef, TargetRows};
use crate::spec::{MergeSpec, OrderAuthority, TiePolicy};

/// The state of a key before the run.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct PriorKeyState {
    /// State by key metadata and row.
    pub state: KeyState,
    /// Whether the table has a row of the key.
    pub stored: bool,
    /// Whether the state differs from the stored row, so that the row has to be written again.
    pub is_new: bool,
}

/// The outcomes of keys and the verdicts of their records, independent of files.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ResolvedKeys {
    /// Outcome of each key that the records change.
    pub outcomes: Vec<KeyOutcome>,
    /// Verdicts of the records.
    pub verdicts: RecordVerdicts,
    /// Records that are quarantined, with their errors.
    pub refused: Vec<(RowRef, Error)>,
}

/// Applies the records of a run to the prior states of their keys.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct KeyResolver<'a> {
    /// Records and keys of the run.
    pub set: &'a ChangeSet,
    /// Rules of the merge.
    pub spec: &'a MergeSpec,
    /// Columns of the table.
    pub schema: &'a SchemaRef,
    /// Rows to which records and states refer.
    pub tables: &'a TargetRows,
    /// Greatest order of a truncate, including truncates of this run. Everything at or before it is deleted.
    pub truncated: Option<&'a RecordOrder>,
    /// Greatest order of a truncate before this run.
    pub truncated_before: Option<&'a RecordOrder>,
    /// Handling of invalid records.
    pub bad_rows: BadRows,
    /// Period that is resolved. Records of earlier periods have their verdicts already.
    pub period: u32,
}

/// The effect of one record, before the final state of its key is known.
enum RecordEffect {
    /// The verdict is final.
    Final(fn(&mut RecordVerdicts) -> &mut u64),
    /// The verdict depends on the final state of the key.
    Open,
    /// A late delete removed values. Newer records may still replace them.
    Cleared,
}

impl KeyResolver<'_> {
    /// Returns the part that moves values from key to key.
    fn moves(&self) -> KeyMoves<'_> {
        KeyMoves { set: self.set, schema: self.schema, tables: self.tables }
    }

    /// Resolves a group of keys that key changes connect; most groups are one key. If a record is invalid and invalid
    /// records are quarantined, the group is resolved again without it, from the prior states: effects of a failed
    /// attempt are dropped.
    pub fn resolve_group(
        &self,
        keys: &[(u32, PriorKeyState)],
        records: &[&ChangeRecord],
        out: &mut ResolvedKeys,
    ) -> Result<()> {
        let mut records = records.to_vec();
        loop {
            let mut own = ResolvedKeys::default();
            match self.try_group(keys, &records, &mut own) {
                Ok(()) => {
                    out.verdicts.add(&own.verdicts);
                    out.outcomes.append(&mut own.outcomes);
                    return Ok(());
                }
                // A record that took effect in an earlier period was accepted there, and cannot be quarantined any
                // more.
                Err(ResolveError { at: Some(at), error })
                    if self.bad_rows == BadRows::Quarantine && records.iter().any(|r| r.at == at && self.is_own(r)) =>
                {
                    records.retain(|r| r.at != at);
                    out.refused.push((at, error));
                }
                Err(refusal) => return Err(refusal.error),
            }
        }
    }

    /// Resolves a group, or fails with its first invalid record.
    fn try_group(
        &self,
        keys: &[(u32, PriorKeyState)],
        records: &[&ChangeRecord],
        out: &mut ResolvedKeys,
    ) -> Result<(), ResolveError> {
        let mut works: Vec<KeyInProgress> = keys.iter().map(|(key, prior)| self.begin_key(*key, prior)).collect();
        let raised;
        let mut records: Vec<&ChangeRecord> = records.to_vec();
        if self.spec.authority == OrderAuthority::Reload {
            // A reload raises orders before the sort, so that the raised record is still the last one of its key.
            raised = raise_orders(&records, &works);
            records = raised.iter().collect();
        }
        // A delete is applied before the create of the same order: it stores the image that the create half may ask
        // for.
        records.sort_by(|a, b| {
            (&a.order, a.op == ChangeOp::Upsert, a.at).cmp(&(&b.order, b.op == ChangeOp::Upsert, b.at))
        });
        let (mut open, mut cleared) = (Vec::new(), Vec::new());
        for record in records {
            match self.apply_record(record, &mut works)? {
                RecordEffect::Final(count) => *count(&mut out.verdicts) += u64::from(self.is_own(record)),
                RecordEffect::Open => open.push(record),
                RecordEffect::Cleared => cleared.push(record),
            }
        }
        let work_of = |record: &ChangeRecord| {
            works.iter().find(|w| w.key == record.key).expect("every record's key is in its group")
        };
        // Only now all records are applied, and it is known which values are missing.
        for record in cleared {
            self.check_cleared(record, work_of(record))?;
            out.verdicts.merged += u64::from(self.is_own(record));
        }
        for record in open {
            let work = work_of(record);
            self.check_available(record, work)?;
            *self.verdict(record, work)(&mut out.verdicts) += u64::from(self.is_own(record));
        }
        out.outcomes.extend(works.into_iter().map(finish));
        Ok(())
    }

    /// Whether a record gets its verdict in this period.
    fn is_own(&self, record: &ChangeRecord) -> bool {
        record.period == self.period
    }

    /// The fast path for most keys of most runs. Resolves a key without key metadata whose records are all full
    /// images or deletes with other orders than the stored row: then the newest one wins, and the others have no
    /// effect. `resolve_group` has the same result. Returns false for any other key.
    pub fn resolve_simple(
        &self,
        key: u32,
        row: Option<(&RecordOrder, RowRef)>,
        records: &[ChangeRecord],
        out: &mut ResolvedKeys,
    ) -> bool {
        let plain = |r: &ChangeRecord| {
            r.link.is_none()
                && (r.op == ChangeOp::Delete || self.set.present_columns_of(r).0.all)
                && row.is_none_or(|(order, _)| *order != r.order)
        };
        let Some(newest) = records.last() else { return false };
        if self.truncated.is_some() || self.spec.authority == OrderAuthority::Reload || !records.iter().all(plain) {
            return false;
        }
        let v = &mut out.verdicts;
        let late = row.map_or(0, |(order, _)| records.partition_point(|r| r.order < *order));
        let own = |records: &[ChangeRecord]| records.iter().filter(|r| self.is_own(r)).count() as u64;
        v.late += own(&records[..late]);
        let Some(overtaken) = (records.len() - late).checked_sub(1) else {
            let (order, at) = row.expect("records are late only if there is a stored row");
            out.outcomes.push(KeyOutcome::of_row(key, RowChange::Keep, order, at));
            return true;
        };
        v.superseded += own(&records[late..late + overtaken]);
        let is_own = u64::from(self.is_own(newest));
        let order = &newest.order;
        let outcome = match (newest.op == ChangeOp::Delete, row.is_some()) {
            (false, stored) => {
                *(if stored { &mut v.updated } else { &mut v.inserted }) += is_own;
                let change = if stored { RowChange::Replace } else { RowChange::Insert };
                KeyOutcome::of_row(key, change, order, newest.at)
            }
            (true, stored) => {
                *(if stored { &mut v.deleted } else { &mut v.unchanged }) += is_own;
                let mut state = KeyState::unknown();
                state.remove_row(order);
                KeyOutcome { key, row: if stored { RowChange::Remove } else { RowChange::Keep }, state, before: None }
            }
        };
        out.outcomes.push(outcome);
        true
    }

    /// Begins a key with its prior state, after the truncates.
    fn begin_key(&self, key: u32, prior: &PriorKeyState) -> KeyInProgress {
        let mut now = prior.state.clone();
        let mut touched = false;
        if let Some(t) = self.truncated {
            let gone = now.live.as_ref().is_some_and(|live| live <= t);
            if gone || (now.live.is_none() && now.base <= *t) {
                touched = gone;
                now.remove_row(t);
                // An image is not needed any more if its create half is at or before the truncate.
                now.key_changes.retain(|m| m.at > *t);
            } else {
                touched = now.clear_older(t);
            }
        }
        touched |= prior.is_new;
        KeyInProgress { key, before: prior.state.clone(), stored: prior.stored, now, touched, is_new: prior.is_new }
    }

    /// Applies one record to its key.
    fn apply_record(&self, record: &ChangeRecord, works: &mut [KeyInProgress]) -> Result<RecordEffect, ResolveError> {
        let reload = self.spec.authority == OrderAuthority::Reload && record.op == ChangeOp::Upsert;
        if !reload && self.truncated.is_some_and(|t| record.order <= *t) {
            let known = self.truncated_before.is_some_and(|t| record.order <= *t);
            return Ok(RecordEffect::Final(if known { |v| &mut v.late } else { |v| &mut v.superseded }));
        }
        let at = works.iter().position(|w| w.key == record.key).expect("every record's key is in its group");
        match record.op {
            ChangeOp::Delete => self.apply_delete(record, works, at),
            ChangeOp::Upsert => self.apply_upsert(record, works, at),
            ChangeOp::Truncate => Err(Error::internal("a truncate has no key").into()),
        }
    }

    /// Applies a delete. The newest record of its key removes the row. A late delete sets only older registers to
    /// null.
    fn apply_delete(
        &self,
        record: &ChangeRecord,
        works: &mut [KeyInProgress],
        at: usize,
    ) -> Result<RecordEffect, ResolveError> {
        self.moves().keep_image(record, works, at);
        let order = &record.order;
        let work = &mut works[at];
        // Images of later key changes are rows as well, which this delete clears.
        for m in work.now.key_changes.iter_mut().filter(|m| !m.applied && m.at > *order) {
            for c in m.columns.iter_mut().filter(|c| c.order < *order) {
                (c.order, c.value) = (order.clone(), None);
            }
        }
        let tie = work.now.live.as_ref() == Some(order);
        let newest = work.now.live.as_ref().map_or(work.now.base <= *order, |live| live <= order);
        if !newest {
            if work.now.clear_older(order) {
                work.touched = true;
                return Ok(RecordEffect::Cleared);
            }
            return Ok(RecordEffect::Open);
        }
        if tie {
            self.refuse_tie(record)?;
        }
        let known = work.now.live.is_none() && work.now.base == *order;
        work.touched |= work.now.live.is_some();
        work.now.remove_row(order);
        Ok(match (tie, known) {
            (true, _) => RecordEffect::Final(|v| &mut v.corrected),
            (_, true) => RecordEffect::Final(|v| &mut v.unchanged),
            _ => RecordEffect::Open,
        })
    }

    /// Applies an upsert: values that it takes from an old key, values for rows that have moved on, then its own
    /// registers.
    fn apply_upsert(
        &self,
        record: &ChangeRecord,
        works: &mut [KeyInProgress],
        at: usize,
    ) -> Result<RecordEffect, ResolveError> {
        let resolved = self.moves().resolve_key_change(record, works, at)?;
        let values = self.moves().given_columns(record).into_iter().chain(resolved.iter().copied()).collect();
        self.moves().apply_late_to_key_changes(record, values, works, at);
        let order = &record.order;
        let work = &mut works[at];
        // Older than the tombstone: the row is not restored.
        let gone = work.now.live.is_none() && *order < work.now.base;
        if gone {
            return Ok(RecordEffect::Open);
        }
        // The order is stored already. Equal content is a repetition, which changes nothing; different content is a
        // correction or an error, by the tie policy.
        let replay = work.before.live.as_ref() == Some(order) || work.before.columns.iter().any(|c| c.order == *order);
        if replay && self.same_as_stored(record, work, &resolved) {
            return Ok(RecordEffect::Final(|v| &mut v.unchanged));
        }
        let set = self.set_columns(record, &mut work.now, &resolved);
        let newer = work.now.live.as_ref().is_none_or(|live| live < order);
        if newer {
            work.now.live = Some(order.clone());
        }
        work.touched |= set || newer;
        if replay && set {
            self.refuse_tie(record)?;
            return Ok(RecordEffect::Final(|v| &mut v.corrected));
        }
        Ok(RecordEffect::Open)
    }

    /// Whether a record with a stored order has the stored content, in the registers that still have its order.
    fn same_as_stored(
        &self,
        record: &ChangeRecord,
        work: &KeyInProgress,
        resolved: &[(usize, Option<RowRef>)],
    ) -> bool {
        let (present_columns, row) = self.set.present_columns_of(record);
        (0..self.schema.fields().len()).all(|c| {
            let (order, value) = work.now.column(c);
            let present = present_columns.has_column(row, c) && !resolved.iter().any(|(r, _)| *r == c);
            !present
                || *order > record.order
                || (*order == record.order && self.tables.is_same_value(value, Some(record.at), c))
        })
    }

    /// Sets the registers of the columns that a record gives, if they are not newer. Returns whether one was set.
    /// A record that gives unknown columns also sets columns that the table gets later, to null; a sparse record does
    /// not.
    fn set_columns(&self, record: &ChangeRecord, now: &mut KeyState, resolved: &[(usize, Option<RowRef>)]) -> bool {
        let (present_columns, row) = self.set.present_columns_of(record);
        let (order, value) = (&record.order, Some(record.at));
        let mut set = false;
        if present_columns.all {
            set |= now.set_all(order, value, &[]);
        } else if present_columns.gives_unknown {
            let except: Vec<usize> =
                (0..self.schema.fields().len()).filter(|&c| !present_columns.has_column(row, c)).collect();
            set |= now.set_all(order, value, &except);
        } else {
            for c in (0..self.schema.fields().len()).filter(|&c| present_columns.has_column(row, c)) {
                if now.column(c).0 <= order {
                    now.set_column(c, order, value);
                    set = true;
                }
            }
        }
        for (c, value) in resolved {
            if now.column(*c).0 <= order {
                now.set_column(*c, order, *value);
                set = true;
            }
        }
        set
    }

    fn refuse_tie(&self, record: &ChangeRecord) -> Result<(), ResolveError> {
        if self.spec.ties == TiePolicy::LaterRunWins {
            return Ok(());
        }
        let (file, row) = self.set.place(record.at);
        let message = "the record has the order of the stored row and other content; give the record a greater order, or let the later run win";
        let error = Error::new(codes::AMBIGUOUS_ORDER, message).at(file, row);
        Err(ResolveError { at: Some(record.at), error: error.with_detail("key", self.set.key_text(record.key)) })
    }

    /// An unchanged value of a record must have come from another record by the end of the run.
    fn check_available(&self, record: &ChangeRecord, work: &KeyInProgress) -> Result<(), ResolveError> {
        let Some(live) = &work.now.live else { return Ok(()) };
        if record.op != ChangeOp::Upsert || record.order > *live {
            return Ok(());
        }
        let (present_columns, row) = self.set.present_columns_of(record);
        for c in present_columns.unavailable_columns(row) {
            let (order, value) = work.now.column(c);
            if value.is_none() && *order < record.order {
                return Err(self.moves().unavailable(record, c));
            }
        }
        Ok(())
    }

    /// A late delete sets values to null that newer records left unchanged. An unchanged value that is lost this way
    /// cannot be restored, which is an error.
    fn check_cleared(&self, record: &ChangeRecord, work: &KeyInProgress) -> Result<(), ResolveError> {
        if work.now.live.is_none() {
            return Ok(());
        }
        let cleared = (0..self.schema.fields().len()).find(|&c| {
            let (order, value) = work.now.column(c);
            *order == record.order && value.is_none() && !self.spec.ignore_null.covers(self.schema.field(c).name())
        });
        cleared.map_or(Ok(()), |c| Err(self.moves().unavailable(record, c)))
    }

    /// Returns the verdict of a record by the final state of its key.
    fn verdict(&self, record: &ChangeRecord, work: &KeyInProgress) -> fn(&mut RecordVerdicts) -> &mut u64 {
        let order = &record.order;
        let before = work.before.live.as_ref().unwrap_or(&work.before.base);
        let known = work.before.live.is_some() || work.before.base != RecordOrder::oldest();
        let gave = || {
            let in_columns = work.now.columns.iter().any(|c| c.value == Some(record.at));
            in_columns || (work.now.source == Some(record.at) && work.now.live.is_some())
        };
        match record.op {
            ChangeOp::Upsert if work.now.live.as_ref() == Some(order) => match work.stored {
                true => |v| &mut v.updated,
                false => |v| &mut v.inserted,
            },
            ChangeOp::Upsert if gave() => |v| &mut v.merged,
            ChangeOp::Delete if work.now.live.is_none() && work.now.base == *order => match work.stored {
                true => |v| &mut v.deleted,
                false => |v| &mut v.unchanged,
            },
            _ if known && order < before => |v| &mut v.late,
            _ => |v| &mut v.superseded,
        }
    }
}

/// Returns the records of a reload: the newest record of each key gets the greatest order of its prior state, if this
/// is greater than its own. So it replaces everything that is known of the key.
fn raise_orders(records: &[&ChangeRecord], works: &[KeyInProgress]) -> Vec<ChangeRecord> {
    let mut raised: Vec<ChangeRecord> = records.iter().map(|r| (*r).clone()).collect();
    for work in works {
        let now = &work.now;
        let orders = now.live.iter().chain([&now.base]).chain(now.columns.iter().map(|c| &c.order));
        let newest = raised.iter_mut().filter(|r| r.key == work.key).max_by(|a, b| a.order.cmp(&b.order));
        if let (Some(record), Some(floor)) = (newest, orders.max())
            && record.order < *floor
        {
            record.order = floor.clone();
        }
    }
    raised
}

/// Turns the final state of a key into its outcome.
fn finish(work: KeyInProgress) -> KeyOutcome {
    let row = match (work.stored, work.now.live.is_some()) {
        (true, false) => RowChange::Remove,
        (false, true) => RowChange::Insert,
        (true, true) if work.touched => RowChange::Replace,
        _ => RowChange::Keep,
    };
    KeyOutcome { key: work.key, row, state: work.now, before: (!work.is_new).then(|| Box::new(work.before)) }
}
