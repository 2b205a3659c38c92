use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use biscuit_core::{Error, Result};
use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::page::PageReader;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue};
use parquet::schema::types::SchemaDescriptor;

use crate::parquet_files::pages::{unpacked_pages, values_of};
use crate::values::calendar::{has_legacy_int96, legacy_calendar};

/// The Julian day of 1900-01-01, from which on time zones are reckoned alike in the calendars of Spark 2 and Parquet.
const ALIKE: u32 = 2_415_021;

const NANOS_OF_A_DAY: u64 = 86_400_000_000_000;

/// The Arrow schema of a Parquet file with its INT96 timestamps in microseconds; none if it has none. A decoder reads them as nanoseconds without it,
/// in which times before 1677 and after 2262 become others: microseconds hold all that Spark writes, from year 1 to 9999. [`check_int96`]
/// finds what they do not hold.
///
/// `schema` is what the decoder makes of `parquet` without an embedded schema, column by column.
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

/// Refuses INT96 timestamps that would be read as other values: those with nanoseconds, those with a time of day beyond 24 hours, and those before 1900
/// in the calendar of Spark 2. The pages are scanned, since INT96 columns have no usable statistics.
///
/// `pages` are the pages of the column in a row group, or some of them; `metadata` is that of the file. Columns of other types and encrypted columns
/// are skipped.
///
/// # Errors
/// `PrecisionLoss`, `Overflow`, `LegacyCalendar`, `UnreadableParquet`.
pub fn check_int96(column: &ColumnChunkMetaData, pages: &Bytes, metadata: Option<&Vec<KeyValue>>) -> Result<()> {
    if column.column_type() != Type::INT96 || column.crypto_metadata().is_some() {
        return Ok(());
    }
    let name = column.column_path().string();
    let damaged =
        |reason: String| Error::data("UnreadableParquet", format!("the column `{name}` cannot be read: {reason}"));
    let is_legacy = has_legacy_int96(metadata);
    let mut pages = unpacked_pages(column, pages).map_err(damaged)?;
    while let Some(page) = pages.get_next_page().map_err(|e| damaged("it is damaged".to_owned()).with_source(e))? {
        // Other encodings hold indices into the dictionary, whose page was checked.
        if page.is_data_page() && page.encoding() != Encoding::PLAIN {
            continue;
        }
        for value in values_of(&page, column).as_chunks::<12>().0 {
            let (nanos, day) = value.split_at(8);
            let nanos = u64::from_le_bytes(nanos.try_into().unwrap_or_default());
            let day = u32::from_le_bytes(day.try_into().unwrap_or_default());
            if nanos >= NANOS_OF_A_DAY {
                let message = format!(
                    "column `{name}` contains INT96 timestamps whose time of day exceeds 24 hours, which an overflow in their writer leaves: write the column again as INT64 timestamps"
                );
                return Err(Error::data("Overflow", message).with_column(&name));
            }
            if !nanos.is_multiple_of(1_000) {
                let message = format!(
                    "column `{name}` contains INT96 timestamps with nanoseconds, and INT96 is read in microseconds: write the column again with microseconds, or as INT64 timestamps"
                );
                return Err(Error::data("PrecisionLoss", message).with_column(&name));
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
    fn int96_is_in_microseconds_wherever_it_is_and_nothing_else_is() {
        let message = "message m {
            optional int96 at;
            optional int64 exact (TIMESTAMP(NANOS, false));
            optional group s { optional int32 n; optional int96 at; }
            optional group l (LIST) { repeated group list { optional int96 element; } }
            optional group m (MAP) { repeated group key_value { required binary key (UTF8); optional int96 value; } }
            optional int96 last;
        }";
        let parquet = SchemaDescriptor::new(Arc::new(parse_message_type(message).expect("a schema")));
        let schema = parquet_to_arrow_schema(&parquet, None).expect("its Arrow form");
        let shown = int96_as_micros(&schema, &parquet).expect("it has INT96").to_string();
        assert_eq!((shown.matches("(µs)").count(), shown.matches("(ns)").count()), (5, 1), "{shown}");
        let plain = "message m { optional int64 n; }";
        let parquet = SchemaDescriptor::new(Arc::new(parse_message_type(plain).expect("a schema")));
        assert!(int96_as_micros(&schema, &parquet).is_none());
    }
}
