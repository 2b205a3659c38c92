use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use parquet::basic::Type;
use parquet::schema::types::SchemaDescriptor;

/// The Arrow schema of a Parquet file with its INT96 timestamps in microseconds; none if it has none. A decoder reads them as nanoseconds without it,
/// in which times before 1677 and after 2262 become others: microseconds hold all that Spark writes, from year 1 to 9999. What is below a microsecond
/// is cut off.
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
