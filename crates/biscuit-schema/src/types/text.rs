use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};

/// Returns the type in which CSV, JSON and similar formats are read before their values are converted to `t`. Scalars
/// are read as text, exactly as written, so that nothing is lost. Lists, structs and maps keep their structure. Types
/// for which `stay` returns true are not changed.
///
/// ```
/// use arrow::datatypes::{DataType, Field};
/// use biscuit_schema::internal::text_type;
///
/// let list = |item: DataType| DataType::List(Field::new("element", item, true).into());
/// assert_eq!(text_type(&list(DataType::Int64), &|_| false), list(DataType::Utf8));
/// ```
pub fn text_type(t: &DataType, stay: &dyn Fn(&DataType) -> bool) -> DataType {
    let field = |f: &Arc<Field>| {
        let text = text_type(f.data_type(), stay);
        Arc::new(f.as_ref().clone().with_data_type(text).with_nullable(true))
    };
    match t {
        t if stay(t) => t.clone(),
        DataType::List(item) => DataType::List(field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entry, sorted) => match entry.data_type() {
            DataType::Struct(kv) => {
                let key = Arc::new(Field::new(kv[0].name(), DataType::Utf8, false));
                let entries = DataType::Struct(Fields::from(vec![key, field(&kv[1])]));
                DataType::Map(Arc::new(entry.as_ref().clone().with_data_type(entries)), *sorted)
            }
            _ => t.clone(),
        },
        _ => DataType::Utf8,
    }
}
