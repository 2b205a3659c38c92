//! Applies the edits of a column in its stored form, and writes the result as pages: dictionary indices remain indices,
//! runs of plain values are copied as bytes.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::errors::{ParquetError, Result};

use crate::pages::hybrid;
use crate::transcode::RowRun;
use crate::transcode::bounds::ValueBounds;
use crate::transcode::kind::{NewValues, ValueKind};
use crate::transcode::source::{NULL, PlainValueEnds, SourceValues};
use crate::transcode::writer::ChunkWriter;

/// Maximum number of rows of a page, and of bytes of its values.
const PAGE_ROWS: usize = 20_000;
const PAGE_BYTES: usize = 1 << 20;

/// Maximum size of a dictionary in bytes. For a larger one the encoder decides whether to give it up.
const DICTIONARY_BYTES: usize = 1 << 20;

/// Applies the edits to dictionary indices: returns one index for each new row, and a dictionary with the new
/// values. Plain values are returned unchanged; `write` applies their edits. Returns `None` if the dictionary
/// would be too large.
pub(super) fn apply_edits(values: SourceValues, runs: &[RowRun], new: &NewValues) -> Option<SourceValues> {
    let SourceValues::Indices(indices, mut dictionary) = values else { return Some(values) };
    let mut numbers: HashMap<Bytes, u32> = HashMap::new();
    let mut out = Vec::with_capacity(indices.len());
    for run in runs {
        match run {
            RowRun::Kept(rows) => out.extend_from_slice(&indices[rows.clone()]),
            RowRun::New(batch, row) if new.is_null(*batch, *row) => out.push(NULL),
            RowRun::New(batch, row) => {
                if numbers.is_empty() {
                    // The map from value to index is built only when the first new value needs it.
                    numbers.extend(dictionary.iter().cloned().zip(0..));
                }
                let mut own = [0; 8];
                let value = new.value(*batch, *row, &mut own);
                let number = match numbers.get(value) {
                    Some(number) => *number,
                    None => {
                        let value = Bytes::copy_from_slice(value);
                        let number = u32::try_from(dictionary.len()).ok()?;
                        dictionary.push(value.clone());
                        numbers.insert(value, number);
                        number
                    }
                };
                out.push(number);
            }
        }
    }
    let dictionary = without_unused(&mut out, dictionary);
    let bytes: usize = dictionary.iter().map(|v| v.len() + 4).sum();
    (bytes <= DICTIONARY_BYTES).then_some(SourceValues::Indices(out, dictionary))
}

pub(super) fn has_null(values: &SourceValues, runs: &[RowRun], new: &NewValues) -> bool {
    match values {
        SourceValues::Indices(indices, _) => indices.contains(&NULL),
        SourceValues::Plain { .. } => runs.iter().any(|r| matches!(r, RowRun::New(b, row) if new.is_null(*b, *row))),
    }
}

/// Writes the rows as pages. Plain values are copied run by run.
pub(super) fn write(values: &SourceValues, runs: &[RowRun], new: &NewValues, writer: &mut ChunkWriter) -> Result<()> {
    match values {
        SourceValues::Indices(indices, dictionary) => {
            writer.write_dictionary(dictionary)?;
            let width = hybrid::bit_width(u32::try_from(dictionary.len().saturating_sub(1)).unwrap_or(u32::MAX));
            // The number of the page in which each dictionary value was last seen. A value widens the bounds once
            // for each page.
            let mut seen = vec![0; dictionary.len()];
            for (page, rows) in (1_u32..).zip(indices.chunks(PAGE_ROWS)) {
                let mut bounds = ValueBounds::default();
                for &index in rows.iter().filter(|i| **i != NULL) {
                    if std::mem::replace(&mut seen[index as usize], page) != page {
                        bounds.widen(&dictionary[index as usize], writer.kind);
                    }
                }
                let nulls = rows.iter().filter(|i| **i == NULL).count();
                let mut values = vec![width as u8];
                if nulls == 0 {
                    hybrid::encode(rows, width, &mut values);
                    writer.write_page(rows.len(), None, &values, &bounds, Encoding::RLE_DICTIONARY)?;
                } else {
                    let valid: Vec<u32> = rows.iter().copied().filter(|i| *i != NULL).collect();
                    hybrid::encode(&valid, width, &mut values);
                    let levels: Vec<u32> = rows.iter().map(|i| u32::from(*i != NULL)).collect();
                    writer.write_page(rows.len(), Some(&levels), &values, &bounds, Encoding::RLE_DICTIONARY)?;
                }
            }
            Ok(())
        }
        SourceValues::Plain { bytes, ends } => {
            let source = PlainRows { bytes, ends, kind: writer.kind };
            let mut page = PlainPage::default();
            for run in runs {
                match run {
                    RowRun::New(batch, row) => page.add_new(new, *batch, *row, writer)?,
                    RowRun::Kept(rows) => {
                        let mut at = rows.start;
                        while at < rows.end {
                            let end = source.end_of_fitting(at, rows.end, &page);
                            page.add_kept(&source, at..end);
                            at = end;
                            page.end_if_full(writer)?;
                        }
                    }
                }
            }
            page.finish_page(writer)
        }
    }
}

/// Removes the values from a dictionary that no row uses, and renumbers the indices.
fn without_unused(indices: &mut [u32], dictionary: Vec<Bytes>) -> Vec<Bytes> {
    let mut used = vec![false; dictionary.len()];
    indices.iter().filter(|i| **i != NULL).for_each(|i| used[*i as usize] = true);
    if used.iter().all(|u| *u) {
        return dictionary;
    }
    let (mut kept, mut numbers) = (Vec::new(), vec![NULL; dictionary.len()]);
    for (i, value) in dictionary.into_iter().enumerate().filter(|(i, _)| used[*i]) {
        numbers[i] = u32::try_from(kept.len()).expect("the dictionary only shrinks");
        kept.push(value);
    }
    indices.iter_mut().filter(|i| **i != NULL).for_each(|i| *i = numbers[*i as usize]);
    kept
}

struct PlainRows<'a> {
    bytes: &'a [u8],
    ends: &'a PlainValueEnds,
    kind: ValueKind,
}

impl PlainRows<'_> {
    /// Returns the offset at which a row begins; for the row after the last one, the end.
    fn row_start(&self, row: usize) -> usize {
        match self.ends {
            PlainValueEnds::Every(width) => row * width,
            PlainValueEnds::Of(_) if row == 0 => 0,
            PlainValueEnds::Of(ends) => ends[row - 1] as usize,
        }
    }

    /// Returns the end of the rows, from `from` on, that still fit into the page; at least one row.
    fn end_of_fitting(&self, from: usize, end: usize, page: &PlainPage) -> usize {
        let max_end = end.min(from + (PAGE_ROWS - page.rows));
        let room = PAGE_BYTES.saturating_sub(page.values.len());
        let start = self.row_start(from);
        let fits = match self.ends {
            PlainValueEnds::Every(width) => from + room / width,
            PlainValueEnds::Of(ends) => from + ends[from..max_end].partition_point(|e| *e as usize - start <= room),
        };
        fits.clamp(from + 1, max_end)
    }
}

/// A page of plain values that is being filled.
#[derive(Default)]
struct PlainPage {
    rows: usize,
    values: Vec<u8>,
    /// Definition level of each row. Empty while no row is null.
    levels: Vec<u32>,
    bounds: ValueBounds,
}

impl PlainPage {
    fn add_kept(&mut self, source: &PlainRows<'_>, rows: Range<usize>) {
        let bytes = &source.bytes[source.row_start(rows.start)..source.row_start(rows.end)];
        self.values.extend_from_slice(bytes);
        match (source.kind, source.ends) {
            (kind, PlainValueEnds::Every(width)) => {
                for bound in min_and_max(bytes, *width) {
                    self.bounds.widen(&bound.to_le_bytes()[..*width], kind);
                }
            }
            (kind, _) => {
                let prefix = if kind.width().is_some() { 0 } else { 4 };
                let mut start = source.row_start(rows.start);
                for row in rows.clone() {
                    let end = source.row_start(row + 1);
                    if end == start {
                        self.begin_null(row - rows.start);
                        self.levels.push(0);
                        continue;
                    }
                    if !self.levels.is_empty() {
                        self.levels.push(1);
                    }
                    self.bounds.widen(&source.bytes[start + prefix..end], kind);
                    start = end;
                }
                self.rows += rows.len();
                return;
            }
        }
        self.count_valid(rows.len());
    }

    /// Counts `rows` rows that are not null.
    fn count_valid(&mut self, rows: usize) {
        if !self.levels.is_empty() {
            self.levels.resize(self.levels.len() + rows, 1);
        }
        self.rows += rows;
    }

    /// Prepares the levels for a null. If it is the first one of the page, all rows so far, and the `before` rows
    /// that are not counted yet, get level 1.
    fn begin_null(&mut self, before: usize) {
        if self.levels.is_empty() {
            self.levels = vec![1; self.rows + before];
        }
    }

    fn add_new(&mut self, new: &NewValues, batch: usize, row: usize, writer: &mut ChunkWriter) -> Result<()> {
        if new.is_null(batch, row) {
            self.begin_null(0);
            self.levels.push(0);
            self.rows += 1;
        } else {
            let mut own = [0; 8];
            let value = new.value(batch, row, &mut own);
            if writer.kind.width().is_none() {
                let length = u32::try_from(value.len()).map_err(|e| ParquetError::External(Box::new(e)))?;
                self.values.extend_from_slice(&length.to_le_bytes());
            }
            self.values.extend_from_slice(value);
            self.bounds.widen(value, writer.kind);
            self.count_valid(1);
        }
        self.end_if_full(writer)
    }

    fn end_if_full(&mut self, writer: &mut ChunkWriter) -> Result<()> {
        if self.rows >= PAGE_ROWS || self.values.len() >= PAGE_BYTES { self.finish_page(writer) } else { Ok(()) }
    }

    fn finish_page(&mut self, writer: &mut ChunkWriter) -> Result<()> {
        if self.rows > 0 {
            let levels = (!self.levels.is_empty()).then_some(self.levels.as_slice());
            writer.write_page(self.rows, levels, &self.values, &self.bounds, Encoding::PLAIN)?;
        }
        self.values.clear();
        self.levels.clear();
        (self.rows, self.bounds) = (0, ValueBounds::default());
        Ok(())
    }
}

/// Returns the minimum and maximum of integers of `width` bytes.
fn min_and_max(bytes: &[u8], width: usize) -> [i64; 2] {
    let widest = [i64::MAX, i64::MIN];
    let widen = |[min, max]: [i64; 2], v: i64| [min.min(v), max.max(v)];
    if width == 4 {
        let values = bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b)));
        return values.fold(widest, widen);
    }
    bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).fold(widest, widen)
}
