//! Ranges of keys in row groups, from the statistics of Parquet files.

use biscuit_core::Result;
use biscuit_dataset::OpenFile;
use biscuit_merge::internal::{TupleEncoder, TuplePurpose};
use biscuit_rewrite::internal::has_sound_statistics;
use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use std::sync::Arc;

/// Lower and upper bound of the first key column in a row group, encoded; `None` if they are not known. A wrong bound
/// would hide rows: doubtful statistics count as unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyStatistics(Option<(Vec<u8>, Vec<u8>)>);

impl KeyStatistics {
    /// Returns bounds from encoded values.
    #[cfg(test)]
    pub(crate) fn between(range: Option<(Vec<u8>, Vec<u8>)>) -> Self {
        Self(range)
    }

    /// Reads the bounds of each row group. Truncated statistics are bounds, too.
    pub(crate) fn read_bounds(file: &OpenFile, column: &str) -> Result<Vec<Self>> {
        let metadata = file.metadata();
        let groups = metadata.metadata().row_groups();
        let unknown = || vec![Self(None); groups.len()];
        if !has_sound_statistics(file) {
            return Ok(unknown());
        }
        let converter = StatisticsConverter::try_new(column, metadata.schema(), metadata.parquet_schema());
        let Ok(converter) = converter else { return Ok(unknown()) };
        let (Ok(min), Ok(max)) = (converter.row_group_mins(groups), converter.row_group_maxes(groups)) else {
            return Ok(unknown());
        };
        // Engines disagree on the order of floats. Deprecated statistics do not define their order at all.
        if matches!(min.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64) {
            return Ok(unknown());
        }
        let leaf = converter.parquet_column_index();
        let deprecated = |g: usize| {
            let statistics = leaf.and_then(|leaf| groups[g].column(leaf).statistics());
            statistics.is_none_or(|s| s.is_min_max_deprecated())
        };
        let encoder = |values| -> Result<TupleEncoder> {
            let schema = Schema::new(vec![Field::new(column, min.data_type().clone(), true)]);
            let batch = RecordBatch::try_new(Arc::new(schema), vec![values]).map_err(|e| {
                biscuit_core::Error::internal("the bounds of row groups could not be read").with_source(e)
            })?;
            TupleEncoder::new(&batch, &[column.to_owned()], TuplePurpose::Key, &format!("`{}`", file.path()))
        };
        let (mins, maxes) = (encoder(min.clone())?, encoder(max)?);
        let encoded = |encoder: &TupleEncoder, g: usize| {
            let mut bytes = Vec::new();
            encoder.encode(g, &mut bytes).ok().map(|()| bytes)
        };
        let bounds = |g: usize| match (encoded(&mins, g), encoded(&maxes, g)) {
            (Some(min), Some(max)) if !deprecated(g) => Self(Some((min, max))),
            _ => Self(None),
        };
        Ok((0..groups.len()).map(bounds).collect())
    }

    /// Whether a row group may contain one of these keys, which are sorted by their bytes. The bounds are for the first
    /// column of a key, whose bytes are the beginning of the bytes of the key.
    pub(crate) fn may_contain<'k, K: Copy>(&self, sorted: &[K], bytes: impl Fn(K) -> &'k [u8]) -> bool {
        let Some((min, _)) = &self.0 else { return !sorted.is_empty() };
        let first = sorted.partition_point(|k| bytes(*k) < min.as_slice());
        sorted.get(first).is_some_and(|k| self.covers(bytes(*k)))
    }

    /// Whether a key may be within the bounds. The bytes of a key with several columns are longer than the bound of
    /// its first column, so a key that begins with the upper bound is within.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.0
            .as_ref()
            .is_none_or(|(min, max)| key >= min.as_slice() && (key <= max.as_slice() || key.starts_with(max)))
    }

    pub(crate) fn is_known(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn min(&self) -> Option<&[u8]> {
        self.0.as_ref().map(|(min, _)| min.as_slice())
    }

    pub(crate) fn max(&self) -> Option<&[u8]> {
        self.0.as_ref().map(|(_, max)| max.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(min: &str, max: &str) -> KeyStatistics {
        KeyStatistics(Some((min.as_bytes().to_vec(), max.as_bytes().to_vec())))
    }

    #[test]
    fn keys_outside_of_the_bounds_are_not_found() {
        let keys: Vec<&[u8]> = vec![b"b", b"d", b"d2", b"f"];
        for (min, max, may) in [
            ("a", "a", false),
            ("a", "b", true),
            ("c", "c", false),
            ("c", "d", true),
            ("d1", "d1", false),
            ("g", "z", false),
        ] {
            assert_eq!(bounds(min, max).may_contain(&keys, |k| k), may, "{min} to {max}");
        }
        // Further columns of a key follow the first one.
        assert!(bounds("c", "d").covers(b"d2") && !bounds("c", "d").covers(b"e"));
        assert!(KeyStatistics(None).may_contain(&keys, |k| k) && !KeyStatistics(None).may_contain(&[], |k| k));
    }
}
