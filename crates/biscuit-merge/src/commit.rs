use std::collections::BTreeMap;

use biscuit_core::{CommitId, Error, Result};
use biscuit_journal::Replace;
use biscuit_rewrite::{Unit, Written, rewrite_units};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::log_epochs::LOG_SERVERS;
use crate::merge::Merge;
use crate::order::Order;
use crate::prepare::{Prepared, SLICES, SPEC, TRUNCATED};
use crate::prints::Same;
use crate::quarantine;
use crate::report::MergeReport;
use crate::resolve::Resolved;
use crate::segment::{Entry, Kept};
use crate::slices::{Beside, SliceBase};
use crate::spec::{Authority, Tombstones};

/// What a commit makes true.
pub(crate) struct Work {
    /// The work on files that are there, by number; none for one that goes.
    pub(crate) units: BTreeMap<usize, Option<Unit>>,
    /// New files.
    pub(crate) added: Vec<Unit>,
    /// Those of both that come out as others do.
    pub(crate) same: Same,
    /// Those that are staged already.
    pub(crate) written: Vec<Written>,
    pub(crate) kept: Vec<Entry>,
    pub(crate) aside: quarantine::Change,
    /// The marks of truncates.
    pub(crate) marks: Vec<(i64, Order)>,
    pub(crate) beside: Beside,
}

impl Merge {
    /// What has to be kept by key that was not kept so before.
    pub(crate) fn kept_changes(&self, p: &Prepared, resolved: &Resolved) -> Result<Vec<(u32, Option<Kept>)>> {
        let mut changes = Vec::new();
        for outcome in &resolved.outcomes {
            let (state, had) = (&outcome.state, p.kept.contains_key(&outcome.key));
            let nothing = match &state.live {
                // A reloaded row has a greater order than its columns say.
                Some(_) => self.spec.authority == Authority::Order && state.is_in_the_row(self.spec.stores_order()),
                None => {
                    let covered =
                        p.truncated.as_ref().is_some_and(|t| state.base <= *t) || state.base == Order::oldest();
                    let forget = self.spec.tombstones == Tombstones::Forget;
                    state.moves.is_empty() && (covered || forget)
                }
            };
            if (nothing && !had) || (had && outcome.before.as_deref() == Some(state)) {
                continue;
            }
            let kept = if nothing { None } else { Some(Kept::of(state, &p.target, &p.tables)?) };
            changes.push((outcome.key, kept));
        }
        Ok(changes)
    }

    /// Stages what is not staged yet, and commits all of it.
    pub(crate) async fn commit(
        &self,
        mut replace: Replace<'_>,
        p: &Prepared,
        work: Work,
        report: &MergeReport,
        commit: Option<&CommitId>,
    ) -> Result<biscuit_journal::Committed> {
        // A merge of the same records changes nothing by itself; of other records it must not be passed over.
        commit.filter(|id| p.snapshot.observed.head.committed(id).is_none()).inspect(|id| replace.with_commit_id(id));
        let (marks, facts) = (truncated_fact(&work.marks, p.slices.is_sliced()), work.beside.facts.clone());
        if let Some(run) = &work.beside.run {
            replace.with_run(run.as_str());
        }
        if let Err(e) = self.stage(p, work, &mut replace).await {
            replace.abandon().await?;
            return Err(e);
        }
        let spec = &self.spec;
        let mut made = json!({"key": spec.key, "order": spec.order, "op_rank": spec.op_rank});
        if let Some(slices) = &self.slices {
            made[SLICES] = json!(slices.column);
        }
        replace.with_meta(SPEC, made);
        if let Some(marks) = marks {
            replace.with_meta(TRUNCATED, marks);
        }
        if let Some(servers) = &p.log_servers {
            replace.with_meta(LOG_SERVERS, servers.clone());
        }
        let (schema, columns) = match &self.slices {
            Some(slices) => slices.with_column(&p.target, &p.partition_by),
            None => (p.target.clone(), p.partition_by.clone()),
        };
        for (name, value) in p.snapshot.facts(&schema, &columns)? {
            replace.with_meta(name, value);
        }
        facts.into_iter().for_each(|(name, value)| replace.with_meta(&name, value));
        replace.with_report(serde_json::to_value(report).map_err(|e| Error::internal("a report").with_source(e))?);
        replace.commit().await
    }

    async fn stage(&self, p: &Prepared, work: Work, replace: &mut Replace<'_>) -> Result<()> {
        let Work { units, added, same, written, kept, aside, beside, .. } = work;
        for (name, content) in beside.state {
            match content {
                Some(content) => replace.with_state(&name, content).await?,
                None => replace.without_state(&name),
            }
        }
        aside.drop.iter().for_each(|name| replace.without_state(name));
        if let Some((name, bytes)) = aside.write {
            replace.with_state(&name, bytes).await?;
        }
        let version = p.snapshot.observed.head.version + 1;
        // Of a table with slices a mark covers tombstones in some of them only.
        let covering = p.truncated.as_ref().filter(|_| !p.slices.is_sliced());
        let (segment, dropped) =
            p.segments.update(kept, version, covering, p.options.parquet.encryption.as_ref()).await?;
        dropped.iter().for_each(|name| replace.without_state(name));
        if let Some((name, bytes)) = segment {
            replace.with_state(&name, bytes).await?;
        }
        for file in units.keys().filter(|file| p.slice_of(**file).base == SliceBase::Own) {
            let listed = p.snapshot.observed.file(&p.files[*file].file.path);
            replace.retire(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
        }
        for slice in p.slices.all.iter().filter(|s| s.base == SliceBase::Rebuilt) {
            slice.listed.iter().for_each(|listed| replace.retire(p.observed(*listed)));
        }
        let copies = p.copies(&units);
        let stager = replace.stager();
        let mut todo = Todo::default();
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

/// Copies that the store makes at a time.
const COPIES: usize = 8;

/// The units that are worked on, and where what comes of them is published once more.
#[derive(Default)]
struct Todo {
    units: Vec<Unit>,
    by_file: BTreeMap<usize, usize>,
    by_folder: BTreeMap<String, usize>,
    again: Vec<(usize, String)>,
}

impl Todo {
    /// Adds a unit, and answers with its number; or another place for what comes of an earlier one.
    fn add(&mut self, unit: Unit, first: Option<usize>) -> Option<usize> {
        if let Some(first) = first {
            self.again.push((first, unit.folder));
            return None;
        }
        self.units.push(unit);
        Some(self.units.len() - 1)
    }
}

/// The marks of truncates as the journal keeps them.
fn truncated_fact(marks: &[(i64, Order)], sliced: bool) -> Option<Value> {
    if sliced && !marks.is_empty() {
        let mark = |(number, order): &(i64, Order)| (number.to_string(), Value::String(hex(order.bytes())));
        return Some(Value::Object(marks.iter().map(mark).collect()));
    }
    marks.last().map(|(_, order)| Value::String(hex(order.bytes())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
