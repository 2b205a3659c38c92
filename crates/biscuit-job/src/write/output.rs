//! Outputs of the modes `append`, `replace-partitions` and `replace`, and rebuilds: which objects are read, which
//! files the new ones replace, and the one commit that stores files, bookmarks, quarantine and properties.

use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_apply::quarantine_records;
use biscuit_bookmark::{ReplacedOutput, RunOutput, SourceObject};
use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Outcome, Result};
use biscuit_dataset::internal::LAYER;
use biscuit_dataset::{FileSizing, WriteOptions};
use biscuit_journal::TableCommit;
use biscuit_schema::merge_schemas;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use serde_json::json;

use crate::codes;
use crate::output_run::OutputRun;
use crate::read::choose::ChosenInput;
use crate::report::counts::OutputReport;
use crate::report::plan::plan_lines;
use crate::run_options::{DryRun, RunOptions};
use crate::shape::finisher::FinishReport;
use crate::shape::origin::{check_others, check_rebuild};
use crate::shape::rows::OutputRows;
use crate::shape::treatment::seal_refused;
use crate::spec::OutputMode;
use crate::write::writer::{StagedOutput, StagedRows, WriteTarget, write_query, write_rows};

/// Writes the rows of an output, or plans to.
pub(crate) async fn write(
    output: &OutputRun<'_>,
    mut chosen: Vec<ChosenInput>,
    mut report: OutputReport,
    options: &RunOptions,
) -> Result<OutputReport> {
    let plan = ReadPlan::new(output.spec.mode, &mut chosen, options)?;
    if let Some(partitions) = &plan.rebuild {
        check_rebuild(&chosen, &output.snapshot, partitions, &plan.objects).await?;
    }
    let rows = OutputRows::prepare(output, &chosen, &plan.objects, vec![], &mut report).await?;
    if options.is_dry() {
        let lines = plan_lines(&rows, options).await?;
        match options.dry_run {
            DryRun::Read => dry_read(&rows, &plan, &mut report).await?,
            _ => drop(report.add_sources(&chosen, &[])?),
        }
        (report.plan, report.outcome) = (lines, Outcome::Planned);
        return Ok(report);
    }
    output.snapshot.check_partitioning(&rows.partition_by, write_mode(output.spec.mode))?;
    let (journal, observed) = (output.snapshot.journal(), &output.snapshot.observed);
    let mut table_commit = journal.begin_commit(observed);
    match put_together(&mut table_commit, rows, &plan, &mut report).await {
        Ok(()) => {}
        Err(e) => {
            // Deletes the staged files, so that a failed run leaves no orphan files.
            table_commit.abandon().await?;
            return Err(journal.explain_error(e, &observed.head).await);
        }
    }
    let stored =
        serde_json::to_value(&report).map_err(|e| Error::internal("cannot serialize the report").with_source(e))?;
    table_commit.with_report(stored);
    table_commit.with_run(output.run.id.to_string());
    let committed = table_commit.commit().await?;
    report.version = committed.version;
    report.outcome = committed.outcome;
    report.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
    Ok(report)
}

/// Reads all rows as a run would, for the report of a dry run. Nothing is written.
async fn dry_read(rows: &OutputRows<'_>, plan: &ReadPlan, report: &mut OutputReport) -> Result<()> {
    let snapshot = &rows.table.snapshot;
    snapshot.check_partitioning(&rows.partition_by, write_mode(rows.output.spec.mode))?;
    let table_commit = snapshot.journal().begin_commit(&snapshot.observed);
    let written = stage_rows(rows, &table_commit, plan.rebuild.clone(), StagedRows::Counted).await?;
    let refused = report_rows(rows, &written, report)?;
    report.quarantined = refused.len() as u64;
    report.partitions = written.folders.into_iter().filter(|p| !p.is_empty()).collect();
    Ok(())
}

/// Adds what was found in the rows to the report. Returns the refused records.
fn report_rows(rows: &OutputRows<'_>, written: &StagedOutput, report: &mut OutputReport) -> Result<Vec<RefusedRecord>> {
    let FinishReport { report: coercion, mut refused, findings } = rows.finish.finish()?;
    refused.extend(report.add_sources(rows.chosen, &rows.readings)?);
    rows.output.check_quarantined(refused.len() as u64, written.rows)?;
    report.coercion = Some(coercion).filter(|coercion| rows.contract.is_some() || !coercion.columns.is_empty());
    report.findings.extend(findings);
    report.rows = written.rows;
    Ok(refused)
}

/// The objects of each source to read, and the output of earlier runs that the new rows replace.
#[derive(Debug, Default)]
struct ReadPlan {
    objects: Vec<Vec<SourceObject>>,
    replaced: Vec<ReplacedOutput>,
    rebuild: Option<BTreeSet<String>>,
}

impl ReadPlan {
    /// Decides which objects are read and which runs the new rows replace.
    fn new(mode: OutputMode, chosen: &mut [ChosenInput], options: &RunOptions) -> Result<Self> {
        let mut plan = Self::default();
        let rebuild: BTreeSet<String> = options.rebuild.iter().map(|p| p.trim_matches('/').to_owned()).collect();
        for chosen in chosen {
            let incremental = chosen.bookmark.is_some();
            let mut replaced = ReplacedOutput::default();
            let objects = match mode {
                _ if !incremental => chosen.input.all_objects(),
                _ if !rebuild.is_empty() => chosen.state.inputs_of(&rebuild, &chosen.input)?,
                OutputMode::Append => {
                    // The rows of an overwritten object are in files with rows of other objects of the same run:
                    // those objects are read again, too.
                    replaced = chosen.state.replaced_output(&mut chosen.selection, &chosen.input)?;
                    chosen.selection.objects.clone()
                }
                OutputMode::Replace => chosen.input.all_objects(),
                _ => chosen.selection.objects.clone(),
            };
            plan.objects.push(objects);
            plan.replaced.push(replaced);
        }
        plan.rebuild = (!rebuild.is_empty()).then_some(rebuild);
        Ok(plan)
    }
}

/// Stages the rows and fills the commit. Order matters: only after staging it is known which partitions the new rows
/// reach.
async fn put_together(
    table_commit: &mut TableCommit<'_>,
    rows: OutputRows<'_>,
    plan: &ReadPlan,
    report: &mut OutputReport,
) -> Result<()> {
    let (output, chosen) = (rows.output, rows.chosen);
    let mut written = stage_rows(&rows, table_commit, plan.rebuild.clone(), StagedRows::Written).await?;
    let mut gone: BTreeSet<String> = plan.rebuild.clone().unwrap_or_default();
    let mut others = None;
    if output.spec.mode == OutputMode::ReplacePartitions && plan.rebuild.is_none() {
        // Partitions with new rows, and partitions that the old versions of overwritten objects had rows in.
        gone.extend(written.folders.iter().cloned());
        gone.extend(former_partitions(chosen)?);
        others = others_of(chosen, &gone, &plan.objects)?;
        check_others(chosen, &output.snapshot, &gone, others.as_ref().unwrap_or(&plan.objects)).await?;
    }
    let rows = match &others {
        // Stages the partitions again from all their input. For the partitions that each new object reaches, the
        // result of the first staging holds.
        Some(all) => {
            let again = OutputRows::prepare(output, chosen, all, rows.guards, report).await?;
            let staged = stage_rows(&again, table_commit, Some(gone.clone()), StagedRows::Written).await?;
            written = StagedOutput { reached: written.reached, ..staged };
            again
        }
        None => rows,
    };
    let refused = report_rows(&rows, &written, report)?;
    let refused = seal_refused(&rows.guards, refused, &mut report.pii)?;
    report.quarantined = refused.len() as u64;
    report.files = written.staged.len() as u64;
    report.replaced = remove_replaced(&rows, plan, &gone, table_commit)?;
    let mut partitions = written.folders.clone();
    partitions.extend(gone);
    report.partitions = partitions.into_iter().filter(|p| !p.is_empty()).collect();
    update_bookmarks(&rows, plan, &written, table_commit).await?;
    store_properties(&rows, &written, table_commit)?;
    let snapshot = &rows.table.snapshot;
    table_commit.with_extras(quarantine_records(snapshot.journal(), &snapshot.observed.head, refused).await?).await?;
    written.staged.into_iter().for_each(|file| table_commit.publish(file));
    Ok(())
}

/// Returns the partitions with rows of older versions of overwritten objects.
fn former_partitions(chosen: &[ChosenInput]) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for input in chosen.iter().filter(|c| c.bookmark.is_some()) {
        let old: BTreeSet<&str> = input.selection.overwritten.iter().map(String::as_str).collect();
        if !old.is_empty() {
            all.extend(input.state.partitions_of(&|url, _| old.contains(url))?);
        }
    }
    Ok(all)
}

/// Returns the new objects together with all other objects that have rows in these partitions. `None` if there
/// are no others.
fn others_of(
    chosen: &[ChosenInput],
    partitions: &BTreeSet<String>,
    new: &[Vec<SourceObject>],
) -> Result<Option<Vec<Vec<SourceObject>>>> {
    let (mut all, mut more) = (new.to_vec(), false);
    for (chosen, all) in chosen.iter().zip(&mut all).filter(|(c, _)| c.bookmark.is_some()) {
        let own: BTreeSet<String> = all.iter().map(|o| o.url().to_owned()).collect();
        let others = chosen.state.inputs_of_except(partitions, &chosen.input, &|url| own.contains(url))?;
        more |= !others.is_empty();
        all.extend(others);
    }
    Ok(more.then_some(all))
}

/// Removes the files that the new rows replace. Returns their number.
fn remove_replaced(
    rows: &OutputRows<'_>,
    plan: &ReadPlan,
    gone: &BTreeSet<String>,
    table_commit: &mut TableCommit<'_>,
) -> Result<u64> {
    let observed = &rows.output.snapshot.observed;
    let mut removed: BTreeSet<&str> = BTreeSet::new();
    match rows.output.spec.mode {
        OutputMode::Replace => removed.extend(observed.files.iter().map(|f| f.path.as_str())),
        _ => {
            let there = observed.files.iter().filter(|f| gone.contains(f.folder()));
            removed.extend(there.map(|f| f.path.as_str()));
        }
    }
    for (chosen, replaced) in rows.chosen.iter().zip(&plan.replaced) {
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
    observed.files.iter().filter(|f| removed.contains(f.path.as_str())).for_each(|f| table_commit.remove(f));
    Ok(removed.len() as u64)
}

/// Records in the bookmarks which objects were read, and which files and partitions their rows are in.
async fn update_bookmarks(
    rows: &OutputRows<'_>,
    plan: &ReadPlan,
    written: &StagedOutput,
    table_commit: &mut TableCommit<'_>,
) -> Result<()> {
    let partitions: Vec<String> = written.folders.iter().cloned().collect();
    let at = |folder: &String| partitions.binary_search(folder).ok().and_then(|at| u32::try_from(at).ok());
    let reached = written.reached.iter().map(|(url, f)| (url.clone(), f.iter().filter_map(at).collect())).collect();
    let files = match rows.output.spec.mode {
        OutputMode::Append => written.staged.iter().map(|f| f.path().to_owned()).collect(),
        _ => vec![],
    };
    let mut output = RunOutput::default();
    (output.files, output.partitions, output.reached) = (files, partitions, reached);
    for ((chosen, replaced), objects) in rows.chosen.iter().zip(&plan.replaced).zip(&plan.objects) {
        if chosen.bookmark.is_none() {
            continue;
        }
        let change = match &plan.rebuild {
            Some(_) if objects.is_empty() => None,
            Some(_) => Some(chosen.state.rebuild(objects, &chosen.input.places(), rows.output.run, output.clone())?),
            None => chosen.state.replace(&chosen.selection, rows.output.run, output.clone(), replaced)?,
        };
        if let Some(change) = change {
            table_commit.with_extras(change).await?;
        }
    }
    Ok(())
}

/// Stores the schema, the partition columns, the layer and the encrypted columns as properties of the version.
fn store_properties(rows: &OutputRows<'_>, written: &StagedOutput, table_commit: &mut TableCommit<'_>) -> Result<()> {
    if let Some(layer) = rows.contract.as_ref().and_then(|c| c.layer) {
        table_commit.with_property(LAYER, json!(layer));
    }
    let Some(schema) = &written.schema else {
        let (name, encrypted) = rows.table.snapshot.encrypted_property();
        table_commit.with_property(name, encrypted);
        return Ok(());
    };
    let all = match rows.output.spec.mode {
        OutputMode::Replace => schema.clone(),
        _ => match rows.table.snapshot.known_schema()?.filter(|s| !s.fields().is_empty()) {
            Some(known) => Arc::new(merge_schemas(&known, schema, &format!("the rows of `{}`", rows.output.name))?),
            None => schema.clone(),
        },
    };
    // Tables have their partition columns last.
    let (last, first): (Vec<_>, Vec<_>) =
        all.fields().iter().cloned().partition(|f| rows.partition_by.contains(f.name()));
    let all: SchemaRef = Arc::new(Schema::new(first.into_iter().chain(last).collect::<Vec<_>>()));
    for (name, value) in rows.table.snapshot.journal_properties(&all, &rows.partition_by)? {
        table_commit.with_property(name, value);
    }
    Ok(())
}

/// Stages the rows, or only counts them. `only` limits the folders that are written.
async fn stage_rows(
    rows: &OutputRows<'_>,
    table_commit: &TableCommit<'_>,
    only: Option<BTreeSet<String>>,
    staged: StagedRows,
) -> Result<StagedOutput> {
    let mut options = WriteOptions::default().with_partition_by(rows.partition_by.clone());
    options.parquet = rows.table.parquet.clone();
    if let Some(size) = rows.output.spec.target_size {
        options = options.with_sizing(FileSizing::TargetSize(size));
    }
    let spelling = rows.table.snapshot.folder_spelling()?;
    let target = WriteTarget { stager: table_commit.stager(), options, only, spelling, staged };
    if let Some(query) = rows.query().await? {
        return write_query(query.run().await?, rows.output.name, &rows.finish, &target).await;
    }
    write_rows(rows.only_source().await?, &target).await
}

fn write_mode(mode: OutputMode) -> biscuit_dataset::WriteMode {
    match mode {
        OutputMode::Replace => biscuit_dataset::WriteMode::ReplaceAll,
        OutputMode::ReplacePartitions => biscuit_dataset::WriteMode::ReplacePartitions,
        _ => biscuit_dataset::WriteMode::Append,
    }
}
