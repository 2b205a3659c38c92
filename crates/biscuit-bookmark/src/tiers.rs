//! Size-tiered compaction of state files, as in an LSM tree: 16 manifests of a tier are merged into one of the next
//! tier.
//!
//! Every run adds a manifest. Without merging, a bookmark of 10,000 runs would have 10,000 state files to read; with
//! it there are a few dozen, and each entry is rewritten once per tier.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::btree_map::{BTreeMap, Entry as Slot};

use biscuit_core::Result;
use bytes::Bytes;

use crate::runs::manifest::{CompactedEntry, ManifestEntry, ManifestWriter, RunManifest, RunRecord};

/// Number of manifests that are merged into one.
const FAN: usize = 16;

/// Returns how many manifests, counted from the newest, are to be merged into one; 1 if the newest remains by itself.
/// `runs` is the number of runs in each manifest, oldest first.
///
/// A manifest of `n` runs is in tier `log16(n)`. Example: with 15 manifests of 16 runs and 16 of one run, the 16
/// newest are merged to one of tier 1, which makes 16 of tier 1, so all 31 are merged to one of tier 2 at once.
pub(crate) fn count_due(runs: &[u64]) -> usize {
    let mut taken = 0;
    for tier in 0.. {
        let rest = runs[..runs.len() - taken].iter().rev();
        let group = rest.take_while(|count| count.max(&&1).ilog(FAN as u64) <= tier).count();
        // The manifests that were taken so far will be one manifest of this tier.
        if group + usize::from(taken > 0) < FAN {
            break;
        }
        taken += group;
    }
    taken.max(1)
}

/// Merges several manifests and a new run into one manifest.
///
/// Entries of runs up to `compact_up_to` are reduced to fingerprints, and dropped if their run was rewound. All
/// manifests are sorted by URL and run, so a k-way merge with a heap keeps only one entry of each in memory.
pub(crate) fn merge_manifests(
    manifests: &[RunManifest],
    record: RunRecord,
    entries: Vec<ManifestEntry>,
    compact_up_to: u64,
    is_rewound: &dyn Fn(u64) -> bool,
) -> Result<Bytes> {
    let runs = manifests.iter().flat_map(|m| m.runs.iter().cloned()).chain([record]);
    let mut writer = ManifestWriter::new(runs.filter(|r| r.number > compact_up_to).collect())?;
    let mut old: BTreeMap<u64, CompactedEntry> = BTreeMap::new();
    // One fingerprint for each URL: the one of the latest run.
    let mut compact = |entry: CompactedEntry| match old.entry(entry.fingerprint.url) {
        Slot::Occupied(mut slot) if slot.get().run <= entry.run => drop(slot.insert(entry)),
        Slot::Occupied(_) => {}
        Slot::Vacant(slot) => drop(slot.insert(entry)),
    };
    let mut readers = manifests.iter().map(RunManifest::reader).collect::<Result<Vec<_>>>()?;
    let mut added = entries.into_iter();
    let mut next = |from: usize| match readers.get_mut(from) {
        Some(reader) => reader.read_entry(),
        None => Ok(added.next()),
    };
    let mut heap = BinaryHeap::new();
    for from in 0..=manifests.len() {
        heap.extend(next(from)?.map(|entry| Reverse(NextEntry { entry, from })));
    }
    while let Some(Reverse(NextEntry { entry, from })) = heap.pop() {
        heap.extend(next(from)?.map(|entry| Reverse(NextEntry { entry, from })));
        if entry.run > compact_up_to {
            writer.write_entry(&entry)?;
        } else if !is_rewound(entry.run) {
            compact(CompactedEntry { fingerprint: entry.object.fingerprint(), run: entry.run });
        }
    }
    // The fingerprints of a manifest follow all its entries, so they can be read only now.
    for reader in &mut readers {
        while let Some(entry) = reader.read_compacted()? {
            if !is_rewound(entry.run) {
                compact(entry);
            }
        }
    }
    old.into_values().try_for_each(|entry| writer.write_compacted(entry))?;
    writer.finish()
}

/// The next entry of the manifest with the index `from`, ordered by URL and run.
struct NextEntry {
    entry: ManifestEntry,
    from: usize,
}

impl NextEntry {
    fn sort_key(&self) -> (&str, u64) {
        (self.entry.object.url(), self.entry.run)
    }
}

impl PartialEq for NextEntry {
    fn eq(&self, other: &Self) -> bool {
        self.sort_key() == other.sort_key()
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
        self.sort_key().cmp(&other.sort_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_manifests_and_entries_are_seldom_rewritten() {
        let (mut runs, mut written) = (Vec::new(), 0);
        for _ in 0..5000 {
            runs.push(1);
            let taken = count_due(&runs);
            let merged: u64 = runs.drain(runs.len() - taken..).sum();
            runs.push(merged);
            written += merged;
            assert!(runs.len() <= 4 * FAN, "{runs:?}");
        }
        assert_eq!(runs.iter().sum::<u64>(), 5000);
        assert!(written <= 4 * 5000, "{written}");
    }
}
