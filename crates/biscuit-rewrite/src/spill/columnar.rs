//! Columnar spill format: parts of batches that can be read alone or together.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, RecordBatchOptions, make_array};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use crate::spill::files::{SpillFiles, damaged_spill, spill_error};

/// Rows on disk, in parts that can be read alone or together with parts of other batches. Values are written from
/// their Arrow buffers and read into new ones, without an encoding in between.
///
/// A part is one contiguous piece of the file. For each column it has up to three lanes, in this order:
///
/// 1. validity: one byte for each row, only if the column of the batch has nulls;
/// 2. the values, or for types without a fixed width the length of each value (4 bytes, native byte order);
/// 3. the bytes of values without a fixed width.
#[derive(Debug)]
pub(crate) struct ColumnarSpill {
    spill: Arc<SpillFiles>,
    file: usize,
    schema: SchemaRef,
    /// For each column, whether it has nulls.
    nulls: Vec<bool>,
    /// Number of rows and offset of each part. `end` is the end of the last part.
    parts: Vec<(usize, u64)>,
    end: u64,
}

/// Layout of the values of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueLayout {
    /// A fixed number of bytes for each value.
    Fixed(usize),
    /// One byte for each value.
    Boolean,
    /// Text or binary values of any length.
    Bytes,
}

fn value_layout(t: &DataType) -> Option<ValueLayout> {
    match t {
        DataType::Boolean => Some(ValueLayout::Boolean),
        DataType::Utf8 | DataType::Binary => Some(ValueLayout::Bytes),
        t => t.primitive_width().map(ValueLayout::Fixed),
    }
}

/// Size in bytes at which collected lanes are written. It fits into the cache of a core: the operating system copies
/// it from there and not from main memory.
const AT_HAND: usize = 128 << 10;

impl ColumnarSpill {
    /// Writes rows to disk in parts with `counts` rows each, which must add up to all rows. Returns `None` if a
    /// column has a type without a layout, such as a nested one.
    ///
    /// # Errors
    /// `SpillFailed`.
    pub(crate) fn write(spill: &Arc<SpillFiles>, rows: &RecordBatch, counts: &[usize]) -> Result<Option<Arc<Self>>> {
        let columns: Option<Vec<ColumnWriter>> = rows.columns().iter().map(ColumnWriter::from_column).collect();
        let Some(columns) = columns else { return Ok(None) };
        let (file, mut at) = spill.reserve(columns.iter().map(ColumnWriter::bytes).sum::<usize>() as u64);
        let (mut parts, mut row, mut waiting) = (Vec::with_capacity(counts.len()), 0, Vec::new());
        for &count in counts {
            parts.push((count, at + waiting.len() as u64));
            columns.iter().for_each(|column| column.write_rows(row, count, &mut waiting));
            row += count;
            if waiting.len() >= AT_HAND {
                spill.file(file).write(&waiting, at)?;
                at += waiting.len() as u64;
                waiting.clear();
            }
        }
        spill.file(file).write(&waiting, at)?;
        let (nulls, end) = (columns.iter().map(|c| c.valid.is_some()).collect(), at + waiting.len() as u64);
        Ok(Some(Arc::new(Self { spill: spill.clone(), file, schema: rows.schema(), nulls, parts, end })))
    }

    /// Reads parts, which must have the same columns, into one batch.
    ///
    /// # Errors
    /// `SpillFailed`; `Internal` if columns differ or `parts` is empty.
    pub(crate) fn read(parts: &[(Arc<Self>, usize)]) -> Result<RecordBatch> {
        let Some((first, _)) = parts.first() else { return Err(Error::internal("there are no rows")) };
        if parts.iter().any(|(lanes, _)| lanes.schema != first.schema) {
            return Err(Error::internal("the parts have different columns"));
        }
        let rows = parts.iter().map(|(lanes, part)| lanes.parts[*part].0).sum();
        let nulls = |column: usize| parts.iter().any(|(lanes, _)| lanes.nulls[column]);
        let fields = first.schema.fields().iter().enumerate();
        let max_bytes = parts.iter().map(|(lanes, part)| lanes.bytes(*part)).sum();
        let columns = fields.map(|(at, field)| ColumnReader::new(field.data_type(), rows, nulls(at), max_bytes));
        let mut columns = columns.collect::<Result<Vec<_>>>()?;
        let mut piece = Vec::new();
        for (lanes, part) in parts {
            let (rows, at) = lanes.parts[*part];
            // One buffer is used for all parts, which is cheaper than to clear new memory for each.
            piece.resize(lanes.bytes(*part), 0);
            lanes.spill.file(lanes.file).read(&mut piece, at)?;
            let mut rest = piece.as_slice();
            for (column, has_nulls) in columns.iter_mut().zip(&lanes.nulls) {
                column.take_rows(&mut rest, rows, *has_nulls).ok_or_else(damaged_spill)?;
            }
        }
        let columns = columns.into_iter().map(ColumnReader::finish).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(first.schema.clone(), columns, &options).map_err(spill_error)
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns whether a column has a null in any part.
    pub(crate) fn has_null(&self, column: usize) -> bool {
        self.nulls[column]
    }

    /// Returns the size of a part in bytes.
    pub(crate) fn bytes(&self, part: usize) -> usize {
        let end = self.parts.get(part + 1).map_or(self.end, |next| next.1);
        usize::try_from(end - self.parts[part].1).unwrap_or(usize::MAX)
    }
}

/// A column that is being written.
struct ColumnWriter {
    form: ValueLayout,
    data: ArrayData,
    valid: Option<BooleanBuffer>,
}

impl ColumnWriter {
    fn from_column(column: &ArrayRef) -> Option<Self> {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        let valid = nulls.map(|nulls| nulls.inner().clone());
        Some(Self { form: value_layout(column.data_type())?, data: column.to_data(), valid })
    }

    /// Returns the offset of each text or binary value, and the end of the last one.
    fn offsets(&self) -> &[i32] {
        &self.data.buffers()[0].typed_data::<i32>()[self.data.offset()..=self.data.offset() + self.data.len()]
    }

    /// Returns the size of all lanes in bytes.
    fn bytes(&self) -> usize {
        let rows = self.data.len();
        let values = match self.form {
            ValueLayout::Fixed(width) => width * rows,
            ValueLayout::Boolean => rows,
            ValueLayout::Bytes => 4 * rows + span_length(self.offsets()),
        };
        values + if self.valid.is_some() { rows } else { 0 }
    }

    /// Appends the lanes of `count` rows from `row` on.
    fn write_rows(&self, row: usize, count: usize, out: &mut Vec<u8>) {
        if let Some(valid) = &self.valid {
            out.extend(valid.slice(row, count).iter().map(u8::from));
        }
        let (first, buffers) = (self.data.offset() + row, self.data.buffers());
        match self.form {
            ValueLayout::Fixed(width) => out.extend_from_slice(&buffers[0][first * width..(first + count) * width]),
            ValueLayout::Boolean => {
                let bits = BooleanBuffer::new(buffers[0].clone(), first, count);
                out.extend(bits.iter().map(u8::from));
            }
            ValueLayout::Bytes => {
                let offsets = &self.offsets()[row..=row + count];
                let at = out.len();
                out.resize(at + 4 * count, 0);
                for (bytes, pair) in out[at..].as_chunks_mut::<4>().0.iter_mut().zip(offsets.array_windows::<2>()) {
                    *bytes = (pair[1] - pair[0]).to_ne_bytes();
                }
                let start = usize::try_from(offsets[0]).unwrap_or(0);
                out.extend_from_slice(&buffers[1][start..start + span_length(offsets)]);
            }
        }
    }
}

/// Returns the number of bytes between the first and the last of these ascending offsets.
fn span_length(offsets: &[i32]) -> usize {
    let length = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| last - first);
    usize::try_from(length).unwrap_or(0)
}

/// A column that is being read.
struct ColumnReader {
    form: ValueLayout,
    data_type: DataType,
    valid: Option<Vec<u8>>,
    /// Values of a fixed width, or the bytes of values without one.
    values: Vec<u8>,
    /// Offsets of values without a fixed width, and the end of the last one.
    offsets: Vec<i32>,
    /// Expected number of rows, and maximum number of bytes.
    rows: usize,
    max_bytes: usize,
}

impl ColumnReader {
    fn new(t: &DataType, rows: usize, nulls: bool, max_bytes: usize) -> Result<Self> {
        let form = value_layout(t).ok_or_else(damaged_spill)?;
        let (width, offsets) = match form {
            ValueLayout::Fixed(width) => (width, vec![]),
            ValueLayout::Boolean => (1, vec![]),
            ValueLayout::Bytes => (0, Vec::with_capacity(rows + 1)),
        };
        let valid = nulls.then(|| Vec::with_capacity(rows));
        let values = Vec::with_capacity(rows * width);
        let mut column = Self { form, data_type: t.clone(), valid, values, offsets, rows, max_bytes };
        if form == ValueLayout::Bytes {
            column.offsets.push(0);
        }
        Ok(column)
    }

    /// Takes the lanes of `rows` rows from `piece`. Returns `None` if `piece` is too short.
    fn take_rows(&mut self, piece: &mut &[u8], rows: usize, has_nulls: bool) -> Option<()> {
        if has_nulls {
            let valid = piece.split_off(..rows)?;
            self.valid.as_mut()?.extend_from_slice(valid);
        } else if let Some(valid) = &mut self.valid {
            valid.resize(valid.len() + rows, 1);
        }
        let bytes = match self.form {
            ValueLayout::Fixed(width) => rows * width,
            ValueLayout::Boolean => rows,
            ValueLayout::Bytes => {
                let before = *self.offsets.last()?;
                let mut end = before;
                for length in piece.split_off(..4 * rows)?.as_chunks::<4>().0 {
                    end = end.checked_add(i32::from_ne_bytes(*length))?;
                    self.offsets.push(end);
                }
                usize::try_from(end - before).ok()?
            }
        };
        if self.values.capacity() == 0 {
            // Reserve memory for all rows, as if the other parts had values of the same average length.
            self.values.reserve((bytes.saturating_mul(self.rows) / rows.max(1)).min(self.max_bytes));
        }
        self.values.extend_from_slice(piece.split_off(..bytes)?);
        Some(())
    }

    fn finish(self) -> Result<ArrayRef> {
        let bits = |bytes: &[u8]| BooleanBuffer::collect_bool(bytes.len(), |row| bytes[row] != 0);
        let nulls = self.valid.map(|valid| NullBuffer::new(bits(&valid)));
        let data = ArrayData::builder(self.data_type).len(self.rows).nulls(nulls).align_buffers(true);
        let data = match self.form {
            ValueLayout::Fixed(_) => data.add_buffer(self.values.into()),
            ValueLayout::Boolean => data.add_buffer(bits(&self.values).into_inner()),
            ValueLayout::Bytes => data.add_buffer(Buffer::from_vec(self.offsets)).add_buffer(self.values.into()),
        };
        Ok(make_array(data.build().map_err(spill_error)?))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Int64Array, ListArray, StringArray, StructArray,
    };
    use datafusion::arrow::compute::concat_batches;
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;
    use crate::spill::buffered_rows::{BufferedRows, SpillFolder};

    /// Rows of all types with a layout. Every third value is null if `nulls` is set, except in `id`.
    fn rows(from: i64, nulls: bool) -> RecordBatch {
        let all = || (from..from + 100).map(move |i| (!nulls || i % 3 != 0).then_some(i));
        let text = |i: i64| "x".repeat(usize::try_from(i % 7).expect("the length is in range")) + &i.to_string();
        let decimals = Decimal128Array::from_iter(all().map(|i| i.map(|i| i128::from(i) << 70)));
        let columns: [(&str, ArrayRef); 6] = [
            ("id", Arc::new(Int64Array::from_iter_values(from..from + 100))),
            ("flag", Arc::new(all().map(|i| i.map(|i| i % 2 == 0)).collect::<BooleanArray>())),
            ("text", Arc::new(all().map(|i| i.map(text)).collect::<StringArray>())),
            ("bytes", Arc::new(all().map(|i| i.map(|i| i.to_be_bytes())).collect::<BinaryArray>())),
            ("day", Arc::new(all().map(|i| i.map(|i| i as i32)).collect::<Date32Array>())),
            ("amount", Arc::new(decimals.with_precision_and_scale(38, 2).expect("the precision is valid"))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
            .expect("the columns have the same length")
    }

    #[test]
    fn parts_of_several_batches_are_read_together() {
        let spill = SpillFolder::new().expect("the folder on the disk exists");
        // The batches include a slice, whose buffers begin at an offset. Some columns have nulls, and some do not.
        let batches = [rows(0, true), rows(200, false), rows(400, true).slice(7, 50)];
        let parts = [[10, 0, 40], [60, 30, 10], [0, 1, 49]];
        let mut written = Vec::new();
        for (batch, parts) in batches.iter().zip(&parts) {
            written.push(spill.write_parts(&batch.slice(0, parts.iter().sum()), parts).expect("it is written"));
        }
        for part in 0..3 {
            let of = |(batch, parts): (&RecordBatch, &[usize; 3])| batch.slice(parts[..part].iter().sum(), parts[part]);
            let want: Vec<RecordBatch> = batches.iter().zip(&parts).map(of).collect();
            let rows: Vec<BufferedRows> = written.iter().map(|parts| parts[part].clone()).collect();
            let together = concat_batches(&batches[0].schema(), &want).expect("the batches have one schema");
            assert_eq!(BufferedRows::concat(&rows).expect("the parts are read"), together);
            for (rows, want) in rows.iter().zip(&want) {
                assert_eq!((&rows.get().expect("the parts are read"), rows.len()), (want, want.num_rows()));
                assert_eq!(rows.memory_size() > 0, want.num_rows() > 0);
            }
        }
        assert!(written[0][0].has_null("text") && !written[1][0].has_null("text") && !written[0][0].has_null("id"));
    }

    #[test]
    fn parts_larger_than_the_write_buffer_are_read_back() {
        let spill = SpillFolder::new().expect("the folder on the disk exists");
        let texts: ArrayRef = Arc::new((0..1000).map(|i| Some("long ".repeat(i))).collect::<StringArray>());
        let rows = RecordBatch::try_from_iter([("text", texts)]).expect("the columns have the same length");
        let parts = spill.write_parts(&rows, &[1, 999]).expect("it is written");
        assert_eq!(BufferedRows::concat(&parts).expect("the parts are read"), rows);
    }

    #[test]
    fn types_without_a_layout_are_read_back() {
        let spill = SpillFolder::new().expect("the folder on the disk exists");
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>((0..30).map(|i| Some(vec![Some(i); 2])));
        let inner = rows(0, true).slice(0, 30);
        let columns: [(&str, ArrayRef); 2] =
            [("list", Arc::new(lists)), ("struct", Arc::new(StructArray::from(inner)))];
        let rows = RecordBatch::try_from_iter(columns).expect("the columns have the same length");
        let parts = spill.write_parts(&rows, &[10, 20]).expect("it is written");
        assert_eq!(parts[1].get().expect("the parts are read"), rows.slice(10, 20));
        assert_eq!(BufferedRows::concat(&parts).expect("the parts are read"), rows);
        assert!(BufferedRows::concat(&[]).is_err());
    }
}
