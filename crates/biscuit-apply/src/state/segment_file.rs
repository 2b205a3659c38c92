//! The file of a key segment: Parquet with one row for each entry, sorted by key.

use std::sync::Arc;

use biscuit_core::{Error, Result, catch_panic};
use biscuit_merge::internal::RecordOrder;
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;

use crate::state::key_metadata::{ExtraKeyMetadata, KeyMetadata, KeyTimeline, damaged_segment, unreadable_segment};

/// An encoded key and its metadata. An empty timeline means that nothing is remembered of the key any more; it hides
/// entries in older segments.
pub(crate) type SegmentEntry = (Arc<[u8]>, KeyTimeline);

/// One key segment.
#[derive(Debug)]
pub(super) struct KeySegment {
    pub(super) name: String,
    pub(super) bytes: Bytes,
    /// Options for reading, with the decryption keys of an encrypted segment.
    pub(super) options: ArrowReaderOptions,
}

impl KeySegment {
    pub(super) fn is_sealed(&self) -> bool {
        self.options.file_decryption_properties().is_some()
    }
}

/// Column with the number of the period, in segments of tables with periods.
const PERIOD: &str = "period";

/// Returns the schema of a segment.
fn schema(by_period: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("key", DataType::Binary, false),
        Field::new("row_order", DataType::Binary, true),
        Field::new("base_order", DataType::Binary, true),
        Field::new("details", DataType::Utf8, true),
    ];
    if by_period {
        fields.push(Field::new(PERIOD, DataType::Int64, true));
    }
    Arc::new(Schema::new(fields))
}

/// Returns the content of a segment. Entries must be sorted by key, so that row groups are found by their statistics.
pub(super) fn write(entries: &[SegmentEntry], seal: Option<Arc<FileEncryptionProperties>>) -> Result<Bytes> {
    let internal = |e| Error::internal("a segment could not be written").with_source(e);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(65_536));
    let properties = match seal {
        Some(seal) => properties.with_file_encryption_properties(seal).build(),
        None => properties.build(),
    };
    let mut out = Vec::new();
    let by_period = entries.iter().flat_map(|(_, timeline)| &timeline.0).any(|(period, _)| *period != 0);
    let mut writer = ArrowWriter::try_new(&mut out, schema(by_period), Some(properties)).map_err(internal)?;
    // A key without metadata needs a row, which hides older segments.
    let nothing: &[(i64, Option<KeyMetadata>)] = &[(0, None)];
    let lines = entries.iter().flat_map(|(key, timeline)| {
        let lines = if timeline.0.is_empty() { nothing } else { &timeline.0 };
        lines.iter().map(move |(period, kept)| (key, *period, kept))
    });
    let lines: Vec<_> = lines.collect();
    for chunk in lines.chunks(65_536) {
        let kept = |f: fn(&KeyMetadata) -> Option<&[u8]>| -> ArrayRef {
            Arc::new(chunk.iter().map(|(_, _, k)| k.as_ref().and_then(f)).collect::<BinaryArray>())
        };
        let extra = |k: &Option<KeyMetadata>| -> Result<Option<String>> {
            match k {
                Some(k) if !(k.extra.columns.is_empty() && k.extra.key_changes.is_empty()) => Ok(Some(
                    serde_json::to_string(&k.extra)
                        .map_err(|e| Error::internal("an entry could not be written").with_source(e))?,
                )),
                _ => Ok(None),
            }
        };
        let extras = chunk.iter().map(|(_, _, k)| extra(k)).collect::<Result<Vec<_>>>()?;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(chunk.iter().map(|(key, _, _)| Some(key.as_ref())).collect::<BinaryArray>()),
            kept(|k| k.live.as_ref().map(RecordOrder::bytes)),
            kept(|k| Some(k.base.bytes())),
            Arc::new(StringArray::from(extras)),
        ];
        if by_period {
            columns.push(Arc::new(Int64Array::from_iter_values(chunk.iter().map(|(_, period, _)| *period))));
        }
        let batch = RecordBatch::try_new(schema(by_period), columns)
            .map_err(|e| Error::internal("the columns of a segment could not be joined").with_source(e))?;
        writer.write(&batch).map_err(internal)?;
    }
    writer.close().map_err(internal)?;
    Ok(out.into())
}

/// Runs a decoder. A panic in it means that the segment is damaged.
fn run_decoder<T, E: std::error::Error + Send + Sync + 'static>(decoder: impl FnOnce() -> Result<T, E>) -> Result<T> {
    catch_panic(decoder).map_err(unreadable_segment)?.map_err(unreadable_segment)
}

/// Gets a key, a period, and the metadata of the key from this period on.
pub(super) type SegmentVisitor<'a> = dyn FnMut(&[u8], i64, Option<KeyMetadata>) + 'a;

/// Calls `each` with all entries of the row groups whose key range `wanted` selects. The entries of a key are
/// adjacent, in ascending order of periods.
pub(super) fn read(
    segment: &KeySegment,
    wanted: &dyn Fn(&[u8], &[u8]) -> bool,
    each: &mut SegmentVisitor<'_>,
) -> Result<()> {
    let (bytes, options) = (segment.bytes.clone(), segment.options.clone());
    let builder = run_decoder(|| ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options))?;
    let groups = builder.metadata().row_groups().iter().enumerate();
    let may = groups.filter(|(_, g)| match g.column(0).statistics() {
        Some(Statistics::ByteArray(s)) => match (s.min_opt(), s.max_opt()) {
            (Some(min), Some(max)) => wanted(min.data(), max.data()),
            _ => true,
        },
        _ => true,
    });
    let groups: Vec<usize> = may.map(|(i, _)| i).collect();
    let mut reader = run_decoder(|| builder.with_row_groups(groups).with_batch_size(8192).build())?;
    while let Some(batch) = run_decoder(|| reader.next().transpose())? {
        let column = |i: usize| batch.column(i).as_binary_opt::<i32>().ok_or_else(damaged_segment);
        let (keys, live, base) = (column(0)?, column(1)?, column(2)?);
        let extra = batch.column(3).as_string_opt::<i32>().ok_or_else(damaged_segment)?;
        let periods = batch.column_by_name(PERIOD).and_then(|c| c.as_primitive_opt::<Int64Type>());
        for row in 0..batch.num_rows() {
            let kept = if base.is_null(row) {
                None
            } else {
                let extra = if extra.is_valid(row) {
                    serde_json::from_str(extra.value(row)).map_err(unreadable_segment)?
                } else {
                    ExtraKeyMetadata::default()
                };
                let live = live.is_valid(row).then(|| RecordOrder::from_bytes(live.value(row)));
                Some(KeyMetadata { live, base: RecordOrder::from_bytes(base.value(row)), extra })
            };
            each(keys.value(row), periods.map_or(0, |s| s.value(row)), kept);
        }
    }
    Ok(())
}
