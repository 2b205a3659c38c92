//! Formats of input: JSON, CSV and Parquet, compressed or not, with and without a contract.

use std::io::Write;
use std::sync::Arc;

use crate::lab::Lab;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

fn gzip(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).expect("writing to memory succeeds");
    out.finish().expect("writing to memory succeeds")
}

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("the writer opens");
    writer.write(batch).expect("the rows are readable");
    writer.close().expect("the footer is written");
    bytes
}

fn job(format: &str, more: &str) -> String {
    format!(
        "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = '{format}'\n{more}\n[target]\nurl = 'lake/t'\nmode = 'append'\n"
    )
}

const CONTRACT: &str =
    "[sources.s.contract]\ncolumns = [{name = 'id', type = 'bigint'}, {name = 'zip', type = 'string'}]";

#[tokio::test]
async fn all_formats_and_compressions_yield_the_same_rows() {
    let json = "{\"id\":1,\"zip\":\"02134\"}\n{\"zip\":null,\"id\":2}\n";
    let csv = "zip,id\n02134,1\n,2\n";
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let zips: ArrayRef = Arc::new(StringArray::from(vec![Some("02134"), None]));
    let columns = parquet(&RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("zip", zips, true)]).unwrap());
    let zstd = zstd::encode_all(json.as_bytes(), 1).unwrap();
    for (format, content) in [
        ("json", json.as_bytes().to_vec()),
        ("json", gzip(json)),
        ("json", zstd),
        ("csv", csv.as_bytes().to_vec()),
        ("csv", gzip(csv)),
        ("csv", format!("\u{feff}{}", csv.replace('\n', "\r\n")).into_bytes()),
        ("parquet", columns),
    ] {
        for contract in [CONTRACT, ""] {
            let lab = Lab::new();
            lab.put("raw/a", content.clone()).await;
            lab.run(&job(format, contract)).await.unwrap();
            let rows = lab.rows("lake/t").await;
            let mut lines: Vec<&str> = rows.lines().map(str::trim).collect();
            lines.sort_unstable();
            let sorted =
                |text: &str| text.split(" | ").map(|c| c.trim().to_owned()).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(sorted(rows.lines().next().unwrap()), sorted("id:bigint | zip:string"), "{format} {contract}");
            assert_eq!(lab.column("lake/t", "zip").await, ["02134", "null"], "{format} {contract}");
            assert_eq!(lab.column("lake/t", "id").await, ["1", "2"], "{format} {contract}");
        }
    }
}

#[tokio::test]
async fn csv_with_another_delimiter_and_without_header_is_read() {
    let lab = Lab::new();
    lab.put("raw/a.csv", "1;\"a;\nb\"\n2;NULL\n").await;
    let csv = format!("csv = {{delimiter = ';', header = false, null = 'NULL'}}\n{CONTRACT}");
    lab.run(&job("csv", &csv)).await.unwrap();
    assert_eq!(lab.column("lake/t", "id").await, ["1", "2"]);
    assert!(lab.rows("lake/t").await.contains("null"));
    let e = lab.run(&job("csv", "csv = {header = false}\nbookmark = 'other'")).await.unwrap_err();
    assert!(e.message().contains("needs a contract"), "{e}");
}

#[tokio::test]
async fn inferred_types_are_kept_by_later_runs() {
    let lab = Lab::new();
    lab.put(
        "raw/1.json",
        "{\"n\":1,\"order_datetime\":\"2024-03-01T10:00:00Z\",\"birth_date\":\"2000-01-01\",\"zip\":2134,\"x\":1.5}\n",
    )
    .await;
    lab.run(&job("json", "")).await.unwrap();
    let header =
        |rows: String| rows.lines().next().unwrap().split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let want = ["n:bigint", "order_datetime:timestamp", "birth_date:date", "zip:string", "x:double"];
    assert_eq!(header(lab.rows("lake/t").await), want);
    // Rows of a later run do not change the types. A value that does not fit stops the run.
    lab.put("raw/2.json", "{\"n\":\"7\",\"x\":2,\"new\":true}\n").await;
    lab.run(&job("json", "")).await.unwrap();
    assert_eq!(header(lab.rows("lake/t").await).len(), 6);
    lab.put("raw/3.json", "{\"n\":\"seven\"}\n").await;
    let e = lab.run(&job("json", "")).await.unwrap_err();
    assert_eq!(e.to_string(), "Unparseable: a value of column `n` (bigint) is not of that type (/raw/3.json, row 1)");
    let rules = "rules = [{match = '*', when = 'double', type = 'decimal(15,2)'}]\nbookmark = 'b'";
    lab.run(&job("json", rules).replace("lake/t", "lake/u").replace("'raw'", "'raw/1.json'")).await.unwrap();
    assert!(header(lab.rows("lake/u").await).contains(&"x:decimal(15,2)".to_owned()));
}

#[tokio::test]
async fn large_files_are_split_and_lines_keep_their_numbers() {
    let lab = Lab::new();
    let mut text = String::new();
    // More than two parts of 8 MiB.
    for n in 0..300_000 {
        text.push_str(&format!("{{\"id\":{n},\"zip\":\"{:060}\"}}\n", n));
    }
    text.push_str("{\"id\":\"x\",\"zip\":\"1\"}\n{\"id\":{\"nested\":1}}\nno json\n");
    lab.put("raw/a.json", text.clone()).await;
    let e = lab.run(&job("json", CONTRACT)).await.unwrap_err();
    assert_eq!((e.code(), e.file(), e.row()), ("Unparseable", Some("/raw/a.json"), Some(300_001)));
    let aside = CONTRACT.replace("columns", "on_error = 'quarantine'\ncolumns");
    let report = lab.run(&job("json", &aside)).await.unwrap();
    assert_eq!((report.outputs[0].rows, report.outputs[0].quarantined), (300_000, 3));
    let refused = biscuit_apply::quarantined_records(&lab.dataset("lake/t")).await.unwrap();
    let mut said: Vec<_> = refused.iter().map(|q| (q.refused.row, q.refused.code.as_str())).collect();
    said.sort_unstable();
    assert_eq!(said, [(300_001, "Unparseable"), (300_002, "Unparseable"), (300_003, "InvalidJson")]);
    let raw = refused.iter().find(|q| q.refused.row == 300_003).unwrap();
    assert_eq!(raw.refused.raw, b"no json\n");
    // Compressed files are not split.
    let other = Lab::new();
    other.put("raw/a.json.gz", gzip(&text)).await;
    let e = other.run(&job("json", CONTRACT)).await.unwrap_err();
    assert_eq!((e.code(), e.row()), ("Unparseable", Some(300_001)));
}

#[tokio::test]
async fn extra_json_columns_are_reported_refused_or_kept() {
    let lab = Lab::new();
    lab.put("raw/a.json", "{\"id\":1,\"extra\":{\"deep\":[1]}}\n\n  \n{\"id\":2}\n").await;
    let report = lab.run(&job("json", CONTRACT)).await.unwrap();
    let read = report.outputs[0].sources["s"].read.clone().unwrap();
    assert_eq!(read.coercion.dropped.into_iter().collect::<Vec<_>>(), ["extra"]);
    assert_eq!((read.files, read.coercion.rows), (1, 2));
    lab.put("raw/b.json", "{\"id\":1,\"extra\":1}\n").await;
    let refuse = CONTRACT.replace("columns", "extra = 'refuse'\ncolumns");
    let e = lab.run(&job("json", &refuse)).await.unwrap_err();
    assert_eq!((e.code(), e.file()), ("ExtraColumns", Some("/raw/b.json")));
    let keep = CONTRACT.replace("columns", "extra = 'keep'\ncolumns");
    lab.run(&job("json", &keep)).await.unwrap();
    assert_eq!(lab.column("lake/t", "extra").await, ["1", "null", "null"]);
}

#[tokio::test]
async fn csv_records_with_a_wrong_number_of_cells_are_quarantined() {
    let lab = Lab::new();
    lab.put("raw/a.csv", "id,zip\n1,a\n2,b,c\n3,d\n").await;
    let e = lab.run(&job("csv", CONTRACT)).await.unwrap_err();
    assert_eq!(e.to_string(), "InvalidCsv: the record has 3 cells, but there are 2 columns (/raw/a.csv, row 3)");
    let aside = CONTRACT.replace("columns", "on_error = 'quarantine'\ncolumns");
    let job = job("csv", &aside) + "max_quarantined = 50.0\n";
    let report = lab.run(&job).await.unwrap();
    assert_eq!((report.outputs[0].rows, report.outputs[0].quarantined), (2, 1));
    let refused = biscuit_apply::quarantined_records(&lab.dataset("lake/t")).await.unwrap();
    assert_eq!(String::from_utf8(refused[0].refused.raw.clone()).unwrap(), "id,zip\n2,b,c\n");
}

#[tokio::test]
async fn json_columns_match_former_names_in_any_letter_case() {
    let contract = "[sources.s.contract]\ncolumns = [
        {name = 'id', type = 'bigint', nullable = false},
        {name = 'zip', type = 'string', renamed_from = ['postcode', 'plz']},
        {name = 'place', type = 'struct<town:string>'},
    ]";
    for packed in [false, true] {
        let lab = Lab::new();
        let text = "{\"id\":1,\"zip\":\"a\"}\n{\"ID\":2,\"postcode\":\"b\"}\n{\"Id\":3,\"PLZ\":\"c\",\"zip\":null}\n";
        // Names are found even if they occur late, after an extra column has switched the reader to the non-strict
        // mode.
        let more = "{\"id\":4,\"x\":1}\n".to_owned()
            + &"{\"id\":5,\"x\":1}\n".repeat(10_000)
            + "{\"iD\":6,\"y\":1,\"ZIP\":\"d\",\"place\":{\"town\":\"t\",\"street\":\"s\"}}\n{\"id\":7,\"zip\":\"e\",\"plz\":\"f\"}\n";
        for (name, text) in [("1.json", text.to_owned()), ("2.json", more)] {
            let content = if packed { gzip(&text) } else { text.into_bytes() };
            lab.put(&format!("raw/{name}"), content).await;
        }
        let report = lab.run(&job("json", contract)).await.unwrap();
        let read = report.outputs[0].sources["s"].read.clone().unwrap();
        let ids = lab.column("lake/t", "id").await;
        assert_eq!(
            (ids.len(), ids.iter().filter(|id| *id != "5").cloned().collect::<String>()),
            (10_006, "123467".into())
        );
        let zips: String = lab.column("lake/t", "zip").await.into_iter().filter(|z| z != "null").collect();
        assert_eq!(zips, "abcde");
        // A row with two names of one column is reported.
        assert_eq!(read.coercion.dropped.into_iter().collect::<Vec<_>>(), ["place.street", "plz", "x", "y"]);
        let renamed: Vec<String> = read.coercion.renamed.into_iter().map(|(a, b)| format!("{a}>{b}")).collect();
        assert_eq!(renamed, ["ID>id", "Id>id", "PLZ>zip", "ZIP>zip", "iD>id", "plz>zip", "postcode>zip"]);
    }
}
