use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type};
use parquet::basic::{BoundaryOrder, Compression, Encoding, LogicalType, PageType, Type};
use parquet::column::page::{CompressedPage, Page, PageReader, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};

use crate::apply::Edit;
use crate::group_bytes::GroupBytes;
use crate::hybrid;

/// Rows of a page, and bytes that its values are to have at most.
const PAGE_ROWS: usize = 20_000;
const PAGE_BYTES: usize = 1 << 20;

/// Bytes of a dictionary; a larger one is made anew, or given up, by the encoder.
const DICTIONARY_BYTES: usize = 1 << 20;

/// Bytes that a bound of text or binary values has at most.
const BOUND_BYTES: usize = 64;

/// A row that is null.
const NULL: u32 = u32::MAX;

/// A column chunk that was made page by page from another one.
#[derive(Debug)]
pub(crate) struct OwnChunk {
    pub(crate) bytes: Bytes,
    pub(crate) close: ColumnCloseResult,
}

/// The rows of a new row group, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Run {
    /// Rows of the source.
    Kept(Range<usize>),
    /// A new row, by batch and row.
    New(usize, usize),
}

impl Run {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Kept(rows) => rows.len(),
            Self::New(..) => 1,
        }
    }
}

/// The rows of a row group after its edits, which name batches, and with all rows of further batches behind them.
pub(crate) fn runs(
    rows: usize,
    first: u64,
    edits: &[(u64, Edit)],
    added: Range<usize>,
    batches: &[RecordBatch],
) -> Vec<Run> {
    let (mut out, mut next) = (Vec::new(), 0);
    for (number, edit) in edits {
        let at = usize::try_from(number - first).expect("it is inside the row group");
        if at > next {
            out.push(Run::Kept(next..at));
        }
        if let Edit::Replace { batch, row } = edit {
            out.push(Run::New(*batch as usize, *row as usize));
        }
        next = at + 1;
    }
    if next < rows {
        out.push(Run::Kept(next..rows));
    }
    for batch in added {
        out.extend((0..batches[batch].num_rows()).map(|row| Run::New(batch, row)));
    }
    out
}

/// Makes a column chunk from another one without decoding it to values and encoding these again: dictionary indices stay
/// indices, runs of plain values are copied as bytes, and only new values are encoded. None for a chunk that is not flat, or in
/// an encoding, type or codec for which this is not made; then it takes the usual way.
pub(crate) fn transcode(
    source: &GroupBytes,
    chunk: &ColumnChunkMetaData,
    codec: Compression,
    rows: usize,
    runs: &[Run],
    new: &[ArrayRef],
) -> Result<Option<OwnChunk>> {
    let descriptor = chunk.column_descr();
    if descriptor.max_rep_level() > 0 || descriptor.max_def_level() > 1 || !Compressor::knows(codec) {
        return Ok(None);
    }
    let Some(kind) = Kind::of(chunk) else { return Ok(None) };
    let Some(new) = New::of(kind, new) else { return Ok(None) };
    let Some(values) = Values::read(source, chunk, rows, kind)? else { return Ok(None) };
    let Some(content) = Content::of(values, runs, &new) else { return Ok(None) };
    let nullable = descriptor.max_def_level() == 1;
    if !nullable && content.has_null(runs, &new) {
        return Ok(None);
    }
    let mut writer = Writer::new(chunk, codec, nullable)?;
    content.write(runs, &new, &mut writer)?;
    writer.finish().map(Some)
}

/// How values are held, and how they compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int32,
    Int64,
    /// Text, whose bounds have to be text as well, or binary values.
    Bytes {
        text: bool,
    },
}

impl Kind {
    fn of(chunk: &ColumnChunkMetaData) -> Option<Self> {
        let descriptor = chunk.column_descr();
        let signed = |logical: Option<&LogicalType>| match logical {
            None
            | Some(
                LogicalType::Decimal { .. }
                | LogicalType::Date
                | LogicalType::Time { .. }
                | LogicalType::Timestamp { .. },
            ) => true,
            Some(LogicalType::Integer(t)) => t.is_signed,
            _ => false,
        };
        use parquet::basic::ConvertedType as C;
        let logical = descriptor.logical_type_ref();
        let unsigned = matches!(descriptor.converted_type(), C::UINT_8 | C::UINT_16 | C::UINT_32 | C::UINT_64);
        match descriptor.physical_type() {
            Type::INT32 if signed(logical) && !unsigned => Some(Self::Int32),
            Type::INT64 if signed(logical) && !unsigned => Some(Self::Int64),
            Type::BYTE_ARRAY => match (logical, descriptor.converted_type()) {
                (Some(LogicalType::String), _) | (None, C::UTF8) => Some(Self::Bytes { text: true }),
                (None, C::NONE) => Some(Self::Bytes { text: false }),
                _ => None,
            },
            _ => None,
        }
    }

    /// Bytes of a value; none where that differs.
    fn width(self) -> Option<usize> {
        match self {
            Self::Int32 => Some(4),
            Self::Int64 => Some(8),
            Self::Bytes { .. } => None,
        }
    }

    /// Whether one value comes before another.
    fn less(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Self::Bytes { .. } => a < b,
            _ => integer(a) < integer(b),
        }
    }
}

fn integer(bytes: &[u8]) -> i64 {
    match <[u8; 8]>::try_from(bytes) {
        Ok(eight) => i64::from_le_bytes(eight),
        Err(_) => bytes.try_into().map_or(0, |four| i64::from(i32::from_le_bytes(four))),
    }
}

/// The new values of a column.
enum New {
    Integers(Vec<Int64Array>, usize),
    Texts(Vec<StringArray>),
    Binaries(Vec<BinaryArray>),
}

impl New {
    fn of(kind: Kind, columns: &[ArrayRef]) -> Option<Self> {
        let integers = |width| {
            let all = columns.iter().map(|c| integers(c, width)).collect::<Option<Vec<_>>>()?;
            Some(Self::Integers(all, width))
        };
        match kind {
            Kind::Int32 => integers(4),
            Kind::Int64 => integers(8),
            Kind::Bytes { text: true } => {
                Some(Self::Texts(columns.iter().map(|c| c.as_string_opt::<i32>().cloned()).collect::<Option<_>>()?))
            }
            Kind::Bytes { text: false } => {
                Some(Self::Binaries(columns.iter().map(|c| c.as_binary_opt::<i32>().cloned()).collect::<Option<_>>()?))
            }
        }
    }

    fn is_null(&self, batch: usize, row: usize) -> bool {
        match self {
            Self::Integers(all, _) => all[batch].is_null(row),
            Self::Texts(all) => all[batch].is_null(row),
            Self::Binaries(all) => all[batch].is_null(row),
        }
    }

    /// The bytes of a value that is not null, without their length; `own` holds those of an integer.
    fn value<'a>(&'a self, batch: usize, row: usize, own: &'a mut [u8; 8]) -> &'a [u8] {
        match self {
            Self::Integers(all, width) => {
                *own = all[batch].value(row).to_le_bytes();
                &own[..*width]
            }
            Self::Texts(all) => all[batch].value(row).as_bytes(),
            Self::Binaries(all) => all[batch].value(row),
        }
    }
}

/// Values as the integers that Parquet holds, in so many bytes.
fn integers(column: &ArrayRef, width: usize) -> Option<Int64Array> {
    let fits = |value: i64| width == 8 || i32::try_from(value).is_ok();
    let integers: Int64Array = match (column.data_type(), width) {
        (DataType::Decimal128(..), _) => {
            let narrow = |v: Option<i128>| v.map(i64::try_from).transpose();
            let values = column.as_primitive::<Decimal128Type>().iter().map(narrow).collect::<Result<Vec<_>, _>>();
            values.ok()?.into()
        }
        (DataType::Int8 | DataType::Int16 | DataType::Int32, 4) => {
            cast(column, &DataType::Int64).ok()?.as_primitive().clone()
        }
        (DataType::Date32 | DataType::Time32(_), 4) => {
            let days = cast(column, &DataType::Int32).ok()?;
            cast(&days, &DataType::Int64).ok()?.as_primitive().clone()
        }
        (DataType::Int64 | DataType::Timestamp(..) | DataType::Time64(_), 8) => {
            cast(column, &DataType::Int64).ok()?.as_primitive().clone()
        }
        _ => return None,
    };
    integers.iter().flatten().all(fits).then_some(integers)
}

/// The values of a source chunk, row by row, as they are held.
enum Values {
    /// By row the number of the value; the dictionary's values, without their lengths.
    Indices(Vec<u32>, Vec<Bytes>),
    /// Plain values: by row where it ends, if they differ in length or there are nulls.
    Plain { bytes: Vec<u8>, ends: Ends },
}

/// Where plain values end.
enum Ends {
    Every(usize),
    /// By row; null ends where the row before it does.
    Of(Vec<u32>),
}

impl Values {
    fn read(source: &GroupBytes, chunk: &ColumnChunkMetaData, rows: usize, kind: Kind) -> Result<Option<Self>> {
        let mut pages = SerializedPageReader::new(Arc::new(source.clone()), chunk, rows, None)?;
        let nullable = chunk.column_descr().max_def_level() == 1;
        let mut dictionary = None;
        let (mut indices, mut levels) = (Vec::new(), Vec::new());
        let mut plain = (Vec::new(), Vec::new());
        let (mut count, mut nulls) = (0, false);
        while let Some(page) = pages.get_next_page()? {
            let Some(data) = DataPage::of(&page, nullable, &mut levels) else {
                let Page::DictionaryPage { buf, num_values, .. } = page else { return Ok(None) };
                let Some(values) = dictionary_values(&buf, num_values as usize, kind) else { return Ok(None) };
                dictionary = Some(values);
                continue;
            };
            let read = match (&dictionary, data.encoding) {
                (Some(_), Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) => data.indices(&levels, &mut indices),
                (None, Encoding::PLAIN) => data.plain(&levels, kind, &mut plain.0, &mut plain.1),
                _ => None,
            };
            if read.is_none() {
                return Ok(None);
            }
            nulls |= levels.contains(&0);
            count += data.rows;
        }
        if count != rows {
            return Ok(None);
        }
        Ok(match dictionary {
            Some(values) => {
                let known = |i: &u32| *i == NULL || (*i as usize) < values.len();
                indices.iter().all(known).then_some(Self::Indices(indices, values))
            }
            None => {
                let ends = match kind.width().filter(|_| !nulls) {
                    Some(width) => Ends::Every(width),
                    None => Ends::Of(plain.1),
                };
                Some(Self::Plain { bytes: plain.0, ends })
            }
        })
    }
}

/// A data page: its values, behind their levels.
struct DataPage<'a> {
    values: &'a [u8],
    rows: usize,
    encoding: Encoding,
}

impl<'a> DataPage<'a> {
    /// Takes a page apart; `levels` are left empty where no row is null. None for another page, and for one that is damaged.
    fn of(page: &'a Page, nullable: bool, levels: &mut Vec<u32>) -> Option<Self> {
        levels.clear();
        match page {
            Page::DataPage { buf, num_values, encoding, def_level_encoding, .. } => {
                let rows = *num_values as usize;
                let mut values = buf.as_ref();
                if nullable {
                    if *def_level_encoding != Encoding::RLE {
                        return None;
                    }
                    let (length, rest) = values.split_first_chunk::<4>()?;
                    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
                    read_levels(rest.get(..length)?, rows, levels)?;
                    values = &rest[length..];
                }
                Some(Self { values, rows, encoding: *encoding })
            }
            Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let rows = *num_values as usize;
                let (from, length) = (*rep_levels_byte_len as usize, *def_levels_byte_len as usize);
                if nullable {
                    read_levels(buf.get(from..from + length)?, rows, levels)?;
                }
                Some(Self { values: buf.get(from + length..)?, rows, encoding: *encoding })
            }
            Page::DictionaryPage { .. } => None,
        }
    }

    fn indices(&self, levels: &[u32], out: &mut Vec<u32>) -> Option<()> {
        let valid = if levels.is_empty() { self.rows } else { levels.iter().filter(|l| **l == 1).count() };
        let (width, packed) = match self.values.split_first() {
            Some((width, packed)) => (u32::from(*width), packed),
            // A page of nulls may have nothing at all.
            None if valid == 0 => (0, &[][..]),
            None => return None,
        };
        if levels.is_empty() {
            return hybrid::decode(packed, width, self.rows, out);
        }
        let mut own = Vec::with_capacity(valid);
        hybrid::decode(packed, width, valid, &mut own)?;
        let mut own = own.into_iter();
        for level in levels {
            out.push(if *level == 1 { own.next()? } else { NULL });
        }
        Some(())
    }

    /// Appends the values as they are, and where each row ends.
    fn plain(&self, levels: &[u32], kind: Kind, bytes: &mut Vec<u8>, ends: &mut Vec<u32>) -> Option<()> {
        let (base, mut at) = (bytes.len(), 0);
        // Where no row is null and all are of one length, nobody asks where one ends.
        if let (Some(width), true) = (kind.width(), levels.is_empty()) {
            at = width.checked_mul(self.rows)?;
            ends.extend((1..=self.rows).map(|r| (base + r * width) as u32));
        } else {
            ends.reserve(self.rows);
            for row in 0..self.rows {
                if levels.get(row).is_none_or(|l| *l == 1) {
                    at += match kind.width() {
                        Some(width) => width,
                        None => {
                            let length = self.values.get(at..at + 4)?.try_into().expect("four bytes");
                            4 + u32::from_le_bytes(length) as usize
                        }
                    };
                }
                ends.push(u32::try_from(base + at).ok()?);
            }
        }
        bytes.extend_from_slice(self.values.get(..at)?);
        u32::try_from(bytes.len()).ok().map(|_| ())
    }
}

fn read_levels(bytes: &[u8], rows: usize, levels: &mut Vec<u32>) -> Option<()> {
    hybrid::decode(bytes, 1, rows, levels)?;
    if !levels.contains(&0) {
        levels.clear();
    }
    Some(())
}

fn dictionary_values(buffer: &Bytes, count: usize, kind: Kind) -> Option<Vec<Bytes>> {
    let (mut values, mut at) = (Vec::with_capacity(count), 0);
    for _ in 0..count {
        let length = match kind.width() {
            Some(width) => width,
            None => {
                let length = buffer.get(at..at + 4)?.try_into().expect("four bytes");
                at += 4;
                u32::from_le_bytes(length) as usize
            }
        };
        let end = at.checked_add(length).filter(|end| *end <= buffer.len())?;
        values.push(buffer.slice(at..end));
        at = end;
    }
    Some(values)
}

/// What is written.
enum Content {
    /// By new row, its number in the dictionary.
    Indices(Vec<u32>, Vec<Bytes>),
    Plain {
        bytes: Vec<u8>,
        ends: Ends,
    },
}

impl Content {
    /// None if the dictionary would be too large.
    fn of(values: Values, runs: &[Run], new: &New) -> Option<Self> {
        let (indices, mut dictionary) = match values {
            Values::Plain { bytes, ends } => return Some(Self::Plain { bytes, ends }),
            Values::Indices(indices, dictionary) => (indices, dictionary),
        };
        let mut numbers: HashMap<Bytes, u32> = HashMap::new();
        let mut out = Vec::with_capacity(indices.len());
        for run in runs {
            match run {
                Run::Kept(rows) => out.extend_from_slice(&indices[rows.clone()]),
                Run::New(batch, row) if new.is_null(*batch, *row) => out.push(NULL),
                Run::New(batch, row) => {
                    if numbers.is_empty() {
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
        (bytes <= DICTIONARY_BYTES).then_some(Self::Indices(out, dictionary))
    }

    fn has_null(&self, runs: &[Run], new: &New) -> bool {
        match self {
            Self::Indices(indices, _) => indices.contains(&NULL),
            Self::Plain { .. } => runs.iter().any(|r| matches!(r, Run::New(b, row) if new.is_null(*b, *row))),
        }
    }

    fn write(&self, runs: &[Run], new: &New, writer: &mut Writer) -> Result<()> {
        match self {
            Self::Indices(indices, dictionary) => {
                writer.dictionary(dictionary)?;
                let width = hybrid::width(u32::try_from(dictionary.len().saturating_sub(1)).unwrap_or(u32::MAX));
                // Numbers of pages, by value, so that each value of a page is looked at once.
                let mut seen = vec![0; dictionary.len()];
                for (page, rows) in (1_u32..).zip(indices.chunks(PAGE_ROWS)) {
                    let mut bounds = Bounds::default();
                    for &index in rows.iter().filter(|i| **i != NULL) {
                        if std::mem::replace(&mut seen[index as usize], page) != page {
                            bounds.widen(&dictionary[index as usize], writer.kind);
                        }
                    }
                    let nulls = rows.iter().filter(|i| **i == NULL).count();
                    let mut values = vec![width as u8];
                    if nulls == 0 {
                        hybrid::encode(rows, width, &mut values);
                        writer.page(rows.len(), None, &values, &bounds, Encoding::RLE_DICTIONARY)?;
                    } else {
                        let valid: Vec<u32> = rows.iter().copied().filter(|i| *i != NULL).collect();
                        hybrid::encode(&valid, width, &mut values);
                        let levels: Vec<u32> = rows.iter().map(|i| u32::from(*i != NULL)).collect();
                        writer.page(rows.len(), Some(&levels), &values, &bounds, Encoding::RLE_DICTIONARY)?;
                    }
                }
                Ok(())
            }
            Self::Plain { bytes, ends } => {
                let source = PlainRows { bytes, ends, kind: writer.kind };
                let mut page = PlainPage::default();
                for run in runs {
                    match run {
                        Run::New(batch, row) => page.add_new(new, *batch, *row, writer)?,
                        Run::Kept(rows) => {
                            let mut at = rows.start;
                            while at < rows.end {
                                let end = source.fitting(at, rows.end, &page);
                                page.add_kept(&source, at..end);
                                at = end;
                                page.end_if_full(writer)?;
                            }
                        }
                    }
                }
                page.end(writer)
            }
        }
    }
}

/// Leaves values out of a dictionary that no row has any more.
fn without_unused(indices: &mut [u32], dictionary: Vec<Bytes>) -> Vec<Bytes> {
    let mut used = vec![false; dictionary.len()];
    indices.iter().filter(|i| **i != NULL).for_each(|i| used[*i as usize] = true);
    if used.iter().all(|u| *u) {
        return dictionary;
    }
    let (mut kept, mut numbers) = (Vec::new(), vec![NULL; dictionary.len()]);
    for (i, value) in dictionary.into_iter().enumerate().filter(|(i, _)| used[*i]) {
        numbers[i] = u32::try_from(kept.len()).expect("there are fewer than before");
        kept.push(value);
    }
    indices.iter_mut().filter(|i| **i != NULL).for_each(|i| *i = numbers[*i as usize]);
    kept
}

struct PlainRows<'a> {
    bytes: &'a [u8],
    ends: &'a Ends,
    kind: Kind,
}

impl PlainRows<'_> {
    /// Where a row begins, or the last one ends.
    fn start(&self, row: usize) -> usize {
        match self.ends {
            Ends::Every(width) => row * width,
            Ends::Of(_) if row == 0 => 0,
            Ends::Of(ends) => ends[row - 1] as usize,
        }
    }

    /// Up to which row a page can take the rows from here on; one at least.
    fn fitting(&self, from: usize, end: usize, page: &PlainPage) -> usize {
        let most = end.min(from + (PAGE_ROWS - page.rows));
        let room = PAGE_BYTES.saturating_sub(page.values.len());
        let start = self.start(from);
        let fits = match self.ends {
            Ends::Every(width) => from + room / width,
            Ends::Of(ends) => from + ends[from..most].partition_point(|e| *e as usize - start <= room),
        };
        fits.clamp(from + 1, most)
    }
}

/// A page of plain values in the making.
#[derive(Default)]
struct PlainPage {
    rows: usize,
    values: Vec<u8>,
    /// By row; only if one is null.
    levels: Vec<u32>,
    bounds: Bounds,
}

impl PlainPage {
    fn add_kept(&mut self, source: &PlainRows<'_>, rows: Range<usize>) {
        let bytes = &source.bytes[source.start(rows.start)..source.start(rows.end)];
        self.values.extend_from_slice(bytes);
        match (source.kind, source.ends) {
            (Kind::Int64, Ends::Every(_)) => {
                let all = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
                let (min, max) = all.fold((i64::MAX, i64::MIN), |(min, max), v| (min.min(v), max.max(v)));
                self.bounds.widen(&min.to_le_bytes(), source.kind);
                self.bounds.widen(&max.to_le_bytes(), source.kind);
            }
            (Kind::Int32, Ends::Every(_)) => {
                let all = bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
                let (min, max) = all.fold((i32::MAX, i32::MIN), |(min, max), v| (min.min(v), max.max(v)));
                self.bounds.widen(&min.to_le_bytes(), source.kind);
                self.bounds.widen(&max.to_le_bytes(), source.kind);
            }
            (kind, _) => {
                let prefix = if kind.width().is_some() { 0 } else { 4 };
                let mut start = source.start(rows.start);
                for row in rows.clone() {
                    let end = source.start(row + 1);
                    if end == start {
                        self.null(row - rows.start);
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
        self.valid(rows.len());
    }

    /// So many rows that are not null.
    fn valid(&mut self, rows: usize) {
        if !self.levels.is_empty() {
            self.levels.resize(self.levels.len() + rows, 1);
        }
        self.rows += rows;
    }

    /// The first null, `before` rows behind those that are counted.
    fn null(&mut self, before: usize) {
        if self.levels.is_empty() {
            self.levels = vec![1; self.rows + before];
        }
    }

    fn add_new(&mut self, new: &New, batch: usize, row: usize, writer: &mut Writer) -> Result<()> {
        if new.is_null(batch, row) {
            self.null(0);
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
            self.valid(1);
        }
        self.end_if_full(writer)
    }

    fn end_if_full(&mut self, writer: &mut Writer) -> Result<()> {
        if self.rows >= PAGE_ROWS || self.values.len() >= PAGE_BYTES { self.end(writer) } else { Ok(()) }
    }

    fn end(&mut self, writer: &mut Writer) -> Result<()> {
        if self.rows > 0 {
            let levels = (!self.levels.is_empty()).then_some(self.levels.as_slice());
            writer.page(self.rows, levels, &self.values, &self.bounds, Encoding::PLAIN)?;
        }
        self.values.clear();
        self.levels.clear();
        (self.rows, self.bounds) = (0, Bounds::default());
        Ok(())
    }
}

/// The least and the greatest of some values.
#[derive(Debug, Clone, Default)]
struct Bounds(Option<(Vec<u8>, Vec<u8>)>);

impl Bounds {
    fn widen(&mut self, value: &[u8], kind: Kind) {
        let Some((min, max)) = &mut self.0 else {
            self.0 = Some((value.to_vec(), value.to_vec()));
            return;
        };
        let bound = if kind.less(value, min) {
            min
        } else if kind.less(max, value) {
            max
        } else {
            return;
        };
        bound.clear();
        bound.extend_from_slice(value);
    }
}

/// A bound below these bytes, or they themselves, that is not too long; text stays text.
fn lower(value: &[u8], text: bool) -> Vec<u8> {
    value[..cut(value, text)].to_vec()
}

/// A bound above these bytes, or they themselves, that is not too long; text stays text.
fn upper(value: &[u8], text: bool) -> Vec<u8> {
    if value.len() <= BOUND_BYTES {
        return value.to_vec();
    }
    let start = &value[..cut(value, text)];
    if !text {
        let last = start.iter().rposition(|b| *b < 0xff);
        return last.map_or_else(|| value.to_vec(), |i| [&start[..i], &[start[i] + 1]].concat());
    }
    let Ok(start) = std::str::from_utf8(start) else { return value.to_vec() };
    // The character behind the last one that has one of its length, so that bytes compare as characters do.
    let next = |c: char| char::from_u32(u32::from(c) + 1).filter(|n| n.len_utf8() == c.len_utf8());
    let found = start.char_indices().rev().find_map(|(i, c)| Some((i, next(c)?)));
    found.map_or_else(|| value.to_vec(), |(i, c)| format!("{}{c}", &start[..i]).into_bytes())
}

/// How many bytes a bound has: between two characters in text.
fn cut(value: &[u8], text: bool) -> usize {
    let mut end = value.len().min(BOUND_BYTES);
    while text && end > 0 && end < value.len() && value[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    end
}

enum Compressor {
    None,
    Snappy(Box<snap::raw::Encoder>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    fn knows(codec: Compression) -> bool {
        matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_))
    }

    fn new(codec: Compression) -> Result<Self> {
        Ok(match codec {
            Compression::SNAPPY => Self::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::ZSTD(level) => Self::Zstd(zstd::bulk::Compressor::new(level.compression_level())?),
            _ => Self::None,
        })
    }

    fn compress(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        match self {
            Self::None => Ok(bytes),
            Self::Snappy(encoder) => encoder.compress_vec(&bytes).map_err(|e| ParquetError::External(Box::new(e))),
            Self::Zstd(compressor) => Ok(compressor.compress(&bytes)?),
        }
    }
}

/// Writes the pages of a chunk, and what the footer and the page index say of them.
struct Writer {
    kind: Kind,
    nullable: bool,
    compressor: Compressor,
    codec: Compression,
    descriptor: parquet::schema::types::ColumnDescPtr,
    sink: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    dictionary_offset: Option<i64>,
    data_offset: Option<i64>,
    encodings: Vec<PageEncodingStats>,
    column_index: ColumnIndexBuilder,
    offset_index: OffsetIndexBuilder,
    bounds: Bounds,
    /// Whether the bounds of pages ascend, so far; with those of the last one.
    ascending: bool,
    last: Bounds,
    rows: usize,
    nulls: usize,
}

impl Writer {
    fn new(source: &ColumnChunkMetaData, codec: Compression, nullable: bool) -> Result<Self> {
        let size = source.compressed_size();
        let kind = Kind::of(source).ok_or_else(|| ParquetError::General("a type that is not transcoded".to_owned()))?;
        Ok(Self {
            kind,
            nullable,
            compressor: Compressor::new(codec)?,
            codec,
            descriptor: source.column_descr_ptr(),
            sink: TrackedWrite::new(Vec::with_capacity(usize::try_from(size + size / 16).unwrap_or(0))),
            uncompressed: 0,
            dictionary_offset: None,
            data_offset: None,
            encodings: vec![],
            column_index: ColumnIndexBuilder::new(source.column_descr().physical_type()),
            offset_index: OffsetIndexBuilder::new(),
            bounds: Bounds::default(),
            ascending: true,
            last: Bounds::default(),
            rows: 0,
            nulls: 0,
        })
    }

    fn dictionary(&mut self, values: &[Bytes]) -> Result<()> {
        let mut bytes = Vec::new();
        for value in values {
            if self.kind.width().is_none() {
                bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
            }
            bytes.extend_from_slice(value);
        }
        let (size, num_values) = (bytes.len(), u32::try_from(values.len()).unwrap_or(u32::MAX));
        let buf = self.compressor.compress(bytes)?.into();
        let page = Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        let (offset, _) = self.put(page, size)?;
        self.dictionary_offset = Some(offset);
        self.encodings.push(PageEncodingStats {
            page_type: PageType::DICTIONARY_PAGE,
            encoding: Encoding::PLAIN,
            count: 1,
        });
        Ok(())
    }

    /// Writes a page; `levels` are those of its rows, if one of them is null.
    fn page(
        &mut self,
        rows: usize,
        levels: Option<&[u32]>,
        values: &[u8],
        bounds: &Bounds,
        encoding: Encoding,
    ) -> Result<()> {
        let mut bytes = Vec::with_capacity(values.len() + 64);
        if self.nullable {
            let mut packed = Vec::new();
            match levels {
                Some(levels) => hybrid::encode(levels, 1, &mut packed),
                None => hybrid::encode(&vec![1; rows], 1, &mut packed),
            }
            bytes.extend_from_slice(&u32::try_from(packed.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(&packed);
        }
        bytes.extend_from_slice(values);
        let size = bytes.len();
        let page = Page::DataPage {
            buf: self.compressor.compress(bytes)?.into(),
            num_values: u32::try_from(rows).unwrap_or(u32::MAX),
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let (offset, length) = self.put(page, size)?;
        self.data_offset = self.data_offset.or(Some(offset));
        match self.encodings.last_mut().filter(|e| e.page_type == PageType::DATA_PAGE) {
            Some(pages) => pages.count += 1,
            None => self.encodings.push(PageEncodingStats { page_type: PageType::DATA_PAGE, encoding, count: 1 }),
        }
        let nulls = levels.map_or(0, |l| l.iter().filter(|l| **l == 0).count());
        self.offset_index.append_row_count(i64::try_from(rows).unwrap_or(i64::MAX));
        self.offset_index.append_offset_and_size(offset, length);
        let count = i64::try_from(nulls).unwrap_or(i64::MAX);
        match &bounds.0 {
            Some((min, max)) => {
                let (min, max) = (self.lower(min), self.upper(max));
                if let Some((least, greatest)) = &self.last.0 {
                    let less = |a: &[u8], b: &[u8]| self.kind.less(a, b);
                    self.ascending &= !less(&min, least) && !less(&max, greatest);
                }
                self.last = Bounds(Some((min.clone(), max.clone())));
                self.column_index.append(false, min, max, count);
            }
            None => self.column_index.append(true, vec![], vec![], count),
        }
        for value in bounds.0.iter().flat_map(|(min, max)| [min, max]) {
            self.bounds.widen(value, self.kind);
        }
        (self.rows, self.nulls) = (self.rows + rows, self.nulls + nulls);
        Ok(())
    }

    fn lower(&self, value: &[u8]) -> Vec<u8> {
        match self.kind {
            Kind::Bytes { text } => lower(value, text),
            _ => value.to_vec(),
        }
    }

    fn upper(&self, value: &[u8]) -> Vec<u8> {
        match self.kind {
            Kind::Bytes { text } => upper(value, text),
            _ => value.to_vec(),
        }
    }

    /// Writes a page; answers where it is, and its length with its header.
    fn put(&mut self, page: Page, uncompressed: usize) -> Result<(i64, i32)> {
        let spec = SerializedPageWriter::new(&mut self.sink).write_page(CompressedPage::new(page, uncompressed))?;
        self.uncompressed += spec.uncompressed_size;
        let number = |e: std::num::TryFromIntError| ParquetError::External(Box::new(e));
        Ok((i64::try_from(spec.offset).map_err(number)?, i32::try_from(spec.compressed_size).map_err(number)?))
    }

    fn statistics(&self) -> Statistics {
        let nulls = Some(self.nulls as u64);
        let bounds = self.bounds.0.as_ref();
        let ints = || bounds.map(|(min, max)| (integer(min), integer(max))).unzip();
        match self.kind {
            Kind::Int32 => {
                let (min, max): (Option<i64>, Option<i64>) = ints();
                Statistics::int32(min.map(|v| v as i32), max.map(|v| v as i32), None, nulls, false)
            }
            Kind::Int64 => {
                let (min, max) = ints();
                Statistics::int64(min, max, None, nulls, false)
            }
            Kind::Bytes { text } => {
                let (min, max) = bounds.map(|(min, max)| (lower(min, text), upper(max, text))).unzip();
                let exact = |cut: &Option<Vec<u8>>, whole: Option<&Vec<u8>>| cut.as_ref() == whole;
                let (min_exact, max_exact) = (exact(&min, bounds.map(|b| &b.0)), exact(&max, bounds.map(|b| &b.1)));
                let value = |v: Option<Vec<u8>>| v.map(ByteArray::from);
                let statistics = ValueStatistics::new(value(min), value(max), None, nulls, false);
                Statistics::ByteArray(statistics.with_min_is_exact(min_exact).with_max_is_exact(max_exact))
            }
        }
    }

    fn finish(mut self) -> Result<OwnChunk> {
        let statistics = self.statistics();
        let mut encodings: Vec<Encoding> = vec![Encoding::RLE];
        for page in &self.encodings {
            if !encodings.contains(&page.encoding) {
                encodings.push(page.encoding);
            }
        }
        let bytes: Bytes = self.sink.into_inner()?.into();
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let metadata = ColumnChunkMetaData::builder(self.descriptor)
            .set_compression(self.codec)
            .set_encodings(encodings)
            .set_page_encoding_stats(self.encodings)
            .set_num_values(number(self.rows))
            .set_total_compressed_size(number(bytes.len()))
            .set_total_uncompressed_size(number(self.uncompressed))
            .set_dictionary_page_offset(self.dictionary_offset)
            .set_data_page_offset(self.data_offset.unwrap_or(0))
            .set_statistics(statistics)
            .build()?;
        if self.ascending {
            self.column_index.set_boundary_order(BoundaryOrder::ASCENDING);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: Some(self.column_index.build()?),
            offset_index: Some(self.offset_index.build()),
        };
        Ok(OwnChunk { bytes, close })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_short_and_bounds() {
        let long = "é".repeat(50);
        for value in ["", "a", &"b".repeat(64), &"b".repeat(65), &long, &"\u{10ffff}".repeat(20)] {
            let (low, high) = (lower(value.as_bytes(), true), upper(value.as_bytes(), true));
            assert!(low.as_slice() <= value.as_bytes() && high.as_slice() >= value.as_bytes(), "{value}");
            assert!(std::str::from_utf8(&low).is_ok() && std::str::from_utf8(&high).is_ok(), "{value}");
            assert!(low.len() <= BOUND_BYTES && (high.len() <= BOUND_BYTES || high == value.as_bytes()));
        }
        assert_eq!(upper(&[0xff; 70], false), [0xff; 70]);
        assert_eq!(upper(&[[1; 63].as_slice(), &[0xff; 10]].concat(), false), [[1; 62].as_slice(), &[2]].concat());
    }

    #[test]
    fn edits_make_runs() {
        let edits = [(10, Edit::Remove), (11, Edit::Replace { batch: 0, row: 3 }), (14, Edit::Remove)];
        let runs = runs(6, 9, &edits, 0..0, &[]);
        assert_eq!(runs, [Run::Kept(0..1), Run::New(0, 3), Run::Kept(3..5)]);
    }
}
