use std::io::Read;
use std::ops::Range;

use biscuit_core::Result;
use biscuit_dataset::OpenFile;
use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// Maximum gap between two ranges that are fetched with one request, in bytes.
const GAP: u64 = 64 * 1024;

/// Fetched ranges of a file, which can be read by their offsets in the file.
#[derive(Debug, Clone)]
pub(crate) struct GroupBytes {
    parts: Vec<(u64, Bytes)>,
    size: u64,
}

impl GroupBytes {
    /// Fetches the column chunks of the row groups `groups`.
    pub(crate) async fn fetch(file: &OpenFile, groups: &[usize]) -> Result<Self> {
        let metadata = file.metadata().metadata();
        let chunks = groups.iter().flat_map(|&g| metadata.row_group(g).columns());
        let ranges = merge_ranges(chunks.map(|c| c.byte_range()).map(|(from, len)| from..from + len).collect());
        let bytes = file.read_ranges(&ranges).await?;
        Ok(Self { parts: ranges.iter().map(|r| r.start).zip(bytes).collect(), size: file.size() })
    }

    /// Fetches the byte ranges `ranges`.
    pub(crate) async fn fetch_ranges(file: &OpenFile, ranges: Vec<Range<u64>>) -> Result<Self> {
        let ranges = merge_ranges(ranges);
        let bytes = file.read_ranges(&ranges).await?;
        Ok(Self { parts: ranges.iter().map(|r| r.start).zip(bytes).collect(), size: file.size() })
    }

    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let at = self.parts.partition_point(|(from, _)| *from <= start);
        let part = at.checked_sub(1).map(|i| &self.parts[i]);
        let held = part.filter(|(from, bytes)| start - from <= bytes.len() as u64);
        let (from, bytes) = held.ok_or_else(|| ParquetError::EOF(format!("byte {start} was not read")))?;
        Ok(bytes.slice(usize::try_from(start - from).expect("the offset is inside of the part")..))
    }
}

/// Sorts ranges, and merges those with a gap of at most `GAP` bytes.
fn merge_ranges(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for r in ranges {
        match out.last_mut() {
            Some(last) if r.start <= last.end + GAP => last.end = last.end.max(r.end),
            _ => out.push(r),
        }
    }
    out
}

impl Length for GroupBytes {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for GroupBytes {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(Box::new(self.from(start)?.reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} were not read")));
        }
        Ok(bytes.slice(..length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_ranges_are_fetched_together_and_distant_ones_apart() {
        let far = 10 + GAP + 1;
        assert_eq!(merge_ranges(vec![far..far + 5, 4..10, 0..4]), [0..10, far..far + 5]);
        let parts = GroupBytes { parts: vec![(10, Bytes::from_static(b"abcdef"))], size: 100 };
        assert_eq!(parts.get_bytes(12, 3).unwrap(), &b"cde"[..]);
        assert!(parts.get_bytes(12, 5).is_err() && parts.get_bytes(9, 1).is_err());
    }
}
