use std::collections::{BTreeMap, BTreeSet};

use biscuit_rewrite::{Choice, Unit, choose};

use crate::plan::{Plan, folder_of};
use crate::prepare::Prepared;
use crate::prints::Same;
use crate::report::{FileCounts, MergeReport, Partitions, RowCounts};
use crate::slices::SliceBase;

impl Plan {
    /// What the plan does to partitions and files, of which these are worked on.
    pub(crate) fn describe(&self, p: &Prepared, units: &BTreeMap<usize, Option<Unit>>) -> (Partitions, FileCounts) {
        let mut before: BTreeSet<&str> = p.snapshot.files().iter().map(|f| folder_of(&f.path)).collect();
        let mut after: BTreeSet<&str> = self.added.keys().map(String::as_str).collect();
        let mut changed: BTreeSet<&str> = after.clone();
        let mut counts = FileCounts { kept: p.snapshot.files().len() as u64, ..FileCounts::default() };
        let mut touched = BTreeSet::new();
        for (i, unit) in units {
            let folder = folder_of(&p.files[*i].file.path);
            let is_own = before.contains(folder);
            changed.insert(folder);
            counts.kept -= u64::from(is_own);
            if is_own {
                touched.insert(p.files[*i].file.path.as_str());
            }
            match unit {
                None => counts.removed += u64::from(is_own),
                Some(unit) => {
                    after.insert(folder);
                    counts.rewritten += 1;
                    counts.spliced += u64::from(choose(unit) == Choice::Splice);
                }
            }
        }
        for slice in p.slices.all.iter().filter(|s| s.base == SliceBase::Rebuilt) {
            for file in slice.listed.iter().map(|i| p.snapshot.files()[*i].path.as_str()) {
                touched.insert(file);
                changed.insert(folder_of(file));
                counts.kept -= 1;
                counts.removed += 1;
            }
        }
        let kept = p.snapshot.files().iter().filter(|f| !touched.contains(f.path.as_str()));
        after.extend(kept.map(|f| folder_of(&f.path)));
        let copied = p.copies(units);
        let folders: BTreeSet<&str> = copied.iter().map(|(_, folder)| folder.as_str()).collect();
        changed.extend(&folders);
        after.extend(&folders);
        before.retain(|folder| !folders.contains(folder));
        counts.added = self.added.len() as u64;
        let pick = |was: bool, is: bool| {
            let fits = |f: &&str| before.contains(f) == was && after.contains(f) == is;
            changed.iter().filter(|f| fits(f)).map(|f| (*f).to_owned()).collect()
        };
        (Partitions { added: pick(false, true), changed: pick(true, true), emptied: pick(true, false) }, counts)
    }
}

impl Prepared {
    /// Says in the report what happens to the rows and files of each slice.
    pub(crate) fn describe_slices(
        &mut self,
        units: &BTreeMap<usize, Option<Unit>>,
        added: &[Unit],
        same: &Same,
        report: &mut MergeReport,
    ) {
        if !self.slices.is_sliced() {
            return;
        }
        let copies = self.copies(units);
        report.rows = RowCounts { moved: report.rows.moved, ..RowCounts::default() };
        for slice in &mut self.slices.all {
            let s = &mut slice.report;
            let begins = if slice.base == SliceBase::Rebuilt { 0 } else { slice.rows };
            (s.before, s.after) = (slice.rows, begins + s.inserted - s.deleted);
            let is_inside = |folder: &str| folder.split('/').next() == Some(slice.folder.as_str());
            s.files.copied = copies.iter().filter(|(_, folder)| is_inside(folder)).count() as u64;
            let is_own = slice.base == SliceBase::Own;
            s.files.kept = if is_own { slice.listed.len() as u64 } else { 0 };
            if slice.base == SliceBase::Rebuilt {
                s.files.removed = slice.listed.len() as u64;
            }
            for (file, unit) in slice.files.clone().into_iter().flatten().filter_map(|f| Some((f, units.get(&f)?))) {
                s.files.kept -= u64::from(is_own);
                s.files.removed += u64::from(is_own);
                match unit {
                    None => {}
                    Some(_) if same.units.contains_key(&file) => s.files.shared += 1,
                    Some(unit) => {
                        s.files.written += 1;
                        s.files.spliced += u64::from(choose(unit) == Choice::Splice);
                    }
                }
            }
            for unit in added.iter().filter(|unit| is_inside(&unit.folder)) {
                let shared = same.added.contains_key(&unit.folder);
                s.files.shared += u64::from(shared);
                s.files.written += u64::from(!shared);
            }
            let all = &mut report.rows;
            all.before += if s.is_new { 0 } else { s.before };
            all.after += s.after;
            all.inserted += s.inserted;
            all.updated += s.updated;
            all.deleted += s.deleted;
            report.slices.push(s.clone());
        }
    }
}
