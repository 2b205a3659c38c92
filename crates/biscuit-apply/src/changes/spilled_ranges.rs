//! Change records on the disk, divided by key ranges, and their division into parts that fit into memory.
//! This is external partitioning: ranges are estimated from a sample of the keys, ranges that turn out too large are
//! divided again, and small neighbours are joined.

use std::collections::VecDeque;
use std::sync::Arc;

use biscuit_change::internal::parquet_row;
use biscuit_change::{ChangeBatch, ChangeOp};
use biscuit_core::{Error, Result};
use biscuit_merge::internal::{SingleColumnKeys, TupleEncoder, TuplePurpose, as_integer};
use biscuit_rewrite::{BufferedRows, SpillFolder};
use datafusion::arrow::array::Array;
use datafusion::execution::memory_pool::MemoryReservation;
use hashbrown::HashSet;

use crate::changes::key_coverage::KeyCoverage;

/// Number of ranges if the number of records is not known, and the maximum number.
pub(crate) const RANGES: usize = 64;
const MOST_RANGES: usize = 256;

/// Bytes that a record takes in addition to its row while it is merged: key and order, entry in a hash table, outcome
/// of the key.
pub(crate) const EACH: usize = 256;

/// A part of the records. It has all records of the keys that it covers.
#[derive(Debug)]
pub(crate) struct InputPart {
    pub(crate) batches: Vec<ChangeBatch>,
    pub(crate) covers: KeyCoverage,
    /// Part of the session's budget that the records take.
    pub(crate) memory: MemoryReservation,
}

/// The parts of a run. The first one has all truncates, since a truncate is about the keys of all parts.
#[derive(Debug)]
pub(crate) enum InputParts {
    /// A single part in memory; `None` after it was returned.
    Whole(Option<(Vec<ChangeBatch>, MemoryReservation)>),
    /// Several parts on the disk.
    Ranges(SpilledRanges),
}

impl InputParts {
    /// Returns the folder on the disk if there are several parts. Then the new rows of the run do not fit into memory
    /// either.
    pub(crate) fn on_disk(&self) -> Option<&Arc<SpillFolder>> {
        match self {
            Self::Whole(_) => None,
            Self::Ranges(ranges) => Some(&ranges.spill),
        }
    }

    /// Adds keys that are connected to others, for example by key changes of earlier runs. Has to be called before
    /// the first range is taken.
    pub(crate) fn connect_keys(&mut self, keys: HashSet<Vec<u8>>) {
        if let Self::Ranges(ranges) = self {
            Arc::make_mut(&mut ranges.linked).extend(keys);
        }
    }

    /// Makes the parts as large as the memory allows. Each part looks at the stored keys, so that a table with many
    /// rows should be looked at by few parts.
    pub(crate) fn join_parts(&mut self) {
        if let Self::Ranges(ranges) = self {
            ranges.limit = ranges.limits.whole;
        }
    }

    /// Returns the next part: first the truncates, then the ranges in the order of keys, then the linked keys.
    pub(crate) fn next(&mut self, key: &[String]) -> Result<Option<InputPart>> {
        match self {
            Self::Whole(all) => {
                Ok(all.take().map(|(batches, memory)| InputPart { batches, covers: KeyCoverage::default(), memory }))
            }
            Self::Ranges(ranges) => ranges.next(key),
        }
    }
}

/// Records on the disk, divided by key ranges.
///
/// Invariants: `ranges` is in the order of keys and without gaps, and every key is in exactly one range. A record of
/// a linked key is first written to its range. `join` takes it out again, so that all records of linked keys are in
/// the last part.
#[derive(Debug)]
pub(crate) struct SpilledRanges {
    pub(crate) spill: Arc<SpillFolder>,
    /// Maximum memory of the records of a part, in bytes, one of `limits`. A single key may exceed it.
    limit: usize,
    limits: PartLimits,
    /// Registration at the session's budget. It has no bytes itself; each part gets its own.
    memory: MemoryReservation,
    pub(crate) bounds: Arc<RangeBounds>,
    /// Truncates; `None` after they were returned.
    truncates: Option<Vec<BufferedRows>>,
    ranges: VecDeque<SpilledRange>,
    /// Keys that key changes connect to other keys.
    linked: Arc<HashSet<Vec<u8>>>,
    /// Records of linked keys; `None` after they were returned.
    of_linked: Option<Vec<BufferedRows>>,
}

/// Maximum memory of the records of a part, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartLimits {
    pub(crate) usual: usize,
    /// If parts should be as large as the memory allows.
    pub(crate) whole: usize,
}

/// First keys of all ranges except the first one, ascending.
#[derive(Debug)]
pub(crate) struct RangeBounds {
    keys: Vec<Vec<u8>>,
    /// The same keys as integers, if all are. Values of records are then compared without being encoded.
    integers: Option<Vec<i64>>,
}

/// The records of the keys from `from` until before `to`.
#[derive(Debug, Default)]
struct SpilledRange {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    parts: Vec<BufferedRows>,
    /// Memory that the records take while they are merged, in bytes.
    bytes: usize,
    /// A sample of the keys, for dividing the range again.
    sample: Vec<Vec<u8>>,
}

impl SpilledRanges {
    pub(crate) fn new(
        bounds: RangeBounds,
        limits: PartLimits,
        memory: MemoryReservation,
        spill: Arc<SpillFolder>,
    ) -> Self {
        Self {
            spill,
            limit: limits.usual,
            limits,
            memory,
            truncates: Some(vec![]),
            ranges: bounds.empty_ranges(None, None),
            bounds: Arc::new(bounds),
            linked: Arc::default(),
            of_linked: Some(vec![]),
        }
    }

    /// Adds the records of a batch to their ranges.
    pub(crate) fn take_in(&mut self, divided: &DividedBatch) {
        if !divided.linked.is_empty() {
            Arc::make_mut(&mut self.linked).extend(divided.linked.iter().cloned());
        }
        self.truncates.get_or_insert_default().extend(divided.truncates.clone());
        for (range, part) in &divided.parts {
            self.ranges[*range].take_in(part);
        }
    }

    fn next(&mut self, key: &[String]) -> Result<Option<InputPart>> {
        if let Some(truncates) = self.truncates.take() {
            // This part covers no key: nothing is less than the empty key. Truncates are decided before all keys, so
            // that every later part knows them.
            let none = KeyCoverage { to: Some(vec![]), ..KeyCoverage::default() };
            return Ok(Some(self.read_part(&truncates, none)?));
        }
        while let Some(range) = self.ranges.pop_front() {
            // `split` has pushed the finer ranges to the front; they are next.
            if range.bytes > self.limit && self.split_range(&range, key)? {
                continue;
            }
            return Ok(Some(self.join_ranges(range, key)?));
        }
        let Some(linked) = self.of_linked.take() else { return Ok(None) };
        let covers = KeyCoverage { linked: self.linked.clone(), is_linked: true, ..KeyCoverage::default() };
        Ok(Some(self.read_part(&linked, covers)?))
    }

    /// Reads the records of a part, and counts them against the budget. The budget may be exceeded: a part that is
    /// too large cannot be divided further.
    fn read_part(&self, rows: &[BufferedRows], covers: KeyCoverage) -> Result<InputPart> {
        let memory = self.memory.new_empty();
        memory.grow(rows.iter().map(bytes_of).sum());
        Ok(InputPart { batches: read(rows)?, covers, memory })
    }

    /// Divides a range that is too large, by the sample of its keys. Returns false if the range cannot be divided,
    /// because all sampled keys are equal.
    fn split_range(&mut self, range: &SpilledRange, key: &[String]) -> Result<bool> {
        let bounds = quantile_bounds(&range.sample, ranges_for(range.bytes, self.limit));
        if bounds.keys.is_empty() {
            return Ok(false);
        }
        let mut finer = bounds.empty_ranges(range.from.clone(), range.to.clone());
        // Reads at most `limit` bytes at a time, so that dividing takes no more memory than merging.
        for parts in split_portions(&range.parts, self.limit) {
            for batch in read(parts)? {
                let (_, rows) = bounds.divide_rows(&batch, key)?;
                for (range, piece) in write_pieces(&batch, &rows, key, &self.spill)? {
                    finer[range].take_in(&piece);
                }
            }
        }
        finer.into_iter().rev().for_each(|range| self.ranges.push_front(range));
        Ok(true)
    }

    /// Joins a range with the ranges after it, as long as they fit into memory together. Returns their records as a
    /// part, without records of linked keys.
    fn join_ranges(&mut self, mut range: SpilledRange, key: &[String]) -> Result<InputPart> {
        while let Some(next) = self.ranges.pop_front_if(|next| range.bytes + next.bytes <= self.limit) {
            range.to = next.to;
            range.parts.extend(next.parts);
            range.bytes += next.bytes;
        }
        let covers = KeyCoverage { from: range.from, to: range.to, linked: self.linked.clone(), is_linked: false };
        let part = self.read_part(&range.parts, covers)?;
        if self.linked.is_empty() {
            return Ok(part);
        }
        let InputPart { batches, covers, memory } = part;
        let mut own = Vec::with_capacity(batches.len());
        for batch in batches {
            let encoder = TupleEncoder::new(&batch.rows, key, TuplePurpose::Key, &batch.file)?;
            let mut bytes = Vec::new();
            let mut is_linked = |row: &u32| {
                bytes.clear();
                encoder.encode(*row as usize, &mut bytes).is_ok() && self.linked.contains(&bytes)
            };
            let (linked, rest): (Vec<u32>, Vec<u32>) = rows_of(&batch).partition(&mut is_linked);
            if linked.is_empty() {
                own.push(batch);
                continue;
            }
            // Records of linked keys are written back to the disk, for the last part.
            let linked = self.spill.write(&batch.select_rows(&linked)?.pack()?)?;
            self.of_linked.get_or_insert_default().push(linked);
            own.push(batch.select_rows(&rest)?);
        }
        Ok(InputPart { batches: own, covers, memory })
    }
}

impl SpilledRange {
    fn take_in(&mut self, piece: &SpilledBatch) {
        self.bytes += bytes_of(&piece.rows);
        self.parts.push(piece.rows.clone());
        self.sample.extend(piece.sample.iter().cloned());
    }
}

/// Returns the memory that records take while they are merged, in bytes.
fn bytes_of(rows: &BufferedRows) -> usize {
    rows.memory_size() + EACH * rows.len()
}

/// The records of one batch in one range, on the disk, with a sample of their keys.
#[derive(Debug)]
struct SpilledBatch {
    rows: BufferedRows,
    sample: Vec<Vec<u8>>,
}

/// Writes the records of each range to the disk. The batch is sorted by range once, then written in pieces.
fn write_pieces(
    batch: &ChangeBatch,
    ranges: &[Vec<u32>],
    key: &[String],
    spill: &Arc<SpillFolder>,
) -> Result<Vec<(usize, SpilledBatch)>> {
    let picked = batch.select_rows(&ranges.concat())?;
    let encoder = TupleEncoder::new(&picked.rows, key, TuplePurpose::Key, &format!("`{}`", batch.file))?;
    let counts: Vec<usize> = ranges.iter().map(Vec::len).filter(|rows| *rows > 0).collect();
    let mut written = spill.write_parts(&picked.pack()?, &counts)?.into_iter();
    let (mut pieces, mut at) = (Vec::with_capacity(counts.len()), 0);
    for (range, rows) in ranges.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let own = at..at + rows.len();
        at = own.end;
        let mut sample = Vec::new();
        sample_of(&picked.ops, &encoder, own, 8, &mut sample);
        let rows = written.next().ok_or_else(|| Error::internal("a range was not written"))?;
        pieces.push((range, SpilledBatch { rows, sample }));
    }
    Ok(pieces)
}

/// A batch that was divided by range.
#[derive(Debug)]
pub(crate) struct DividedBatch {
    linked: Vec<Vec<u8>>,
    truncates: Option<BufferedRows>,
    parts: Vec<(usize, SpilledBatch)>,
}

impl DividedBatch {
    pub(crate) fn new(
        batch: &ChangeBatch,
        key: &[String],
        bounds: &RangeBounds,
        spill: &Arc<SpillFolder>,
    ) -> Result<Self> {
        let linked = linked_keys(batch, key)?;
        let (truncates, ranges) = bounds.divide_rows(batch, key)?;
        let truncates = match truncates.is_empty() {
            true => None,
            false => Some(spill.write(&batch.select_rows(&truncates)?.pack()?)?),
        };
        Ok(Self { linked, truncates, parts: write_pieces(batch, &ranges, key, spill)? })
    }
}

/// Returns both keys of every key change.
fn linked_keys(batch: &ChangeBatch, key: &[String]) -> Result<Vec<Vec<u8>>> {
    if batch.key_changes.is_empty() {
        return Ok(vec![]);
    }
    let mut linked = Vec::new();
    let own = TupleEncoder::new(&batch.rows, key, TuplePurpose::Key, &format!("`{}`", batch.file))?;
    for m in &batch.key_changes {
        // Keys that cannot be encoded are refused when their record is merged.
        let other = TupleEncoder::new(&m.key, key, TuplePurpose::Key, "the header of a key update").ok();
        for (encoder, row) in other.iter().map(|e| (e, 0)).chain([(&own, m.row)]) {
            let mut bytes = Vec::new();
            if encoder.encode(row, &mut bytes).is_ok() {
                linked.push(bytes);
            }
        }
    }
    Ok(linked)
}

impl RangeBounds {
    /// Returns the empty ranges between two keys.
    fn empty_ranges(&self, from: Option<Vec<u8>>, to: Option<Vec<u8>>) -> VecDeque<SpilledRange> {
        let firsts = std::iter::once(from).chain(self.keys.iter().cloned().map(Some));
        let ends = self.keys.iter().cloned().map(Some).chain([to]);
        firsts.zip(ends).map(|(from, to)| SpilledRange { from, to, ..SpilledRange::default() }).collect()
    }

    /// Returns the rows of truncates, and the rows of each range. A row without a valid key, which is refused later,
    /// is in the first range.
    fn divide_rows(&self, batch: &ChangeBatch, key: &[String]) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let (mut truncates, mut ranges) = (Vec::new(), vec![Vec::new(); self.keys.len() + 1]);
        let encoder = TupleEncoder::new(&batch.rows, key, TuplePurpose::Key, &format!("`{}`", batch.file))?;
        let mut bytes = Vec::new();
        for row in rows_of(batch) {
            let at = row as usize;
            if batch.ops[at] == ChangeOp::Truncate {
                truncates.push(row);
                continue;
            }
            let range = match (&self.integers, encoder.values()) {
                (Some(bounds), Some(SingleColumnKeys::Integers(a))) if a.is_valid(at) => {
                    let value = a.value(at);
                    // Binary search. Number of bounds that are at most the key: a bound is the first key of its
                    // range.
                    bounds.partition_point(|b| *b <= value)
                }
                _ => {
                    bytes.clear();
                    match encoder.encode(at, &mut bytes) {
                        Ok(()) => self.keys.partition_point(|b| *b <= bytes),
                        Err(_) => 0,
                    }
                }
            };
            ranges[range].push(row);
        }
        Ok((truncates, ranges))
    }
}

/// Returns the indices of the rows of a batch.
fn rows_of(batch: &ChangeBatch) -> std::ops::Range<u32> {
    0..u32::try_from(batch.ops.len()).expect("a batch has fewer than 2^32 rows")
}

/// Number of key ranges such that each stays well below `limit` bytes: half as many again as would just fit, because
/// a sample divides unevenly, and at most `MOST_RANGES`.
pub(crate) fn ranges_for(bytes: usize, limit: usize) -> usize {
    (bytes.saturating_mul(3) / limit.saturating_mul(2).max(1) + 2).min(MOST_RANGES)
}

/// Maximum bytes of records that become one batch: offsets of text columns have 32 bits.
const TOGETHER: usize = 1 << 30;

/// Divides records into portions that take at most `limit` bytes of memory, or are one batch.
fn split_portions(parts: &[BufferedRows], limit: usize) -> impl Iterator<Item = &[BufferedRows]> {
    let mut bytes = 0;
    parts.chunk_by(move |part, next| {
        bytes += bytes_of(part);
        let fits = bytes + bytes_of(next) <= limit;
        if !fits {
            bytes = 0;
        }
        fits
    })
}

/// Reads records from the disk. Adjacent pieces with the same schema become one batch: later steps are faster with
/// few large arrays than with many small ones.
fn read(parts: &[BufferedRows]) -> Result<Vec<ChangeBatch>> {
    let (mut out, mut alike, mut bytes) = (Vec::new(), Vec::<BufferedRows>::new(), 0);
    let mut end = |alike: &mut Vec<BufferedRows>| -> Result<()> {
        if !alike.is_empty() {
            out.push(ChangeBatch::unpack(&BufferedRows::concat(alike)?, parquet_row)?);
        }
        alike.clear();
        Ok(())
    };
    for part in parts {
        bytes += part.memory_size();
        if alike.first().is_some_and(|first| first.schema() != part.schema() || bytes > TOGETHER) {
            end(&mut alike)?;
            bytes = part.memory_size();
        }
        alike.push(part.clone());
    }
    end(&mut alike)?;
    Ok(out)
}

/// Returns a sample of the keys of some batches.
pub(crate) fn sample_keys(batches: &[ChangeBatch], key: &[String]) -> Result<Vec<Vec<u8>>> {
    let (mut keys, each) = (Vec::new(), (MOST_RANGES * 64 / batches.len().max(1)).max(1));
    for batch in batches {
        let encoder = TupleEncoder::new(&batch.rows, key, TuplePurpose::Key, &format!("`{}`", batch.file))?;
        sample_of(&batch.ops, &encoder, 0..batch.ops.len(), each, &mut keys);
    }
    Ok(keys)
}

/// Adds the keys of about `count` evenly spaced rows to `out`.
fn sample_of(
    ops: &[ChangeOp],
    encoder: &TupleEncoder,
    rows: std::ops::Range<usize>,
    count: usize,
    out: &mut Vec<Vec<u8>>,
) {
    let step = (rows.len() / count).max(1);
    for row in rows.step_by(step) {
        let mut bytes = Vec::new();
        if ops[row] != ChangeOp::Truncate && encoder.encode(row, &mut bytes).is_ok() {
            out.push(bytes);
        }
    }
}

/// Returns keys that divide a sample into `count` ranges of equal size (quantiles), without repetitions. The result
/// is empty if all keys of the sample are equal.
pub(crate) fn quantile_bounds(sample: &[Vec<u8>], count: usize) -> RangeBounds {
    let mut sorted: Vec<&Vec<u8>> = sample.iter().collect();
    sorted.sort_unstable();
    let mut keys: Vec<Vec<u8>> =
        (1..count).filter_map(|i| sorted.get(i * sorted.len() / count).map(|k| (*k).clone())).collect();
    keys.dedup();
    // A bound equal to the least key of the sample would begin with a range that is probably empty. Without it,
    // `split` detects a range of one key.
    keys.retain(|k| Some(&k) != sorted.first());
    let integers = keys.iter().map(|k| as_integer(k)).collect();
    RangeBounds { keys, integers }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    #[test]
    fn portions_fit_into_the_limit_or_are_a_single_batch() {
        let spill = SpillFolder::new().expect("the folder is valid");
        let rows = |n: i64| {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
            spill
                .write(&RecordBatch::try_from_iter([("id", ids)]).expect("the batch is valid"))
                .expect("the disk accepts the file")
        };
        let parts: Vec<_> = [10, 20, 30, 1000, 5, 5].map(rows).into();
        let limit = bytes_of(&parts[0]) + bytes_of(&parts[1]);
        let sizes = |limit| split_portions(&parts, limit).map(<[BufferedRows]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(limit), [2, 1, 1, 2]);
        assert_eq!((sizes(1), sizes(usize::MAX)), (vec![1; 6], vec![6]));
        assert!(split_portions(&[], 10).next().is_none());
    }
}
