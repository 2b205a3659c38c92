use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::btree_map::{BTreeMap, Entry as Slot};

use biscuit_core::Result;
use bytes::Bytes;

use crate::manifest::{Entry, Faded, Manifest, RunRecord, Writer};

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

/// One manifest of several. Of runs up to `faded` only numbers are kept, and nothing of those that are forgotten.
pub(crate) fn merge(
    manifests: &[Manifest],
    added: (RunRecord, Vec<Entry>),
    faded: u64,
    is_forgotten: &dyn Fn(u64) -> bool,
) -> Result<Bytes> {
    let (record, entries) = added;
    let runs = manifests.iter().flat_map(|m| m.runs.iter().cloned()).chain([record]);
    let mut writer = Writer::new(runs.filter(|r| r.number > faded).collect())?;
    let mut old: BTreeMap<u64, Faded> = BTreeMap::new();
    let mut fade = |entry: Faded| match old.entry(entry.print.url) {
        Slot::Occupied(mut slot) if slot.get().run <= entry.run => drop(slot.insert(entry)),
        Slot::Occupied(_) => {}
        Slot::Vacant(slot) => drop(slot.insert(entry)),
    };
    let mut readers = manifests.iter().map(Manifest::reader).collect::<Result<Vec<_>>>()?;
    let mut added = entries.into_iter();
    let mut next = |from: usize| match readers.get_mut(from) {
        Some(reader) => reader.entry(),
        None => Ok(added.next()),
    };
    let mut heap = BinaryHeap::new();
    for from in 0..=manifests.len() {
        heap.extend(next(from)?.map(|entry| Reverse(Head { entry, from })));
    }
    while let Some(Reverse(Head { entry, from })) = heap.pop() {
        heap.extend(next(from)?.map(|entry| Reverse(Head { entry, from })));
        if entry.run > faded {
            writer.entry(&entry)?;
        } else if !is_forgotten(entry.run) {
            fade(Faded { print: entry.object.print(), run: entry.run });
        }
    }
    for reader in &mut readers {
        while let Some(entry) = reader.faded()? {
            if !is_forgotten(entry.run) {
                fade(entry);
            }
        }
    }
    old.into_values().try_for_each(|entry| writer.faded(entry))?;
    writer.finish()
}

/// The next entry of a manifest.
struct Head {
    entry: Entry,
    from: usize,
}

impl Head {
    fn rank(&self) -> (&str, u64) {
        (&self.entry.object.url, self.entry.run)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
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
