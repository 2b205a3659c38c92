//! State of keys before the run: their stored rows, values and key metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_change::ChangeOp;
use biscuit_core::{Error, Result};
use biscuit_merge::OrderAuthority;
use biscuit_merge::internal::{ChangeRecord, KeyResolver, KeyState, KeyUnionFind, PriorKeyState, ResolvedKeys, RowRef};
use futures::{StreamExt, stream};
use hashbrown::HashMap;

use crate::merge::Merge;
use crate::state::key_segment::KeyMetadata;
use crate::target::context::MergeContext;
use crate::target::fetch::fetch;
use crate::target::scan::{FileScan, ScanInput, StoredKey, StoredRows, candidates, scan};

/// Stands for a row whose values were not fetched. Using its values is a defect and fails: no table has this number.
const NOT_FETCHED: RowRef = RowRef { table: u32::MAX, row: u32::MAX };

impl Merge {
    /// Finds the stored rows of the keys of the current part in the current period. Several files are scanned at a
    /// time.
    pub(crate) async fn scan(&self, p: &mut MergeContext) -> Result<StoredRows> {
        let fresh = (p.truncated != p.truncated_before).then(|| p.truncated.clone()).flatten();
        let wanted = Arc::new(ScanInput {
            target: p.target.clone(),
            spec: self.spec.clone(),
            keys: p.set.keys.clone(),
            truncated: fresh,
            sorted: p.sorted.clone(),
            covers: p.covers.clone(),
        });
        let files = p.periods.now().files.clone().unwrap_or_default();
        // Of files with equal content, only one is scanned. With a new truncate, each file is scanned: the truncated
        // rows differ between periods.
        let known = |i: usize| {
            let content = p.periods.contents.get(i).filter(|_| wanted.truncated.is_none());
            content.map(|content| (content.clone(), p.periods.scans.get(content).cloned()))
        };
        let known: Vec<_> = files.clone().map(known).collect();
        let mut jobs = Vec::new();
        for (file, _) in files.clone().zip(&known).filter(|(_, known)| !matches!(known, Some((_, Some(_))))) {
            let groups = candidates(&p.files[file], &wanted)?;
            // A large file is divided, so that it keeps all cores busy.
            let groups_per_job = groups.len().div_ceil(self.options.parallelism.max(1)).max(1);
            jobs.extend(groups.chunks(groups_per_job).map(|groups| (file, groups.to_vec())));
        }
        let jobs = jobs.into_iter().map(|(file, groups)| {
            let (of_file, wanted) = (p.files[file].clone(), wanted.clone());
            async move { (file, tokio::spawn(scan(of_file, groups, wanted)).await) }
        });
        // `buffered` keeps the order of the jobs, so that rows of a file are in ascending order.
        let mut running = stream::iter(jobs).buffered(self.options.parallelism);
        let mut new: BTreeMap<usize, FileScan> = BTreeMap::new();
        while let Some((file, done)) = running.next().await {
            let done = done.map_err(|e| Error::internal("the task that scans a file failed").with_source(e))??;
            let scan = new.entry(file).or_default();
            scan.matches.extend(done.matches);
            scan.truncated.extend(done.truncated);
        }
        let mut scans: Vec<Arc<FileScan>> = Vec::with_capacity(files.len());
        for (file, known) in files.clone().zip(known) {
            if let Some((_, Some(scan))) = known {
                scans.push(scan);
                continue;
            }
            let scan = Arc::new(new.remove(&file).unwrap_or_default());
            known.map(|(content, _)| p.periods.scans.insert(content, scan.clone()));
            scans.push(scan);
        }
        Ok(StoredRows::of(&scans, files.start, p.set.keys.len()))
    }

    /// Returns the keys of the current part with their groups, sorted by group. Records of this run and key metadata
    /// of earlier runs connect keys.
    pub(crate) fn groups(&self, p: &MergeContext) -> Result<Vec<(u32, u32)>> {
        let mut ties = Vec::new();
        for (key, timeline) in &p.periods.timelines {
            for kept in timeline.all() {
                for to in kept.moved_to()? {
                    ties.extend(p.set.keys.find(&to).map(|to| (*key, to)));
                }
            }
        }
        Ok(KeyUnionFind::of(&p.set, &ties, &p.sorted))
    }

    /// Returns the groups that have to be resolved in the current period.
    pub(crate) fn groups_now(&self, p: &MergeContext, groups: &[(u32, u32)]) -> Vec<(u32, u32)> {
        if !p.periods.has_periods() || p.truncated != p.truncated_before {
            return groups.to_vec();
        }
        let mut now = Vec::new();
        for group in groups.chunk_by(|a, b| a.0 == b.0) {
            if group.iter().any(|(_, key)| p.looks_at(*key) || !p.active(*key).is_empty()) {
                now.extend_from_slice(group);
            }
        }
        now
    }

    /// Resolves some groups: applies their records to the prior states of their keys.
    pub(crate) fn resolve(
        &self,
        p: &mut MergeContext,
        stored: &StoredRows,
        fetched: &HashMap<u32, RowRef>,
        groups: &[(u32, u32)],
    ) -> Result<ResolvedKeys> {
        let mut resolved = ResolvedKeys::default();
        for group in groups.chunk_by(|a, b| a.0 == b.0) {
            if let [(_, key)] = group
                && !p.kept.contains_key(key)
                && !p.looks_at(*key)
            {
                let row = stored.row(*key);
                let row = row.map(|r| (&r.order, fetched.get(key).copied().unwrap_or(NOT_FETCHED)));
                if self.resolver(p).simple(*key, row, &p.active(*key), &mut resolved) {
                    continue;
                }
            }
            let mut keys: Vec<(u32, PriorKeyState)> = Vec::with_capacity(group.len());
            for &(_, key) in group {
                keys.push((key, self.prior(p, key, stored.row(key), fetched.get(&key).copied())?));
            }
            let active: Vec<_> = keys.iter().map(|(k, _)| p.active(*k)).collect();
            let records: Vec<&ChangeRecord> = active.iter().flat_map(|of_key| of_key.iter()).collect();
            self.resolver(p).group(&keys, &records, &mut resolved)?;
        }
        Ok(resolved)
    }

    fn resolver<'a>(&'a self, p: &'a MergeContext) -> KeyResolver<'a> {
        KeyResolver {
            set: &p.set,
            spec: &self.spec,
            schema: &p.target,
            tables: &p.tables,
            truncated: p.truncated.as_ref(),
            truncated_before: p.truncated_before.as_ref(),
            bad_rows: self.options.bad_rows,
            period: u32::try_from(p.periods.at).expect("there are fewer than 2^32 periods"),
        }
    }

    /// Fetches the stored rows whose values may be compared or copied. It must not miss one: `NOT_FETCHED` has no
    /// values. Most rows of most runs are replaced as a whole and not fetched.
    pub(crate) async fn fetch(
        &self,
        p: &mut MergeContext,
        stored: &StoredRows,
        groups: &[(u32, u32)],
    ) -> Result<HashMap<u32, RowRef>> {
        let mut wanted: BTreeMap<usize, BTreeMap<u64, u32>> = BTreeMap::new();
        let fresh_truncate = p.truncated != p.truncated_before;
        for group in groups.chunk_by(|a, b| a.0 == b.0) {
            for &(_, key) in group {
                let Some(row) = stored.row(key) else { continue };
                let kept = p.kept.get(&key);
                let live = kept.and_then(KeyMetadata::live).unwrap_or(&row.order);
                let reload = self.spec.authority == OrderAuthority::Reload;
                // Values are needed for a reload, for key changes, for rows with registers of their own, and for
                // retractions; also if a record is sparse, or has the order of the stored row and may repeat it.
                let parts = reload || group.len() > 1 || kept.is_some_and(KeyMetadata::has_parts) || p.looks_at(key);
                let asks = |r: &ChangeRecord| {
                    r.op == ChangeOp::Upsert && (!p.set.present_columns_of(r).0.all || r.order == *live)
                };
                if parts || p.active(key).iter().any(asks) || (fresh_truncate && kept.is_some()) {
                    wanted.entry(row.place.file).or_default().insert(row.place.row, key);
                }
            }
        }
        let mut fetched = HashMap::new();
        for (file, mut rows) in wanted {
            let content = p.periods.contents.get(file).cloned();
            if let Some(content) = &content {
                rows.retain(|number, key| {
                    let known = p.periods.fetched.get(&(content.clone(), *number));
                    known.map(|at| fetched.insert(*key, *at));
                    known.is_none()
                });
            }
            let numbers: Vec<u64> = rows.keys().copied().collect();
            if numbers.is_empty() {
                continue;
            }
            for (number, at) in fetch(&p.files[file], &numbers, &p.target, &mut p.tables).await? {
                fetched.insert(rows[&number], at);
                content.clone().map(|content| p.periods.fetched.insert((content, number), at));
            }
        }
        Ok(fetched)
    }

    /// Returns the prior state of a key, from its key metadata and its row.
    fn prior(
        &self,
        p: &mut MergeContext,
        key: u32,
        row: Option<&StoredKey>,
        fetched: Option<RowRef>,
    ) -> Result<PriorKeyState> {
        let at = row.map(|_| fetched.unwrap_or(NOT_FETCHED));
        let mut state = match p.kept.get(&key) {
            None => KeyState::unknown(),
            Some(kept) => kept.state(at, &p.target, &mut p.tables)?,
        };
        match row {
            // The row is missing although the key metadata expects one: the key counts as unknown.
            None if state.live.is_some() => state = KeyState { key_changes: state.key_changes, ..KeyState::unknown() },
            // An external row of a key without a live state counts by its own order, against the tombstone if there
            // is one.
            Some(row) if state.live.is_none() && row.order >= state.base => {
                (state.live, state.base, state.source) = (Some(row.order.clone()), row.order.clone(), at);
            }
            _ => {}
        }
        Ok(p.unless_retracted(key, PriorKeyState { state, stored: row.is_some(), is_new: false }))
    }
}
