//! Merges into external files: no value of such a file changes its meaning, or the merge is refused.

use std::sync::Arc;

use biscuit_dataset::Dataset;
use biscuit_testkit::{assert_rows_eq, table};
use datafusion::arrow::array::{ArrayRef, Date32Array, FixedSizeListArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::data_type::{Int64Type as Long, Int96, Int96Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::lake;

/// Rows with a key, an order and an INT96 timestamp of Spark, each in its own row group.
fn int96(rows: &[(i64, u32, u32)], version: &str) -> Vec<u8> {
    let schema = "message m { required int64 id; required int64 seq; required int96 v; }";
    let schema = Arc::new(parse_message_type(schema).expect("the schema is valid"));
    let mark = KeyValue::new("org.apache.spark.version".to_owned(), version.to_owned());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![mark])).build();
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).expect("the writer is created");
    for (id, day, nanos) in rows {
        let mut group = writer.next_row_group().expect("the row group is open");
        for number in [*id, 1] {
            let mut column = group.next_column().expect("there is a next column").expect("there is a column");
            column.typed::<Long>().write_batch(&[number], None, None).expect("the numbers are written");
            column.close().expect("the column is closed");
        }
        let mut column = group.next_column().expect("there is a next column").expect("there is a column");
        column
            .typed::<Int96Type>()
            .write_batch(&[Int96::from(vec![*nanos, 0, *day])], None, None)
            .expect("the times are written");
        column.close().expect("the column is closed");
        group.close().expect("the row group is closed");
    }
    writer.close().expect("the footer is written");
    bytes
}

async fn put(storage: &biscuit_journal::TableStorage, bytes: Vec<u8>) {
    storage.store.put(&Path::from("lake/t/part-0.parquet"), bytes.into()).await.expect("the put succeeds");
}

async fn keys(dataset: &Dataset) -> Vec<KeyValue> {
    let view = dataset.view().await.expect("the table can be read");
    let files = view.open_files().await.expect("the files are opened");
    let of = |file: &biscuit_dataset::OpenFile| {
        file.metadata().metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default()
    };
    files.iter().flat_map(of).collect()
}

#[tokio::test]
async fn merge_into_a_file_with_timestamps_that_cannot_be_preserved_is_refused() {
    let today = 2_460_370;
    for (other, version, code) in
        [((today, 789), "3.5.1", "PrecisionLoss"), ((2_086_303, 0), "2.4.5", "LegacyCalendar")]
    {
        let storage = lake::memory();
        put(&storage, int96(&[(1, other.0, other.1), (2, today, 0)], version)).await;
        let before = lake::objects(&*storage.store).await;
        let dataset = lake::dataset(storage.clone());
        // Another row, in another row group.
        let line = r#"{"id":2,"seq":2,"v":"2024-05-05T00:00:00","op":"u"}"#;
        let e = lake::merge(&dataset, &lake::spec(), line).await.map(drop).unwrap_err();
        assert_eq!((e.code(), e.column(), e.file()), (code, Some("v"), Some("part-0.parquet")), "{e}");
        let after = lake::objects(&*storage.store).await;
        assert!(before.iter().all(|object| after.contains(object)), "nothing is replaced");
    }
}

#[tokio::test]
async fn rewritten_file_uses_the_calendar_of_parquet() {
    let storage = lake::memory();
    let (ids, seqs): (ArrayRef, ArrayRef) = (Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![1])));
    let days: ArrayRef = Arc::new(Date32Array::from(vec![19_782]));
    let rows = RecordBatch::try_from_iter([("id", ids), ("seq", seqs), ("v", days)]).expect("the batch is valid");
    let mark = KeyValue::new("org.apache.spark.version".to_owned(), "2.4.5".to_owned());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![mark])).build();
    let mut writer = ArrowWriter::try_new(vec![], rows.schema(), Some(properties)).expect("the writer is created");
    writer.write(&rows).expect("the rows are written");
    put(&storage, writer.into_inner().expect("the file is complete")).await;
    let dataset = lake::dataset(storage);
    lake::merge(&dataset, &lake::spec(), r#"{"id":3,"seq":2,"v":"0001-01-01","op":"c"}"#)
        .await
        .expect("the merge of an early date succeeds");
    lake::merge(&dataset, &lake::spec(), r#"{"id":1,"seq":2,"v":"0001-01-02","op":"u"}"#)
        .await
        .expect("another merge succeeds");
    let want = table("id:bigint | seq:bigint | v:date\n1 | 2 | 0001-01-02\n3 | 2 | 0001-01-01");
    assert_rows_eq!(lake::rows(&dataset).await, want);
    assert!(keys(&dataset).await.iter().all(|kv| !kv.key.starts_with("org.apache.spark")));
}

#[tokio::test]
async fn lists_of_fixed_size_become_lists_of_any_size() {
    let storage = lake::memory();
    let (ids, seqs): (ArrayRef, ArrayRef) = (Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![1])));
    let pairs = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), Some(2)])], 2);
    let rows = RecordBatch::try_from_iter([("id", ids), ("seq", seqs), ("v", Arc::new(pairs) as ArrayRef)]);
    lake::put_external(&storage, "lake/t/part-0.parquet", &rows.expect("the rows are one batch")).await;
    let dataset = lake::dataset(storage);
    lake::merge(&dataset, &lake::spec(), r#"{"id":1,"seq":2,"v":[1,2,3],"op":"u"}"#)
        .await
        .expect("the third merge succeeds");
    assert!(keys(&dataset).await.iter().all(|kv| kv.key != "ARROW:schema"), "no reader is told that there are two");
    assert_eq!(lake::count(&lake::rows(&dataset).await), 1);
}

#[tokio::test]
async fn struct_fields_may_have_any_name() {
    let storage = lake::memory();
    for (n, name) in ["first name", "a.b", "@t", "a,b", "a:b", "a>b", "a`b"].into_iter().enumerate() {
        let place = format!("lake/t{n}");
        let location = biscuit_dataset::Location::new(storage.clone(), &place, &place).expect("the place is valid");
        let dataset = Dataset::new(location, biscuit_journal::JournalOptions::default());
        for seq in 1..4 {
            let name = serde_json::Value::from(name);
            let line = format!(r#"{{"id":{seq},"seq":{seq},"v":{{{name}:{seq}}},"op":"c"}}"#);
            lake::merge(&dataset, &lake::spec(), &line).await.unwrap_or_else(|e| panic!("{name}, {seq}: {e}"));
        }
        let rows = lake::rows(&dataset).await;
        let of = |rows: &RecordBatch| rows.column_by_name("v").expect("the column exists").data_type().clone();
        let want = DataType::Struct(vec![Field::new(name, DataType::Int64, true)].into());
        assert!(rows.iter().all(|rows| of(rows) == want), "{name}");
    }
}
