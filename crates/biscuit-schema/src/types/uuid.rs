//! UUIDs of Parquet files as text, also inside of structs, lists and maps.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray, MapArray, RecordBatch, RecordBatchOptions,
    StringArray, StructArray,
};
use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use biscuit_core::{Error, Result};
use parquet::basic::LogicalType;
use parquet::schema::types::SchemaDescriptor;

/// Positions of UUIDs, which decoders return as bytes. A position is a path: `id`, `person.id` for a struct field,
/// `ids.[]` for list items, `m.{key}` and `m.{value}` for keys and values of a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UuidColumns(BTreeSet<String>);

impl UuidColumns {
    /// Creates the positions from paths.
    pub fn at<S: Into<String>>(places: impl IntoIterator<Item = S>) -> Self {
        Self(places.into_iter().map(Into::into).collect())
    }

    /// Finds the UUIDs of a Parquet file. `schema` is the Arrow schema that the decoder derives from `parquet`.
    pub fn of_parquet(schema: &Schema, parquet: &SchemaDescriptor) -> Self {
        let is_uuid = |leaf: usize| parquet.column(leaf).logical_type_ref() == Some(&LogicalType::Uuid);
        // Leaves of the Arrow schema and columns of the Parquet schema have the same order (depth first), so a
        // counter matches them.
        let (mut all, mut leaf) = (Self::default(), 0);
        for field in schema.fields() {
            all.find_uuids(field.data_type(), field.name(), &mut |t| {
                leaf += 1;
                leaf <= parquet.num_columns() && is_uuid(leaf - 1) && is_bytes(t)
            });
        }
        all
    }

    fn find_uuids(&mut self, t: &DataType, place: &str, is_uuid: &mut dyn FnMut(&DataType) -> bool) {
        match t {
            DataType::Struct(fields) => {
                fields.iter().for_each(|f| self.find_uuids(f.data_type(), &format!("{place}.{}", f.name()), is_uuid));
            }
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                self.find_uuids(item.data_type(), &format!("{place}.[]"), is_uuid);
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(kv) = entries.data_type() else { return };
                for (field, part) in kv.iter().zip(["{key}", "{value}"]) {
                    self.find_uuids(field.data_type(), &format!("{place}.{part}"), is_uuid);
                }
            }
            other if is_uuid(other) => drop(self.0.insert(place.to_owned())),
            _ => {}
        }
    }

    /// Returns whether a UUID is at this path or below it.
    fn is_within(&self, place: &str) -> bool {
        let within = |own: &String| own == place || own.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'));
        self.0.iter().any(within)
    }

    /// Returns the schema with text as the type of the UUIDs.
    pub fn schema(&self, schema: &SchemaRef) -> SchemaRef {
        if self.0.is_empty() {
            return schema.clone();
        }
        let fields = schema.fields().iter().map(|f| self.mark_field(f, f.name()));
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
    }

    fn mark_field(&self, field: &FieldRef, place: &str) -> FieldRef {
        if !self.is_within(place) {
            return field.clone();
        }
        let t = match field.data_type() {
            DataType::Struct(fields) => {
                DataType::Struct(fields.iter().map(|f| self.mark_field(f, &format!("{place}.{}", f.name()))).collect())
            }
            DataType::List(item) => DataType::List(self.mark_field(item, &format!("{place}.[]"))),
            DataType::LargeList(item) => DataType::LargeList(self.mark_field(item, &format!("{place}.[]"))),
            DataType::FixedSizeList(item, n) => {
                DataType::FixedSizeList(self.mark_field(item, &format!("{place}.[]")), *n)
            }
            DataType::Map(entries, sorted) => {
                let DataType::Struct(kv) = entries.data_type() else { return field.clone() };
                let parts = kv.iter().zip(["{key}", "{value}"]);
                let parts = parts.map(|(f, part)| self.mark_field(f, &format!("{place}.{part}"))).collect();
                let entries = entries.as_ref().clone().with_data_type(DataType::Struct(parts));
                DataType::Map(Arc::new(entries), *sorted)
            }
            t if is_bytes(t) => DataType::Utf8,
            t => t.clone(),
        };
        Arc::new(field.as_ref().clone().with_data_type(t))
    }

    /// Converts the UUIDs of a batch to text, such as `123e4567-e89b-12d3-a456-426614174000`.
    ///
    /// # Errors
    /// `Internal` for a value that does not have 16 bytes.
    pub fn to_texts(&self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.0.is_empty() {
            return Ok(rows);
        }
        let schema = self.schema(&rows.schema());
        let columns = schema.fields().iter().zip(rows.columns()).map(|(f, c)| as_text(c, f.data_type()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(schema, columns, &options).map_err(internal_error)
    }
}

fn internal_error(e: ArrowError) -> Error {
    Error::internal("cannot convert UUIDs to text").with_source(e)
}

/// Converts bytes to UUID text wherever `t` has text, also in nested arrays.
fn as_text(array: &ArrayRef, t: &DataType) -> Result<ArrayRef> {
    if array.data_type() == t {
        return Ok(array.clone());
    }
    let children = |fields: &Fields, array: &StructArray| {
        let columns = fields.iter().zip(array.columns()).map(|(f, c)| as_text(c, f.data_type()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())
            .map_err(internal_error)
    };
    Ok(match t {
        DataType::Struct(fields) => Arc::new(children(fields, array.as_struct())?),
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let values = as_text(list.values(), item.data_type())?;
            let made = ListArray::try_new(item.clone(), list.offsets().clone(), values, list.nulls().cloned());
            Arc::new(made.map_err(internal_error)?)
        }
        DataType::LargeList(item) => {
            let list = array.as_list::<i64>();
            let values = as_text(list.values(), item.data_type())?;
            let made = LargeListArray::try_new(item.clone(), list.offsets().clone(), values, list.nulls().cloned());
            Arc::new(made.map_err(internal_error)?)
        }
        DataType::FixedSizeList(item, n) => {
            let list = array.as_fixed_size_list();
            let values = as_text(list.values(), item.data_type())?;
            let made = FixedSizeListArray::try_new(item.clone(), *n, values, list.nulls().cloned());
            Arc::new(made.map_err(internal_error)?)
        }
        DataType::Map(entries, sorted) => {
            let (map, DataType::Struct(fields)) = (array.as_map(), entries.data_type()) else {
                return Ok(array.clone());
            };
            let made = children(fields, map.entries())?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(entries.clone(), offsets, made, nulls, *sorted).map_err(internal_error)?)
        }
        _ => uuid_texts(array)?,
    })
}

fn is_bytes(t: &DataType) -> bool {
    matches!(t, DataType::FixedSizeBinary(_) | DataType::Binary)
}

fn uuid_texts(column: &ArrayRef) -> Result<ArrayRef> {
    let one = |bytes: Option<&[u8]>| match bytes.map(<[u8; 16]>::try_from) {
        None => Ok(None),
        Some(Ok(bytes)) => {
            let hex = format!("{:032x}", u128::from_be_bytes(bytes));
            Ok(Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")))
        }
        Some(Err(_)) => Err(Error::internal("a value of a UUID column does not have 16 bytes")),
    };
    let made: Result<StringArray> = match column.data_type() {
        DataType::FixedSizeBinary(_) => column.as_fixed_size_binary().iter().map(one).collect(),
        DataType::Binary => column.as_binary::<i32>().iter().map(one).collect(),
        // The decoder may already return text, if the Arrow schema of the file declares text.
        _ => return Ok(column.clone()),
    };
    Ok(Arc::new(made?))
}
