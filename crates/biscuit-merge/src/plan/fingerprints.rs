use std::collections::BTreeMap;

use hashbrown::HashMap;
use sha2::{Digest as _, Sha256};

use crate::target::rows::{CellLocation, RowRef};

/// What is done to files of a table with slices, so that what comes out the same is written once.
///
/// Rows are named by where they come from, which is the same in every slice: a change record, or a stored row of some content.
#[derive(Debug, Default)]
pub(crate) struct SliceFingerprints {
    /// The part of the records that is worked on: each names its rows anew.
    part: u64,
    by_file: HashMap<FingerprintInput, Sha256>,
}

/// What something is done to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum FingerprintInput {
    /// A file, by number.
    File(usize),
    /// A file, by number, that gets new rows at the end of a row group, or behind all.
    Group(usize, Option<usize>),
    /// The new file of a folder.
    New(String),
}

pub(crate) type FileDigest = [u8; 32];

/// Files that come out as others do.
#[derive(Debug, Default)]
pub(crate) struct DuplicateFiles {
    /// By file, the one before it whose content and edits it has.
    pub(crate) units: BTreeMap<usize, usize>,
    /// By folder, the one before it whose new file has the same rows.
    pub(crate) added: BTreeMap<String, String>,
}

impl SliceFingerprints {
    pub(crate) fn next_part(&mut self) {
        self.part += 1;
    }

    /// Rows that go.
    pub(crate) fn remove(&mut self, fingerprinted: FingerprintInput, rows: impl Iterator<Item = u64>) {
        let sum = self.begin(fingerprinted, b'-');
        rows.for_each(|row| sum.update(row.to_le_bytes()));
        sum.update(u64::MAX.to_le_bytes());
    }

    /// Rows that take the place of others, or are new.
    pub(crate) fn add<'a>(
        &mut self,
        fingerprinted: FingerprintInput,
        what: u8,
        rows: impl Iterator<Item = (Option<u64>, &'a CellLocation)>,
    ) {
        let sum = self.begin(fingerprinted, what);
        for (place, cells) in rows {
            sum.update(place.unwrap_or(u64::MAX).to_le_bytes());
            match cells {
                CellLocation::Row(at) => sum.update(bytes(Some(*at))),
                CellLocation::Each(all) => {
                    sum.update((all.len() as u64).to_le_bytes());
                    all.iter().for_each(|at| sum.update(bytes(*at)));
                }
            }
        }
        sum.update(u64::MAX.to_le_bytes());
    }

    fn begin(&mut self, fingerprinted: FingerprintInput, what: u8) -> &mut Sha256 {
        let (part, group) = (
            self.part,
            match &fingerprinted {
                FingerprintInput::Group(_, group) => group.map_or(u64::MAX, |g| g as u64),
                _ => 0,
            },
        );
        // What happens to the row groups of a file happens to the file.
        let file = match fingerprinted {
            FingerprintInput::Group(file, _) => FingerprintInput::File(file),
            other => other,
        };
        let sum = self.by_file.entry(file).or_default();
        sum.update([what]);
        sum.update(part.to_le_bytes());
        sum.update(group.to_le_bytes());
        sum
    }

    /// Equal where the same is done to both; nothing is done to what was never named.
    pub(crate) fn of(&self, fingerprinted: &FingerprintInput) -> FileDigest {
        self.by_file.get(fingerprinted).cloned().unwrap_or_default().finalize().into()
    }
}

fn bytes(at: Option<RowRef>) -> [u8; 8] {
    let RowRef { table, row } = at.unwrap_or(RowRef { table: u32::MAX, row: u32::MAX });
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&table.to_le_bytes());
    bytes[4..].copy_from_slice(&row.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_rows_at_the_same_places_are_the_same() {
        let row = |row| CellLocation::Row(RowRef { table: 0, row });
        let mut fingerprints = SliceFingerprints::default();
        let mut at = |file: usize, group: Option<usize>, rows: &[(u64, u32)]| {
            let cells: Vec<(u64, CellLocation)> = rows.iter().map(|(place, r)| (*place, row(*r))).collect();
            fingerprints.add(
                FingerprintInput::Group(file, group),
                b'=',
                cells.iter().map(|(place, c)| (Some(*place), c)),
            );
        };
        at(0, Some(0), &[(1, 5), (2, 6)]);
        at(1, Some(0), &[(1, 5), (2, 6)]);
        at(2, Some(1), &[(1, 5), (2, 6)]);
        at(3, Some(0), &[(1, 5), (2, 7)]);
        at(6, Some(0), &[(1, 5), (3, 6)]);
        at(4, Some(0), &[(1, 5)]);
        at(4, Some(0), &[(2, 6)]);
        fingerprints.next_part();
        let all: Vec<FileDigest> = (0..7).map(|f| fingerprints.of(&FingerprintInput::File(f))).collect();
        assert_eq!(all[0], all[1]);
        for other in 2..7 {
            assert!(all[..other].iter().all(|d| *d != all[other]), "{other}");
        }
        fingerprints.remove(FingerprintInput::File(0), [3].into_iter());
        assert_ne!(fingerprints.of(&FingerprintInput::File(0)), all[0]);
    }
}
