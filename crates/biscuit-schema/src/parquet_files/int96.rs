//! INT96 timestamps, the deprecated form that Spark and Impala wrote: 8 bytes of nanoseconds in the day, then 4 bytes
//! with the Julian day, both little-endian.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use biscuit_core::{Error, Result};
use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::page::PageReader;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue};
use parquet::schema::types::SchemaDescriptor;

use crate::codes;
use crate::parquet_files::pages::{unpacked_pages, values_of};
use crate::values::calendar::{has_legacy_int96, legacy_calendar};

/// Julian day of 1900-01-01. From this day on, Spark 2 and Parquet agree about the offsets of time zones.
const ALIKE: u32 = 2_415_021;

const NANOS_OF_A_DAY: u64 = 86_400_000_000_000;

/// Returns the Arrow schema of a Parquet file with its INT96 timestamps in microseconds, or `None` if the file has no
/// INT96 column. By default the decoder returns nanoseconds, which wrap for times before 1677 and after 2262.
/// Microseconds hold the whole range of Spark, from year 1 to 9999. [`check_int96`] finds the values that
/// microseconds do not hold.
///
/// `schema` is the schema that the decoder derives from `parquet` without an embedded Arrow schema; its leaves are in
/// the order of the Parquet columns.
pub fn int96_as_micros(schema: &Schema, parquet: &SchemaDescriptor) -> Option<SchemaRef> {
    let is_int96: Vec<bool> = parquet.columns().iter().map(|c| c.physical_type() == Type::INT96).collect();
    if !is_int96.contains(&true) {
        return None;
    }
    let mut leaf = 0;
    let fields: Vec<_> = schema.fields().iter().map(|f| in_micros(f, &is_int96, &mut leaf)).collect();
    Some(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

fn in_micros(field: &FieldRef, is_int96: &[bool], leaf: &mut usize) -> FieldRef {
    let t = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|f| in_micros(f, is_int96, leaf)).collect()),
        DataType::List(item) => DataType::List(in_micros(item, is_int96, leaf)),
        DataType::LargeList(item) => DataType::LargeList(in_micros(item, is_int96, leaf)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(in_micros(item, is_int96, leaf), *n),
        DataType::Map(entries, sorted) => DataType::Map(in_micros(entries, is_int96, leaf), *sorted),
        other => {
            // Each leaf takes the next Parquet column, in depth-first order.
            let at = std::mem::replace(leaf, *leaf + 1);
            match other {
                DataType::Timestamp(_, zone) if is_int96.get(at) == Some(&true) => {
                    DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
                }
                other => other.clone(),
            }
        }
    };
    Arc::new(Field::clone(field).with_data_type(t))
}

/// Refuses INT96 timestamps that would be read as other values: timestamps with nanoseconds, timestamps with a time
/// of day beyond 24 hours, and timestamps before 1900 in the calendar of Spark 2. The values are scanned, because
/// INT96 columns have no usable statistics.
///
/// `pages` contains all or some of the pages of the column in a row group. `metadata` is the key-value metadata of
/// the file. Columns of other types and encrypted columns are skipped.
///
/// # Errors
/// `PrecisionLoss`, `Overflow`, `LegacyCalendar`, `UnreadableParquet`.
pub fn check_int96(column: &ColumnChunkMetaData, pages: &Bytes, metadata: Option<&Vec<KeyValue>>) -> Result<()> {
    if column.column_type() != Type::INT96 || column.crypto_metadata().is_some() {
        return Ok(());
    }
    let name = column.column_path().string();
    let damaged =
        |reason: String| Error::new(codes::UNREADABLE_PARQUET, format!("cannot read the column `{name}`: {reason}"));
    let is_legacy = has_legacy_int96(metadata);
    let mut pages = unpacked_pages(column, pages).map_err(damaged)?;
    while let Some(page) = pages.get_next_page().map_err(|e| damaged("it is damaged".to_owned()).with_source(e))? {
        // Pages with other encodings contain indices into the dictionary, and the dictionary page itself was checked
        // before them.
        if page.is_data_page() && page.encoding() != Encoding::PLAIN {
            continue;
        }
        for value in values_of(&page, column).as_chunks::<12>().0 {
            // INT96 is 8 bytes with the nanoseconds in the day and 4 bytes with the Julian day.
            let (nanos, day) = value.split_at(8);
            let nanos = u64::from_le_bytes(nanos.try_into().unwrap_or_default());
            let day = u32::from_le_bytes(day.try_into().unwrap_or_default());
            if nanos >= NANOS_OF_A_DAY {
                let message = format!(
                    "column `{name}` contains INT96 timestamps whose time of day exceeds 24 hours, probably because of an overflow in their writer; write the column again as INT64 timestamps"
                );
                return Err(Error::new(codes::OVERFLOW, message).with_column(&name));
            }
            if !nanos.is_multiple_of(1_000) {
                let message = format!(
                    "column `{name}` contains INT96 timestamps with nanoseconds, but INT96 is read in microseconds; write the column again with microseconds, or as INT64 timestamps"
                );
                return Err(Error::new(codes::PRECISION_LOSS, message).with_column(&name));
            }
            if is_legacy && day < ALIKE {
                return Err(legacy_calendar(&name));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::arrow::parquet_to_arrow_schema;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    #[test]
    fn only_int96_columns_are_read_in_microseconds() {
        let message = "message m {
            optional int96 at;
            optional int64 exact (TIMESTAMP(NANOS, false));
            optional group s { optional int32 n; optional int96 at; }
            optional group l (LIST) { repeated group list { optional int96 element; } }
            optional group m (MAP) { repeated group key_value { required binary key (UTF8); optional int96 value; } }
            optional int96 last;
        }";
        let parquet = SchemaDescriptor::new(Arc::new(parse_message_type(message).expect("the message type is valid")));
        let schema = parquet_to_arrow_schema(&parquet, None).expect("the schema has an Arrow form");
        let shown = int96_as_micros(&schema, &parquet).expect("the schema has INT96 columns").to_string();
        assert_eq!((shown.matches("(µs)").count(), shown.matches("(ns)").count()), (5, 1), "{shown}");
        let plain = "message m { optional int64 n; }";
        let parquet = SchemaDescriptor::new(Arc::new(parse_message_type(plain).expect("the message type is valid")));
        assert!(int96_as_micros(&schema, &parquet).is_none());
    }
}
