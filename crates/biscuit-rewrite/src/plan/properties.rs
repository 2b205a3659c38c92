use std::collections::BTreeMap;

use biscuit_dataset::{OpenFile, ParquetOptions};
use biscuit_schema::has_legacy_calendar;
use datafusion::arrow::datatypes::DataType;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, parquet_to_arrow_schema};
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::{KeyValue, RowGroupMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// Whether the new file has the columns of the source to the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnFidelity {
    Same,
    Other,
}

/// What becomes of the bloom filters of encoded row groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BloomFilterPolicy {
    /// They are made while rows are encoded.
    Made,
    /// They are carried over from the source.
    Carried,
}

/// What describes columns that may have changed, and would contradict the new file.
const DESCRIBES_COLUMNS: &[&str] = &[
    "ARROW:schema",
    "pandas",
    "org.apache.spark.sql.parquet.row.metadata",
    "parquet.avro.schema",
    "avro.schema",
    "iceberg.schema",
    "geo",
];

/// What the sources say of one column.
#[derive(Default)]
struct SourceColumn {
    compression: Option<Compression>,
    dictionary: bool,
    encoding: Option<Encoding>,
    bloom: bool,
}

/// Properties that follow files, column by column: codec, dictionary, encoding, bloom filters; their row group size, sorting
/// columns and key-value metadata. What is chosen in `options` goes before.
pub(crate) fn following(
    sources: &[OpenFile],
    options: &ParquetOptions,
    columns: ColumnFidelity,
    blooms: BloomFilterPolicy,
) -> WriterPropertiesBuilder {
    let mut builder = options.properties().set_statistics_enabled(EnabledStatistics::Page);
    if options.row_group_rows.is_none() {
        let rows = usize::try_from(crate::plan::choice::default_rows(sources)).unwrap_or(usize::MAX);
        builder = builder.set_max_row_group_row_count(Some(rows));
    }
    let mut found: BTreeMap<&[String], SourceColumn> = BTreeMap::new();
    for chunk in groups(sources).flat_map(|g| g.columns()) {
        let column = found.entry(chunk.column_path().parts()).or_default();
        column.compression = column.compression.or(Some(chunk.compression()));
        column.dictionary |= chunk.dictionary_page_offset().is_some();
        column.encoding = column.encoding.or_else(|| own_encoding(chunk.encodings()));
        column.bloom |= chunk.bloom_filter_offset().is_some();
    }
    for (path, column) in found {
        let path = ColumnPath::new(path.to_vec());
        if let (None, Some(codec)) = (options.compression, column.compression) {
            builder = builder.set_column_compression(path.clone(), codec);
        }
        builder = builder.set_column_dictionary_enabled(path.clone(), column.dictionary);
        // In other types the encoding may not be possible.
        if let (false, ColumnFidelity::Same, Some(encoding)) = (column.dictionary, columns, column.encoding) {
            builder = builder.set_column_encoding(path.clone(), encoding);
        }
        if blooms == BloomFilterPolicy::Made && column.bloom {
            builder = builder.set_column_bloom_filter_enabled(path, true);
        }
    }
    if columns == ColumnFidelity::Same {
        builder = builder.set_sorting_columns(sorting(sources));
    }
    builder.set_key_value_metadata(key_values(sources, columns))
}

fn groups(sources: &[OpenFile]) -> impl Iterator<Item = &RowGroupMetaData> {
    sources.iter().flat_map(|s| s.metadata().metadata().row_groups())
}

/// What all sources say alike.
fn key_values(sources: &[OpenFile], columns: ColumnFidelity) -> Option<Vec<KeyValue>> {
    let of = |s: &OpenFile| s.metadata().metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let (first, others) = sources.split_first()?;
    let others: Vec<Vec<KeyValue>> = others.iter().map(of).collect();
    let mut kept = of(first);
    kept.retain(|kv| others.iter().all(|o| o.contains(kv)));
    kept.retain(|kv| columns == ColumnFidelity::Same || !DESCRIBES_COLUMNS.contains(&kv.key.as_str()));
    // New rows may have lists of other lengths. They are in Parquet's calendar, as are the old rows: those that differ in Spark 2's were refused.
    let fixed_size = sources.iter().any(has_fixed_size_lists);
    kept.retain(|kv| !(fixed_size && kv.key == ARROW_SCHEMA_META_KEY));
    if sources.iter().any(|s| has_legacy_calendar(s.metadata().metadata().file_metadata().key_value_metadata())) {
        kept.retain(|kv| !kv.key.starts_with("org.apache.spark."));
    }
    (!kept.is_empty()).then_some(kept)
}

/// Whether the embedded Arrow schema of a file declares lists of a fixed size.
fn has_fixed_size_lists(file: &OpenFile) -> bool {
    fn within(t: &DataType) -> bool {
        match t {
            DataType::FixedSizeList(..) => true,
            DataType::List(f) | DataType::LargeList(f) | DataType::Map(f, _) => within(f.data_type()),
            DataType::Struct(fields) => fields.iter().any(|f| within(f.data_type())),
            _ => false,
        }
    }
    let footer = file.metadata().metadata().file_metadata();
    let schema = parquet_to_arrow_schema(footer.schema_descr(), footer.key_value_metadata());
    schema.is_ok_and(|schema| schema.fields().iter().any(|f| within(f.data_type())))
}

/// The encoding of a column that has no dictionary, where it is another than plain.
fn own_encoding(encodings: impl Iterator<Item = Encoding>) -> Option<Encoding> {
    let special = [
        Encoding::DELTA_BINARY_PACKED,
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
        Encoding::DELTA_BYTE_ARRAY,
        Encoding::BYTE_STREAM_SPLIT,
    ];
    encodings.into_iter().find(|e| special.contains(e))
}

/// The columns by which every row group says it is sorted; none if they do not agree, or if there are nested columns: then
/// the numbers of leaves are not those of columns.
pub(crate) fn sorting(sources: &[OpenFile]) -> Option<Vec<SortingColumn>> {
    let first = groups(sources).next()?.sorting_columns().filter(|s| !s.is_empty())?;
    let agree = groups(sources).all(|g| g.sorting_columns() == Some(first));
    let flat = groups(sources).flat_map(|g| g.columns()).all(|c| c.column_path().parts().len() == 1);
    (agree && flat).then(|| first.clone())
}
