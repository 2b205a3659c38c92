//! Reads from the files what a part needs: which stored rows have its keys, and the values of some of these rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use biscuit_change::ChangeOp;
use biscuit_core::{Error, Result};
use biscuit_merge::OrderAuthority;
use biscuit_merge::internal::{ChangeRecord, RowRef};
use futures::{StreamExt, stream};
use hashbrown::HashMap;

use crate::part::progress::{PartInProgress, PeriodStep};
use crate::state::key_metadata::KeyMetadata;
use crate::table::context::TableContext;
use crate::table::fetch::fetch_stored_rows;
use crate::table::open_files::OpenFiles;
use crate::table::scan::{FileScan, ScanInput, StoredRows, candidate_groups, scan_groups};

/// Minimum number of scans at the same time. Most of them wait for the store, not for a core.
const SCANS: usize = 8;

/// Finds the stored rows of the keys of a part in the files of a period. Several files are scanned at a time.
pub(crate) async fn scan_files(
    context: &TableContext,
    files: &OpenFiles,
    own: Range<usize>,
    part: &mut PartInProgress,
    step: &PeriodStep,
) -> Result<StoredRows> {
    let wanted = Arc::new(ScanInput {
        target: context.target.clone(),
        spec: context.spec.clone(),
        keys: part.set.keys.clone(),
        truncated: step.new_truncate().cloned(),
        sorted: part.sorted.clone(),
        covers: part.covers.clone(),
    });
    // Of files with equal content, only one is scanned. With a new truncate, each file is scanned: the truncated
    // rows differ between periods.
    let known = |i: usize| {
        let content = files.contents.get(i).filter(|_| wanted.truncated.is_none());
        content.map(|content| (content.clone(), part.scans.get(content).cloned()))
    };
    let known: Vec<_> = own.clone().map(known).collect();
    let mut jobs = Vec::new();
    for (file, _) in own.clone().zip(&known).filter(|(_, known)| !matches!(known, Some((_, Some(_))))) {
        let groups = candidate_groups(&files.files[file], &wanted)?;
        // A large file is divided, so that it keeps all cores busy.
        let groups_per_job = groups.len().div_ceil(context.options.parallelism.max(1)).max(1);
        jobs.extend(groups.chunks(groups_per_job).map(|groups| (file, groups.to_vec())));
    }
    let jobs = jobs.into_iter().map(|(file, groups)| {
        let (of_file, wanted) = (files.files[file].clone(), wanted.clone());
        async move { (file, tokio::spawn(scan_groups(of_file, groups, wanted)).await) }
    });
    // `buffered` keeps the order of the jobs, so that rows of a file are in ascending order.
    let mut running = stream::iter(jobs).buffered(context.options.parallelism.max(SCANS));
    let mut new: BTreeMap<usize, FileScan> = BTreeMap::new();
    while let Some((file, done)) = running.next().await {
        let done = done.map_err(|e| Error::internal("the task that scans a file failed").with_source(e))??;
        let scan = new.entry(file).or_default();
        scan.matches.extend(done.matches);
        scan.truncated.extend(done.truncated);
    }
    let mut scans: Vec<Arc<FileScan>> = Vec::with_capacity(own.len());
    for (file, known) in own.clone().zip(known) {
        if let Some((_, Some(scan))) = known {
            scans.push(scan);
            continue;
        }
        let scan = Arc::new(new.remove(&file).unwrap_or_default());
        known.map(|(content, _)| part.scans.insert(content, scan.clone()));
        scans.push(scan);
    }
    Ok(StoredRows::from_scans(&scans, own.start, part.set.keys.len()))
}

/// Fetches the stored rows whose values may be compared or copied. It must not miss one: `NOT_FETCHED` has no
/// values. Most rows of most runs are replaced as a whole and not fetched.
pub(crate) async fn fetch_rows(
    context: &TableContext,
    files: &OpenFiles,
    part: &mut PartInProgress,
    step: &PeriodStep,
    stored: &StoredRows,
    groups: &[(u32, u32)],
) -> Result<HashMap<u32, RowRef>> {
    let mut wanted: BTreeMap<usize, BTreeMap<u64, u32>> = BTreeMap::new();
    for group in groups.chunk_by(|a, b| a.0 == b.0) {
        for &(_, key) in group {
            let Some(row) = stored.row(key) else { continue };
            let kept = step.kept.get(&key);
            let live = kept.and_then(KeyMetadata::live).unwrap_or(&row.order);
            let reload = context.spec.authority == OrderAuthority::Reload;
            // Values are needed for a reload, for key changes, for rows with registers of their own, and for
            // retractions; also if a record is sparse, or has the order of the stored row and may repeat it.
            let parts = reload
                || group.len() > 1
                || kept.is_some_and(KeyMetadata::has_parts)
                || part.retractions.needs_state(key, step.period);
            let asks = |r: &ChangeRecord| {
                r.op == ChangeOp::Upsert && (!part.set.present_columns_of(r).0.all || r.order == *live)
            };
            if parts || part.active_records(step, key).iter().any(asks) || (step.is_truncated() && kept.is_some()) {
                wanted.entry(row.place.file).or_default().insert(row.place.row, key);
            }
        }
    }
    let mut fetched = HashMap::new();
    for (file, mut rows) in wanted {
        let content = files.contents.get(file).cloned();
        if let Some(content) = &content {
            rows.retain(|number, key| {
                let known = part.fetched.get(&(content.clone(), *number));
                known.map(|at| fetched.insert(*key, *at));
                known.is_none()
            });
        }
        let numbers: Vec<u64> = rows.keys().copied().collect();
        if numbers.is_empty() {
            continue;
        }
        for (number, at) in fetch_stored_rows(&files.files[file], &numbers, &context.target, &mut part.tables).await? {
            fetched.insert(rows[&number], at);
            content.clone().map(|content| part.fetched.insert((content, number), at));
        }
    }
    Ok(fetched)
}
