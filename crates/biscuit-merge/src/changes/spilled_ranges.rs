use std::collections::VecDeque;
use std::sync::Arc;

use biscuit_change::{ChangeBatch, ChangeOp};
use biscuit_core::{Error, Result};
use biscuit_rewrite::{BufferedRows, SpillFolder};
use datafusion::arrow::array::Array;
use datafusion::execution::memory_pool::MemoryReservation;
use hashbrown::HashSet;

use crate::changes::key_coverage::KeyCoverage;
use crate::keys::encoding::{SingleColumnKeys, TupleEncoder, TuplePurpose, as_integer};

/// Ranges that records are divided into where nobody knows how many records there are, and the most.
pub(crate) const RANGES: usize = 64;
const MOST_RANGES: usize = 256;

/// What a record takes in memory besides its row, while it is worked on: its key and order, its place in a hash table, and what
/// its key comes to.
pub(crate) const EACH: usize = 256;

/// Some of the records, all that there are of their keys.
#[derive(Debug)]
pub(crate) struct InputPart {
    pub(crate) batches: Vec<ChangeBatch>,
    pub(crate) covers: KeyCoverage,
    /// What they take of the session's budget.
    pub(crate) memory: MemoryReservation,
}

/// The parts of a run. The first one has all truncates.
#[derive(Debug)]
pub(crate) enum InputParts {
    /// All is in memory.
    Whole(Option<(Vec<ChangeBatch>, MemoryReservation)>),
    Ranges(SpilledRanges),
}

impl InputParts {
    /// Whether there are several parts, so that what comes of them does not fit into memory either.
    pub(crate) fn on_disk(&self) -> Option<&Arc<SpillFolder>> {
        match self {
            Self::Whole(_) => None,
            Self::Ranges(ranges) => Some(&ranges.spill),
        }
    }

    /// Says which further keys are to be worked on together, before the first range is taken.
    pub(crate) fn tie(&mut self, keys: HashSet<Vec<u8>>) {
        if let Self::Ranges(ranges) = self {
            Arc::make_mut(&mut ranges.linked).extend(keys);
        }
    }

    /// The next part: first the one with the truncates, then by key.
    pub(crate) fn next(&mut self, key: &[String]) -> Result<Option<InputPart>> {
        match self {
            Self::Whole(all) => {
                Ok(all.take().map(|(batches, memory)| InputPart { batches, covers: KeyCoverage::default(), memory }))
            }
            Self::Ranges(ranges) => ranges.next(key),
        }
    }
}

/// Records on the disk.
#[derive(Debug)]
pub(crate) struct SpilledRanges {
    pub(crate) spill: Arc<SpillFolder>,
    limit: usize,
    /// The session's budget; nothing of it is held here.
    memory: MemoryReservation,
    pub(crate) bounds: Arc<RangeBounds>,
    truncates: Option<Vec<BufferedRows>>,
    ranges: VecDeque<SpilledRange>,
    /// Keys that key updates tie to others, and their records.
    linked: Arc<HashSet<Vec<u8>>>,
    of_linked: Option<Vec<BufferedRows>>,
}

/// The first key of every range but the first.
#[derive(Debug)]
pub(crate) struct RangeBounds {
    keys: Vec<Vec<u8>>,
    /// The same, if all are integers.
    integers: Option<Vec<i64>>,
}

#[derive(Debug, Default)]
struct SpilledRange {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    parts: Vec<BufferedRows>,
    /// Bytes that its records take in memory.
    bytes: usize,
    /// Some of its keys, spread over all of it.
    sample: Vec<Vec<u8>>,
}

impl SpilledRanges {
    pub(crate) fn new(bounds: RangeBounds, limit: usize, memory: MemoryReservation) -> Result<Self> {
        Ok(Self {
            spill: SpillFolder::new()?,
            limit,
            memory,
            truncates: Some(vec![]),
            ranges: bounds.ranges(None, None),
            bounds: Arc::new(bounds),
            linked: Arc::default(),
            of_linked: Some(vec![]),
        })
    }

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
            // No key is in it.
            let none = KeyCoverage { to: Some(vec![]), ..KeyCoverage::default() };
            return Ok(Some(self.part(&truncates, none)?));
        }
        while let Some(range) = self.ranges.pop_front() {
            if range.bytes > self.limit && self.split(&range, key)? {
                continue;
            }
            return Ok(Some(self.join(range, key)?));
        }
        let Some(linked) = self.of_linked.take() else { return Ok(None) };
        let covers = KeyCoverage { linked: self.linked.clone(), is_linked: true, ..KeyCoverage::default() };
        Ok(Some(self.part(&linked, covers)?))
    }

    /// Reads records, which count against the budget from then on. It is not asked whether they fit: they are as few as can be
    /// worked on together.
    fn part(&self, rows: &[BufferedRows], covers: KeyCoverage) -> Result<InputPart> {
        let memory = self.memory.new_empty();
        memory.grow(rows.iter().map(bytes_of).sum());
        Ok(InputPart { batches: read(rows)?, covers, memory })
    }

    /// Divides a range that is too large by what is known of its keys; answers false if they are all one.
    fn split(&mut self, range: &SpilledRange, key: &[String]) -> Result<bool> {
        let bounds = bounds(&range.sample, ranges_for(range.bytes, self.limit));
        if bounds.keys.is_empty() {
            return Ok(false);
        }
        let mut finer = bounds.ranges(range.from.clone(), range.to.clone());
        for parts in portions(&range.parts, self.limit) {
            for batch in read(parts)? {
                let (_, rows) = bounds.divide(&batch, key)?;
                for (range, piece) in pieces(&batch, &rows, key, &self.spill)? {
                    finer[range].take_in(&piece);
                }
            }
        }
        finer.into_iter().rev().for_each(|range| self.ranges.push_front(range));
        Ok(true)
    }

    /// A range with those behind it, as long as they fit into memory together.
    fn join(&mut self, mut range: SpilledRange, key: &[String]) -> Result<InputPart> {
        while let Some(next) = self.ranges.pop_front_if(|next| range.bytes + next.bytes <= self.limit) {
            range.to = next.to;
            range.parts.extend(next.parts);
            range.bytes += next.bytes;
        }
        let covers = KeyCoverage { from: range.from, to: range.to, linked: self.linked.clone(), is_linked: false };
        let part = self.part(&range.parts, covers)?;
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
            let linked = self.spill.write(&batch.pick(&linked)?.pack()?)?;
            self.of_linked.get_or_insert_default().push(linked);
            own.push(batch.pick(&rest)?);
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

/// Bytes that records take in memory while they are worked on.
fn bytes_of(rows: &BufferedRows) -> usize {
    rows.memory() + EACH * rows.len()
}

/// Records of one batch that are in one range, on the disk.
#[derive(Debug)]
struct SpilledBatch {
    rows: BufferedRows,
    sample: Vec<Vec<u8>>,
}

/// Puts the records of each range on the disk; all are brought into the order of the ranges at once.
fn pieces(
    batch: &ChangeBatch,
    ranges: &[Vec<u32>],
    key: &[String],
    spill: &Arc<SpillFolder>,
) -> Result<Vec<(usize, SpilledBatch)>> {
    let picked = batch.pick(&ranges.concat())?;
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

/// A batch, divided by range.
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
        let (truncates, ranges) = bounds.divide(batch, key)?;
        let truncates = match truncates.is_empty() {
            true => None,
            false => Some(spill.write(&batch.pick(&truncates)?.pack()?)?),
        };
        Ok(Self { linked, truncates, parts: pieces(batch, &ranges, key, spill)? })
    }
}

/// Both keys of every key update.
fn linked_keys(batch: &ChangeBatch, key: &[String]) -> Result<Vec<Vec<u8>>> {
    if batch.key_changes.is_empty() {
        return Ok(vec![]);
    }
    let mut linked = Vec::new();
    let own = TupleEncoder::new(&batch.rows, key, TuplePurpose::Key, &format!("`{}`", batch.file))?;
    for m in &batch.key_changes {
        // What cannot be encoded is refused when its record is looked at.
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
    /// The ranges between two keys.
    fn ranges(&self, from: Option<Vec<u8>>, to: Option<Vec<u8>>) -> VecDeque<SpilledRange> {
        let firsts = std::iter::once(from).chain(self.keys.iter().cloned().map(Some));
        let ends = self.keys.iter().cloned().map(Some).chain([to]);
        firsts.zip(ends).map(|(from, to)| SpilledRange { from, to, ..SpilledRange::default() }).collect()
    }

    /// The rows of truncates, and those of each range. A row without a key, which is refused later, is in the first.
    fn divide(&self, batch: &ChangeBatch, key: &[String]) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
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

fn rows_of(batch: &ChangeBatch) -> std::ops::Range<u32> {
    0..u32::try_from(batch.ops.len()).expect("a batch has fewer than 2^32 rows")
}

/// So many that each is well below the limit.
pub(crate) fn ranges_for(bytes: usize, limit: usize) -> usize {
    (bytes.saturating_mul(3) / limit.saturating_mul(2).max(1) + 2).min(MOST_RANGES)
}

/// Bytes of records that become one batch at most: offsets of text have 32 bits.
const TOGETHER: usize = 1 << 30;

/// Records in portions that take at most `limit` bytes in memory, or are of one batch.
fn portions(parts: &[BufferedRows], limit: usize) -> impl Iterator<Item = &[BufferedRows]> {
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

/// Records from the disk, those of one file that are alike in one batch: what looks at them later goes through few large
/// arrays instead of many small ones.
fn read(parts: &[BufferedRows]) -> Result<Vec<ChangeBatch>> {
    let (mut out, mut alike, mut bytes) = (Vec::new(), Vec::<BufferedRows>::new(), 0);
    let mut end = |alike: &mut Vec<BufferedRows>| -> Result<()> {
        if !alike.is_empty() {
            out.push(ChangeBatch::unpack(&BufferedRows::concat(alike)?)?);
        }
        alike.clear();
        Ok(())
    };
    for part in parts {
        bytes += part.memory();
        if alike.first().is_some_and(|first| first.schema() != part.schema() || bytes > TOGETHER) {
            end(&mut alike)?;
            bytes = part.memory();
        }
        alike.push(part.clone());
    }
    end(&mut alike)?;
    Ok(out)
}

/// Some keys of these records.
pub(crate) fn sample(batches: &[ChangeBatch], key: &[String]) -> Result<Vec<Vec<u8>>> {
    let (mut keys, each) = (Vec::new(), (MOST_RANGES * 64 / batches.len().max(1)).max(1));
    for batch in batches {
        let encoder = TupleEncoder::new(&batch.rows, key, TuplePurpose::Key, &format!("`{}`", batch.file))?;
        sample_of(&batch.ops, &encoder, 0..batch.ops.len(), each, &mut keys);
    }
    Ok(keys)
}

fn sample_of(
    ops: &[ChangeOp],
    encoder: &TupleEncoder,
    rows: std::ops::Range<usize>,
    maximum: usize,
    out: &mut Vec<Vec<u8>>,
) {
    let step = (rows.len() / maximum).max(1);
    for row in rows.step_by(step) {
        let mut bytes = Vec::new();
        if ops[row] != ChangeOp::Truncate && encoder.encode(row, &mut bytes).is_ok() {
            out.push(bytes);
        }
    }
}

/// Keys that divide those of a sample evenly into so many ranges; none if they are all one.
pub(crate) fn bounds(sample: &[Vec<u8>], count: usize) -> RangeBounds {
    let mut sorted: Vec<&Vec<u8>> = sample.iter().collect();
    sorted.sort_unstable();
    let mut keys: Vec<Vec<u8>> =
        (1..count).filter_map(|i| sorted.get(i * sorted.len() / count).map(|k| (*k).clone())).collect();
    keys.dedup();
    // Nothing comes before the first key.
    keys.retain(|k| Some(&k) != sorted.first());
    let integers = keys.iter().map(|k| as_integer(k)).collect();
    RangeBounds { keys, integers }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    #[test]
    fn portions_fit_into_the_limit_or_are_of_one_batch() {
        let spill = SpillFolder::new().expect("a folder");
        let rows = |n: i64| {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
            spill.write(&RecordBatch::try_from_iter([("id", ids)]).expect("a batch")).expect("a disk")
        };
        let parts: Vec<_> = [10, 20, 30, 1000, 5, 5].map(rows).into();
        let limit = bytes_of(&parts[0]) + bytes_of(&parts[1]);
        let sizes = |limit| portions(&parts, limit).map(<[BufferedRows]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(limit), [2, 1, 1, 2]);
        assert_eq!((sizes(1), sizes(usize::MAX)), (vec![1; 6], vec![6]));
        assert!(portions(&[], 10).next().is_none());
    }
}
