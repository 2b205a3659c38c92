//! Outputs of the modes `append`, `replace-partitions` and `replace`, and rebuilds: which objects are read, which
//! files the new ones replace, and the one commit that stores files, bookmarks, quarantine and properties.

use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_apply::quarantine_records;
use biscuit_bookmark::{ReplacedOutput, RunOutput, SourceObject};
use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Outcome, Result};
use biscuit_dataset::internal::LAYER;
use biscuit_journal::TableCommit;
use biscuit_schema::merge_schemas;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use serde_json::json;

use crate::codes;
use crate::report::counts::OutputReport;
use crate::run_options::{DryRun, RunOptions};
use crate::shape::finisher::FinishReport;
use crate::spec::OutputMode;
use crate::work::{OutputRows, OutputWork};
use crate::write::writer::StagedOutput;

impl OutputWork<'_> {
    /// Writes the rows, or plans to.
    pub(crate) async fn write(mut self, options: &RunOptions) -> Result<OutputReport> {
        let plan = self.plan(options)?;
        if let Some(partitions) = &plan.rebuild {
            self.check_rebuild(partitions, &plan.objects).await?;
        }
        let mut rows = self.rows(&plan.objects).await?;
        if options.is_dry() {
            let lines = self.plan_lines(&rows, &plan.objects, options).await?;
            match options.dry_run {
                DryRun::Read => self.dry_read(&rows, &plan).await?,
                _ => drop(self.say_sources(&[])?),
            }
            (self.report.plan, self.report.outcome) = (lines, Outcome::Planned);
            return Ok(self.report);
        }
        self.snapshot.check_partitioning(&rows.partition_by, write_mode(self.spec.mode))?;
        let journal = self.snapshot.dataset().journal().clone();
        let observed = self.snapshot.observed.clone();
        let mut replace = journal.replace(&observed);
        match self.put_together(&mut replace, &mut rows, plan).await {
            Ok(()) => {}
            Err(e) => {
                // Deletes the staged files, so that a failed run leaves no orphan files.
                replace.abandon().await?;
                return Err(journal.explain(e, &observed.head).await);
            }
        }
        let report = serde_json::to_value(&self.report)
            .map_err(|e| Error::internal("cannot serialize the report").with_source(e))?;
        replace.with_report(report);
        replace.with_run(self.run.id.to_string());
        let committed = replace.commit().await?;
        self.report.version = committed.version;
        self.report.outcome = committed.outcome;
        self.report.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
        Ok(self.report)
    }

    /// Reads all rows as a run would, for the report of a dry run. Nothing is written.
    async fn dry_read(&mut self, rows: &OutputRows, plan: &ReadPlan) -> Result<()> {
        self.snapshot.check_partitioning(&rows.partition_by, write_mode(self.spec.mode))?;
        let journal = self.snapshot.dataset().journal().clone();
        let observed = self.snapshot.observed.clone();
        let replace = journal.replace(&observed);
        let written = self.stage(rows, &plan.objects, &replace, (plan.rebuild.clone(), true)).await?;
        let refused = self.say_rows(rows, &written)?;
        self.report.quarantined = refused.len() as u64;
        self.report.partitions = written.folders.into_iter().filter(|p| !p.is_empty()).collect();
        Ok(())
    }

    /// Adds what was found in the rows to the report. Returns the refused records.
    fn say_rows(&mut self, rows: &OutputRows, written: &StagedOutput) -> Result<Vec<RefusedRecord>> {
        let FinishReport { report, mut refused, findings } = rows.finish.finish()?;
        refused.extend(self.say_sources(&rows.readings)?);
        self.guard(refused.len() as u64, written.rows)?;
        self.report.coercion = Some(report).filter(|report| rows.contract.is_some() || !report.columns.is_empty());
        self.report.findings.extend(findings);
        self.report.rows = written.rows;
        Ok(refused)
    }

    /// Decides which objects are read and which runs the new rows replace.
    fn plan(&mut self, options: &RunOptions) -> Result<ReadPlan> {
        let mut plan = ReadPlan::default();
        let rebuild: BTreeSet<String> = options.rebuild.iter().map(|p| p.trim_matches('/').to_owned()).collect();
        for chosen in &mut self.chosen {
            let incremental = chosen.bookmark.is_some();
            let mut replaced = ReplacedOutput::default();
            let objects = match self.spec.mode {
                _ if !incremental => chosen.input.everything(),
                _ if !rebuild.is_empty() => chosen.state.inputs_of(&rebuild, &chosen.input)?,
                OutputMode::Append => {
                    // The rows of an overwritten object are in files with rows of other objects of the same run:
                    // those objects are read again, too.
                    replaced = chosen.state.replaced(&mut chosen.selection, &chosen.input)?;
                    chosen.selection.objects.clone()
                }
                OutputMode::Replace => chosen.input.everything(),
                _ => chosen.selection.objects.clone(),
            };
            plan.objects.push(objects);
            plan.replaced.push(replaced);
        }
        plan.rebuild = (!rebuild.is_empty()).then_some(rebuild);
        Ok(plan)
    }

    /// Stages the rows and fills the commit. Order matters: only after staging it is known which partitions the new
    /// rows reach.
    async fn put_together(
        &mut self,
        replace: &mut TableCommit<'_>,
        rows: &mut OutputRows,
        plan: ReadPlan,
    ) -> Result<()> {
        let by_partition = self.spec.mode == OutputMode::ReplacePartitions;
        let mut written = self.stage(rows, &plan.objects, replace, (plan.rebuild.clone(), false)).await?;
        let mut gone: BTreeSet<String> = plan.rebuild.clone().unwrap_or_default();
        if by_partition && plan.rebuild.is_none() {
            // Partitions with new rows, and partitions that the old versions of overwritten objects had rows in.
            gone.extend(written.folders.iter().cloned());
            gone.extend(self.former_partitions()?);
            let all = self.others_of(&gone, &plan.objects)?;
            self.check_others(&gone, all.as_ref().unwrap_or(&plan.objects)).await?;
            if let Some(all) = all {
                written = self.stage_again(rows, all, written, replace, &gone).await?;
            }
        }
        let refused = self.say_rows(rows, &written)?;
        let refused = self.sealed(refused)?;
        self.report.quarantined = refused.len() as u64;
        self.report.files = written.staged.len() as u64;
        self.remove(replace, &plan, &gone)?;
        let mut partitions = written.folders.clone();
        partitions.extend(gone);
        self.report.partitions = partitions.into_iter().filter(|p| !p.is_empty()).collect();
        self.remember(replace, &written, &plan).await?;
        self.store_properties(replace, rows, &written)?;
        let journal = self.snapshot.dataset().journal();
        replace.with_extras(quarantine_records(journal, &self.snapshot.observed.head, refused).await?).await?;
        written.staged.into_iter().for_each(|file| replace.publish(file));
        Ok(())
    }

    /// Returns the partitions with rows of older versions of overwritten objects.
    fn former_partitions(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for chosen in self.chosen.iter().filter(|c| c.bookmark.is_some()) {
            let old: BTreeSet<&str> = chosen.selection.overwritten.iter().map(String::as_str).collect();
            if !old.is_empty() {
                all.extend(chosen.state.partitions_of(&|url, _| old.contains(url))?);
            }
        }
        Ok(all)
    }

    /// Returns the new objects together with all other objects that have rows in these partitions. `None` if there
    /// are no others.
    fn others_of(
        &self,
        partitions: &BTreeSet<String>,
        new: &[Vec<SourceObject>],
    ) -> Result<Option<Vec<Vec<SourceObject>>>> {
        let (mut all, mut more) = (new.to_vec(), false);
        for (chosen, all) in self.chosen.iter().zip(&mut all).filter(|(c, _)| c.bookmark.is_some()) {
            let own: BTreeSet<String> = all.iter().map(|o| o.url().to_owned()).collect();
            let others = chosen.state.inputs_besides(partitions, &chosen.input, &|url| own.contains(url))?;
            more |= !others.is_empty();
            all.extend(others);
        }
        Ok(more.then_some(all))
    }

    /// Stages partitions again from all their input. For the partitions that each new object reaches, the result of
    /// the first staging holds.
    async fn stage_again(
        &mut self,
        rows: &mut OutputRows,
        all: Vec<Vec<SourceObject>>,
        written: StagedOutput,
        replace: &TableCommit<'_>,
        partitions: &BTreeSet<String>,
    ) -> Result<StagedOutput> {
        let mut again = self.rows(&all).await?;
        std::mem::swap(rows, &mut again);
        let mut staged = self.stage(rows, &all, replace, (Some(partitions.clone()), false)).await?;
        staged.reached = written.reached;
        Ok(staged)
    }

    /// Removes the files that the new rows replace.
    fn remove(&mut self, replace: &mut TableCommit<'_>, plan: &ReadPlan, gone: &BTreeSet<String>) -> Result<()> {
        let observed = &self.snapshot.observed;
        let mut removed: BTreeSet<&str> = BTreeSet::new();
        match self.spec.mode {
            OutputMode::Replace => removed.extend(observed.files.iter().map(|f| f.path.as_str())),
            _ => {
                let there = observed.files.iter().filter(|f| gone.contains(f.folder()));
                removed.extend(there.map(|f| f.path.as_str()));
            }
        }
        for (chosen, replaced) in self.chosen.iter().zip(&plan.replaced) {
            let rebuilt = chosen.state.rebuilt_partitions(&replaced.runs);
            for path in &replaced.files {
                match observed.file(path) {
                    Some(file) => drop(removed.insert(&file.path)),
                    // A later rebuild of the partition has already removed the file.
                    None if rebuilt.contains(path.rsplit_once('/').map_or("", |(folder, _)| folder)) => {}
                    None => {
                        let message = format!(
                            "`{path}`, with rows of objects that are read again, no longer exists: it was compacted or replaced; run once with the mode `replace-partitions`, which reads all input of its partition"
                        );
                        return Err(Error::new(codes::FILES_REWRITTEN, message));
                    }
                }
            }
        }
        self.report.replaced = removed.len() as u64;
        observed.files.iter().filter(|f| removed.contains(f.path.as_str())).for_each(|f| replace.remove(f));
        Ok(())
    }

    /// Records in the bookmarks which objects were read, and which files and partitions their rows are in.
    async fn remember(&self, replace: &mut TableCommit<'_>, written: &StagedOutput, plan: &ReadPlan) -> Result<()> {
        let partitions: Vec<String> = written.folders.iter().cloned().collect();
        let at = |folder: &String| partitions.binary_search(folder).ok().and_then(|at| u32::try_from(at).ok());
        let reached = written.reached.iter().map(|(url, f)| (url.clone(), f.iter().filter_map(at).collect())).collect();
        let files = match self.spec.mode {
            OutputMode::Append => written.staged.iter().map(|f| f.path().to_owned()).collect(),
            _ => vec![],
        };
        let mut output = RunOutput::default();
        (output.files, output.partitions, output.reached) = (files, partitions, reached);
        for ((chosen, replaced), objects) in self.chosen.iter().zip(&plan.replaced).zip(&plan.objects) {
            if chosen.bookmark.is_none() {
                continue;
            }
            let change = match &plan.rebuild {
                Some(_) if objects.is_empty() => None,
                Some(_) => Some(chosen.state.rebuild(objects, &chosen.input.places(), self.run, output.clone())?),
                None => chosen.state.replace(&chosen.selection, self.run, output.clone(), replaced)?,
            };
            if let Some(change) = change {
                replace.with_extras(change).await?;
            }
        }
        Ok(())
    }

    /// Stores the schema, the partition columns, the layer and the encrypted columns as properties of the version.
    fn store_properties(&self, replace: &mut TableCommit<'_>, rows: &OutputRows, written: &StagedOutput) -> Result<()> {
        if let Some(layer) = rows.contract.as_ref().and_then(|c| c.layer) {
            replace.with_property(LAYER, json!(layer));
        }
        let Some(schema) = &written.schema else {
            let (name, encrypted) = self.snapshot.encrypted_property();
            replace.with_property(name, encrypted);
            return Ok(());
        };
        let all = match self.spec.mode {
            OutputMode::Replace => schema.clone(),
            _ => match self.snapshot.known_schema()?.filter(|s| !s.fields().is_empty()) {
                Some(known) => Arc::new(merge_schemas(&known, schema, &format!("the rows of `{}`", self.name))?),
                None => schema.clone(),
            },
        };
        // Tables have their partition columns last.
        let (last, first): (Vec<_>, Vec<_>) =
            all.fields().iter().cloned().partition(|f| rows.partition_by.contains(f.name()));
        let all: SchemaRef = Arc::new(Schema::new(first.into_iter().chain(last).collect::<Vec<_>>()));
        for (name, value) in self.snapshot.properties(&all, &rows.partition_by)? {
            replace.with_property(name, value);
        }
        Ok(())
    }
}

/// The objects of each source to read, and the output of earlier runs that the new rows replace.
#[derive(Debug, Default)]
struct ReadPlan {
    objects: Vec<Vec<SourceObject>>,
    replaced: Vec<ReplacedOutput>,
    rebuild: Option<BTreeSet<String>>,
}

fn write_mode(mode: OutputMode) -> biscuit_dataset::WriteMode {
    match mode {
        OutputMode::Replace => biscuit_dataset::WriteMode::ReplaceAll,
        OutputMode::ReplacePartitions => biscuit_dataset::WriteMode::ReplacePartitions,
        _ => biscuit_dataset::WriteMode::Append,
    }
}
