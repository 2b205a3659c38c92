use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_core::{CommitId, Error, Result};
use biscuit_dataset::{OpenFile, TableWriter, WriteOptions};
use biscuit_journal::Replace;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::{StreamExt, stream};
use hashbrown::HashMap;
use serde_json::{Value, json};

use crate::key_state::KeyState;
use crate::merge::Merge;
use crate::order::Order;
use crate::plan::{Plan, folder_of};
use crate::prepare::{Prepared, SPEC, TRUNCATED};
use crate::quarantine;
use crate::report::MergeReport;
use crate::resolve::Resolved;
use crate::rewrite::{Rewrite, rewrite};
use crate::segment::{Entry, Kept};
use crate::spec::{Authority, Tombstones};

/// What a commit makes true.
pub(crate) struct Work {
    pub(crate) plan: Plan,
    pub(crate) kept: Vec<Entry>,
    pub(crate) aside: quarantine::Change,
}

impl Merge {
    /// What has to be kept by key that was not kept so before.
    pub(crate) fn kept_changes(
        &self,
        p: &Prepared,
        resolved: &Resolved,
        before: &HashMap<u32, KeyState>,
    ) -> Result<Vec<Entry>> {
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
            let same = before.get(&outcome.key).is_some_and(|b| b == state);
            if (nothing && !had) || (had && same) {
                continue;
            }
            let kept = if nothing { None } else { Some(Kept::of(state, &p.target, &p.tables)?) };
            changes.push((p.set.keys.bytes[outcome.key as usize].clone(), kept));
        }
        Ok(changes)
    }

    pub(crate) async fn commit(
        &self,
        p: &Prepared,
        work: Work,
        homes: &BTreeMap<usize, String>,
        report: &MergeReport,
        commit: Option<&CommitId>,
    ) -> Result<biscuit_journal::Committed> {
        let mut replace = self.dataset.journal().replace(&p.snapshot.observed);
        // A merge of the same records changes nothing by itself; of other records it must not be passed over.
        commit.filter(|id| p.snapshot.observed.head.committed(id).is_none()).inspect(|id| replace.with_commit_id(id));
        if let Err(e) = self.stage(p, work, homes, &mut replace).await {
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

    async fn stage(
        &self,
        p: &Prepared,
        work: Work,
        homes: &BTreeMap<usize, String>,
        replace: &mut Replace<'_>,
    ) -> Result<()> {
        let Work { mut plan, kept, aside } = work;
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
        let data: Vec<_> = p.target.fields().iter().filter(|f| !p.partition_by.contains(f.name())).cloned().collect();
        let schema: SchemaRef = Arc::new(Schema::new(data));
        let mut jobs = Vec::new();
        for file in plan.touched() {
            let open = &p.files[file];
            let listed = p.snapshot.observed.file(&open.file.path);
            replace.retire(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
            let inserts = homes.get(&file).and_then(|folder| plan.inserts.remove(folder)).unwrap_or_default();
            if plan.empties(file, &p.files) && inserts.is_empty() {
                continue;
            }
            jobs.push(Rewrite {
                file: open.clone(),
                edits: plan.edits.remove(&file).unwrap_or_default(),
                rows: plan.rows.clone(),
                inserts,
                schema: schema.clone(),
                stager: replace.stager(),
                folder: folder_of(&open.file.path).to_owned(),
                max_file_size: self.options.max_file_size,
                options: open
                    .compression()
                    .map_or_else(|| self.options.parquet.clone(), |c| self.options.parquet.clone().with_compression(c)),
                store: self.dataset.journal().storage().store.clone(),
            });
        }
        let (mut done, all) = (0_usize, jobs.len());
        tracing::debug!(target: "biscuit::progress", done, all, "writing files");
        let mut staged = stream::iter(jobs).map(|job| tokio::spawn(rewrite(job))).buffered(self.options.parallelism);
        while let Some(file) = staged.next().await {
            let files = file.map_err(|e| Error::internal("a rewrite was cut off").with_source(e))??;
            files.into_iter().for_each(|f| replace.publish(f));
            done += 1;
            tracing::debug!(target: "biscuit::progress", done, all, "writing files");
        }
        drop(staged);
        self.insert(plan, replace).await
    }

    async fn insert(&self, plan: Plan, replace: &mut Replace<'_>) -> Result<()> {
        for (folder, batches) in plan.inserts {
            // Rows of one folder have no partition columns any more, so they are written as a table without folders.
            let options = WriteOptions::default().with_parquet(self.options.parquet.clone());
            let mut writer = TableWriter::new(self.dataset.journal(), replace, &options).in_folder(&folder);
            for batch in &batches {
                writer.write(batch).await?;
            }
            writer.finish().await?;
        }
        Ok(())
    }
}

/// Files that also take the inserts of their folder, so that runs do not leave a trail of small files.
pub(crate) fn homes(files: &[OpenFile], plan: &Plan, target_size: u64) -> BTreeMap<usize, String> {
    let mut by_folder: BTreeMap<&str, usize> = BTreeMap::new();
    for file in plan.touched() {
        let open = &files[file].file;
        if open.size < target_size && plan.inserts.contains_key(folder_of(&open.path)) {
            by_folder.insert(folder_of(&open.path), file);
        }
    }
    by_folder.into_iter().map(|(folder, file)| (file, folder.to_owned())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
