//! Valid rows, and files of them in all formats, from which damaged inputs are made.

use std::sync::Arc;

use arrow_avro::compression::CompressionCodec;
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroOcfFormat;
use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};

/// Days of the rows, by which tables are partitioned.
const DAYS: [&str; 3] = ["2024-02-28", "2024-02-29", "2024-03-01"];

/// Returns change records of the keys `from..from + n` in columns of many types.
pub(crate) fn rows(from: i64, n: i64, seq: i64) -> RecordBatch {
    let ids: Vec<i64> = (from..from + n).collect();
    let texts = |text: &dyn Fn(i64) -> Option<String>| -> ArrayRef {
        Arc::new(ids.iter().map(|i| text(*i)).collect::<StringArray>())
    };
    let lists = ids.iter().map(|i| (i % 3 > 0).then(|| (0..i % 4).map(Some).collect::<Vec<_>>()));
    let fields = Fields::from(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)]);
    let ints: ArrayRef = Arc::new(ids.iter().map(|i| (i % 5 > 0).then_some(*i as i32)).collect::<Int32Array>());
    let parts = StructArray::new(fields, vec![ints, texts(&|i| Some(format!("b{}", i % 7)))], None);
    let amounts: Decimal128Array = ids.iter().map(|i| Some(i128::from(*i) * 101)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(ids.clone()))),
        ("seq", Arc::new(Int64Array::from(vec![seq; ids.len()]))),
        ("day", texts(&|i| Some(DAYS[(i % 3) as usize].to_owned()))),
        ("v", texts(&|i| (i % 4 > 0).then(|| format!("value {i} of {seq}")))),
        ("amount", Arc::new(amounts.with_precision_and_scale(12, 2).expect("the decimal is valid"))),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(ids.iter().map(|i| 1_709_251_200_000_000 + i)))),
        ("flag", Arc::new(ids.iter().map(|i| (i % 3 > 0).then_some(i % 2 == 0)).collect::<BooleanArray>())),
        ("price", Arc::new(Float64Array::from_iter_values(ids.iter().map(|i| *i as f64 / 3.0)))),
        ("raw", Arc::new(BinaryArray::from_iter_values(ids.iter().map(|i| i.to_le_bytes())))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
        ("part", Arc::new(parts)),
        ("op", texts(&|i| Some(if i % 11 == 10 { "d" } else { "u" }.to_owned()))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .expect("the columns have one length")
}

/// Returns Parquet files of the same rows as different writers make them: plain without compression; with
/// dictionaries and snappy; with delta encodings, pages of version 2 and zstd.
pub(crate) fn parquet(rows: &RecordBatch) -> Vec<Vec<u8>> {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let new = WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_2_0).set_compression(zstd);
    let all = [
        WriterProperties::builder().set_dictionary_enabled(false),
        WriterProperties::builder().set_compression(Compression::SNAPPY).set_bloom_filter_enabled(true),
        new.set_dictionary_enabled(false).set_column_encoding("v".into(), Encoding::DELTA_BYTE_ARRAY),
    ];
    all.into_iter()
        .map(|properties| parquet_file(rows, properties.set_max_row_group_row_count(Some(20)).build()))
        .collect()
}

fn parquet_file(rows: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, rows.schema(), Some(properties)).expect("the writer is created");
    writer.write(rows).expect("the rows are written");
    writer.close().expect("the file is closed");
    out
}

/// Returns Avro files of the same rows, by codec.
pub(crate) fn avro(rows: &RecordBatch) -> Vec<Vec<u8>> {
    let codecs = [
        None,
        Some(CompressionCodec::Deflate),
        Some(CompressionCodec::Snappy),
        Some(CompressionCodec::ZStandard),
        Some(CompressionCodec::Bzip2),
        Some(CompressionCodec::Xz),
    ];
    let file = |codec| {
        let builder = WriterBuilder::new(rows.schema().as_ref().clone()).with_compression(codec);
        let mut writer = builder.build::<_, AvroOcfFormat>(Vec::new()).expect("the writer is created");
        for at in (0..rows.num_rows()).step_by(20) {
            writer.write(&rows.slice(at, 20.min(rows.num_rows() - at))).expect("the rows are written");
        }
        writer.finish().expect("the file is complete");
        writer.into_inner()
    };
    codecs.into_iter().map(file).collect()
}

/// Returns lines of JSON with the same keys.
pub(crate) fn json_lines(from: i64, n: i64, seq: i64) -> Vec<u8> {
    let line = |i: i64| {
        let (day, op) = (DAYS[(i % 3) as usize], if i % 11 == 10 { "d" } else { "u" });
        format!(
            "{{\"id\":{i},\"seq\":{seq},\"day\":\"{day}\",\"v\":\"value {i} of {seq}\",\"amount\":{}.25,\"at\":\"2024-03-01T10:00:00Z\",\
             \"flag\":{},\"price\":{}.5,\"list\":[1,2,{i}],\"part\":{{\"a\":{i},\"b\":\"b\"}},\"op\":\"{op}\"}}\n",
            i * 7,
            i % 2 == 0,
            i * 3
        )
    };
    (from..from + n).map(line).collect::<String>().into_bytes()
}

/// Returns CSV with a header.
pub(crate) fn csv(from: i64, n: i64, seq: i64) -> Vec<u8> {
    let line = |i: i64| {
        let (day, op) = (DAYS[(i % 3) as usize], if i % 11 == 10 { "d" } else { "u" });
        format!("{i},{seq},{day},\"a \"\"quoted\"\" {i}\",{}.25,2024-03-01 10:00:00,{op}\n", i * 7)
    };
    ("id,seq,day,v,amount,at,op\n".to_owned() + &(from..from + n).map(line).collect::<String>()).into_bytes()
}

/// Returns envelopes of Debezium for two tables, with a delete and a key change.
pub(crate) fn envelopes(seq: i64) -> Vec<u8> {
    let mut out = String::new();
    for i in 0..20 {
        let (table, lsn) = (["bill", "item"][(i % 2) as usize], seq * 100 + i);
        let row = format!("{{\"id\":{i},\"total\":\"A+g=\",\"v\":\"value {i}\"}}");
        let (op, before, after) = if i % 7 == 6 { ("d", row.as_str(), "null") } else { ("c", "null", row.as_str()) };
        out.push_str(&format!(
            "{{\"topic\":\"s.{table}\",\"key\":{{\"id\":{i}}},\"headers\":{{}},\"value\":{{\"op\":\"{op}\",\"before\":{before},\"after\":{after},\
             \"ts_ms\":{lsn},\"source\":{{\"schema\":\"public\",\"table\":\"{table}\",\"lsn\":{lsn},\"connector\":\"postgresql\"}}}}}}\n"
        ));
    }
    out.into_bytes()
}

/// Reads a test file of the project.
pub(crate) fn data(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
