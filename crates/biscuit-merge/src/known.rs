use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_change::Op;
use biscuit_core::{Error, Result};
use futures::{StreamExt, stream};
use hashbrown::HashMap;

use crate::change_set::Record;
use crate::fetch::fetch;
use crate::groups::Groups;
use crate::key_state::KeyState;
use crate::merge::Merge;
use crate::prepare::Prepared;
use crate::resolve::{Prior, Resolved, Resolver};
use crate::scan::{FileScan, Stored, StoredKey, Wanted, scan};
use crate::segment::Kept;
use crate::spec::Authority;
use crate::table::RowRef;

/// A row whose values were not asked for. Using them would be a defect, and ends in an error.
const NOT_FETCHED: RowRef = RowRef { table: u32::MAX, row: u32::MAX };

impl Merge {
    /// Finds the stored rows of the run's keys, several files at a time.
    pub(crate) async fn scan(&self, p: &mut Prepared) -> Result<Stored> {
        let fresh = (p.truncated != p.truncated_before).then(|| p.truncated.clone()).flatten();
        let wanted = Arc::new(Wanted {
            target: p.target.clone(),
            spec: self.spec.clone(),
            keys: p.set.keys.clone(),
            truncated: fresh,
            sorted: p.sorted.clone(),
            covers: p.covers.clone(),
        });
        let jobs = p.files.clone().into_iter().map(move |file| tokio::spawn(scan(file, wanted.clone())));
        let mut running = stream::iter(jobs).buffered(self.options.parallelism);
        let mut scans: Vec<FileScan> = Vec::with_capacity(p.files.len());
        while let Some(done) = running.next().await {
            scans.push(done.map_err(|e| Error::internal("a scan was cut off").with_source(e))??);
        }
        Ok(Stored::of(scans))
    }

    /// The keys of the run with the group they are in, groups together.
    pub(crate) fn groups(&self, p: &Prepared) -> Result<Vec<(u32, u32)>> {
        let mut ties = Vec::new();
        for (key, kept) in &p.kept {
            for to in kept.moved_to()? {
                ties.extend(p.set.keys.find(&to).map(|to| (*key, to)));
            }
        }
        Ok(Groups::of(&p.set, &ties, &p.sorted))
    }

    /// Applies the records of some groups to what was known.
    pub(crate) fn resolve(
        &self,
        p: &mut Prepared,
        stored: &Stored,
        fetched: &HashMap<u32, RowRef>,
        groups: &[(u32, u32)],
    ) -> Result<Resolved> {
        let mut resolved = Resolved::default();
        for group in groups.chunk_by(|a, b| a.0 == b.0) {
            if let [(_, key)] = group
                && !p.kept.contains_key(key)
            {
                let row = stored.rows.get(key);
                let row = row.map(|r| (&r.order, fetched.get(key).copied().unwrap_or(NOT_FETCHED)));
                if self.resolver(p).simple(*key, row, p.set.records_of(*key), &mut resolved) {
                    continue;
                }
            }
            let mut keys: Vec<(u32, Prior)> = Vec::with_capacity(group.len());
            for &(_, key) in group {
                keys.push((key, self.prior(p, key, stored.rows.get(&key), fetched.get(&key).copied())?));
            }
            let records: Vec<&Record> = keys.iter().flat_map(|(k, _)| p.set.records_of(*k)).collect();
            self.resolver(p).group(&keys, &records, &mut resolved)?;
        }
        Ok(resolved)
    }

    fn resolver<'a>(&'a self, p: &'a Prepared) -> Resolver<'a> {
        Resolver {
            set: &p.set,
            spec: &self.spec,
            schema: &p.target,
            tables: &p.tables,
            truncated: p.truncated.as_ref(),
            truncated_before: p.truncated_before.as_ref(),
            bad_rows: self.options.bad_rows,
        }
    }

    /// Reads the stored rows whose values may be asked for.
    pub(crate) async fn fetch(
        &self,
        p: &mut Prepared,
        stored: &Stored,
        groups: &[(u32, u32)],
    ) -> Result<HashMap<u32, RowRef>> {
        let mut wanted: BTreeMap<usize, BTreeMap<u64, u32>> = BTreeMap::new();
        let fresh_truncate = p.truncated != p.truncated_before;
        for group in groups.chunk_by(|a, b| a.0 == b.0) {
            for &(_, key) in group {
                let Some(row) = stored.rows.get(&key) else { continue };
                let kept = p.kept.get(&key);
                let live = kept.and_then(Kept::live).unwrap_or(&row.order);
                let reload = self.spec.authority == Authority::Reload;
                let parts = reload || group.len() > 1 || kept.is_some_and(Kept::has_parts);
                let asks = |r: &Record| r.op == Op::Upsert && (!p.set.givens_of(r).0.all || r.order == *live);
                if parts || p.set.records_of(key).iter().any(asks) || (fresh_truncate && kept.is_some()) {
                    wanted.entry(row.place.file).or_default().insert(row.place.row, key);
                }
            }
        }
        let mut fetched = HashMap::new();
        for (file, rows) in wanted {
            let numbers: Vec<u64> = rows.keys().copied().collect();
            for (number, at) in fetch(&p.files[file], &numbers, &p.target, &mut p.tables).await? {
                fetched.insert(rows[&number], at);
            }
        }
        Ok(fetched)
    }

    /// What was known of a key: what is kept of it, and its row.
    fn prior(&self, p: &mut Prepared, key: u32, row: Option<&StoredKey>, fetched: Option<RowRef>) -> Result<Prior> {
        let at = row.map(|_| fetched.unwrap_or(NOT_FETCHED));
        let mut state = match p.kept.get(&key) {
            None => KeyState::unknown(),
            Some(kept) => kept.state(at, &p.target, &mut p.tables)?,
        };
        match row {
            // A row that is gone although it was kept as live: as if nobody had heard of it.
            None if state.live.is_some() => state = KeyState { moves: state.moves, ..KeyState::unknown() },
            // A row that somebody else put there counts by its own order, against the tombstone if there is one.
            Some(row) if state.live.is_none() && row.order >= state.base => {
                (state.live, state.base, state.source) = (Some(row.order.clone()), row.order.clone(), at);
            }
            _ => {}
        }
        Ok(Prior { state, stored: row.is_some() })
    }
}
