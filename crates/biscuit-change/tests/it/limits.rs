//! Limits on depth, columns, numbers and decoded size.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use biscuit_change::internal::FileRows;
use biscuit_change::{BadRows, ChangeRecords, DebeziumOptions, DebeziumReader, RowsOptions, RowsReader};
use biscuit_core::Result;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;

fn rows(file: &str, text: &str, bad_rows: BadRows) -> Result<ChangeRecords> {
    let mut reader = RowsReader::new(RowsOptions::default().with_bad_rows(bad_rows));
    reader.read(file, text.to_owned().into_bytes().into())?;
    reader.finish()
}

fn nested(levels: usize) -> String {
    format!("{{\"id\":2,\"x\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
}

#[test]
fn only_the_line_that_is_nested_too_deeply_is_refused() {
    assert!(rows("a.jsonl", &nested(64), BadRows::Fail).is_ok());
    for levels in [65, 200, 100_000] {
        let text = format!("{{\"id\":1}}\n{}\n{{\"id\":3}}\n", nested(levels));
        let e = rows("a.jsonl", &text, BadRows::Fail).unwrap_err();
        assert_eq!((e.code(), e.file(), e.row()), ("TooDeep", Some("a.jsonl"), Some(2)));
        let changes = rows("a.jsonl", &text, BadRows::Quarantine).unwrap();
        assert_eq!((changes.batches[0].ops.len(), changes.refused.len()), (2, 1));
        assert_eq!((changes.refused[0].code.as_str(), changes.refused[0].row), ("TooDeep", 2));
    }
}

#[test]
fn rows_with_too_many_columns_are_refused() {
    let names: Vec<String> = (0..10_001).map(|i| format!("c{i}")).collect();
    let line: Vec<String> = names.iter().map(|n| format!("\"{n}\":1")).collect();
    let line = |n: usize| format!("{{{}}}", line[..n].join(","));
    let e = rows("a.jsonl", &line(10_001), BadRows::Fail).unwrap_err();
    assert_eq!((e.code(), e.file()), ("TooManyColumns", Some("a.jsonl")));
    assert_eq!(rows("a.jsonl", &line(10_000), BadRows::Fail).unwrap().batches[0].rows.num_columns(), 10_000);
    let e = rows("a.csv", &names.join(","), BadRows::Fail).unwrap_err();
    assert_eq!((e.code(), e.file()), ("TooManyColumns", Some("a.csv")));
}

/// Returns an envelope with a value of this type.
fn envelope(id: usize, t: &str, value: &str) -> String {
    format!(
        r#"{{"key":{{"id":{id}}},"headers":{{}},"value":{{"schema":{{"type":"struct","fields":[{{"field":"after","type":"struct","fields":[{{"field":"id","type":"int64"}},{t}]}}]}},"payload":{{"op":"c","before":null,"after":{{"id":{id},"v":{value}}},"source":{{"connector":"postgresql","schema":"public","table":"t","lsn":{id}}}}}}}}}"#
    )
}

#[test]
fn envelope_numbers_that_would_exhaust_memory_are_quarantined() {
    const VARIABLE: &str =
        r#"{"field":"v","type":"struct","name":"io.debezium.data.VariableScaleDecimal","fields":[]}"#;
    const BITS: &str =
        r#"{"field":"v","type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"4294967295"}}"#;
    const DAYS: &str = r#"{"field":"v","type":"int32","name":"io.debezium.time.Date"}"#;
    let bits = format!("\"{}\"", "AAAA".repeat(4000));
    for (t, value, code) in [
        (VARIABLE, r#"{"scale":65535,"value":"AQ=="}"#, "Overflow"),
        (VARIABLE, r#"{"scale":-9223372036854775808,"value":"AQ=="}"#, "Overflow"),
        (BITS, bits.as_str(), "TooLarge"),
        (DAYS, "99999999999", "Overflow"),
    ] {
        let good = |id| envelope(id, r#"{"field":"v","type":"int64"}"#, "1");
        let text = [good(1), envelope(2, t, value), good(3)].join("\n");
        let read = |bad_rows| {
            let mut reader = DebeziumReader::new(DebeziumOptions::default().with_bad_rows(bad_rows));
            reader.read("a.jsonl", &text.clone().into_bytes().into())?;
            reader.finish()
        };
        let e = read(BadRows::Fail).unwrap_err();
        assert_eq!((e.code(), e.column(), e.row()), (code, Some("v"), Some(2)));
        let changes = read(BadRows::Quarantine).unwrap();
        assert_eq!(changes.batches.iter().map(|b| b.ops.len()).sum::<usize>(), 2);
        assert_eq!((changes.refused.len(), changes.refused[0].code.as_str()), (1, code));
    }
}

/// Returns a Parquet file in which all rows have the same long text, which the file stores once.
fn same_text(rows: usize) -> Bytes {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(std::iter::repeat_n(1, rows)));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n("x".repeat(10_000), rows)));
    let batch = RecordBatch::try_from_iter([("id", id), ("text", text)]).expect("the columns have equal lengths");
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), None).expect("the writer is created");
    writer.write(&batch).expect("the rows are written");
    writer.into_inner().expect("the file is finished").into()
}

#[test]
fn small_file_with_huge_rows_is_refused_unless_the_limit_is_raised() {
    let file = same_text(30_000);
    assert!(file.len() < 100_000, "{}", file.len());
    let open = |max: Option<u64>| FileRows::open(&"a.parquet".into(), file.clone(), max).expect("the footer is valid");
    // No batch is much larger than 32 MiB, whatever the number of rows is.
    let rows: Vec<_> =
        open(Some(400_000_000)).map(|rows| rows.expect("the rows are within the limit").num_rows()).collect();
    assert!(rows.iter().sum::<usize>() == 30_000 && rows.iter().all(|rows| *rows < 4000), "{rows:?}");
    for (max, limit) in [(None, "268435456 bytes, and 2000 times"), (Some(1_000_000), "1000000 bytes;")] {
        let e = open(max).find_map(Result::err).expect("the rows exceed the limit");
        assert_eq!((e.code(), e.file()), ("TooLarge", Some("a.parquet")));
        assert!(e.message().contains(limit) && e.message().contains("--max-decompressed"), "{e}");
    }
    let read = |options: RowsOptions| {
        let mut reader = RowsReader::new(options);
        reader.read("a.parquet", file.clone())?;
        reader.finish().map(drop)
    };
    assert_eq!(read(RowsOptions::default().with_max_decompressed(1_000_000)).unwrap_err().code(), "TooLarge");
    assert!(read(RowsOptions::default().with_max_decompressed(400_000_000)).is_ok());
}
