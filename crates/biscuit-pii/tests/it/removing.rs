//! Removal of columns and of fields in them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int32Array, Int32Builder, ListArray, MapBuilder, MapFieldNames, RecordBatch, StringArray,
    StringBuilder, StructArray, StructBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::util::pretty::pretty_format_batches;
use biscuit_pii::remove_columns;

fn person() -> StructArray {
    let fields = Fields::from(vec![
        Field::new("name", DataType::Utf8, true).with_metadata(HashMap::from([("k".to_owned(), "v".to_owned())])),
        Field::new("age", DataType::Int32, true),
    ]);
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("Ada"), None, Some("Bob")]));
    let ages: ArrayRef = Arc::new(Int32Array::from(vec![36, 7, 40]));
    StructArray::new(fields, vec![names, ages], Some(NullBuffer::from(vec![true, false, true])))
}

fn rows() -> RecordBatch {
    let person = person();
    let item = Arc::new(Field::new("item", person.data_type().clone(), true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1]), Arc::new(person.clone()), None);
    let fields = Fields::from(vec![Field::new("name", DataType::Utf8, true), Field::new("age", DataType::Int32, true)]);
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut map = MapBuilder::new(Some(names), StringBuilder::new(), StructBuilder::from_fields(fields, 3));
    for age in [36, 7, 40] {
        map.keys().append_value("k");
        map.values().field_builder::<StringBuilder>(0).expect("the builder is for texts").append_value("secret");
        map.values().field_builder::<Int32Builder>(1).expect("the builder is for numbers").append_value(age);
        map.values().append(true);
        map.append(true).expect("there are as many keys as values");
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int32Array::from(vec![1, 2, 3])), Arc::new(person), Arc::new(list), Arc::new(map.finish())];
    let names = ["id", "person", "friends", "notes"];
    let fields: Vec<Field> =
        names.iter().zip(&columns).map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Schema::new_with_metadata(fields, HashMap::from([("made".to_owned(), "here".to_owned())]));
    RecordBatch::try_new(Arc::new(schema), columns).expect("the rows are readable")
}

fn shown(rows: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(rows)).expect("the rows are readable").to_string()
}

#[test]
fn fields_are_removed_from_nested_columns_and_the_rest_remains() {
    let left = remove_columns(&rows(), &["person.name", "friends.name", "notes.name"]).unwrap();
    let said = shown(&left);
    for secret in ["Ada", "Bob", "secret", "name"] {
        assert!(!said.contains(secret), "{said}");
    }
    assert_eq!(said.matches("age: 36").count(), 3, "{said}");
    assert_eq!((left.num_rows(), left.schema().metadata().len()), (3, 1));
    assert!(left.column(1).is_null(1), "nulls remain");
    let sliced = remove_columns(&rows().slice(1, 2), &["person.name", "friends.name", "notes.name"]).unwrap();
    assert_eq!(sliced, left.slice(1, 2));
    let whole = remove_columns(&rows(), &["person", "notes"]).unwrap();
    assert_eq!(whole.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["id", "friends"]);
    assert_eq!(whole.column(1).as_ref(), rows().column(2).as_ref());
}

#[test]
fn columns_without_fields_are_removed_and_rows_without_columns_remain() {
    let left = remove_columns(&rows(), &["person.name", "person.age", "friends.age", "friends.name"]).unwrap();
    assert_eq!(left.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["id", "notes"]);
    let none = remove_columns(&rows(), &["id", "person", "friends", "notes"]).unwrap();
    assert_eq!((none.num_rows(), none.num_columns()), (3, 0));
    assert_eq!(remove_columns(&rows(), &[] as &[&str]).unwrap(), rows());
}

#[test]
fn missing_path_is_an_error() {
    for (path, said) in [
        ("persn", "the columns are id, person"),
        ("person.nam", "the columns are name, age"),
        ("id.x", "has no fields"),
    ] {
        let e = remove_columns(&rows(), &["person.name", path]).unwrap_err();
        assert_eq!(e.code(), "UnknownColumn", "{path}");
        assert!(e.message().contains(said), "{e}");
    }
}
