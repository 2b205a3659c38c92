//! What comes in is stored as it is, or refused: layouts and encodings of text, and types that hold every value.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use parquet::data_type::{Int96, Int96Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::lab::Lab;

fn job(format: &str, more: &str) -> String {
    format!(
        "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = '{format}'\n{more}\n[target]\nurl = 'lake/t'\nmode = 'append'\n"
    )
}

/// A table of what these files hold.
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

/// The values of a column of text, as they are.
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
async fn json_is_a_stream_of_values() {
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
        let (lab, _) = table("json", "", &[("a.json", content)]).await.expect("it is JSON");
        assert_eq!(lab.column("lake/t", "id").await, ["1", "2"], "{}", String::from_utf8_lossy(content));
    }
    let cut = table("json", "", &[("a.json", b"[{\"id\":1},{\"id\":2}")]).await.map(drop).unwrap_err();
    assert_eq!((cut.code(), cut.file(), cut.row()), ("TruncatedInput", Some("/raw/a.json"), Some(3)));
}

fn bzip2_of(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::best());
    out.write_all(text).expect("memory takes it");
    out.finish().expect("memory takes it")
}

#[tokio::test]
async fn no_column_and_no_character_is_lost_because_it_comes_late() {
    let mut text = String::new();
    for n in 0..3000 {
        text.push_str(&format!("{{\"a\":{n}}}\n"));
    }
    text.push_str("{\"a\":\"007\",\"coupon\":\"X\"}\n");
    let (lab, columns) = table("json", "", &[("a.json", text.as_bytes())]).await.expect("rows");
    assert_eq!(columns, set(&["a:string", "coupon:string"]));
    let all = lab.column("lake/t", "a").await;
    assert!(all.len() == 3001 && all.contains(&"007".to_owned()) && all.contains(&"7".to_owned()));
    let mut text = "n\n".to_owned() + &"1\n".repeat(3000);
    text.push_str("+49\n");
    let (lab, columns) = table("csv", "", &[("a.csv", text.as_bytes())]).await.expect("rows");
    assert_eq!(columns, set(&["n:string"]));
    assert!(lab.column("lake/t", "n").await.contains(&"+49".to_owned()));
    // All footers are looked at, however many there are.
    let files: Vec<(String, Vec<u8>)> = (0..30)
        .map(|n| {
            let ids: ArrayRef = Arc::new(Int64Array::from(vec![n]));
            let mut columns = vec![("a", ids)];
            if n == 17 {
                columns.push(("coupon", Arc::new(StringArray::from(vec!["X"]))));
            }
            (format!("{n}.parquet"), parquet_of(&RecordBatch::try_from_iter(columns).expect("columns")))
        })
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let (lab, columns) = table("parquet", "", &files).await.expect("rows");
    assert_eq!(columns, set(&["a:bigint", "coupon:string"]));
    assert_eq!(lab.column("lake/t", "coupon").await.iter().filter(|c| *c == "X").count(), 1);
}

fn parquet_of(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = parquet::arrow::ArrowWriter::try_new(vec![], batch.schema(), None).expect("a writer");
    writer.write(batch).expect("rows");
    writer.into_inner().expect("a footer")
}

#[tokio::test]
async fn numbers_of_json_are_stored_exactly() {
    let text = b"{\"wei\":123456789012345678901234567890,\"ref\":9007199254740993,\"x\":0.1}\n{\"wei\":1,\"ref\":12.5,\"x\":2}\n";
    let (lab, columns) = table("json", "", &[("a.json", text)]).await.expect("rows");
    assert_eq!(columns, set(&["wei:decimal(30,0)", "ref:string", "x:double"]));
    assert_eq!(lab.column("lake/t", "wei").await, ["1", "123456789012345678901234567890"]);
    assert_eq!(lab.column("lake/t", "ref").await, ["12.5", "9007199254740993"]);
}

#[tokio::test]
async fn nested_values_of_text_columns_are_their_json() {
    let text = b"{\"p\":\"none\",\"e\":{}}\n{\"p\":{\"k\":1,\"s\":\"x\"},\"e\":{}}\n{\"p\":[1, 2],\"e\":{}}\n";
    let (lab, columns) = table("json", "", &[("a.json", text)]).await.expect("rows");
    assert_eq!(columns, set(&["p:string", "e:string"]));
    assert_eq!(texts(&lab, "p").await, ["[1, 2]", "none", "{\"k\":1,\"s\":\"x\"}"]);
    assert_eq!(lab.column("lake/t", "e").await, ["{}"; 3]);
}

#[tokio::test]
async fn csv_has_dialects_and_what_does_not_fit_one_is_refused() {
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
        table("csv", "csv = {encoding = 'windows-1252'}", &[("a.csv", b"v\nZo\xeb \x80\n")]).await.expect("text");
    assert_eq!(texts(&lab, "v").await, ["Zoë €"]);
    let (lab, _) = table("csv", "", &[("a.tsv", b"id\tv\n1\tx\n")]).await.expect("tabs");
    assert_eq!(texts(&lab, "v").await, ["x"]);
    for (content, row) in [("id,v\n1,\"a\n2,b\n3,c\n", 2), ("id,v\n1,a\n2,\"She said \\\"yes\\\"\"\n", 3)] {
        let e = table("csv", "", &[("a.csv", content.as_bytes())]).await.map(drop).unwrap_err();
        assert_eq!((e.code(), e.file(), e.row()), ("InvalidCsv", Some("/raw/a.csv"), Some(row)), "{e}");
        assert!(e.message().contains("`escape` and `quote`"), "{e}");
    }
    for wrong in ["delimiter = 'ab'", "quote = ','", "encoding = 'klingon'", "delimiter = ''"] {
        let e = biscuit_job::JobSpec::from_toml(&job("csv", &format!("csv = {{{wrong}}}")), &[]).unwrap_err();
        assert_eq!(e.code(), "InvalidJob", "{wrong}: {e}");
    }
}

#[tokio::test]
async fn a_file_of_csv_without_its_header_is_refused() {
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

/// A file as Spark writes timestamps: Julian days and nanoseconds of the day.
fn int96(values: &[(u32, u64)]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type("message m { required int96 at; }").expect("a schema"));
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::default())).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("it has columns").expect("one");
    let values: Vec<Int96> =
        values.iter().map(|(day, nanos)| Int96::from(vec![*nanos as u32, (nanos >> 32) as u32, *day])).collect();
    column.typed::<Int96Type>().write_batch(&values, None, None).expect("values");
    column.close().expect("a column");
    group.close().expect("a row group");
    writer.close().expect("a footer");
    bytes
}

#[tokio::test]
async fn timestamps_of_spark_are_exact_from_year_1_to_9999() {
    // 0001-01-01, 1500-06-01, 2024-02-29 12:00, 9999-12-31 23:59:59.999999, as Julian days.
    let file =
        int96(&[(1_721_426, 0), (2_269_075, 0), (2_460_370, 43_200_000_000_000), (5_373_484, 86_399_999_999_000)]);
    let (lab, columns) = table("parquet", "", &[("a.parquet", &file)]).await.expect("rows");
    assert_eq!(columns, set(&["at:timestamp"]));
    let want = ["0001-01-01T00:00:00", "1500-06-01T00:00:00", "2024-02-29T12:00:00", "9999-12-31T23:59:59.999999"];
    assert_eq!(lab.column("lake/t", "at").await, want);
    // A table that Spark wrote, read as it is.
    let foreign = Lab::new();
    foreign.put("lake/s/a.parquet", file).await;
    assert_eq!(foreign.column("lake/s", "at").await, want);
}

#[tokio::test]
async fn unsigned_integers_are_the_next_wider_ones() {
    let (small, large): (ArrayRef, ArrayRef) =
        (Arc::new(UInt32Array::from(vec![u32::MAX])), Arc::new(UInt64Array::from(vec![u64::MAX])));
    let file = parquet_of(&RecordBatch::try_from_iter([("small", small), ("large", large)]).expect("columns"));
    let (lab, columns) = table("parquet", "", &[("a.parquet", &file)]).await.expect("rows");
    assert_eq!(columns, set(&["small:bigint", "large:decimal(20,0)"]));
    assert_eq!(
        (lab.column("lake/t", "small").await, lab.column("lake/t", "large").await),
        (vec!["4294967295".to_owned()], vec!["18446744073709551615".to_owned()])
    );
}

#[tokio::test]
async fn a_large_array_is_read_as_a_whole_and_a_large_file_of_lines_in_parts() {
    let line = |n: usize| format!("{{\"id\":{n},\"zip\":\"{n:060}\"}}");
    let lines: Vec<String> = (0..250_000).map(line).collect();
    for text in [lines.join("\n"), format!("[{}]", lines.join(",\n"))] {
        let (lab, _) = table("json", "", &[("a.json", text.as_bytes())]).await.expect("rows");
        let ids = lab.column("lake/t", "id").await;
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 250_000);
    }
}
