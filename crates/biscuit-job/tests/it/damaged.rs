//! Damaged or oversized input: the error names the file, and no version is committed.

use std::io::Write;

use biscuit_core::{Error, ErrorKind};

use crate::lab::Lab;

const JOB: &str = "
    name = 'in'
    [sources.in]
    url = 'raw'
    format = 'json'
    [target]
    url = 'lake/t'
    mode = 'append'
";

const CONTRACT: &str =
    "[sources.in.contract]\non_error = 'quarantine'\ncolumns = [{name = 'id', type = 'bigint'}]\n[target]";

fn packed(text: &[u8]) -> [Vec<u8>; 2] {
    let mut w = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    w.write_all(text).expect("writing to memory succeeds");
    [w.finish().expect("compression succeeds"), zstd::encode_all(text, 1).expect("compression succeeds")]
}

async fn refused(job: &str, file: &[u8]) -> Error {
    let lab = Lab::new();
    lab.put("raw/a", file).await;
    let e = lab.run(job).await.expect_err("damaged input is an error");
    assert_eq!(e.kind(), ErrorKind::Data, "{e}");
    assert!(e.file().is_some_and(|file| file.ends_with("raw/a")), "{e}");
    e
}

#[tokio::test]
async fn truncated_compressed_text_is_an_error_in_each_format() {
    let csv = JOB.replace("'json'", "'csv'");
    let with_contract = |job: &str| job.replace("[target]", CONTRACT);
    let json: String = (0..3000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let lines: String = (0..3000).map(|id| format!("{id}\n")).collect();
    for (job, text) in [(JOB, json), (&csv, format!("id\n{lines}"))] {
        for whole in packed(text.as_bytes()) {
            for cut in [8, whole.len() / 2, whole.len() - 1] {
                for job in [job.to_owned(), with_contract(job)] {
                    assert_eq!(refused(&job, &whole[..cut]).await.code(), "TruncatedInput", "the first {cut} bytes");
                }
            }
            assert_eq!(refused(&with_contract(job), &[&whole[..], b"more"].concat()).await.code(), "TruncatedInput");
        }
    }
}

#[tokio::test]
async fn deeply_nested_line_is_refused_even_in_an_unused_column() {
    let nested = |levels: usize| format!("{{\"id\":2,\"x\":{}{}}}\n", "[".repeat(levels - 1), "]".repeat(levels - 1));
    for levels in [65, 200, 100_000] {
        let lab = Lab::new();
        lab.put("raw/a", format!("{{\"id\":1}}\n{}{{\"id\":3}}\n", nested(levels))).await;
        // One bad record of three exceeds the default of `max_quarantined`.
        let e = lab.run(&JOB.replace("[target]", CONTRACT)).await.unwrap_err();
        assert_eq!(e.code(), "TooManyQuarantined", "{levels} levels");
        let fail = JOB.replace("[target]", &CONTRACT.replace("'quarantine'", "'fail'"));
        let e = lab.run(&fail).await.unwrap_err();
        assert_eq!((e.code(), e.row()), ("TooDeep", Some(2)), "{levels} levels");
    }
}

#[tokio::test]
async fn lines_without_columns_are_a_data_error() {
    assert_eq!(refused(JOB, b"{}\n{}\n").await.code(), "NoColumns");
}

#[tokio::test]
async fn damaged_parquet_error_names_the_file() {
    let parquet = JOB.replace("'json'", "'parquet'");
    for file in [&b"PAR1 not really PAR1"[..], b"PAR1", b"PAR1\xff\xff\xff\xffPAR1"] {
        assert_eq!(refused(&parquet, file).await.code(), "UnreadableParquet");
    }
}
