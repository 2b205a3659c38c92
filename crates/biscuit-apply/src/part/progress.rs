//! A part of the records while it is decided, period by period.
//!
//! [`PartInProgress::begin`] begins a part, [`PartInProgress::enter_period`] returns the step of one period, and only a
//! step gives access to the lookups and to the resolution of keys. [`PartInProgress::end_period`] ends it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_core::Result;
use biscuit_merge::internal::{ChangeRecord, ChangeSet, KeyOutcome, KeyState, RecordOrder, RowRef, TargetRows};
use datafusion::execution::memory_pool::MemoryReservation;
use hashbrown::{HashMap, HashSet};

use crate::changes::key_coverage::KeyCoverage;
use crate::merge_report::MergeReport;
use crate::part::encoded::EncodedPart;
use crate::periods::by_period::PeriodsInRun;
use crate::periods::period_state::PeriodBase;
use crate::periods::retraction::{PartRetractions, RetractionSet};
use crate::state::key_metadata::{KeyMetadata, KeyTimeline};
use crate::state::key_segment::KeySegments;
use crate::table::context::TableContext;
use crate::table::scan::FileScan;
use crate::table::truncate_marks::RunTruncates;

/// A part of the records: its records and keys, and what is remembered from one period to the next.
pub(crate) struct PartInProgress {
    pub(crate) set: ChangeSet,
    pub(crate) tables: TargetRows,
    /// Numbers of the keys, in the order of the keys.
    pub(crate) sorted: Arc<Vec<u32>>,
    pub(crate) covers: KeyCoverage,
    pub(crate) retractions: PartRetractions,
    /// Scans by content: a copy of a file is not scanned again.
    pub(crate) scans: HashMap<Arc<str>, Arc<FileScan>>,
    /// Fetched rows by content and row number.
    pub(crate) fetched: HashMap<(Arc<str>, u64), RowRef>,
    /// Key metadata of the keys before the run, by period.
    pub(crate) timelines: HashMap<u32, KeyTimeline>,
    /// Key metadata after each period that was resolved.
    changes: HashMap<u32, KeyTimeline>,
    /// For each record, whether it has no effect in later periods any more.
    left: Vec<bool>,
    /// Part of the memory budget of the run that the records take, until the part is dropped.
    _memory: MemoryReservation,
}

/// A part in one period.
pub(crate) struct PeriodStep {
    /// Index of the period among the periods of the run.
    pub(crate) at: usize,
    /// The same index, as records have it.
    pub(crate) period: u32,
    /// Number of the period, under which key metadata is stored.
    number: i64,
    /// Whether the table has periods.
    pub(crate) has_periods: bool,
    /// Greatest truncate mark with the truncates of the run, and before the run.
    pub(crate) truncated: Option<RecordOrder>,
    pub(crate) truncated_before: Option<RecordOrder>,
    /// Metadata of the keys in the period.
    pub(crate) kept: HashMap<u32, KeyMetadata>,
}

impl PeriodStep {
    /// Returns the truncate mark, if the run has moved it. Rows of all keys at or before it are deleted.
    pub(crate) fn new_truncate(&self) -> Option<&RecordOrder> {
        self.truncated.as_ref().filter(|_| self.is_truncated())
    }

    /// Whether the run has moved the truncate mark.
    pub(crate) fn is_truncated(&self) -> bool {
        self.truncated != self.truncated_before
    }
}

impl PartInProgress {
    /// Begins a part of the records. The order of the steps matters, because each one may add keys: keys of all key
    /// metadata for a truncate, keys of retractions, keys that key changes lead to. Only then are the keys sorted.
    pub(crate) fn begin(
        part: EncodedPart,
        context: &TableContext,
        periods: &PeriodsInRun,
        truncates: &mut RunTruncates,
        retractions: Arc<RetractionSet>,
        report: &mut MergeReport,
    ) -> Result<Self> {
        let EncodedPart { mut set, tables, covers, memory, forgotten } = part;
        report.verdicts.duplicate += set.duplicates;
        report.verdicts.forgotten += forgotten;
        truncates.take_truncates(&set);
        if !truncates.own.is_empty() || periods.is_rebuild() {
            // A truncate concerns all keys. Rows without key metadata are compared by their own order while they are
            // scanned. Keys with metadata have to be resolved, because their orders are not in their rows. The same
            // holds for a rebuilt period.
            for (key, _) in context.segments.all_entries()?.iter().filter(|(key, _)| covers.contains(key)) {
                set.keys_mut().intern(key);
            }
        }
        let retractions = PartRetractions::new(retractions, &covers, |key| set.keys_mut().intern(key));
        let mut timelines = HashMap::new();
        follow_key_changes(&mut set, &context.segments, &mut timelines)?;
        Ok(Self {
            sorted: Arc::new(set.keys.sorted()),
            left: vec![false; set.records.len()],
            set,
            tables,
            covers,
            retractions,
            scans: HashMap::new(),
            fetched: HashMap::new(),
            timelines,
            changes: HashMap::new(),
            _memory: memory,
        })
    }

    /// Begins a period: determines its truncate marks and key metadata. Returns `None` if there is nothing to resolve
    /// in it.
    pub(crate) fn enter_period(
        &self,
        context: &TableContext,
        periods: &mut PeriodsInRun,
        truncates: &RunTruncates,
        at: usize,
    ) -> Option<PeriodStep> {
        let has_periods = periods.has_periods();
        let period = u32::try_from(at).expect("there are fewer than 2^32 periods");
        let work = &mut periods.all[at];
        let marks = context.marks.iter().filter(|(number, _)| !has_periods || *number <= work.number);
        let before = marks.map(|(_, mark)| mark.clone()).max();
        let own = if has_periods { truncates.newest(period) } else { truncates.newest(u32::MAX) };
        let truncated = before.clone().max(own);
        let rebuilt = work.base == PeriodBase::Rebuilt;
        let kept = self.timelines.iter().filter(|_| !rebuilt);
        let step = PeriodStep {
            at,
            period,
            number: work.number,
            has_periods,
            truncated,
            // Nothing of the old content of a rebuilt period counts.
            truncated_before: before.filter(|_| !rebuilt),
            kept: kept.filter_map(|(key, t)| Some((*key, t.metadata_at(work.number)?.clone()))).collect(),
        };
        if !has_periods {
            return Some(step);
        }
        let counts = |(record, left): &(&ChangeRecord, &bool)| record.period <= period && !**left;
        let counted: Vec<&ChangeRecord> =
            self.set.records.iter().zip(&self.left).filter(counts).map(|(record, _)| record).collect();
        if counted.is_empty() && !step.is_truncated() && !rebuilt && !self.retractions.touches_period(period) {
            return None;
        }
        let (mut keys, mut carried) = (HashSet::new(), HashSet::new());
        for record in counted {
            keys.insert(record.key);
            if record.period < period {
                carried.insert(record.key);
            }
        }
        work.report.keys += keys.len() as u64;
        work.report.carried += carried.len() as u64;
        Some(step)
    }

    /// Returns the records of a key that take effect in a period, ascending by order.
    pub(crate) fn active_records(&self, step: &PeriodStep, key: u32) -> Cow<'_, [ChangeRecord]> {
        let (all, range) = (self.set.records_of(key), self.set.range_of(key));
        if !step.has_periods {
            return all.into();
        }
        let active = range.zip(all).filter(|(i, r)| r.period <= step.period && !self.left[*i]);
        active.map(|(_, r)| r.clone()).collect::<Vec<_>>().into()
    }

    /// Records the key metadata after a chunk of keys in a period, and marks records that have no effect in later
    /// periods. In a `reload`, no record is marked: records also replace newer content of later periods.
    pub(crate) fn exclude_keys(
        &mut self,
        step: &PeriodStep,
        outcomes: &[KeyOutcome],
        kept: &[(u32, Option<KeyMetadata>)],
        reload: bool,
    ) {
        if !step.has_periods {
            return;
        }
        let changed: HashMap<u32, &Option<KeyMetadata>> = kept.iter().map(|(key, kept)| (*key, kept)).collect();
        for outcome in outcomes {
            let key = outcome.key;
            self.retractions.store_for_next_period(key, &outcome.state);
            // A timeline has to name every resolved period of its key: periods without an entry keep what they had
            // before the run.
            let known = self.timelines.contains_key(&key) || self.changes.contains_key(&key);
            if known || changed.contains_key(&key) {
                let now = changed.get(&key).map_or_else(|| step.kept.get(&key).cloned(), |kept| (*kept).clone());
                self.changes.entry(key).or_default().0.push((step.number, now));
            }
            // A key that has moved may still be asked for values by older records.
            if reload || !outcome.state.key_changes.is_empty() {
                continue;
            }
            for (i, record) in self.set.range_of(key).zip(self.set.records_of(key)) {
                if record.period <= step.period && record.link.is_none() && is_overtaken(&outcome.state, &record.order)
                {
                    self.left[i] = true;
                }
            }
        }
    }

    /// Excludes a quarantined record from later periods.
    pub(crate) fn exclude_record(&mut self, step: &PeriodStep, at: RowRef) {
        let found = self.set.records.iter().position(|r| r.at == at);
        if let (Some(found), true) = (found, step.has_periods) {
            self.left[found] = true;
        }
    }

    /// Ends a period. In a rebuilt period, keys that were not resolved lose their key metadata.
    pub(crate) fn end_period(&mut self, periods: &PeriodsInRun, step: &PeriodStep) {
        if periods.all[step.at].base != PeriodBase::Rebuilt {
            return;
        }
        for key in self.timelines.keys() {
            let changes = self.changes.entry(*key).or_default();
            if changes.0.last().is_none_or(|(last, _)| *last != step.number) {
                changes.0.push((step.number, None));
            }
        }
    }

    /// Returns the timelines of keys whose key metadata has changed. The part is decided.
    pub(crate) fn changed_timelines(&mut self, periods: &PeriodsInRun) -> Vec<(Arc<[u8]>, KeyTimeline)> {
        let mut changed = Vec::new();
        for (key, now) in std::mem::take(&mut self.changes) {
            let before = self.timelines.get(&key).cloned().unwrap_or_default();
            let after = before.after_run(&now, |number| periods.next_of(number));
            if after != before {
                changed.push((self.set.keys.bytes(key).into(), after));
            }
        }
        changed
    }
}

/// Whether all columns of a key are newer than a record. Then the record has no effect in this period and in later
/// ones, whose columns are at least as new.
fn is_overtaken(state: &KeyState, order: &RecordOrder) -> bool {
    state.base > *order && state.columns.iter().all(|c| c.order > *order)
}

/// Loads the metadata of all keys, and adds the keys that key changes lead to, until no key is new (a fixed point).
/// Only keys from `from` on are looked up, so each segment is asked once per round.
/// Example: key 1 was moved to 2, and 2 to 3. A record of key 1 loads its metadata, which adds 2, whose metadata adds
/// 3.
fn follow_key_changes(set: &mut ChangeSet, segments: &KeySegments, kept: &mut HashMap<u32, KeyTimeline>) -> Result<()> {
    let mut from = 0;
    while from < set.keys.len() {
        let before = set.keys.len();
        segments.find_metadata(&set.keys, from, kept)?;
        let mut next = BTreeSet::new();
        for kept in kept.values().flat_map(KeyTimeline::all) {
            next.extend(kept.target_keys()?);
        }
        for to in &next {
            set.keys_mut().intern(to);
        }
        from = before;
    }
    Ok(())
}
