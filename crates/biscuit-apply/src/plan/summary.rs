//! Counts of partitions, files and rows for the report of a run.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_merge::RowCounts;
use biscuit_rewrite::unit::WrittenUnit;
use biscuit_rewrite::{RewriteChoice, RewriteUnit, choose_rewrite};

use crate::merge_report::{FileCounts, MergeReport, TouchedPartitions};
use crate::periods::by_period::PeriodsInRun;
use crate::periods::period_state::PeriodBase;
use crate::plan::fingerprints::DuplicateFiles;
use crate::plan::merge_plan::MergePlan;
use crate::table::context::TableContext;
use crate::table::open_files::{OpenFiles, folder_of};

/// Returns which partitions and how many files the plan changes. `units` has the rewritten and removed files.
pub(crate) fn touched_files(
    plan: &MergePlan,
    context: &TableContext,
    files: &OpenFiles,
    periods: &PeriodsInRun,
    units: &BTreeMap<usize, Option<RewriteUnit>>,
) -> (TouchedPartitions, FileCounts) {
    let mut before: BTreeSet<&str> = context.snapshot.files().iter().map(|f| f.listed.folder()).collect();
    let mut after: BTreeSet<&str> = plan.added.keys().map(String::as_str).collect();
    let mut changed: BTreeSet<&str> = after.clone();
    let mut counts = FileCounts { kept: context.snapshot.files().len() as u64, ..FileCounts::default() };
    let mut touched = BTreeSet::new();
    for (i, unit) in units {
        let folder = folder_of(files.files[*i].path());
        // A file of a new period was opened under its new path, which the table does not have yet. It is not one
        // of the files before the run.
        let is_own = before.contains(folder);
        changed.insert(folder);
        counts.kept -= u64::from(is_own);
        if is_own {
            touched.insert(files.files[*i].path());
        }
        match unit {
            None => counts.removed += u64::from(is_own),
            Some(unit) => {
                after.insert(folder);
                // The other files of a joined rewrite are among the units as removed files.
                let joined = unit.sources.len().saturating_sub(1) as u64;
                counts.joined += joined;
                counts.rewritten += 1;
                counts.spliced += u64::from(choose_rewrite(unit) == RewriteChoice::Splice);
            }
        }
    }
    counts.removed -= counts.joined;
    for period in periods.all.iter().filter(|s| s.base == PeriodBase::Rebuilt) {
        for file in period.listed.iter().map(|i| context.snapshot.files()[*i].path()) {
            touched.insert(file);
            changed.insert(folder_of(file));
            counts.kept -= 1;
            counts.removed += 1;
        }
    }
    let kept = context.snapshot.files().iter().filter(|f| !touched.contains(f.path()));
    after.extend(kept.map(|f| f.listed.folder()));
    let copied = periods.copied_files(context, units);
    let folders: BTreeSet<&str> = copied.iter().map(|(_, folder)| folder.as_str()).collect();
    changed.extend(&folders);
    after.extend(&folders);
    before.retain(|folder| !folders.contains(folder));
    counts.added = plan.added.len() as u64;
    let pick = |was: bool, is: bool| {
        let fits = |f: &&str| before.contains(f) == was && after.contains(f) == is;
        changed.iter().filter(|f| fits(f)).map(|f| (*f).to_owned()).collect()
    };
    (TouchedPartitions { added: pick(false, true), changed: pick(true, true), emptied: pick(true, false) }, counts)
}

/// Adds the reports of the periods, and sums up the rows of the table from them. New files are in `added`, and in `written`
/// if they were written while the run was deciding.
pub(crate) fn describe_periods(
    context: &TableContext,
    periods: &mut PeriodsInRun,
    units: &BTreeMap<usize, Option<RewriteUnit>>,
    (added, written): (&[RewriteUnit], &[WrittenUnit]),
    same: &DuplicateFiles,
    report: &mut MergeReport,
) {
    if !periods.has_periods() {
        return;
    }
    let copies = periods.copied_files(context, units);
    let repartitioned = report.rows.repartitioned;
    report.rows = RowCounts::default();
    report.rows.repartitioned = repartitioned;
    for period in &mut periods.all {
        let s = &mut period.report;
        let begins = if period.base == PeriodBase::Rebuilt { 0 } else { period.rows };
        (s.before, s.after) = (period.rows, begins + s.inserted - s.deleted);
        let is_inside = |folder: &str| folder.split('/').next() == Some(period.folder.as_str());
        s.files.copied = copies.iter().filter(|(_, folder)| is_inside(folder)).count() as u64;
        let is_own = period.base == PeriodBase::Own;
        s.files.kept = if is_own { period.listed.len() as u64 } else { 0 };
        if period.base == PeriodBase::Rebuilt {
            s.files.removed = period.listed.len() as u64;
        }
        for (file, unit) in period.files.clone().into_iter().flatten().filter_map(|f| Some((f, units.get(&f)?))) {
            s.files.kept -= u64::from(is_own);
            s.files.removed += u64::from(is_own);
            match unit {
                None => {}
                Some(_) if same.units.contains_key(&file) => s.files.shared += 1,
                Some(unit) => {
                    s.files.written += 1;
                    s.files.spliced += u64::from(choose_rewrite(unit) == RewriteChoice::Splice);
                }
            }
        }
        for unit in added.iter().filter(|unit| is_inside(&unit.folder)) {
            let shared = same.added.contains_key(&unit.folder);
            s.files.shared += u64::from(shared);
            s.files.written += u64::from(!shared);
        }
        s.files.written += written.iter().filter(|new| is_inside(folder_of(&new.file.path))).count() as u64;
        let all = &mut report.rows;
        all.before += if s.is_new { 0 } else { s.before };
        all.after += s.after;
        all.inserted += s.inserted;
        all.updated += s.updated;
        all.deleted += s.deleted;
        report.periods.push(s.clone());
    }
}
