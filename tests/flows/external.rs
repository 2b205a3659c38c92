//! Tables that Spark, DuckDB and pandas wrote, and files that they add between runs. tests/data/foreign was written
//! by Spark 4.3, DuckDB 2.0 and pandas 3.1 with pyarrow 26: three rows in two days, and a file with a fourth.

use std::path::Path;

use biscuit_apply::report::MergeReport;
use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode, adopt, verify};
use biscuit_change::{RowsOptions, RowsReader};
use biscuit_core::Result;
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{ExternalFiles, JournalOptions};
use biscuit_testkit::{assert_rows_eq, table};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::DataType;
use datafusion::prelude::{SessionContext, cast, col};

const TOOLS: [&str; 3] = ["spark", "duckdb", "pandas"];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder is created");
    for entry in std::fs::read_dir(from)
        .expect("the example is part of the project")
        .map(|e| e.expect("the entry is readable").path())
    {
        let name = to.join(entry.file_name().expect("the path has a name"));
        if entry.is_dir() {
            copy(&entry, &name);
        } else {
            std::fs::copy(&entry, name).expect("the copy succeeds");
        }
    }
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/foreign").join(name)
}

/// Returns a folder with the table of a tool.
fn written_by(tool: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("the folder is created");
    copy(&data(&format!("{tool}-table")), &folder.path().join("t"));
    folder
}

fn append(tool: &str, folder: &tempfile::TempDir) {
    copy(&data(&format!("{tool}-more")), &folder.path().join("t"));
}

fn dataset(folder: &tempfile::TempDir, external: ExternalFiles) -> Dataset {
    let location = Location::parse(&folder.path().join("t").to_string_lossy()).expect("the place is valid");
    Dataset::new(location, JournalOptions::default().with_external_files(external))
}

async fn merge(dataset: &Dataset, lines: &str) -> Result<MergeReport> {
    let snapshot = dataset.view().await?;
    let expected = snapshot.schema(&snapshot.open_files().await?)?;
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op").with_expected(expected));
    reader.read("changes.jsonl", lines.to_owned().into_bytes().into())?;
    let merge = Merge::new(dataset.clone(), MergeSpec::new(["id"], ["seq"])?, MergeOptions::default())?;
    merge.run(reader.finish()?, RunMode::Commit).await
}

async fn rows(dataset: &Dataset) -> Vec<RecordBatch> {
    let frame = dataset.load(&SessionContext::new()).await.expect("the frame is valid");
    // pandas writes decimals with the minimum precision for their values.
    let amount = cast(col("amount"), DataType::Decimal128(10, 2)).alias("amount");
    let frame = frame.select(vec![col("id"), col("seq"), col("day"), col("v"), amount]).expect("the columns exist");
    frame.collect().await.expect("the rows are readable")
}

const SECOND: &str = r#"{"id":2,"seq":2,"day":"2024-03-01","v":"moved","amount":3.25,"at":"2024-02-29T01:02:03","op":"u"}
{"id":3,"seq":2,"op":"d"}
"#;

#[tokio::test]
async fn table_of_another_tool_is_merged_into_and_adopted() {
    for tool in TOOLS {
        let folder = written_by(tool);
        let dataset = dataset(&folder, ExternalFiles::Adopt);
        let before = rows(&dataset).await;
        let want = table(
            "id:bigint | seq:bigint | day:date | v:string | amount:decimal(10,2)
             1 | 1 | 2024-02-28 | a | 10.50
             2 | 1 | 2024-02-29 | ü/x | -0.01
             3 | 1 | 2024-02-29 | null | null",
        );
        assert_rows_eq!(before, want);
        let report = merge(&dataset, SECOND).await.unwrap_or_else(|e| panic!("{tool}: {e}"));
        assert_eq!((report.rows.updated, report.rows.deleted, report.files.adopted), (1, 1, 1), "{tool}");
        let want = table(
            "id:bigint | seq:bigint | day:date | v:string | amount:decimal(10,2)
             1 | 1 | 2024-02-28 | a | 10.50
             2 | 2 | 2024-03-01 | moved | 3.25",
        );
        assert_rows_eq!(rows(&dataset).await, want);
        assert!(verify(&dataset, &[]).await.expect("the verification succeeds").is_sound(), "{tool}");
    }
}

#[tokio::test]
async fn file_that_another_tool_appends_is_read_merged_verified_and_adopted() {
    for tool in TOOLS {
        let folder = written_by(tool);
        let dataset = dataset(&folder, ExternalFiles::Adopt);
        merge(&dataset, SECOND).await.expect("the merge succeeds");
        append(tool, &folder);
        assert_eq!(rows(&dataset).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 3, "{tool}");
        let found = verify(&dataset, &[]).await.expect("the verification succeeds");
        assert_eq!((found.external.len(), found.is_sound()), (1, true), "{tool}");
        // The next run changes its row. The row has the order of its own columns.
        let report = merge(&dataset, "{\"id\":4,\"seq\":0,\"op\":\"d\"}\n{\"id\":1,\"seq\":0,\"op\":\"d\"}\n").await;
        let report = report.unwrap_or_else(|e| panic!("{tool}: {e}"));
        assert_eq!(report.verdicts.late, 2, "{tool}");
        let report = merge(&dataset, "{\"id\":4,\"seq\":2,\"op\":\"d\"}\n").await.expect("the merge succeeds");
        assert_eq!(report.rows.deleted, 1, "{tool}");
        append(tool, &folder);
        assert_eq!(adopt(&dataset, RunMode::Commit).await.expect("the adoption succeeds").adopted.len(), 1, "{tool}");
        assert!(verify(&dataset, &[]).await.expect("the verification succeeds").external.is_empty(), "{tool}");
    }
}

#[tokio::test]
async fn appended_file_is_refused_or_ignored_by_option() {
    for tool in TOOLS {
        let folder = written_by(tool);
        merge(&dataset(&folder, ExternalFiles::Adopt), SECOND).await.expect("the merge succeeds");
        append(tool, &folder);
        let e = merge(&dataset(&folder, ExternalFiles::Fail), SECOND).await.unwrap_err();
        assert_eq!(e.code(), "ExternalFiles", "{tool}");
        assert!(e.message().contains("day=2024-02-29/"), "{e}");
        let ignoring = dataset(&folder, ExternalFiles::Ignore);
        let report = merge(&ignoring, "{\"id\":4,\"seq\":2,\"op\":\"d\"}\n{\"id\":1,\"seq\":2,\"op\":\"d\"}\n").await;
        assert_eq!(report.expect("the merge succeeds").rows.deleted, 1, "{tool}");
        assert_eq!(rows(&ignoring).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 1, "{tool}");
    }
}
