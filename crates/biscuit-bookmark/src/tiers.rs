use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::btree_map::{BTreeMap, Entry as Slot};

use biscuit_core::Result;
use bytes::Bytes;

use crate::manifest::{CompactedEntry, ManifestEntry, ManifestWriter, RunManifest, RunRecord};

/// So many manifests become one.
const FAN: usize = 16;

/// How many manifests, counted from the end, are to become one, so that there are few of them and each object is written again only a
/// few times; 1 where the newest one stays by itself. `runs` says of how many runs each of them is.
pub(crate) fn due(runs: &[u64]) -> usize {
    let mut taken = 0;
    for tier in 0.. {
        let rest = runs[..runs.len() - taken].iter().rev();
        let group = rest.take_while(|count| count.max(&&1).ilog(FAN as u64) <= tier).count();
        // What was taken so far will be one of this tier.
        if group + usize::from(taken > 0) < FAN {
            break;
        }
        taken += group;
    }
    taken.max(1)
}

/// One manifest of several. Of runs up to `compacted` only numbers are kept, and nothing of those that are forgotten.
pub(crate) fn merge(
    manifests: &[RunManifest],
    added: (RunRecord, Vec<ManifestEntry>),
    compacted: u64,
    is_rewound: &dyn Fn(u64) -> bool,
) -> Result<Bytes> {
    let (record, entries) = added;
    let runs = manifests.iter().flat_map(|m| m.runs.iter().cloned()).chain([record]);
    let mut writer = ManifestWriter::new(runs.filter(|r| r.number > compacted).collect())?;
    let mut old: BTreeMap<u64, CompactedEntry> = BTreeMap::new();
    let mut fade = |entry: CompactedEntry| match old.entry(entry.fingerprint.url) {
        Slot::Occupied(mut slot) if slot.get().run <= entry.run => drop(slot.insert(entry)),
        Slot::Occupied(_) => {}
        Slot::Vacant(slot) => drop(slot.insert(entry)),
    };
    let mut readers = manifests.iter().map(RunManifest::reader).collect::<Result<Vec<_>>>()?;
    let mut added = entries.into_iter();
    let mut next = |from: usize| match readers.get_mut(from) {
        Some(reader) => reader.entry(),
        None => Ok(added.next()),
    };
    let mut heap = BinaryHeap::new();
    for from in 0..=manifests.len() {
        heap.extend(next(from)?.map(|entry| Reverse(NextEntry { entry, from })));
    }
    while let Some(Reverse(NextEntry { entry, from })) = heap.pop() {
        heap.extend(next(from)?.map(|entry| Reverse(NextEntry { entry, from })));
        if entry.run > compacted {
            writer.entry(&entry)?;
        } else if !is_rewound(entry.run) {
            fade(CompactedEntry { fingerprint: entry.object.fingerprint(), run: entry.run });
        }
    }
    for reader in &mut readers {
        while let Some(entry) = reader.compacted()? {
            if !is_rewound(entry.run) {
                fade(entry);
            }
        }
    }
    old.into_values().try_for_each(|entry| writer.compacted(entry))?;
    writer.finish()
}

/// The next entry of a manifest.
struct NextEntry {
    entry: ManifestEntry,
    from: usize,
}

impl NextEntry {
    fn rank(&self) -> (&str, u64) {
        (&self.entry.object.url, self.entry.run)
    }
}

impl PartialEq for NextEntry {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for NextEntry {}

impl PartialOrd for NextEntry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NextEntry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_stay_few_and_are_seldom_written_again() {
        let (mut runs, mut written) = (Vec::new(), 0);
        for _ in 0..5000 {
            runs.push(1);
            let taken = due(&runs);
            let merged: u64 = runs.drain(runs.len() - taken..).sum();
            runs.push(merged);
            written += merged;
            assert!(runs.len() <= 4 * FAN, "{runs:?}");
        }
        assert_eq!(runs.iter().sum::<u64>(), 5000);
        assert!(written <= 4 * 5000, "{written}");
    }
}
