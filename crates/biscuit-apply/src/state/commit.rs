//! The commit of a merge: stages files and state, and commits them in one version.

use std::collections::BTreeMap;

use biscuit_core::{CommitId, Error, Result};
use biscuit_journal::TableCommit;
use biscuit_merge::internal::{RecordOrder, ResolvedKeys};
use biscuit_merge::{OrderAuthority, TombstonePolicy};
use biscuit_rewrite::{RewriteUnit, WrittenUnit, rewrite_units};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::changes::log_epochs::LOG_SERVERS;
use crate::merge::Merge;
use crate::periods::period_state::{CommitExtras, PeriodBase};
use crate::plan::fingerprints::DuplicateFiles;
use crate::report::MergeReport;
use crate::state::key_segment::{KeyMetadata, SegmentEntry};
use crate::state::quarantine;
use crate::target::context::{MergeContext, PERIOD_COLUMN, SPEC, TRUNCATED};

/// The work of a commit.
pub(crate) struct CommitWork {
    /// Rewrites of existing files, by index; `None` for a file that is removed.
    pub(crate) units: BTreeMap<usize, Option<RewriteUnit>>,
    /// New files that are not staged yet.
    pub(crate) added: Vec<RewriteUnit>,
    /// Files among both that become equal to others.
    pub(crate) same: DuplicateFiles,
    /// New files that are staged already.
    pub(crate) written: Vec<WrittenUnit>,
    /// Changed key metadata.
    pub(crate) kept: Vec<SegmentEntry>,
    pub(crate) quarantine_change: quarantine::QuarantineUpdate,
    /// Truncate marks after the run.
    pub(crate) marks: Vec<(i64, RecordOrder)>,
    pub(crate) extras: CommitExtras,
}

impl Merge {
    /// Returns the changes of key metadata: new content for a key, or `None` for metadata that is not needed any
    /// more. Metadata is needed if the stored rows alone do not determine the state:
    /// - a row whose order is not in its columns, or that has registers of its own,
    /// - a tombstone, unless a truncate covers it or deletes are not remembered,
    /// - a key change whose values may still be asked for.
    pub(crate) fn kept_changes(
        &self,
        p: &MergeContext,
        resolved: &ResolvedKeys,
    ) -> Result<Vec<(u32, Option<KeyMetadata>)>> {
        let mut changes = Vec::new();
        for outcome in &resolved.outcomes {
            let (state, had) = (&outcome.state, p.kept.contains_key(&outcome.key));
            let nothing = match &state.live {
                // A reloaded row may have a greater order than its order columns.
                Some(_) => {
                    self.spec.authority == OrderAuthority::Order && state.is_in_the_row(self.spec.stores_order())
                }
                None => {
                    let covered =
                        p.truncated.as_ref().is_some_and(|t| state.base <= *t) || state.base == RecordOrder::oldest();
                    let forget = self.spec.tombstones == TombstonePolicy::Forget;
                    state.key_changes.is_empty() && (covered || forget)
                }
            };
            if (nothing && !had) || (had && outcome.before.as_deref() == Some(state)) {
                continue;
            }
            let kept = if nothing { None } else { Some(KeyMetadata::of(state, &p.target, &p.tables)?) };
            changes.push((outcome.key, kept));
        }
        Ok(changes)
    }

    /// Stages everything that is not staged yet, and commits it. After an error, everything staged is deleted.
    pub(crate) async fn commit(
        &self,
        mut replace: TableCommit<'_>,
        p: &MergeContext,
        work: CommitWork,
        report: &MergeReport,
        commit: Option<&CommitId>,
    ) -> Result<biscuit_journal::CommitSummary> {
        // A commit with a known id would be skipped. A merge of the same records changes nothing anyway, and a merge
        // of other records must not be skipped, so a known id is left out.
        commit.filter(|id| p.snapshot.observed.head.committed(id).is_none()).inspect(|id| replace.with_commit_id(id));
        let (marks, properties) =
            (truncated_property(&work.marks, p.periods.has_periods()), work.extras.properties.clone());
        if let Some(run) = &work.extras.run {
            replace.with_run(run.as_str());
        }
        if let Err(e) = self.stage(p, work, &mut replace).await {
            replace.abandon().await?;
            return Err(e);
        }
        let spec = &self.spec;
        let mut made = json!({"key": spec.key, "order": spec.order, "op_rank": spec.op_rank});
        if let Some(periods) = &self.periods {
            made[PERIOD_COLUMN] = json!(periods.column);
        }
        replace.with_property(SPEC, made);
        if let Some(marks) = marks {
            replace.with_property(TRUNCATED, marks);
        }
        if let Some(servers) = &p.log_servers {
            replace.with_property(LOG_SERVERS, servers.clone());
        }
        let (schema, columns) = match &self.periods {
            Some(periods) => periods.with_column(&p.target, &p.partition_by),
            None => (p.target.clone(), p.partition_by.clone()),
        };
        for (name, value) in p.snapshot.properties(&schema, &columns)? {
            replace.with_property(name, value);
        }
        properties.into_iter().for_each(|(name, value)| replace.with_property(&name, value));
        replace.with_report(
            serde_json::to_value(report)
                .map_err(|e| Error::internal("the report could not be serialised").with_source(e))?,
        );
        replace.commit().await
    }

    /// Stages state files and data files, and registers removed files. Nothing here is visible before the commit.
    async fn stage(&self, p: &MergeContext, work: CommitWork, replace: &mut TableCommit<'_>) -> Result<()> {
        let CommitWork { units, added, same, written, kept, quarantine_change, extras, .. } = work;
        for (name, content) in extras.state {
            match content {
                Some(content) => replace.with_state(&name, content).await?,
                None => replace.without_state(&name),
            }
        }
        quarantine_change.drop.iter().for_each(|name| replace.without_state(name));
        if let Some((name, bytes)) = quarantine_change.write {
            replace.with_state(&name, bytes).await?;
        }
        let version = p.snapshot.observed.head.version + 1;
        // In a table with periods, a truncate mark covers tombstones in some of the periods only.
        let covering = p.truncated.as_ref().filter(|_| !p.periods.has_periods());
        let (segment, dropped) =
            p.segments.update(kept, version, covering, p.options.parquet.encryption.as_ref()).await?;
        dropped.iter().for_each(|name| replace.without_state(name));
        if let Some((name, bytes)) = segment {
            replace.with_state(&name, bytes).await?;
        }
        for file in units.keys().filter(|file| p.period_of(**file).base == PeriodBase::Own) {
            let listed = p.snapshot.observed.file(&p.files[*file].file.path);
            replace.remove(listed.ok_or_else(|| Error::internal("a file of the table version was not observed"))?);
        }
        for period in p.periods.all.iter().filter(|s| s.base == PeriodBase::Rebuilt) {
            period.listed.iter().for_each(|listed| replace.remove(p.observed(*listed)));
        }
        let copies = p.copies(&units);
        let stager = replace.stager();
        // A file that becomes equal to an earlier one is not written. What is written for the earlier one is copied.
        let mut todo = UnitQueue::default();
        for (file, unit) in units.into_iter().filter_map(|(file, unit)| Some((file, unit?))) {
            let first = same.units.get(&file).map(|first| todo.by_file.get(first).copied());
            if let Some(at) = todo.add(unit, first.flatten()) {
                todo.by_file.insert(file, at);
            }
        }
        for unit in added {
            let first = same.added.get(&unit.folder).map(|first| todo.by_folder.get(first).copied());
            let folder = unit.folder.clone();
            if let Some(at) = todo.add(unit, first.flatten()) {
                todo.by_folder.insert(folder, at);
            }
        }
        let done = rewrite_units(todo.units, &stager, p.session.clone()).await?;
        let head = &p.snapshot.observed.head;
        let mut copying = Vec::new();
        for (first, folder) in &todo.again {
            for file in done.iter().filter(|w| w.unit == *first) {
                copying.push(stager.again(&file.file, folder).boxed());
            }
        }
        for (listed, folder) in &copies {
            let source = p.observed(*listed);
            let rows = head.live.get(&source.path).and_then(|live| live.rows);
            let (content, stager) = (head.content(source), &stager);
            copying.push(async move { stager.copy(source, folder, rows, &content).await }.boxed());
        }
        let copied: Vec<_> = stream::iter(copying).buffered(COPIES).try_collect().await?;
        for file in written.into_iter().chain(done) {
            replace.publish(stager.staged(file.file));
        }
        copied.into_iter().for_each(|file| replace.publish(file));
        Ok(())
    }
}

/// Maximum number of concurrent copies in the store.
const COPIES: usize = 8;

/// The rewrites to do, and further folders for the files that they write.
#[derive(Default)]
struct UnitQueue {
    units: Vec<RewriteUnit>,
    /// Index of the rewrite of each file, and of the new file of each folder.
    by_file: BTreeMap<usize, usize>,
    by_folder: BTreeMap<String, usize>,
    /// Indices of rewrites, each with another folder for its files.
    again: Vec<(usize, String)>,
}

impl UnitQueue {
    /// Adds a rewrite and returns its index. With `first`, the index of an equal rewrite, only adds a further folder
    /// for the files of that one.
    fn add(&mut self, unit: RewriteUnit, first: Option<usize>) -> Option<usize> {
        if let Some(first) = first {
            self.again.push((first, unit.folder));
            return None;
        }
        self.units.push(unit);
        Some(self.units.len() - 1)
    }
}

/// Returns the property with the truncate marks; see `marks` in `context.rs` for reading it.
fn truncated_property(marks: &[(i64, RecordOrder)], by_period: bool) -> Option<Value> {
    if by_period && !marks.is_empty() {
        let mark = |(number, order): &(i64, RecordOrder)| (number.to_string(), Value::String(hex(order.bytes())));
        return Some(Value::Object(marks.iter().map(mark).collect()));
    }
    marks.last().map(|(_, order)| Value::String(hex(order.bytes())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
