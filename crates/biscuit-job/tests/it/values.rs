//! Values are stored exactly or refused: layouts and encodings of text, and types that hold every value.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use biscuit_change::{RowsOptions, RowsReader};
use parquet::data_type::{Int96, Int96Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::lab::Lab;
use biscuit_core::Outcome;
use biscuit_job::{DryRun, RunOptions};
use biscuit_schema::Contract;
use biscuit_testkit::internal::{BoundaryValue, boundaries};

fn job(format: &str, more: &str) -> String {
    format!(
        "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = '{format}'\n{more}\n[target]\nurl = 'lake/t'\nmode = 'append'\n"
    )
}

/// Runs a job over the given files. Returns the columns of the table.
async fn table(
    format: &str,
    more: &str,
    files: &[(&str, &[u8])],
) -> Result<(Lab, BTreeSet<String>), biscuit_core::Error> {
    let lab = Lab::new();
    for (name, content) in files {
        lab.put(&format!("raw/{name}"), *content).await;
    }
    lab.run(&job(format, more)).await?;
    let rows = lab.rows("lake/t").await;
    let columns = rows.lines().next().unwrap_or_default().split('|').map(|c| c.trim().to_owned()).collect();
    Ok((lab, columns))
}

/// Returns the values of a text column.
async fn texts(lab: &Lab, column: &str) -> Vec<String> {
    let shown = lab.column("lake/t", column).await;
    let mut texts: Vec<String> = shown.into_iter().map(|text| serde_json::from_str(&text).unwrap_or(text)).collect();
    texts.sort();
    texts
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn json_values_are_read_in_every_layout_and_encoding() {
    let utf16: Vec<u8> = "\u{feff}{\"id\":1}\n{\"id\":2}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bzip2 = bzip2_of(b"{\"id\":1}\n{\"id\":2}\n");
    for content in [
        "{\"id\":1}\n{\"id\":2}".as_bytes(),
        b"{\"id\":1}{\"id\":2}",
        b"[{\"id\":1},{\"id\":2}]",
        b"[\n  {\n    \"id\": 1\n  },\n  {\n    \"id\": 2\n  }\n]\n",
        b"{\n\"id\":1\n}\n{\n\"id\":2\n}\n",
        "\u{feff}{\"id\":1}\r\n{\"id\":2}\r\n".as_bytes(),
        "\u{feff}[{\"id\":1},{\"id\":2}]".as_bytes(),
        &utf16,
        &bzip2,
    ] {
        let (lab, _) = table("json", "", &[("a.json", content)]).await.expect("the run succeeds");
        assert_eq!(lab.column("lake/t", "id").await, ["1", "2"], "{}", String::from_utf8_lossy(content));
    }
    let cut = table("json", "", &[("a.json", b"[{\"id\":1},{\"id\":2}")]).await.map(drop).unwrap_err();
    assert_eq!((cut.code(), cut.file(), cut.row()), ("TruncatedInput", Some("/raw/a.json"), Some(3)));
}

fn bzip2_of(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::best());
    out.write_all(text).expect("writing to memory succeeds");
    out.finish().expect("writing to memory succeeds")
}

#[tokio::test]
async fn late_columns_and_late_values_are_not_lost() {
    let mut text = String::new();
    for n in 0..3000 {
        text.push_str(&format!("{{\"a\":{n}}}\n"));
    }
    text.push_str("{\"a\":\"007\",\"coupon\":\"X\"}\n");
    let (lab, columns) = table("json", "", &[("a.json", text.as_bytes())]).await.expect("the run succeeds");
    assert_eq!(columns, set(&["a:string", "coupon:string"]));
    let all = lab.column("lake/t", "a").await;
    assert!(all.len() == 3001 && all.contains(&"007".to_owned()) && all.contains(&"7".to_owned()));
    let mut text = "n\n".to_owned() + &"1\n".repeat(3000);
    text.push_str("+49\n");
    let (lab, columns) = table("csv", "", &[("a.csv", text.as_bytes())]).await.expect("the run succeeds");
    assert_eq!(columns, set(&["n:string"]));
    assert!(lab.column("lake/t", "n").await.contains(&"+49".to_owned()));
    // All footers are inspected, however many there are.
    let files: Vec<(String, Vec<u8>)> = (0..30)
        .map(|n| {
            let ids: ArrayRef = Arc::new(Int64Array::from(vec![n]));
            let mut columns = vec![("a", ids)];
            if n == 17 {
                columns.push(("coupon", Arc::new(StringArray::from(vec!["X"]))));
            }
            (
                format!("{n}.parquet"),
                parquet_of(&RecordBatch::try_from_iter(columns).expect("the columns have equal lengths")),
            )
        })
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let (lab, columns) = table("parquet", "", &files).await.expect("the run succeeds");
    assert_eq!(columns, set(&["a:bigint", "coupon:string"]));
    assert_eq!(lab.column("lake/t", "coupon").await.iter().filter(|c| *c == "X").count(), 1);
}

fn parquet_of(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = parquet::arrow::ArrowWriter::try_new(vec![], batch.schema(), None).expect("the writer opens");
    writer.write(batch).expect("the run succeeds");
    writer.into_inner().expect("the footer is written")
}

#[tokio::test]
async fn numbers_of_json_are_stored_exactly() {
    let text = b"{\"wei\":123456789012345678901234567890,\"ref\":9007199254740993,\"x\":0.1}\n{\"wei\":1,\"ref\":12.5,\"x\":2}\n";
    let (lab, columns) = table("json", "", &[("a.json", text)]).await.expect("the run succeeds");
    assert_eq!(columns, set(&["wei:decimal(30,0)", "ref:string", "x:double"]));
    assert_eq!(lab.column("lake/t", "wei").await, ["1", "123456789012345678901234567890"]);
    assert_eq!(lab.column("lake/t", "ref").await, ["12.5", "9007199254740993"]);
}

#[tokio::test]
async fn nested_values_in_text_columns_are_stored_as_json() {
    let text = b"{\"p\":\"none\",\"e\":{}}\n{\"p\":{\"k\":1,\"s\":\"x\"},\"e\":{}}\n{\"p\":[1, 2],\"e\":{}}\n";
    let (lab, columns) = table("json", "", &[("a.json", text)]).await.expect("the run succeeds");
    assert_eq!(columns, set(&["p:string", "e:string"]));
    assert_eq!(texts(&lab, "p").await, ["[1, 2]", "none", "{\"k\":1,\"s\":\"x\"}"]);
    assert_eq!(lab.column("lake/t", "e").await, ["{}"; 3]);
}

#[tokio::test]
async fn csv_dialects_are_read_and_violations_are_refused() {
    for (csv, content, want) in [
        ("", "id,v\n1,\"a \"\"b\"\"\"\n", "a \"b\""),
        ("escape = 'backslash'", "id,v\n1,\"a \\\"b\\\"\"\n", "a \"b\""),
        ("quote = 'none'", "id,v\n1,\"5 inch\n", "\"5 inch"),
        ("delimiter = 'tab'", "id\tv\n1\ta,b\n", "a,b"),
        ("delimiter = 'pipe', quote = 'apostrophe', comment = '#'", "# it's a comment\nid|v\n1|'a|b'\n", "a|b"),
    ] {
        let (lab, _) =
            table("csv", &format!("csv = {{{csv}}}"), &[("a.csv", content.as_bytes())]).await.expect(content);
        assert_eq!(texts(&lab, "v").await, [want], "{csv}");
    }
    let (lab, _) =
        table("csv", "encoding = 'windows-1252'", &[("a.csv", b"v\nZo\xeb \x80\n")]).await.expect("the run succeeds");
    assert_eq!(texts(&lab, "v").await, ["Zoë €"]);
    let lines = [("a.jsonl", b"{\"v\":\"Zo\xeb\"}\n".as_slice())];
    let (lab, _) = table("json", "encoding = 'latin1'", &lines).await.expect("the run succeeds");
    assert_eq!(texts(&lab, "v").await, ["Zoë"]);
    let (lab, _) = table("csv", "", &[("a.tsv", b"id\tv\n1\tx\n")]).await.expect("the run succeeds");
    assert_eq!(texts(&lab, "v").await, ["x"]);
    for (content, row) in [("id,v\n1,\"a\n2,b\n3,c\n", 2), ("id,v\n1,a\n2,\"She said \\\"yes\\\"\"\n", 3)] {
        let e = table("csv", "", &[("a.csv", content.as_bytes())]).await.map(drop).unwrap_err();
        assert_eq!((e.code(), e.file(), e.row()), ("InvalidCsv", Some("/raw/a.csv"), Some(row)), "{e}");
        assert!(e.message().contains("`escape` or `quote`"), "{e}");
    }
    for wrong in ["csv = {delimiter = 'ab'}", "csv = {quote = ','}", "encoding = 'klingon'", "csv = {delimiter = ''}"] {
        let e = biscuit_job::JobSpec::from_toml(&job("csv", wrong), &[]).unwrap_err();
        assert_eq!(e.code(), "InvalidJob", "{wrong}: {e}");
    }
}

#[tokio::test]
async fn csv_file_without_its_header_is_refused() {
    let contract = "[sources.s.contract]\ncolumns = [{name = 'id', type = 'bigint'}, {name = 'v', type = 'string'}]";
    for (more, files) in [
        ("", vec![("1.csv", "id,v\n1,secret\n"), ("2.csv", "2,secret\n")]),
        ("", vec![("1.csv", "2,secret\n3,secret\n"), ("2.csv", "id,v\n1,secret\n")]),
        (contract, vec![("1.csv", "2,secret\n")]),
    ] {
        let files: Vec<(&str, &[u8])> = files.into_iter().map(|(name, text)| (name, text.as_bytes())).collect();
        let e = table("csv", more, &files).await.map(drop).unwrap_err();
        assert!(e.code() == "NoHeader" && e.file().is_some() && !e.to_string().contains("secret"), "{e}");
    }
    let other = [("1.csv", b"id,v\n1,a\n".as_slice()), ("2.csv", b"w,id\nb,2\n")];
    assert!(table("csv", "", &other).await.is_ok(), "one column in common is enough");
}

/// Returns a Parquet file with timestamps as Spark writes them: Julian day and nanoseconds of the day.
fn int96(values: &[(u32, u64)], version: Option<&str>) -> Vec<u8> {
    let schema = Arc::new(parse_message_type("message m { required int96 at; }").expect("the schema is valid"));
    let mut bytes = Vec::new();
    let version = version.map(|v| vec![KeyValue::new("org.apache.spark.version".to_owned(), v.to_owned())]);
    let properties = WriterProperties::builder().set_key_value_metadata(version).build();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).expect("the writer opens");
    let mut group = writer.next_row_group().expect("the row group is written");
    let mut column = group.next_column().expect("the column writer opens").expect("there is another column");
    let values: Vec<Int96> =
        values.iter().map(|(day, nanos)| Int96::from(vec![*nanos as u32, (nanos >> 32) as u32, *day])).collect();
    column.typed::<Int96Type>().write_batch(&values, None, None).expect("the values are written");
    column.close().expect("the column is written");
    group.close().expect("the row group is written");
    writer.close().expect("the footer is written");
    bytes
}

#[tokio::test]
async fn duplicate_json_name_is_refused_at_any_depth() {
    for line in ["{\"v\":1,\"v\":2}\n", "{\"v\":{\"k\":1,\"k\":2}}\n"] {
        let e = table("json", "", &[("a.json", line.as_bytes())]).await.map(drop).unwrap_err();
        assert_eq!((e.code(), e.file(), e.row()), ("DuplicateColumn", Some("/raw/a.json"), Some(1)), "{line}");
    }
}

#[tokio::test]
async fn bytes_are_base64_in_json_and_hex_or_base64_in_csv() {
    let contract = "[sources.s.contract]\ncolumns = [{name = 'v', type = 'binary'}]";
    for (format, content, want) in
        [("json", "{\"v\":\"AAEC\"}\n", "000102"), ("csv", "v\nAAEC\n", "AAEC"), ("csv", "v\nAAE=\n", "0001")]
    {
        let want = want.to_lowercase();
        let (lab, _) =
            table(format, contract, &[(&format!("a.{format}"), content.as_bytes())]).await.expect("the run succeeds");
        assert!(lab.rows("lake/t").await.contains(&want), "{format} {content}: {}", lab.rows("lake/t").await);
        let contract =
            Contract::from_toml("[[columns]]\nname = 'v'\ntype = 'binary'\n").expect("the contract is valid");
        let mut reader = RowsReader::new(RowsOptions::default().with_contract(contract));
        reader.read(&format!("a.{format}"), content.as_bytes().to_vec().into()).expect("the file is valid");
        let changes = reader.finish().expect("the run succeeds");
        let bytes = changes.batches[0].rows.column(0).as_binary::<i32>().value(0).to_vec();
        assert_eq!(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>(), want, "{format} {content}");
    }
    let e = table("json", contract, &[("a.json", b"{\"v\":\"no!\"}\n")]).await.map(drop).unwrap_err();
    assert_eq!((e.code(), e.column(), e.row()), ("Unparseable", Some("v"), Some(1)));
}

#[tokio::test]
async fn spark_timestamps_are_exact_from_year_1_to_9999() {
    // 0001-01-01, 1500-06-01, 2024-02-29 12:00, 9999-12-31 23:59:59.999999, as Julian days.
    let file = [(1_721_426, 0), (2_269_075, 0), (2_460_370, 43_200_000_000_000), (5_373_484, 86_399_999_999_000)];
    let file = int96(&file, Some("3.5.1"));
    let (lab, columns) = table("parquet", "", &[("a.parquet", &file)]).await.expect("the run succeeds");
    assert_eq!(columns, set(&["at:timestamp"]));
    let want = ["0001-01-01T00:00:00", "1500-06-01T00:00:00", "2024-02-29T12:00:00", "9999-12-31T23:59:59.999999"];
    assert_eq!(lab.column("lake/t", "at").await, want);
    // The same file as a table of Spark, without a job.
    let external = Lab::new();
    external.put("lake/s/a.parquet", file).await;
    assert_eq!(external.column("lake/s", "at").await, want);
}

#[tokio::test]
async fn inexact_spark_timestamps_are_refused() {
    let today = 2_460_370;
    for (value, version, code) in [
        ((today, 1), None, Some("PrecisionLoss")),
        ((today, 999), Some("3.5.1"), Some("PrecisionLoss")),
        ((today, 86_400_000_000_000), Some("3.5.1"), Some("Overflow")),
        ((2_415_020, 0), Some("3.0.3"), Some("LegacyCalendar")),
        ((2_415_020, 0), Some("2.4.8"), Some("LegacyCalendar")),
        ((2_415_020, 0), Some("3.1.0"), None),
        ((2_415_021, 0), Some("2.4.8"), None),
    ] {
        let file = int96(&[(today, 0), value], version);
        let made = table("parquet", "", &[("a.parquet", &file)]).await.map(drop);
        let found = made.as_ref().err().map(|e| (e.code(), e.column(), e.file()));
        assert_eq!(found, code.map(|code| (code, Some("at"), Some("/raw/a.parquet"))), "{value:?} {version:?}");
        // The same file as change records, and as a table in a query.
        let mut reader = RowsReader::new(RowsOptions::default());
        let read = reader.read("a.parquet", file.clone().into());
        assert_eq!(read.err().map(|e| e.code()), code, "{value:?} {version:?}");
        let lab = Lab::new();
        lab.put("lake/s/a.parquet", file).await;
        assert_eq!(lab.try_column("lake/s", "at").await.err().map(|e| e.code()), code, "{value:?} {version:?}");
    }
}

#[tokio::test]
async fn unsigned_integers_become_the_next_wider_type() {
    let (small, large): (ArrayRef, ArrayRef) =
        (Arc::new(UInt32Array::from(vec![u32::MAX])), Arc::new(UInt64Array::from(vec![u64::MAX])));
    let file = parquet_of(
        &RecordBatch::try_from_iter([("small", small), ("large", large)]).expect("the columns have equal lengths"),
    );
    let (lab, columns) = table("parquet", "", &[("a.parquet", &file)]).await.expect("the run succeeds");
    assert_eq!(columns, set(&["small:bigint", "large:decimal(20,0)"]));
    assert_eq!(
        (lab.column("lake/t", "small").await, lab.column("lake/t", "large").await),
        (vec!["4294967295".to_owned()], vec!["18446744073709551615".to_owned()])
    );
}

#[tokio::test]
async fn large_json_array_and_large_file_of_lines_are_read_completely() {
    let line = |n: usize| format!("{{\"id\":{n},\"zip\":\"{n:060}\"}}");
    let lines: Vec<String> = (0..250_000).map(line).collect();
    for text in [lines.join("\n"), format!("[{}]", lines.join(",\n"))] {
        let (lab, _) = table("json", "", &[("a.json", text.as_bytes())]).await.expect("the run succeeds");
        let ids = lab.column("lake/t", "id").await;
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 250_000);
    }
}

#[tokio::test]
async fn hive_folders_of_the_input_become_columns() {
    let files: [(&str, &[u8]); 2] = [
        ("dt=2024-02-28/region=eu/1.jsonl", b"{\"id\":1}\n"),
        ("dt=2024-02-29/region=__HIVE_DEFAULT_PARTITION__/2.jsonl", b"{\"id\":2}\n"),
    ];
    let (lab, columns) = table("json", "", &files).await.expect("the run succeeds");
    assert_eq!(columns, set(&["id:bigint", "dt:date", "region:string"]));
    assert_eq!(texts(&lab, "region").await, ["eu", "null"]);
    let csv: [(&str, &[u8]); 1] = [("dt=2024-02-28/1.csv", b"id\n1\n")];
    assert_eq!(table("csv", "", &csv).await.expect("the run succeeds").1, set(&["id:bigint", "dt:date"]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let file = parquet_of(&RecordBatch::try_from_iter([("id", ids.clone())]).expect("the columns have equal lengths"));
    let parquet: [(&str, &[u8]); 1] = [("m=01/1.parquet", &file)];
    let (lab, columns) = table("parquet", "", &parquet).await.expect("the run succeeds");
    // `01` would lose a digit as a number, so it is text.
    assert_eq!((columns, texts(&lab, "m").await), (set(&["id:bigint", "m:string"]), vec!["01".to_owned(); 2]));
    let off = table("json", "hive_partitioning = false", &files).await.expect("the run succeeds");
    assert_eq!(off.1, set(&["id:bigint"]));
    // Without a header, the columns of the path are not among the cells.
    let contract = "csv = {header = false}\n[sources.s.contract]\ncolumns = [{name = 'm', type = 'int'}, {name = 'id', type = 'bigint'}]";
    let csv: [(&str, &[u8]); 1] = [("m=07/1.csv", b"5\n")];
    let (lab, columns) = table("csv", contract, &csv).await.expect("the run succeeds");
    assert_eq!((columns, texts(&lab, "m").await), (set(&["m:int", "id:bigint"]), vec!["7".to_owned()]));
    // Names that differ only in letter case are one column.
    let spelled: [(&str, &[u8]); 2] = [("DT=2024-02-28/1.csv", b"id,dt\n1,\n"), ("Dt=2024-02-29/2.csv", b"id\n2\n")];
    let (lab, columns) = table("csv", "", &spelled).await.expect("the run succeeds");
    assert_eq!(columns, set(&["id:bigint", "dt:date"]));
    assert_eq!(texts(&lab, "dt").await, ["2024-02-28", "2024-02-29"]);
    // `on_error` of the contract applies to values of the path.
    let other: [(&str, &[u8]); 2] = [("m=7/1.json", b"{\"id\":1}\n"), ("m=x/2.json", b"{\"id\":2}\n")];
    let with = |on_error: &str| {
        format!(
            "[sources.s.contract]\ncolumns = [{{name = 'm', type = 'int', on_error = '{on_error}'}}, {{name = 'id', type = 'bigint'}}]"
        )
    };
    assert_eq!(table("json", &with("fail"), &other).await.map(drop).unwrap_err().code(), "Unparseable");
    let (lab, _) = table("json", &with("null"), &other).await.expect("the run succeeds");
    assert_eq!(texts(&lab, "m").await, ["7", "null"]);
    let aside = Lab::new();
    for (name, content) in other {
        aside.put(&format!("raw/{name}"), content).await;
    }
    aside.run(&(job("json", &with("quarantine")) + "max_quarantined = 60\n")).await.expect("the run succeeds");
    let lab = aside;
    assert_eq!((texts(&lab, "id").await, texts(&lab, "m").await), (vec!["1".to_owned()], vec!["7".to_owned()]));
}

#[tokio::test]
async fn path_column_that_differs_from_the_rows_is_refused() {
    let same: [(&str, &[u8]); 1] =
        [("dt=2024-02-28/1.jsonl", b"{\"id\":1,\"dt\":\"2024-02-28\"}\n{\"id\":2,\"dt\":null}\n{\"id\":3}\n")];
    let (lab, columns) = table("json", "", &same).await.expect("the run succeeds");
    assert_eq!((columns, texts(&lab, "dt").await), (set(&["id:bigint", "dt:date"]), vec!["2024-02-28".to_owned(); 3]));
    let other: [(&str, &[u8]); 1] =
        [("dt=2024-02-28/1.jsonl", b"{\"id\":1,\"dt\":\"2024-02-28\"}\n{\"id\":2,\"dt\":\"2024-02-29\"}\n")];
    let e = table("json", "", &other).await.map(drop).unwrap_err();
    assert_eq!((e.code(), e.column(), e.row()), ("PartitionMismatch", Some("dt"), Some(2)));
    let contract = "[sources.s.contract]\ncolumns = [{name = 'id', type = 'bigint'}, {name = 'm', type = 'int'}]";
    let none: [(&str, &[u8]); 1] = [("m=x/1.jsonl", b"{\"id\":1}\n")];
    let e = table("json", contract, &none).await.map(drop).unwrap_err();
    assert_eq!((e.code(), e.column()), ("Unparseable", Some("m")));
}

#[tokio::test]
async fn table_keeps_its_spelling_of_partition_values() {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let file = parquet_of(&RecordBatch::try_from_iter([("id", ids)]).expect("the columns have equal lengths"));
    let job = |contract: &str| {
        format!(
            "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = 'json'\n{contract}\n[target]\nurl = 'lake/t'\nmode = 'append'\npartition_by = ['y', 'm']\n"
        )
    };
    // The table does not tell whether `01` is text or a number, so writing 1 is refused.
    let lab = Lab::new();
    lab.put("lake/t/y=2025/m=01/0.parquet", file.clone()).await;
    lab.put("raw/1.jsonl", "{\"id\":2,\"y\":2025,\"m\":10}\n{\"id\":3,\"y\":2025,\"m\":1}\n").await;
    let e = lab.run(&job("")).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("PartitionSpelling", Some("m")));
    assert!(e.message().contains("m=01") && lab.paths("lake/t").await.len() == 1, "{e}");
    // If the table has the type of the column, the number is written with the spelling of the table.
    let lab = Lab::new();
    lab.put("raw/0.jsonl", "{\"id\":1,\"y\":2025,\"m\":1}\n").await;
    lab.run(&job("")).await.expect("the table has m as bigint");
    let folders = |paths: Vec<String>| {
        paths.into_iter().filter_map(|p| Some(p.rsplit_once('/')?.0.to_owned())).collect::<BTreeSet<_>>()
    };
    lab.put("lake/t/y=2024/m=02/0.parquet", file).await;
    lab.put(
        "raw/1.jsonl",
        "{\"id\":2,\"y\":2024,\"m\":2}\n{\"id\":3,\"y\":2025,\"m\":2}\n{\"id\":4,\"y\":2025,\"m\":1}\n",
    )
    .await;
    lab.run(&job("")).await.expect("the run has the table's own spelling");
    assert_eq!(folders(lab.paths("lake/t").await), set(&["y=2024/m=02", "y=2025/m=02", "y=2025/m=1"]));
}

#[tokio::test]
async fn boundary_values_are_stored_or_refused_as_by_merges() {
    let text = |of: &BoundaryValue| serde_json::Value::from(of.text).to_string();
    for of in boundaries() {
        let contract = format!(
            "[sources.s.contract]\ncolumns = [{{name = 'id', type = 'int'}}, {{name = 'v', type = '{}'}}]",
            of.column_type
        );
        let strings: ArrayRef = Arc::new(StringArray::from(vec![of.text]));
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let parquet = parquet_of(
            &RecordBatch::try_from_iter([("id", ids), ("v", strings)]).expect("the columns have equal lengths"),
        );
        let files = [
            ("json", "1.jsonl", format!("{{\"id\":1,\"v\":{}}}\n", text(&of)).into_bytes()),
            ("csv", "1.csv", format!("id,v\n1,\"{}\"\n", of.text).into_bytes()),
            ("parquet", "1.parquet", parquet),
        ];
        for (format, name, content) in files {
            let made = table(format, &contract, &[(name, &content)]).await;
            match (made, of.stored) {
                (Ok((lab, _)), Some(stored)) => {
                    // The text form of a table has no spaces around values.
                    assert_eq!(texts(&lab, "v").await, [stored.trim()], "{format}: {of:?}");
                }
                (Err(e), None) => assert_eq!(
                    (e.column(), e.row()),
                    (Some("v"), Some(if format == "csv" { 2 } else { 1 })),
                    "{format}: {of:?}"
                ),
                (made, _) => panic!("{format}: {of:?}: {:?}", made.map(drop)),
            }
        }
    }
}

#[tokio::test]
async fn nanoseconds_are_stored_only_if_a_contract_demands_them() {
    use arrow::array::TimestampNanosecondArray;
    let nanos = |n: i64| {
        let at: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![n]));
        parquet_of(&RecordBatch::try_from_iter([("at", at)]).expect("the columns have equal lengths"))
    };
    let (whole, finer) = (nanos(1_709_208_000_123_456_000), nanos(1_709_208_000_123_456_700));
    assert_eq!(
        table("parquet", "", &[("a.parquet", &whole)]).await.expect("the run succeeds").1,
        set(&["at:timestamp"])
    );
    let e = table("parquet", "", &[("a.parquet", &finer)]).await.map(drop).unwrap_err();
    assert_eq!((e.code(), e.column(), e.row()), ("PrecisionLoss", Some("at"), Some(1)));
    let contract = "[sources.s.contract]\ncolumns = [{name = 'at', type = 'timestamp(9)'}]";
    assert_eq!(
        table("parquet", contract, &[("a.parquet", &finer)]).await.expect("the run succeeds").1,
        set(&["at:timestamp(9)"])
    );
    let rounding = "[sources.s.contract]\ncolumns = [{name = 'at', type = 'timestamp', rounding = 'half-up'}]";
    let (lab, _) = table("parquet", rounding, &[("a.parquet", &finer)]).await.expect("the run succeeds");
    assert_eq!(texts(&lab, "at").await, ["2024-02-29T12:00:00.123457"]);
}

#[tokio::test]
async fn parquet_uuids_are_read_as_text() {
    let message = "message m { optional fixed_len_byte_array(16) u (UUID); }";
    let schema = Arc::new(parse_message_type(message).expect("the schema is valid"));
    let mut file =
        SerializedFileWriter::new(vec![], schema, Arc::new(WriterProperties::new())).expect("the writer opens");
    let mut group = file.next_row_group().expect("the row group is written");
    let mut column = group.next_column().expect("the column writer opens").expect("there is another column");
    let bytes: Vec<u8> = (0..16).collect();
    let values = [parquet::data_type::FixedLenByteArray::from(bytes)];
    column
        .typed::<parquet::data_type::FixedLenByteArrayType>()
        .write_batch(&values, Some(&[1, 0]), None)
        .expect("the values are written");
    column.close().expect("the column is written");
    group.close().expect("the row group is written");
    let bytes = file.into_inner().expect("the file is valid");
    let (lab, columns) = table("parquet", "", &[("a.parquet", &bytes)]).await.expect("the run succeeds");
    assert_eq!(columns, set(&["u:string"]));
    assert_eq!(texts(&lab, "u").await, ["00010203-0405-0607-0809-0a0b0c0d0e0f", "null"]);
}

#[tokio::test]
async fn parquet_uuids_in_nested_columns_are_read_as_text() {
    let message = "message m {
        required int64 id;
        required group s { required fixed_len_byte_array(16) u (UUID); }
        required group l (LIST) { repeated group list { required fixed_len_byte_array(16) element (UUID); } }
        required group m (MAP) { repeated group key_value { required binary key (UTF8); required fixed_len_byte_array(16) value (UUID); } }
    }";
    let schema = Arc::new(parse_message_type(message).expect("the schema is valid"));
    let mut file =
        SerializedFileWriter::new(vec![], schema, Arc::new(WriterProperties::new())).expect("the writer opens");
    let mut group = file.next_row_group().expect("the row group is written");
    let uuid = || [parquet::data_type::FixedLenByteArray::from((0..16).collect::<Vec<u8>>())];
    type Fixed = parquet::data_type::FixedLenByteArrayType;
    type Text = parquet::data_type::ByteArrayType;
    for at in 0..5 {
        let mut column = group.next_column().expect("the column writer opens").expect("there is another column");
        let levels: (Option<&[i16]>, Option<&[i16]>) = if at < 2 { (None, None) } else { (Some(&[1]), Some(&[0])) };
        let written = match at {
            0 => column.typed::<parquet::data_type::Int64Type>().write_batch(&[1], None, None),
            3 => column.typed::<Text>().write_batch(&[parquet::data_type::ByteArray::from("k")], levels.0, levels.1),
            _ => column.typed::<Fixed>().write_batch(&uuid(), levels.0, levels.1),
        };
        assert_eq!(written.expect("the value is written"), 1);
        column.close().expect("the column is written");
    }
    group.close().expect("the row group is written");
    let bytes = file.into_inner().expect("the file is valid");
    let (lab, columns) = table("parquet", "", &[("a.parquet", &bytes)]).await.expect("the run succeeds");
    assert_eq!(columns, set(&["id:bigint", "s:struct<u:string>", "l:array<string>", "m:map<string,string>"]));
    let rows = lab.rows("lake/t").await;
    assert_eq!(rows.matches("00010203-0405-0607-0809-0a0b0c0d0e0f").count(), 3, "{rows}");
    let mut reader = RowsReader::new(RowsOptions::default());
    reader.read("a.parquet", bytes.into()).expect("the file is valid");
    let changes = reader.finish().expect("the run succeeds");
    let shown = format!("{:?}", changes.batches[0].rows);
    assert_eq!(shown.matches("00010203-0405-0607-0809-0a0b0c0d0e0f").count(), 3, "{shown}");
}

#[tokio::test]
async fn dry_run_reports_whether_it_read_the_rows() {
    let lab = Lab::new();
    lab.put("raw/1.jsonl", "{\"id\":1,\"d\":\"2024-02-29\"}\n{\"id\":2,\"d\":\"2024-02-30\"}\n").await;
    let contract = |on_error: &str| {
        format!(
            "[sources.s.contract]\non_error = '{on_error}'\ncolumns = [{{name = 'id', type = 'int'}}, {{name = 'd', type = 'date'}}]"
        )
    };
    let dry = |how| RunOptions::default().with_dry_run(how);
    let planned =
        lab.run_with(&job("json", &contract("fail")), &dry(DryRun::Plan)).await.expect("the rows are not read");
    assert!(planned.outputs[0].plan.iter().any(|line| line.contains("were not read")), "{:?}", planned.outputs[0].plan);
    let e = lab.run_with(&job("json", &contract("fail")), &dry(DryRun::Read)).await.unwrap_err();
    assert_eq!((e.code(), e.row()), ("BadDate", Some(2)));
    let read = lab.run_with(&job("json", &contract("null")), &dry(DryRun::Read)).await.expect("the run succeeds");
    let output = &read.outputs[0];
    assert_eq!((output.outcome, output.rows, output.files), (Outcome::Planned, 2, 0));
    assert_eq!(
        output.sources["s"].read.as_ref().expect("the source was read").coercion.columns["d"].nulled["BadDate"],
        1
    );
    assert!(lab.paths("lake").await.is_empty(), "nothing was written");
}

#[tokio::test]
async fn source_without_objects_is_an_error_unless_allowed() {
    let lab = Lab::new();
    let glob = job("json", "").replace("'raw'", "'raw/*.jsonl'");
    assert_eq!(lab.run(&glob).await.unwrap_err().code(), "NoInput");
    let allowed = job("json", "allow_empty = true").replace("'raw'", "'raw/*.jsonl'");
    assert_eq!(lab.run(&allowed).await.expect("a run without input succeeds").outputs[0].outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn text_that_cannot_be_a_folder_is_quarantined_on_request() {
    let contract = |on_error: &str| {
        format!(
            "[sources.s.contract]\non_error = '{on_error}'\ncolumns = [{{name = 'id', type = 'int'}}, {{name = 'p', type = 'string'}}]"
        )
    };
    let job =
        |on_error: &str| format!("{}partition_by = ['p']\nmax_quarantined = 100\n", job("json", &contract(on_error)));
    let lab = Lab::new();
    let long = "x".repeat(300);
    lab.put(
        "raw/1.jsonl",
        format!("{{\"id\":1,\"p\":\"a\"}}\n{{\"id\":2,\"p\":\"\"}}\n{{\"id\":3,\"p\":\"{long}\"}}\n"),
    )
    .await;
    assert_eq!(lab.run(&job("fail")).await.unwrap_err().code(), "PartitionValue");
    let report = lab.run(&job("quarantine")).await.expect("the run succeeds");
    assert_eq!((report.outputs[0].rows, report.outputs[0].quarantined), (1, 2));
}

#[tokio::test]
async fn csv_rows_are_numbered_by_line_for_any_line_end() {
    let contract = "[sources.s.contract]\ncolumns = [{name = 'id', type = 'int'}]";
    for text in ["id\n1\nx\n", "id\r\n1\r\nx\r\n"] {
        let e = table("csv", contract, &[("a.csv", text.as_bytes())]).await.map(drop).unwrap_err();
        assert_eq!((e.code(), e.row()), ("Unparseable", Some(3)), "{text:?}");
    }
}

#[tokio::test]
async fn fixed_size_bytes_are_binary_and_unknown_types_name_the_file() {
    use arrow::array::{FixedSizeBinaryArray, IntervalDayTimeArray};
    use arrow::datatypes::IntervalDayTime;
    let fixed: ArrayRef =
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8, 2], [3, 4]].iter()).expect("the run succeeds"));
    let file = parquet_of(&RecordBatch::try_from_iter([("b", fixed)]).expect("the columns have equal lengths"));
    assert_eq!(table("parquet", "", &[("a.parquet", &file)]).await.expect("the run succeeds").1, set(&["b:binary"]));
    let interval: ArrayRef = Arc::new(IntervalDayTimeArray::from(vec![IntervalDayTime::new(1, 2)]));
    let file = parquet_of(&RecordBatch::try_from_iter([("i", interval)]).expect("the columns have equal lengths"));
    let e = table("parquet", "", &[("a.parquet", &file)]).await.map(drop).unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnknownType", Some("i")));
    assert!(e.file().is_some_and(|file| file.ends_with("a.parquet")), "{e}");
}

#[tokio::test]
async fn dates_in_the_legacy_calendar_of_spark_are_refused() {
    use arrow::array::Date32Array;
    let file = |days: i32, marks: &[(&str, &str)]| {
        let day: ArrayRef = Arc::new(Date32Array::from(vec![days]));
        let batch = RecordBatch::try_from_iter([("day", day)]).expect("the columns have equal lengths");
        let marks = marks.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), (*value).to_owned())).collect();
        let properties = WriterProperties::builder().set_key_value_metadata(Some(marks)).build();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(vec![], batch.schema(), Some(properties)).expect("the writer opens");
        writer.write(&batch).expect("the run succeeds");
        writer.into_inner().expect("the file is valid")
    };
    let (first, today) = (-719_164, 19_782);
    for (days, marks, fits) in [
        (first, vec![("org.apache.spark.version", "2.4.8")], false),
        (first, vec![("org.apache.spark.version", "3.5.1"), ("org.apache.spark.legacyDateTime", "")], false),
        (first, vec![("org.apache.spark.version", "3.5.1")], true),
        (today, vec![("org.apache.spark.version", "2.4.8")], true),
    ] {
        let bytes = file(days, &marks);
        let made = table("parquet", "", &[("a.parquet", &bytes)])
            .await
            .map(drop)
            .map_err(|e| (e.code(), e.column().map(str::to_owned)));
        assert_eq!(
            made,
            if fits { Ok(()) } else { Err(("LegacyCalendar", Some("day".to_owned()))) },
            "{days}: {marks:?}"
        );
    }
}

#[tokio::test]
async fn source_contract_decides_the_stored_types_in_every_mode() {
    use arrow::array::TimestampNanosecondArray;
    let at: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_709_208_000_123_456_789]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let file =
        parquet_of(&RecordBatch::try_from_iter([("id", ids), ("at", at)]).expect("the columns have equal lengths"));
    let contract =
        "[sources.s.contract]\ncolumns = [{name = 'id', type = 'bigint'}, {name = 'at', type = 'timestamp(9)'}]";
    for mode in ["mode = 'append'", "mode = 'merge'\nkey = ['id']\norder = ['id']"] {
        let lab = Lab::new();
        lab.put("raw/a.parquet", file.clone()).await;
        lab.run(&job("parquet", contract).replace("mode = 'append'", mode)).await.expect("the run succeeds");
        assert_eq!(texts(&lab, "at").await, ["2024-02-29T12:00:00.123456789"], "{mode}");
    }
}

#[tokio::test]
async fn new_rows_take_the_types_of_external_files() {
    let strings: ArrayRef = Arc::new(StringArray::from(vec!["0.10"]));
    let file = parquet_of(&RecordBatch::try_from_iter([("v", strings)]).expect("the columns have equal lengths"));
    let lab = Lab::new();
    lab.put("lake/t/x.parquet", file).await;
    lab.put("raw/1.jsonl", "{\"v\":1.50}\n").await;
    lab.run(&job("json", "")).await.expect("the run succeeds");
    assert_eq!(texts(&lab, "v").await, ["0.10", "1.50"]);
}

#[tokio::test]
async fn period_column_is_added_by_the_table_in_every_run() {
    let lab = Lab::new();
    let job = job("json", "")
        .replace("mode = 'append'", "mode = 'snapshot'\nkey = ['id']\norder = ['seq']\ngranularity = 'month'");
    for (name, id) in [("a", 1), ("b", 2)] {
        lab.put(&format!("raw/{name}.jsonl"), format!("{{\"id\":{id},\"seq\":1}}\n")).await;
        lab.run(&job).await.expect("the run succeeds");
    }
    assert_eq!(texts(&lab, "id").await, ["1", "2"]);
}

#[tokio::test]
async fn unsupported_type_of_a_query_is_refused_in_a_dry_run_too() {
    let lab = Lab::new();
    lab.put("raw/1.jsonl", "{\"id\":1}\n").await;
    let job = job("json", "") + "[transform]\nsql = \"select interval '1 month' as i from s\"\n";
    for options in [RunOptions::default(), RunOptions::default().with_dry_run(DryRun::Read)] {
        let e = lab.run_with(&job, &options).await.unwrap_err();
        assert_eq!((e.code(), e.column()), ("UnstorableType", Some("i")));
    }
}
