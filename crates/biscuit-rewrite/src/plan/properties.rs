//! Writer properties of a new file, derived from its sources: codec, dictionaries, encodings, bloom filters, sorting
//! columns and key-value metadata. Options of the caller take precedence.

use std::collections::BTreeMap;

use biscuit_dataset::{OpenFile, ParquetOptions};
use biscuit_schema::internal::has_legacy_calendar;
use datafusion::arrow::datatypes::DataType;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, parquet_to_arrow_schema};
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::{KeyValue, RowGroupMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// Whether the new file has exactly the columns of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnFidelity {
    Same,
    Other,
}

/// Source of the bloom filters of encoded row groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BloomFilterPolicy {
    /// The encoder builds them from the rows.
    Made,
    /// They are carried over from the source, and new values are added.
    Carried,
}

/// Keys of metadata that describes columns. It would contradict a new file with other columns.
const DESCRIBES_COLUMNS: &[&str] = &[
    "ARROW:schema",
    "pandas",
    "org.apache.spark.sql.parquet.row.metadata",
    "parquet.avro.schema",
    "avro.schema",
    "iceberg.schema",
    "geo",
];

/// Properties of one column, collected from all sources.
#[derive(Default)]
struct SourceColumn {
    compression: Option<Compression>,
    dictionary: bool,
    encoding: Option<Encoding>,
    bloom: bool,
}

/// Derives the properties of a new file from its sources: for each column codec, dictionary, encoding and bloom
/// filter; for the file row group size, sorting columns and key-value metadata. `options` take precedence.
pub(crate) fn derive_properties(
    sources: &[OpenFile],
    options: &ParquetOptions,
    columns: ColumnFidelity,
    blooms: BloomFilterPolicy,
) -> WriterPropertiesBuilder {
    let mut builder = options.writer_properties().set_statistics_enabled(EnabledStatistics::Page);
    if options.row_group_rows.is_none() {
        let rows = usize::try_from(crate::plan::choice::default_rows(sources)).unwrap_or(usize::MAX);
        builder = builder.set_max_row_group_row_count(Some(rows));
    }
    let mut found: BTreeMap<&[String], SourceColumn> = BTreeMap::new();
    for chunk in row_groups(sources).flat_map(|g| g.columns()) {
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
        // The encoding of the source may not exist for another type.
        if let (false, ColumnFidelity::Same, Some(encoding)) = (column.dictionary, columns, column.encoding) {
            builder = builder.set_column_encoding(path.clone(), encoding);
        }
        if blooms == BloomFilterPolicy::Made && column.bloom {
            builder = builder.set_column_bloom_filter_enabled(path, true);
        }
    }
    if columns == ColumnFidelity::Same {
        builder = builder.set_sorting_columns(common_sorting(sources));
    }
    builder.set_key_value_metadata(key_values(sources, columns))
}

fn row_groups(sources: &[OpenFile]) -> impl Iterator<Item = &RowGroupMetaData> {
    sources.iter().flat_map(|s| s.metadata().metadata().row_groups())
}

/// Returns the key-value metadata that is the same in all sources.
fn key_values(sources: &[OpenFile], columns: ColumnFidelity) -> Option<Vec<KeyValue>> {
    let of = |s: &OpenFile| s.metadata().metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let (first, others) = sources.split_first()?;
    let others: Vec<Vec<KeyValue>> = others.iter().map(of).collect();
    let mut kept = of(first);
    kept.retain(|kv| others.iter().all(|o| o.contains(kv)));
    kept.retain(|kv| columns == ColumnFidelity::Same || !DESCRIBES_COLUMNS.contains(&kv.key.as_str()));
    // The embedded Arrow schema may declare lists of a fixed size, and new rows may have lists of other lengths.
    let fixed_size = sources.iter().any(has_fixed_size_lists);
    kept.retain(|kv| !(fixed_size && kv.key == ARROW_SCHEMA_META_KEY));
    // New rows are in the proleptic Gregorian calendar of Parquet. So are the old ones: files with values that differ
    // in the calendar of Spark 2 are refused. The marks of Spark 2 must not be carried over.
    if sources.iter().any(|s| has_legacy_calendar(s.metadata().metadata().file_metadata().key_value_metadata())) {
        kept.retain(|kv| !kv.key.starts_with("org.apache.spark."));
    }
    (!kept.is_empty()).then_some(kept)
}

/// Returns whether the embedded Arrow schema of a file declares lists of a fixed size.
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

/// Returns the encoding of a column without a dictionary, if it is not plain.
fn own_encoding(encodings: impl Iterator<Item = Encoding>) -> Option<Encoding> {
    let special = [
        Encoding::DELTA_BINARY_PACKED,
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
        Encoding::DELTA_BYTE_ARRAY,
        Encoding::BYTE_STREAM_SPLIT,
    ];
    encodings.into_iter().find(|e| special.contains(e))
}

/// Returns the sorting columns that all row groups declare. Returns `None` if they differ, or if there are nested
/// columns: then the indices of leaves are not those of columns.
pub(crate) fn common_sorting(sources: &[OpenFile]) -> Option<Vec<SortingColumn>> {
    let first = row_groups(sources).next()?.sorting_columns().filter(|s| !s.is_empty())?;
    let agree = row_groups(sources).all(|g| g.sorting_columns() == Some(first));
    let flat = row_groups(sources).flat_map(|g| g.columns()).all(|c| c.column_path().parts().len() == 1);
    (agree && flat).then(|| first.clone())
}
