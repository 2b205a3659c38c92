//! The periods of a table during a run: which files each one has, and how a new one begins.
//! A record takes effect in its period and in all later ones, until all columns of its key are newer than the record.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use biscuit_core::{Error, ObjectRef, Result};
use biscuit_dataset::OpenFile;
use biscuit_merge::internal::RecordOrder;
use biscuit_rewrite::RewriteUnit;

use crate::merge_report::PeriodReport;
use crate::periods::period_state::PeriodBase;
use crate::table::context::TableContext;
use crate::table::open_files::{OpenFiles, folder_of};
use crate::table::truncate_marks::RunTruncates;

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

/// The periods of a run, in ascending order.
#[derive(Debug)]
pub(crate) struct PeriodsInRun {
    pub(crate) all: Vec<PeriodWork>,
}

impl PeriodsInRun {
    /// Determines the periods of the run and the files that each begins with.
    ///
    /// # Errors
    /// `ExternalFiles` or `Conflict` for a file in the folder of a new period.
    pub(crate) fn begin(context: &TableContext, files: &OpenFiles) -> Result<Self> {
        let Some(periods) = &context.periods else {
            let whole = PeriodWork {
                number: 0,
                next: None,
                folder: String::new(),
                base: PeriodBase::Own,
                listed: (0..context.snapshot.files().len()).collect(),
                files: Some(0..files.files.len()),
                rows: 0,
                report: PeriodReport::default(),
            };
            return Ok(Self { all: vec![whole] });
        };
        // Files of the period before, which a new period takes over.
        let mut before: Vec<usize> = vec![];
        let mut all = Vec::with_capacity(periods.all.len());
        for period in &periods.all {
            let folder = periods.period_folder(period);
            let own = || {
                let inside = |path: &str| path.strip_prefix(&folder).is_some_and(|rest| rest.starts_with('/'));
                let files = context.snapshot.files().iter().enumerate();
                files.filter(|(_, f)| inside(f.path())).map(|(i, _)| i).collect::<Vec<usize>>()
            };
            let listed: Vec<usize> = match (period.base, own().first()) {
                (PeriodBase::Own | PeriodBase::Rebuilt, _) => own(),
                (_, Some(there)) => {
                    return Err(occupied_folder(context.observed_file(*there), &context.snapshot.observed.external));
                }
                (PeriodBase::Predecessor, None) => std::mem::take(&mut before),
                (PeriodBase::Empty, None) => vec![],
            };
            let live = &context.snapshot.observed.head.live;
            let rows_of = |i: &usize| live.get(context.snapshot.files()[*i].path()).and_then(|l| l.rows).unwrap_or(0);
            let report = PeriodReport {
                period: period.value.clone(),
                is_new: !matches!(period.base, PeriodBase::Own | PeriodBase::Rebuilt),
                ..PeriodReport::default()
            };
            before.clone_from(&listed);
            all.push(PeriodWork {
                number: period.number,
                next: period.next,
                folder,
                base: period.base,
                rows: listed.iter().map(rows_of).sum(),
                listed,
                // A rebuilt period has no files to read.
                files: (period.base == PeriodBase::Rebuilt).then_some(0..0),
                report,
            });
        }
        Ok(Self { all })
    }

    /// Whether the table has periods.
    pub(crate) fn has_periods(&self) -> bool {
        self.all.first().is_some_and(|s| !s.folder.is_empty())
    }

    /// Whether a period is built again from nothing.
    pub(crate) fn is_rebuild(&self) -> bool {
        self.all.iter().any(|s| s.base == PeriodBase::Rebuilt)
    }

    /// Returns the number of the period after the period with this number; `None` for the newest one.
    pub(crate) fn next_of(&self, number: i64) -> Option<i64> {
        self.all.iter().find(|s| s.number == number)?.next
    }

    /// Reads the footers of the files of a period, and returns the files among the opened ones. A file whose content
    /// is known is not read again; it only gets another path.
    pub(crate) async fn open(
        &mut self,
        context: &TableContext,
        files: &mut OpenFiles,
        at: usize,
    ) -> Result<Range<usize>> {
        let period = &mut self.all[at];
        if let Some(files) = &period.files {
            return Ok(files.clone());
        }
        let known: HashMap<Arc<str>, usize> =
            files.contents.iter().enumerate().map(|(i, content)| (content.clone(), i)).collect();
        let observed = &context.snapshot.observed;
        let (mut all, mut wanted) = (Vec::new(), Vec::new());
        for &i in &period.listed {
            let mut file = context.snapshot.files()[i].clone();
            let content: Arc<str> = observed.head.content_name(&file.listed).into();
            let there = known.get(&content).copied();
            if period.base == PeriodBase::Predecessor {
                let (_, rest) = split_folder(file.path())?;
                // The path that the file gets if the period is committed. Size and ETag remain those of its source.
                file.listed.path = format!("{}/{rest}", period.folder);
            }
            if there.is_none() {
                wanted.push(file.clone());
            }
            all.push((content, there, file));
        }
        let mut opened = context.snapshot.open_for_change(wanted).await?.into_iter();
        let from = files.files.len();
        for (content, there, file) in all {
            let open: Option<OpenFile> = match there {
                Some(there) => Some(files.files[there].clone().known_as(file)),
                None => opened.next(),
            };
            files.add_file(open.ok_or_else(|| Error::internal("a file of a period was not opened"))?, content);
        }
        let own = from..files.files.len();
        period.rows = files.files[own.clone()].iter().map(OpenFile::rows).sum();
        period.files = Some(own.clone());
        Ok(own)
    }

    /// Returns the period of an opened file.
    pub(crate) fn period_of(&self, file: usize) -> &PeriodWork {
        let inside = |s: &&PeriodWork| s.files.as_ref().is_some_and(|files| files.contains(&file));
        self.all.iter().find(inside).expect("every file is opened for a period")
    }

    /// Returns the files of predecessors that are copied into new periods because nothing in them changes, each with
    /// its new folder.
    pub(crate) fn copied_files(
        &self,
        context: &TableContext,
        units: &BTreeMap<usize, Option<RewriteUnit>>,
    ) -> Vec<(usize, String)> {
        let mut copies = Vec::new();
        for period in self.all.iter().filter(|s| s.base == PeriodBase::Predecessor) {
            for (place, &listed) in period.listed.iter().enumerate() {
                let number = period.files.as_ref().map(|files| files.start + place);
                if number.is_some_and(|number| units.contains_key(&number)) {
                    continue;
                }
                let folder = folder_of(&context.observed_file(listed).path);
                let rest = folder.split_once('/').map_or(String::new(), |(_, rest)| format!("/{rest}"));
                copies.push((listed, format!("{}{rest}", period.folder)));
            }
        }
        copies
    }

    /// Returns the truncate marks after the run, for the property. A mark that is not greater than the mark of an
    /// earlier period has no effect and is left out.
    pub(crate) fn marks_after(
        &self,
        before: &[(i64, RecordOrder)],
        truncates: &RunTruncates,
    ) -> Vec<(i64, RecordOrder)> {
        let mut marks = before.to_vec();
        let own = |(s, o): &(u32, RecordOrder)| Some((self.all.get(*s as usize)?.number, o.clone()));
        marks.extend(truncates.own.iter().filter_map(own));
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
}

/// Returns the error for a file in the folder of a new period.
fn occupied_folder(file: &ObjectRef, external: &[ObjectRef]) -> Error {
    let path = &file.path;
    if external.contains(file) {
        let message = format!(
            "`{path}` is an external file in the folder of a period that does not exist yet; move the file away and merge its rows as changes"
        );
        return Error::new(biscuit_journal::codes::EXTERNAL_FILES, message);
    }
    Error::new(
        biscuit_core::codes::CONFLICT,
        format!("`{path}` exists already, because another run committed first; run again"),
    )
}

/// Divides the path of a file into the folder of its period and the rest.
fn split_folder(path: &str) -> Result<(&str, &str)> {
    path.split_once('/').ok_or_else(|| Error::internal("a file of a table with periods is not in a folder"))
}
