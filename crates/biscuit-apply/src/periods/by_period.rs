//! The periods of a table during a run: which files each one has, which records take effect in it, and how key
//! metadata changes from period to period.
//! A record takes effect in its period and in all later ones, until all columns of its key are newer than the record.

use std::collections::{BTreeMap, HashMap as StdMap};
use std::ops::Range;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::OpenFile;
use biscuit_journal::FileRef;
use biscuit_merge::internal::{ChangeRecord, KeyOutcome, KeyState, RecordOrder, RowRef};
use biscuit_rewrite::RewriteUnit;
use hashbrown::HashMap;

use crate::merge::Merge;
use crate::periods::period_state::PeriodBase;
use crate::plan::merge_plan::folder_of;
use crate::report::PeriodReport;
use crate::state::key_segment::{KeyMetadata, KeyTimeline};
use crate::target::context::MergeContext;
use crate::target::scan::FileScan;

/// A period during a run. A table without periods is a single one.
#[derive(Debug)]
pub(crate) struct PeriodWork {
    pub(crate) number: i64,
    /// Number of the next period.
    next: Option<i64>,
    /// Folder of the period, relative to the table; empty for a table without periods.
    pub(crate) folder: String,
    pub(crate) base: PeriodBase,
    /// Files that the period begins with, as indices of the files of the table version. For a new period these are
    /// files of its predecessor.
    pub(crate) listed: Vec<usize>,
    /// Files of the period among the opened files; `None` until they are opened.
    pub(crate) files: Option<Range<usize>>,
    /// Number of rows before the run, as far as the journal or the files know it.
    pub(crate) rows: u64,
    pub(crate) report: PeriodReport,
}

/// The periods during a run, and what is remembered from one period to the next.
#[derive(Debug, Default)]
pub(crate) struct PeriodsInRun {
    pub(crate) all: Vec<PeriodWork>,
    /// Index of the current period.
    pub(crate) at: usize,
    /// Truncate marks before the run, by number of the period: the order at or before which everything is deleted
    /// from this period on.
    pub(crate) marks: Vec<(i64, RecordOrder)>,
    /// Content of each opened file. Files with equal content, such as copies of a file in several periods, have equal
    /// text here.
    pub(crate) contents: Vec<Arc<str>>,
    /// Scans of the current part by content: a copy of a file is not scanned again.
    pub(crate) scans: HashMap<Arc<str>, Arc<FileScan>>,
    /// Fetched rows by content and row number.
    pub(crate) fetched: HashMap<(Arc<str>, u64), RowRef>,
    /// For each record of the part, whether it has no effect in later periods any more.
    left: Vec<bool>,
    /// Key metadata of the keys of the part before the run, by period.
    pub(crate) timelines: HashMap<u32, KeyTimeline>,
    /// Key metadata after each period that was resolved.
    changes: HashMap<u32, KeyTimeline>,
}

impl PeriodsInRun {
    pub(crate) fn new(marks: Vec<(i64, RecordOrder)>) -> Self {
        Self { marks, ..Self::default() }
    }

    /// Whether the table has periods.
    pub(crate) fn has_periods(&self) -> bool {
        self.all.first().is_some_and(|s| !s.folder.is_empty())
    }

    /// Returns the current period.
    pub(crate) fn now(&self) -> &PeriodWork {
        &self.all[self.at]
    }

    fn period(&self) -> u32 {
        u32::try_from(self.at).expect("there are fewer than 2^32 periods")
    }

    /// Returns the truncate marks in the current period: before the run, and with the truncates of the run.
    fn marks(&self, truncates: &[(u32, RecordOrder)]) -> (Option<RecordOrder>, Option<RecordOrder>) {
        let before = self.marks.iter().filter(|(n, _)| *n <= self.now().number).map(|(_, o)| o.clone()).max();
        let own = truncates.iter().filter(|(s, _)| *s <= self.period()).map(|(_, o)| o.clone()).max();
        (before.clone(), before.max(own))
    }

    /// Returns the truncate marks after the run, for the property. A mark that is not greater than the mark of an
    /// earlier period has no effect and is left out.
    pub(crate) fn marks_after(&self, truncates: &[(u32, RecordOrder)]) -> Vec<(i64, RecordOrder)> {
        let mut marks = self.marks.clone();
        let own = |(s, o): &(u32, RecordOrder)| Some((self.all.get(*s as usize)?.number, o.clone()));
        marks.extend(truncates.iter().filter_map(own));
        marks.sort();
        let mut after: Vec<(i64, RecordOrder)> = Vec::new();
        for (number, order) in marks {
            if after.last().is_some_and(|(_, last)| *last >= order) {
                continue;
            }
            after.retain(|(n, _)| *n != number);
            after.push((number, order));
        }
        after
    }

    /// Begins a part of the records. Row references and record indices of the part before are not valid any more.
    pub(crate) fn enter_part(&mut self, records: usize) {
        (self.left, self.at) = (vec![false; records], 0);
        self.scans.clear();
        self.fetched.clear();
        self.changes.clear();
    }
}

impl MergeContext {
    /// Whether a key is resolved in the current period although no record may take effect in it.
    pub(crate) fn looks_at(&self, key: u32) -> bool {
        !self.retracting.is_empty() && self.retracting.looks_at(key, self.periods.period())
    }

    /// Returns the records of a key that take effect in the current period, ascending by order.
    pub(crate) fn active(&self, key: u32) -> std::borrow::Cow<'_, [ChangeRecord]> {
        let (all, range) = (self.set.records_of(key), self.set.range_of(key));
        if !self.periods.has_periods() {
            return all.into();
        }
        let at = self.periods.period();
        let active = range.zip(all).filter(|(i, r)| r.period <= at && !self.periods.left[*i]);
        active.map(|(_, r)| r.clone()).collect::<Vec<_>>().into()
    }

    /// Begins a period: sets its truncate marks and key metadata. Returns whether there is anything to resolve in it.
    pub(crate) fn enter_period(&mut self, at: usize) -> bool {
        let s = &mut self.periods;
        s.at = at;
        if !s.has_periods() {
            return true;
        }
        (self.truncated_before, self.truncated) = s.marks(&self.truncates.0);
        let rebuilt = s.now().base == PeriodBase::Rebuilt;
        if rebuilt {
            // Nothing of the old content of the period counts.
            self.truncated_before = None;
        }
        let own = s.period();
        let counts = |(record, left): &(&ChangeRecord, &bool)| record.period <= own && !**left;
        let counted: Vec<&ChangeRecord> =
            self.set.records.iter().zip(&s.left).filter(counts).map(|(record, _)| record).collect();
        let retracts = self.retracting.any(own);
        if counted.is_empty() && self.truncated == self.truncated_before && !rebuilt && !retracts {
            return false;
        }
        let mut keys = hashbrown::HashSet::new();
        let mut carried = hashbrown::HashSet::new();
        for record in counted {
            keys.insert(record.key);
            if record.period < own {
                carried.insert(record.key);
            }
        }
        let report = &mut s.all[at].report;
        report.keys += keys.len() as u64;
        report.carried += carried.len() as u64;
        let number = s.all[at].number;
        let kept = s.timelines.iter().filter(|_| !rebuilt);
        self.kept = kept.filter_map(|(key, t)| Some((*key, t.at(number)?.clone()))).collect();
        true
    }

    /// Ends a period. In a rebuilt period, keys that were not resolved lose their key metadata.
    pub(crate) fn end_period(&mut self) {
        let s = &mut self.periods;
        let number = s.now().number;
        if s.now().base != PeriodBase::Rebuilt {
            return;
        }
        for key in s.timelines.keys() {
            let changes = s.changes.entry(*key).or_default();
            if changes.0.last().is_none_or(|(last, _)| *last != number) {
                changes.0.push((number, None));
            }
        }
    }

    /// Records the key metadata after a chunk of keys in the current period, and marks records that have no effect in
    /// later periods. In a `reload`, no record is marked: records also replace newer content of later periods.
    pub(crate) fn leave_period(&mut self, outcomes: &[KeyOutcome], kept: &[(u32, Option<KeyMetadata>)], reload: bool) {
        if !self.periods.has_periods() {
            return;
        }
        let number = self.periods.now().number;
        let (own, changed) = (self.periods.period(), kept.iter().map(|(key, kept)| (*key, kept)));
        let changed: HashMap<u32, &Option<KeyMetadata>> = changed.collect();
        for outcome in outcomes {
            let key = outcome.key;
            self.keep_for_next(key, &outcome.state);
            // A timeline has to name every resolved period of its key: periods without an entry keep what they had
            // before the run.
            let known = self.periods.timelines.contains_key(&key) || self.periods.changes.contains_key(&key);
            if known || changed.contains_key(&key) {
                let now = changed.get(&key).map_or_else(|| self.kept.get(&key).cloned(), |kept| (*kept).clone());
                self.periods.changes.entry(key).or_default().0.push((number, now));
            }
            // A key that has moved may still be asked for values by older records.
            if reload || !outcome.state.key_changes.is_empty() {
                continue;
            }
            for (i, record) in self.set.range_of(key).zip(self.set.records_of(key)) {
                if record.period <= own && record.link.is_none() && is_overtaken(&outcome.state, &record.order) {
                    self.periods.left[i] = true;
                }
            }
        }
    }

    /// Excludes a quarantined record from later periods.
    pub(crate) fn leave_out(&mut self, at: RowRef) {
        let found = self.set.records.iter().position(|r| r.at == at);
        if let (Some(found), true) = (found, self.periods.has_periods()) {
            self.periods.left[found] = true;
        }
    }

    /// Returns the timelines of keys whose key metadata has changed.
    pub(crate) fn changed_timelines(&mut self) -> Vec<(Arc<[u8]>, KeyTimeline)> {
        let mut changed = Vec::new();
        for (key, now) in std::mem::take(&mut self.periods.changes) {
            let before = self.periods.timelines.get(&key).cloned().unwrap_or_default();
            let after = before.with(&now, |number| {
                let period = self.periods.all.iter().find(|s| s.number == number);
                period.and_then(|s| s.next)
            });
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

impl Merge {
    /// Determines the periods of the run and the files that each begins with.
    pub(crate) fn begin_periods(&self, p: &mut MergeContext) -> Result<()> {
        let Some(periods) = &self.periods else {
            p.periods.all.push(PeriodWork {
                number: 0,
                next: None,
                folder: String::new(),
                base: PeriodBase::Own,
                listed: (0..p.snapshot.files().len()).collect(),
                files: Some(0..p.files.len()),
                rows: 0,
                report: PeriodReport::default(),
            });
            return Ok(());
        };
        // Files of the period before, which a new period takes over.
        let mut before: Vec<usize> = vec![];
        for period in &periods.all {
            let folder = periods.folder(period);
            let own = || {
                let inside = |path: &str| path.strip_prefix(&folder).is_some_and(|rest| rest.starts_with('/'));
                let files = p.snapshot.files().iter().enumerate();
                files.filter(|(_, f)| inside(&f.path)).map(|(i, _)| i).collect::<Vec<usize>>()
            };
            let listed: Vec<usize> = match (period.base, own().first()) {
                (PeriodBase::Own | PeriodBase::Rebuilt, _) => own(),
                (_, Some(there)) => return Err(in_the_way(p.observed(*there), &p.snapshot.observed.external)),
                (PeriodBase::Predecessor, None) => std::mem::take(&mut before),
                (PeriodBase::Empty, None) => vec![],
            };
            let live = &p.snapshot.observed.head.live;
            let rows = listed.iter().map(|i| live.get(&p.snapshot.files()[*i].path).and_then(|l| l.rows).unwrap_or(0));
            let rows = rows.sum();
            let report = PeriodReport {
                period: period.value.clone(),
                is_new: !matches!(period.base, PeriodBase::Own | PeriodBase::Rebuilt),
                ..PeriodReport::default()
            };
            before.clone_from(&listed);
            p.periods.all.push(PeriodWork {
                number: period.number,
                next: period.next,
                folder,
                base: period.base,
                listed,
                // A rebuilt period has no files to read.
                files: (period.base == PeriodBase::Rebuilt).then_some(0..0),
                rows,
                report,
            });
        }
        Ok(())
    }

    /// Reads the footers of the files of a period. A file whose content is known is not read again; it only gets
    /// another path.
    pub(crate) async fn open_period(&self, p: &mut MergeContext, at: usize) -> Result<()> {
        if p.periods.all[at].files.is_some() {
            return Ok(());
        }
        let period = &p.periods.all[at];
        let known: StdMap<Arc<str>, usize> =
            p.periods.contents.iter().enumerate().map(|(i, content)| (content.clone(), i)).collect();
        let observed = &p.snapshot.observed;
        let (mut all, mut wanted) = (Vec::new(), Vec::new());
        for &i in &period.listed {
            let mut file = p.snapshot.files()[i].clone();
            let content: Arc<str> = observed.head.content(&observed.files[i]).into();
            let there = known.get(&content).copied();
            if period.base == PeriodBase::Predecessor {
                let (_, rest) = split_folder(&file.path)?;
                file.path = format!("{}/{rest}", period.folder);
            }
            if there.is_none() {
                wanted.push(file.clone());
            }
            all.push((content, there, file));
        }
        let mut opened = p.snapshot.open(wanted).await?.into_iter();
        let from = p.files.len();
        for (content, there, file) in all {
            let open: Option<OpenFile> = match there {
                Some(there) => Some(p.files[there].clone().known_as(file)),
                None => opened.next(),
            };
            let open = open.ok_or_else(|| Error::internal("a file of a period was not opened"))?;
            p.starts.push(open.group_starts());
            p.files.push(open);
            p.periods.contents.push(content);
        }
        let files = from..p.files.len();
        p.periods.all[at].rows = p.files[files.clone()].iter().map(OpenFile::rows).sum();
        p.periods.all[at].files = Some(files);
        Ok(())
    }
}

/// Returns the error for a file in the folder of a new period.
fn in_the_way(file: &FileRef, external: &[FileRef]) -> Error {
    let path = &file.path;
    if external.contains(file) {
        let message = format!(
            "`{path}` is an external file in the folder of a period that does not exist yet; move the file away and merge its rows as changes"
        );
        return Error::data("ExternalFiles", message);
    }
    Error::conflict("Conflict", format!("`{path}` exists already, because another run committed first; run again"))
}

/// Divides the path of a file into the folder of its period and the rest.
fn split_folder(path: &str) -> Result<(&str, &str)> {
    path.split_once('/').ok_or_else(|| Error::internal("a file of a table with periods is not in a folder"))
}

impl MergeContext {
    /// Returns a file of the table version as the journal observed it.
    pub(crate) fn observed(&self, listed: usize) -> &FileRef {
        &self.snapshot.observed.files[listed]
    }

    /// Returns the period of an opened file.
    pub(crate) fn period_of(&self, file: usize) -> &PeriodWork {
        let inside = |s: &&PeriodWork| s.files.as_ref().is_some_and(|files| files.contains(&file));
        self.periods.all.iter().find(inside).expect("every file is opened for a period")
    }

    /// Returns the files of predecessors that are copied into new periods because nothing in them changes, each with
    /// its new folder.
    pub(crate) fn copies(&self, units: &BTreeMap<usize, Option<RewriteUnit>>) -> Vec<(usize, String)> {
        let mut copies = Vec::new();
        for period in self.periods.all.iter().filter(|s| s.base == PeriodBase::Predecessor) {
            for (place, &listed) in period.listed.iter().enumerate() {
                let number = period.files.as_ref().map(|files| files.start + place);
                if number.is_some_and(|number| units.contains_key(&number)) {
                    continue;
                }
                let folder = folder_of(&self.observed(listed).path);
                let rest = folder.split_once('/').map_or(String::new(), |(_, rest)| format!("/{rest}"));
                copies.push((listed, format!("{}{rest}", period.folder)));
            }
        }
        copies
    }
}
