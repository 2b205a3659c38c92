use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
use parquet::basic::LogicalType;
use parquet::schema::types::SchemaDescriptor;

/// The columns of a Parquet file that hold UUIDs, which a decoder gives as bytes. Those inside of nested columns stay bytes.
pub fn uuid_columns(parquet: &SchemaDescriptor) -> Vec<String> {
    let columns = parquet.columns().iter().filter(|c| c.path().parts().len() == 1 && c.max_rep_level() == 0);
    columns.filter(|c| c.logical_type_ref() == Some(&LogicalType::Uuid)).map(|c| c.name().to_owned()).collect()
}

/// The schema with these columns as text.
pub fn uuid_schema(schema: &SchemaRef, uuids: &[String]) -> SchemaRef {
    if uuids.is_empty() {
        return schema.clone();
    }
    let field = |f: &Arc<Field>| match uuids.contains(f.name()) {
        true if is_bytes(f.data_type()) => Arc::new(f.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => f.clone(),
    };
    let fields: Vec<_> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Rows with the UUIDs in these columns as text: `123e4567-e89b-12d3-a456-426614174000`.
///
/// # Errors
/// `Internal` for columns of other bytes.
pub fn uuid_texts(rows: RecordBatch, uuids: &[String]) -> Result<RecordBatch> {
    if uuids.is_empty() {
        return Ok(rows);
    }
    let schema = uuid_schema(&rows.schema(), uuids);
    let column = |(field, column): (&Arc<Field>, &ArrayRef)| match uuids.contains(field.name()) {
        true => texts(column),
        false => Ok(column.clone()),
    };
    let columns = rows.schema().fields().iter().zip(rows.columns()).map(column).collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema, columns).map_err(|e| Error::internal("UUIDs could not be made text").with_source(e))
}

fn is_bytes(t: &DataType) -> bool {
    matches!(t, DataType::FixedSizeBinary(_) | DataType::Binary)
}

fn texts(column: &ArrayRef) -> Result<ArrayRef> {
    let one = |bytes: Option<&[u8]>| match bytes.map(<[u8; 16]>::try_from) {
        None => Ok(None),
        Some(Ok(bytes)) => {
            let hex = format!("{:032x}", u128::from_be_bytes(bytes));
            Ok(Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")))
        }
        Some(Err(_)) => Err(Error::internal("a UUID has 16 bytes")),
    };
    let made: Result<StringArray> = match column.data_type() {
        DataType::FixedSizeBinary(_) => column.as_fixed_size_binary().iter().map(one).collect(),
        DataType::Binary => column.as_binary::<i32>().iter().map(one).collect(),
        // A decoder may have left them as they were written.
        _ => return Ok(column.clone()),
    };
    Ok(Arc::new(made?))
}
