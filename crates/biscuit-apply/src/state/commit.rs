//! The commit of a merge: stages files and state, and commits them in one version.

use std::collections::BTreeMap;

use biscuit_core::{CommitId, Error, Result};
use biscuit_journal::{CommitExtras, FileStager, StagedFile, TableCommit};
use biscuit_merge::internal::RecordOrder;
use biscuit_rewrite::unit::WrittenUnit;
use biscuit_rewrite::{RewriteUnit, rewrite_units};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::changes::log_epochs::LOG_SERVERS;
use crate::merge_report::MergeReport;
use crate::periods::by_period::PeriodsInRun;
use crate::periods::period_state::PeriodBase;
use crate::plan::fingerprints::DuplicateFiles;
use crate::state::segment_file::SegmentEntry;
use crate::table::context::TableContext;
use crate::table::open_files::OpenFiles;
use crate::table::stored_spec::{SPEC, spec_property};
use crate::table::truncate_marks::{TRUNCATED, truncated_property};

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
    /// Truncate marks after the run.
    pub(crate) marks: Vec<(i64, RecordOrder)>,
    /// Additions of the caller of the run, and the changed quarantine.
    pub(crate) extras: CommitExtras,
}

/// Stages everything that is not staged yet, and commits it. After an error, everything staged is deleted.
pub(crate) async fn commit_merge(
    context: &TableContext,
    files: &OpenFiles,
    periods: &PeriodsInRun,
    mut table_commit: TableCommit<'_>,
    work: CommitWork,
    report: &MergeReport,
    commit: Option<&CommitId>,
) -> Result<biscuit_journal::CommitSummary> {
    // A commit with a known id would be skipped. A merge of the same records changes nothing anyway, and a merge
    // of other records must not be skipped, so a known id is left out.
    commit
        .filter(|id| context.snapshot.observed.head.version_of_commit(id).is_none())
        .inspect(|id| table_commit.with_commit_id(id));
    let marks = truncated_property(&work.marks, periods.has_periods());
    if let Err(e) = stage_changes(context, files, periods, work, &mut table_commit).await {
        table_commit.abandon().await?;
        return Err(e);
    }
    let period_column = context.periods.as_ref().map(|periods| &periods.column);
    table_commit.with_property(SPEC, spec_property(&context.spec, period_column));
    if let Some(marks) = marks {
        table_commit.with_property(TRUNCATED, marks);
    }
    if let Some(servers) = &context.log_servers {
        table_commit.with_property(LOG_SERVERS, servers.clone());
    }
    let (schema, columns) = match &context.periods {
        Some(states) => states.with_column(&context.target, &context.partition_by),
        None => (context.target.clone(), context.partition_by.clone()),
    };
    for (name, value) in context.snapshot.journal_properties(&schema, &columns)? {
        table_commit.with_property(name, value);
    }
    table_commit.with_report(
        serde_json::to_value(report)
            .map_err(|e| Error::internal("the report could not be serialised").with_source(e))?,
    );
    table_commit.commit().await
}

/// Stages state files and data files, and registers removed files. Nothing here is visible before the commit.
async fn stage_changes(
    context: &TableContext,
    files: &OpenFiles,
    periods: &PeriodsInRun,
    work: CommitWork,
    table_commit: &mut TableCommit<'_>,
) -> Result<()> {
    let CommitWork { units, added, same, written, kept, marks, mut extras } = work;
    let version = context.snapshot.observed.head.version + 1;
    // In a table with periods, a truncate mark covers tombstones in some of the periods only.
    let covering = marks.last().map(|(_, mark)| mark).filter(|_| !periods.has_periods());
    extras.extend(
        context.segments.plan_update(kept, version, covering, context.options.parquet.encryption.as_ref()).await?,
    );
    for file in units.keys().filter(|file| periods.period_of(**file).base == PeriodBase::Own) {
        table_commit.remove(&files.files[*file].file.listed);
    }
    for period in periods.all.iter().filter(|s| s.base == PeriodBase::Rebuilt) {
        period.listed.iter().for_each(|listed| table_commit.remove(context.observed_file(*listed)));
    }
    let copies = periods.copied_files(context, &units);
    let stager = table_commit.stager();
    let data = stage_data(context, UnitQueue::of(units, added, &same), &copies, &stager);
    let (data, staged) = futures::join!(data, table_commit.with_extras(extras));
    staged?;
    let (done, copied) = data?;
    for file in written.into_iter().chain(done) {
        table_commit.publish(stager.staged(file.file));
    }
    copied.into_iter().for_each(|file| table_commit.publish(file));
    Ok(())
}

/// Writes the data files of the queue, and copies files within the store: new files to further folders, and live files
/// to the folders of new periods. Returns the written and the copied files.
async fn stage_data(
    context: &TableContext,
    todo: UnitQueue,
    copies: &[(usize, String)],
    stager: &FileStager,
) -> Result<(Vec<WrittenUnit>, Vec<StagedFile>)> {
    let done = rewrite_units(todo.units, stager, context.session.clone()).await?;
    let head = &context.snapshot.observed.head;
    let mut copying = Vec::new();
    for (first, folder) in &todo.again {
        for file in done.iter().filter(|w| w.unit == *first) {
            copying.push(stager.copy_staged(&file.file, folder).boxed());
        }
    }
    for (listed, folder) in copies {
        let source = context.observed_file(*listed);
        let rows = head.live.get(&source.path).and_then(|live| live.rows);
        let content = head.content_name(source);
        copying.push(async move { stager.copy_file(source, folder, rows, &content).await }.boxed());
    }
    let copied = stream::iter(copying).buffered(COPIES).try_collect().await?;
    Ok((done, copied))
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
    /// Queues the rewrites of files and the new files of folders. A file that becomes equal to an earlier one is not
    /// written: what is written for the earlier one is copied.
    fn of(units: BTreeMap<usize, Option<RewriteUnit>>, added: Vec<RewriteUnit>, same: &DuplicateFiles) -> Self {
        let mut todo = Self::default();
        for (file, unit) in units.into_iter().filter_map(|(file, unit)| Some((file, unit?))) {
            let first = same.units.get(&file).map(|first| todo.by_file.get(first).copied());
            if let Some(at) = todo.add_unit(unit, first.flatten()) {
                todo.by_file.insert(file, at);
            }
        }
        for unit in added {
            let first = same.added.get(&unit.folder).map(|first| todo.by_folder.get(first).copied());
            let folder = unit.folder.clone();
            if let Some(at) = todo.add_unit(unit, first.flatten()) {
                todo.by_folder.insert(folder, at);
            }
        }
        todo
    }

    /// Adds a rewrite and returns its index. With `first`, the index of an equal rewrite, only adds a further folder
    /// for the files of that one.
    fn add_unit(&mut self, unit: RewriteUnit, first: Option<usize>) -> Option<usize> {
        if let Some(first) = first {
            self.again.push((first, unit.folder));
            return None;
        }
        self.units.push(unit);
        Some(self.units.len() - 1)
    }
}
