use std::collections::BTreeMap;

use biscuit_core::{CommitId, Error, Result};
use biscuit_journal::Replace;
use biscuit_rewrite::{Unit, Written, rewrite_units};
use serde_json::{Value, json};

use crate::merge::Merge;
use crate::order::Order;
use crate::prepare::{Prepared, SPEC, TRUNCATED};
use crate::quarantine;
use crate::report::MergeReport;
use crate::resolve::Resolved;
use crate::segment::{Entry, Kept};
use crate::spec::{Authority, Tombstones};

/// What a commit makes true.
pub(crate) struct Work {
    /// The work on files that are there, by number; none for one that goes.
    pub(crate) units: BTreeMap<usize, Option<Unit>>,
    /// New files.
    pub(crate) added: Vec<Unit>,
    /// Those that are staged already.
    pub(crate) written: Vec<Written>,
    pub(crate) kept: Vec<Entry>,
    pub(crate) aside: quarantine::Change,
}

impl Merge {
    /// What has to be kept by key that was not kept so before.
    pub(crate) fn kept_changes(&self, p: &Prepared, resolved: &Resolved) -> Result<Vec<Entry>> {
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
            if (nothing && !had) || (had && outcome.before.as_ref() == Some(state)) {
                continue;
            }
            let kept = if nothing { None } else { Some(Kept::of(state, &p.target, &p.tables)?) };
            changes.push((p.set.keys.bytes(outcome.key).into(), kept));
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
        if let Err(e) = self.stage(p, work, &mut replace).await {
            replace.abandon().await?;
            return Err(e);
        }
        let spec = &self.spec;
        replace.with_meta(SPEC, json!({"key": spec.key, "order": spec.order, "op_rank": spec.op_rank}));
        if let Some(mark) = &p.truncated {
            replace.with_meta(TRUNCATED, Value::String(hex(mark.bytes())));
        }
        for (name, value) in p.snapshot.facts(&p.target, &p.partition_by)? {
            replace.with_meta(name, value);
        }
        replace.with_report(serde_json::to_value(report).map_err(|e| Error::internal("a report").with_source(e))?);
        replace.commit().await
    }

    async fn stage(&self, p: &Prepared, work: Work, replace: &mut Replace<'_>) -> Result<()> {
        let Work { units, added, written, kept, aside } = work;
        aside.drop.iter().for_each(|name| replace.without_state(name));
        if let Some((name, bytes)) = aside.write {
            replace.with_state(&name, bytes).await?;
        }
        let version = p.snapshot.observed.head.version + 1;
        let (segment, dropped) = p.segments.update(kept, version, p.truncated.as_ref())?;
        dropped.iter().for_each(|name| replace.without_state(name));
        if let Some((name, bytes)) = segment {
            replace.with_state(&name, bytes).await?;
        }
        for file in units.keys() {
            let listed = p.snapshot.observed.file(&p.files[*file].file.path);
            replace.retire(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
        }
        let stager = replace.stager();
        let units = units.into_values().flatten().chain(added).collect();
        for file in written.into_iter().chain(rewrite_units(units, &stager, p.session.clone()).await?) {
            replace.publish(stager.staged(file.file));
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
