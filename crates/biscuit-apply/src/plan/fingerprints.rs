//! Fingerprints of edits, by which files of several periods that become equal are written once.

use biscuit_merge::internal::{CellLocation, RowRef};
use std::collections::BTreeMap;

use hashbrown::HashMap;
use sha2::{Digest as _, Sha256};

/// Digests of the edits of each file of a table with periods. Two files with equal content and equal fingerprints
/// become equal, so that one is written and the store copies it for the other.
///
/// A fingerprint names rows by their location, which is the same in all periods: a change record, or a stored row of
/// a certain content. So it needs no values. Rows of different parts of the records have different locations, hence
/// the number of the part is included.
///
/// Invariant: every change of a file must be added, with everything on which the written file depends, in an order
/// that is the same for equal edits. A missing change would publish a copy with wrong rows.
#[derive(Debug, Default)]
pub(crate) struct PeriodFingerprints {
    /// Number of the current part. Row references count within a part.
    part: u64,
    by_file: HashMap<FingerprintInput, Sha256>,
}

/// The target of an edit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum FingerprintInput {
    /// A file, by index.
    File(usize),
    /// A file, by index, that gets new rows at the end of a row group, or after the last row group.
    Group(usize, Option<usize>),
    /// The new file of a folder.
    New(String),
}

pub(crate) type FileDigest = [u8; 32];

/// Files that become equal to others.
#[derive(Debug, Default)]
pub(crate) struct DuplicateFiles {
    /// For each file, an earlier file with the same content and the same edits.
    pub(crate) units: BTreeMap<usize, usize>,
    /// For each folder, an earlier folder whose new file has the same rows.
    pub(crate) added: BTreeMap<String, String>,
}

impl PeriodFingerprints {
    /// Begins the next part of the records.
    pub(crate) fn next_part(&mut self) {
        self.part += 1;
    }

    /// Adds removed rows.
    pub(crate) fn add_removed_rows(&mut self, input: FingerprintInput, rows: impl Iterator<Item = u64>) {
        let sum = self.begin_edit(input, b'-');
        // `u64::MAX` ends each list: (1, 2), (3) must differ from (1), (2, 3). No row has this number.
        rows.for_each(|row| sum.update(row.to_le_bytes()));
        sum.update(u64::MAX.to_le_bytes());
    }

    /// Adds rows that replace others (`=`, with their row numbers) or are new (`+`, without).
    pub(crate) fn add_rows<'a>(
        &mut self,
        input: FingerprintInput,
        what: u8,
        rows: impl Iterator<Item = (Option<u64>, &'a CellLocation)>,
    ) {
        let sum = self.begin_edit(input, what);
        for (place, cells) in rows {
            sum.update(place.unwrap_or(u64::MAX).to_le_bytes());
            match cells {
                CellLocation::Row(at) => sum.update(location_bytes(Some(*at))),
                CellLocation::Each(all) => {
                    sum.update((all.len() as u64).to_le_bytes());
                    all.iter().for_each(|at| sum.update(location_bytes(*at)));
                }
            }
        }
        sum.update(u64::MAX.to_le_bytes());
    }

    /// Begins an edit: the kind of edit, the part, and the row group are part of the digest.
    fn begin_edit(&mut self, input: FingerprintInput, what: u8) -> &mut Sha256 {
        let (part, group) = (
            self.part,
            match &input {
                FingerprintInput::Group(_, group) => group.map_or(u64::MAX, |g| g as u64),
                _ => 0,
            },
        );
        // Edits of row groups are edits of their file.
        let file = match input {
            FingerprintInput::Group(file, _) => FingerprintInput::File(file),
            other => other,
        };
        let sum = self.by_file.entry(file).or_default();
        sum.update([what]);
        sum.update(part.to_le_bytes());
        sum.update(group.to_le_bytes());
        sum
    }

    /// Returns the fingerprint. All targets without edits have the same one.
    pub(crate) fn fingerprint(&self, input: &FingerprintInput) -> FileDigest {
        self.by_file.get(input).cloned().unwrap_or_default().finalize().into()
    }
}

/// Returns the location of a value; `None`, a null, has a location that no row has.
fn location_bytes(at: Option<RowRef>) -> [u8; 8] {
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
    fn fingerprints_are_equal_only_for_the_same_rows_at_the_same_places() {
        let row = |row| CellLocation::Row(RowRef { table: 0, row });
        let mut fingerprints = PeriodFingerprints::default();
        let mut at = |file: usize, group: Option<usize>, rows: &[(u64, u32)]| {
            let cells: Vec<(u64, CellLocation)> = rows.iter().map(|(place, r)| (*place, row(*r))).collect();
            fingerprints.add_rows(
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
        let all: Vec<FileDigest> = (0..7).map(|f| fingerprints.fingerprint(&FingerprintInput::File(f))).collect();
        assert_eq!(all[0], all[1]);
        for other in 2..7 {
            assert!(all[..other].iter().all(|d| *d != all[other]), "{other}");
        }
        fingerprints.add_removed_rows(FingerprintInput::File(0), [3].into_iter());
        assert_ne!(fingerprints.fingerprint(&FingerprintInput::File(0)), all[0]);
    }
}
