//! Scans of files: which stored rows have keys of the run, by reading only key and order columns.

use std::sync::Arc;

use biscuit_core::Result;
use biscuit_dataset::OpenFile;
use biscuit_merge::MergeSpec;
use biscuit_merge::internal::{KeyTable, RecordOrder, RowOrders, TupleEncoder, TuplePurpose, null_key, stored_order};
use biscuit_schema::internal::align;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use hashbrown::HashMap;

use crate::changes::key_coverage::KeyCoverage;
use crate::table::key_statistics::KeyStatistics;

/// A stored row whose key is in the key table.
#[derive(Debug, Clone)]
pub(crate) struct MatchedRow {
    pub(crate) key: u32,
    pub(crate) row: u64,
    /// Order by the order columns of the row; the oldest order if it does not have them.
    pub(crate) order: RecordOrder,
}

/// Result of the scan of one file.
#[derive(Debug, Default)]
pub(crate) struct FileScan {
    pub(crate) matches: Vec<MatchedRow>,
    /// Rows of other keys that a truncate of this run deletes.
    pub(crate) truncated: Vec<u64>,
}

/// The file and the number of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowLocation {
    pub(crate) file: usize,
    pub(crate) row: u64,
}

/// The stored row of a key.
#[derive(Debug)]
pub(crate) struct StoredKey {
    pub(crate) place: RowLocation,
    /// Order by the order columns of the row.
    pub(crate) order: RecordOrder,
}

/// The stored rows of the keys of a part.
#[derive(Debug, Default)]
pub(crate) struct StoredRows {
    /// For each key, the index of its row in `rows`, or `NONE`. Entries of the last keys may be missing.
    numbers: Vec<u32>,
    /// In the order of the files.
    rows: Vec<StoredKey>,
    /// Further rows of a key: duplicates, which the run removes.
    surplus: HashMap<u32, Vec<RowLocation>>,
    /// For each scanned file, the rows of other keys that a truncate deletes.
    pub(crate) truncated: Vec<Vec<u64>>,
    /// Index of the first scanned file.
    pub(crate) first: usize,
}

/// Stands for no row.
const NONE: u32 = u32::MAX;

impl StoredRows {
    /// Joins the scans of files, which are numbered from `first` on. Of several rows of a key, the newest one counts,
    /// and of equally new rows the last one. `keys` is the number of keys.
    pub(crate) fn from_scans(scans: &[Arc<FileScan>], first: usize, keys: usize) -> Self {
        let mut stored = Self { first, ..Self::default() };
        let matches = scans.iter().map(|scan| scan.matches.len()).sum();
        if matches > 0 {
            stored.numbers = vec![NONE; keys];
            stored.rows.reserve(matches);
        }
        for (file, scan) in (first..).zip(scans) {
            for m in &scan.matches {
                stored.add_row(m.key, StoredKey { place: RowLocation { file, row: m.row }, order: m.order.clone() });
            }
            stored.truncated.push(scan.truncated.clone());
        }
        stored
    }

    fn add_row(&mut self, key: u32, row: StoredKey) {
        let number = &mut self.numbers[key as usize];
        // `NONE` is greater than every index, so that it finds no row.
        let Some(known) = self.rows.get_mut(*number as usize) else {
            *number = u32::try_from(self.rows.len()).expect("there are fewer rows than keys");
            self.rows.push(row);
            return;
        };
        let other = if row.order >= known.order { std::mem::replace(known, row).place } else { row.place };
        self.surplus.entry(key).or_default().push(other);
    }

    /// Returns the stored row of a key.
    pub(crate) fn row(&self, key: u32) -> Option<&StoredKey> {
        self.rows.get(*self.numbers.get(key as usize)? as usize)
    }

    /// Returns further rows of the key, which are duplicates.
    pub(crate) fn duplicates(&self, key: u32) -> &[RowLocation] {
        if self.surplus.is_empty() { &[] } else { self.surplus.get(&key).map_or(&[], Vec::as_slice) }
    }
}

/// The common input of all scans of a period.
pub(crate) struct ScanInput {
    pub(crate) target: SchemaRef,
    pub(crate) spec: Arc<MergeSpec>,
    pub(crate) keys: Arc<KeyTable>,
    /// Order of a new truncate: rows of all keys at or before it are deleted. `None` if the run has no truncate that
    /// is newer than the mark before it.
    pub(crate) truncated: Option<RecordOrder>,
    /// Numbers of keys, in the order of the keys.
    pub(crate) sorted: Arc<Vec<u32>>,
    /// Keys that the current part covers. Truncated rows of other keys are counted by other parts.
    pub(crate) covers: KeyCoverage,
}

/// Returns the row groups of a file that may have a key, by their statistics. A truncate needs all row groups.
///
/// # Errors
/// `MissingColumn`.
pub(crate) fn candidate_groups(file: &OpenFile, wanted: &ScanInput) -> Result<Vec<usize>> {
    let scan = TargetScan { file, wanted, place: format!("`{}`", file.path()) };
    let constant = |n: &str| file.file.partition.iter().any(|(p, _)| p == n);
    for k in wanted.spec.key.iter().filter(|k| !constant(k)) {
        biscuit_schema::internal::column_index(file.schema(), k, &scan.place)?;
    }
    scan.candidate_groups()
}

/// Finds the rows of some row groups whose keys are in the key table: first by the key columns alone, then the orders
/// of these rows are read. With a truncate, keys and orders of all rows are read.
///
/// # Errors
/// `NullKey`, `KeyType`, `OrderType`, and the errors of the file.
pub(crate) async fn scan_groups(file: OpenFile, groups: Vec<usize>, wanted: Arc<ScanInput>) -> Result<FileScan> {
    let scan = TargetScan { file: &file, wanted: &wanted, place: format!("`{}`", file.path()) };
    if wanted.truncated.is_some() {
        return scan.scan_with_truncate(&groups).await;
    }
    let mut found = FileScan { matches: scan.match_keys(&groups).await?, truncated: vec![] };
    scan.read_orders(&mut found.matches).await?;
    Ok(found)
}

/// The scan of one file.
struct TargetScan<'a> {
    file: &'a OpenFile,
    wanted: &'a ScanInput,
    place: String,
}

impl TargetScan<'_> {
    /// Returns the columns of the target with these names that the file or its path has.
    fn narrow_schema(&self, names: &[&str]) -> SchemaRef {
        let constant = |n: &str| self.file.file.partition.iter().any(|(p, _)| p == n);
        let there = |n: &str| self.file.schema().index_of(n).is_ok() || constant(n);
        let wanted = |f: &&Arc<Field>| names.contains(&f.name().as_str()) && there(f.name());
        Arc::new(Schema::new(self.wanted.target.fields().iter().filter(wanted).cloned().collect::<Vec<_>>()))
    }

    /// Returns the row groups that may have a key.
    fn candidate_groups(&self) -> Result<Vec<usize>> {
        let all = || (0..self.file.group_starts().len() - 1).collect();
        if self.wanted.truncated.is_some() {
            return Ok(all());
        }
        let keys = &self.wanted.keys;
        let first = &self.wanted.spec.key[0];
        if self.file.schema().index_of(first).is_err() {
            // A key column in the path has the same value in all rows, and no statistics.
            return Ok(all());
        }
        let bounds = KeyStatistics::read_bounds(self.file, first)?;
        Ok((0..bounds.len()).filter(|&g| bounds[g].may_contain(&self.wanted.sorted, |k| keys.bytes(k))).collect())
    }

    /// Returns the numbers of the rows in these row groups.
    fn row_numbers(&self, groups: &[usize]) -> impl Iterator<Item = u64> + Send + use<> {
        let starts = self.file.group_starts();
        let numbers: Vec<_> = groups.iter().map(|&g| starts[g]..starts[g + 1]).collect();
        numbers.into_iter().flatten()
    }

    /// Finds rows by their keys, reading only the key columns.
    async fn match_keys(&self, groups: &[usize]) -> Result<Vec<MatchedRow>> {
        let (wanted, spec) = (self.wanted, &self.wanted.spec);
        let names: Vec<&str> = spec.key.iter().map(String::as_str).collect();
        let narrow = self.narrow_schema(&names);
        let mut batches = self.file.stream_groups(Some(&names), groups)?;
        let mut numbers = self.row_numbers(groups);
        let (mut matches, mut bytes) = (Vec::new(), Vec::new());
        while let Some(batch) = batches.try_next().await? {
            let batch = align(&batch, &self.file.file.partition, &narrow, &self.place)?;
            let rows: Vec<u64> = numbers.by_ref().take(batch.num_rows()).collect();
            let mut null = None;
            let mut found =
                |row: usize, key| matches.push(MatchedRow { key, row: rows[row], order: RecordOrder::oldest() });
            // A single key column is compared by value. Other keys are encoded.
            let probed = spec.key.len() == 1
                && wanted.keys.find_column(batch.column(0), &mut found, &mut |row| null = null.or(Some(row)));
            if let Some(row) = null {
                return Err(null_key(&spec.key[0], &self.place, rows[row]));
            }
            if !probed {
                let orders = RowOrders::new(&batch, spec, &self.place)?;
                for (row, number) in rows.iter().enumerate() {
                    orders.encode_key(row, spec, &self.place, *number, &mut bytes)?;
                    wanted.keys.find(&bytes).inspect(|key| found(row, *key));
                }
            }
        }
        Ok(matches)
    }

    /// Reads the orders of the rows that were found.
    async fn read_orders(&self, matches: &mut [MatchedRow]) -> Result<()> {
        let spec = &self.wanted.spec;
        let read: Vec<&str> = spec.order.iter().map(String::as_str).collect();
        let narrow = self.narrow_schema(&read);
        if matches.is_empty() || !spec.stores_order() || !spec.order.iter().all(|o| narrow.index_of(o).is_ok()) {
            return Ok(());
        }
        let rows: Vec<u64> = matches.iter().map(|m| m.row).collect();
        // The reader returns rows in ascending order, which is the order of `matches`: both go in step.
        let mut batches = self.file.stream_rows(Some(&read), &rows)?;
        let mut matches = matches.iter_mut();
        while let Some(batch) = batches.try_next().await? {
            let batch = align(&batch, &self.file.file.partition, &narrow, &self.place)?;
            let orders = TupleEncoder::new(&batch, &spec.order, TuplePurpose::Order, &self.place)?;
            for (row, m) in matches.by_ref().take(batch.num_rows()).enumerate() {
                m.order = stored_order(&orders, row, spec, &self.place, m.row)?;
            }
        }
        Ok(())
    }

    /// Finds rows by their keys, and other rows that the truncate deletes.
    async fn scan_with_truncate(&self, groups: &[usize]) -> Result<FileScan> {
        let (wanted, spec) = (self.wanted, &self.wanted.spec);
        let names: Vec<&str> = spec.key.iter().chain(&spec.order).map(String::as_str).collect();
        let narrow = self.narrow_schema(&names);
        let mut batches = self.file.stream_groups(Some(&names), groups)?;
        let mut numbers = self.row_numbers(groups);
        let (mut found, mut key) = (FileScan::default(), Vec::new());
        while let Some(batch) = batches.try_next().await? {
            let batch = align(&batch, &self.file.file.partition, &narrow, &self.place)?;
            let rows = RowOrders::new(&batch, spec, &self.place)?;
            for (row, number) in numbers.by_ref().take(batch.num_rows()).enumerate() {
                rows.encode_key(row, spec, &self.place, number, &mut key)?;
                let order = || rows.order(row, spec, &self.place, number);
                if let Some(k) = wanted.keys.find(&key) {
                    found.matches.push(MatchedRow { key: k, row: number, order: order()? });
                } else if let Some(t) = &wanted.truncated
                    && wanted.covers.contains(&key)
                    && order()? <= *t
                {
                    found.truncated.push(number);
                }
            }
        }
        Ok(found)
    }
}
