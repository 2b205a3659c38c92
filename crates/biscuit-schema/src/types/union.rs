//! Schemas of several files or batches as one schema, and checks of column names.

use std::collections::HashMap;

use arrow::datatypes::{Field, Schema};
use biscuit_core::{Error, Result};

use crate::types::common::plain_type;
use crate::types::limits::check_size;
use crate::{codes, common_type, type_name};

/// Returns a schema that holds the rows of both schemas: the columns of `base` in their order, then the new columns
/// of `other`. Columns are matched by name and get the lossless common type. All columns are nullable, because a
/// column may be missing on either side. Messages name `other` by `what`.
///
/// ```
/// use arrow::datatypes::{DataType, Field, Schema};
/// use biscuit_schema::merge_schemas;
///
/// let of = |name: &str, t: DataType| Schema::new(vec![Field::new(name, t, true)]);
/// let both = merge_schemas(&of("n", DataType::Int32), &of("n", DataType::Int64), "`b.parquet`")?;
/// assert_eq!(both.field(0).data_type(), &DataType::Int64);
///
/// let e = merge_schemas(&of("n", DataType::Int64), &of("n", DataType::Utf8), "`b.parquet`").unwrap_err();
/// assert_eq!(e.code(), "NoCommonType");
/// let e = merge_schemas(&of("n", DataType::Int64), &of("N", DataType::Int64), "`b.parquet`").unwrap_err();
/// assert_eq!(e.code(), "ColumnCase");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
///
/// # Errors
/// `NoCommonType` for a column whose two types have no lossless common type, `ColumnCase` for two names that differ
/// only in letter case, and `DuplicateColumn` for a name that occurs twice.
pub fn merge_schemas(base: &Schema, other: &Schema, what: &str) -> Result<Schema> {
    check_names(other, what)?;
    let mut fields: Vec<Field> = base.fields().iter().map(|f| plain_field(f)).collect();
    for f in other.fields() {
        match fields.iter_mut().find(|g| g.name().eq_ignore_ascii_case(f.name())) {
            Some(g) if g.name() == f.name() => {
                let t = common_type(g.data_type(), f.data_type()).ok_or_else(|| no_common_type(g, f, what))?;
                *g = Field::new(g.name(), t, true);
            }
            Some(g) => return Err(column_case(g.name(), f.name(), what)),
            None => fields.push(plain_field(f)),
        }
    }
    Ok(Schema::new(fields))
}

fn plain_field(f: &Field) -> Field {
    Field::new(f.name(), plain_type(f.data_type()), true)
}

/// Checks that no column name occurs twice, that no two names differ only in letter case, and the limits of
/// [`check_size`].
///
/// # Errors
/// `DuplicateColumn`, `ColumnCase`, `TooManyColumns`, `TooDeep`.
pub fn check_names(schema: &Schema, what: &str) -> Result<()> {
    check_size(schema, what)?;
    // Engines such as Hive and Athena do not distinguish letter case, so names are compared in lower case.
    let mut seen: HashMap<String, &str> = HashMap::new();
    for f in schema.fields() {
        match seen.insert(f.name().to_lowercase(), f.name()) {
            Some(first) if first == f.name() => {
                let message = format!("column `{first}` occurs twice in {what}");
                return Err(Error::new(codes::DUPLICATE_COLUMN, message));
            }
            Some(first) => return Err(column_case(first, f.name(), what)),
            None => {}
        }
    }
    Ok(())
}

/// Returns the index of a required column.
///
/// # Errors
/// `MissingColumn`, which names the column and the existing columns.
pub fn column_index(schema: &Schema, name: &str, what: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let there: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Error::new(
            codes::MISSING_COLUMN,
            format!("{what} has no column `{name}`; its columns are {}", there.join(", ")),
        )
    })
}

fn no_common_type(a: &Field, b: &Field, what: &str) -> Error {
    let name = |f: &Field| type_name(f.data_type()).unwrap_or_else(|| f.data_type().to_string());
    let (x, y) = (name(a), name(b));
    Error::new(
        codes::NO_COMMON_TYPE,
        format!("column `{}` is {x} so far and {y} in {what}: no type holds the values of both without loss", a.name()),
    )
}

fn column_case(a: &str, b: &str, what: &str) -> Error {
    Error::new(codes::COLUMN_CASE, format!("columns `{a}` and `{b}` in {what} differ only in letter case"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), false)).collect::<Vec<_>>())
    }

    #[test]
    fn base_columns_keep_their_order_and_new_columns_follow() {
        let a = schema(&[("b", DataType::Int32), ("a", DataType::Utf8)]);
        let b = schema(&[("c", DataType::Date32), ("b", DataType::Int64)]);
        let m = merge_schemas(&a, &b, "x.parquet").unwrap();
        let got: Vec<_> = m.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
        assert_eq!(got, [("b", DataType::Int64), ("a", DataType::Utf8), ("c", DataType::Date32)]);
    }

    #[test]
    fn type_conflict_names_the_column_and_the_file() {
        let a = schema(&[("id", DataType::Int32)]);
        let e = merge_schemas(&a, &schema(&[("id", DataType::Utf8)]), "x.parquet").unwrap_err();
        assert_eq!(
            e.to_string(),
            "NoCommonType: column `id` is int so far and string in x.parquet: no type holds the values of both without loss"
        );
        assert_eq!(merge_schemas(&a, &schema(&[("ID", DataType::Int32)]), "x").unwrap_err().code(), "ColumnCase");
        let twice = schema(&[("v", DataType::Int32), ("v", DataType::Int32)]);
        assert_eq!(merge_schemas(&a, &twice, "x").unwrap_err().code(), "DuplicateColumn");
    }
}
