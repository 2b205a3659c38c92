//! Runs the job of `biscuit run` on the capture. Files arrive one after the other, and after each run the rows are
//! the rows of PostgreSQL.

use biscuit_core::{Instant, Job, Outcome, Run, RunId};
use biscuit_dataset::{Dataset, Location};
use biscuit_flows::{
    checkpoints, comparable, contract, dms_contract, dms_files, flat_lines, lines, rows_of, truth, without_columns,
    without_schema,
};
use biscuit_job::report::JobReport;
use biscuit_job::settings::{ContractSpec, DatePart, DerivedColumn};
use biscuit_job::{DeclarativeJob, JobSpec, OutputMode, OutputSpec, SourceFormat, SourceSpec};
use biscuit_journal::JournalOptions;
use biscuit_schema::Contract;
use biscuit_testkit::diff_rows;

struct Lake(tempfile::TempDir);

impl Lake {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("the folder is created"))
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("the path has a folder")).expect("the folder is created");
        std::fs::write(path, content).expect("the file is written");
    }

    fn dataset(&self) -> Dataset {
        let url = self.0.path().join("lake/t").display().to_string();
        Dataset::new(Location::parse(&url).expect("the place is valid"), JournalOptions::default())
    }

    /// Returns the files of this lake as a source.
    fn source(&self, format: SourceFormat) -> SourceSpec {
        SourceSpec::new([self.0.path().join("raw").display().to_string()], format)
    }

    /// Returns the table of this lake as an output.
    fn target(&self, mode: OutputMode) -> OutputSpec {
        OutputSpec::new(self.0.path().join("lake/t").display().to_string(), mode)
    }

    async fn run(&self, source: &SourceSpec) -> JobReport {
        let source = source.clone().with_contract(ContractSpec::File("c.toml".to_owned()));
        let target = self.target(OutputMode::Merge).with_max_deleted(100.0);
        let spec =
            JobSpec::builder("j").with_source("s", source).with_target(target).build().expect("the job is valid");
        let job = DeclarativeJob::new(spec).in_folder(self.0.path());
        let run = Run::new("j", RunId::new("r"), Instant::from_micros(0));
        job.run(&run).await.expect("the run succeeds")
    }
}

/// Returns a contract as the text of a file. Reading it back gives the same contract.
fn as_file(contract: &Contract) -> String {
    let text = contract.to_toml().expect("the TOML is serialized");
    assert_eq!(&Contract::from_toml(&text).expect("the contract is valid"), contract);
    text
}

#[tokio::test]
async fn debezium_files_give_the_rows_of_each_checkpoint_as_they_arrive() {
    let all: Vec<String> = lines().iter().map(|l| without_schema(l)).collect();
    let marks = checkpoints(&lines());
    for table in ["customer", "orders", "scratch"] {
        let (lake, mut begun) = (Lake::new(), 0);
        lake.put("c.toml", as_file(&contract(table)));
        for (checkpoint, end) in &marks {
            lake.put(&format!("raw/{end:05}.jsonl"), all[begun..*end].join("\n"));
            begun = *end;
            let source = lake.source(SourceFormat::Debezium).with_table(format!("public.{table}"));
            let report = lake.run(&source).await;
            assert_eq!(report.outputs[0].sources["s"].selection.counts.selected, 1);
            let want = truth(checkpoint, table);
            if want.num_rows() > 0 {
                let (got, want) = comparable(table, checkpoint, &rows_of(&lake.dataset()).await, &want);
                assert_eq!(diff_rows(&[got], &[want]), None, "{table} at {checkpoint}");
            }
            assert_eq!(lake.run(&source).await.outcome, Outcome::Unchanged);
        }
    }
}

#[tokio::test]
async fn dms_files_give_the_rows_that_they_can_represent_as_they_arrive() {
    let lake = Lake::new();
    let source = lake.source(SourceFormat::Dms).with_table("public.orders");
    let source = source.with_timestamp_column("dms_ts").with_before_image("BI_");
    lake.put("c.toml", as_file(&dms_contract("orders")));
    let files = dms_files("parquet-before-image-lobnull");
    let is_load = |name: &str| name.contains("/LOAD");
    for load in [true, false] {
        for (name, bytes) in files.iter().filter(|(name, _)| is_load(name) == load) {
            lake.put(&format!("raw/{name}"), bytes);
        }
        assert_eq!(lake.run(&source).await.outcome, Outcome::Committed);
    }
    let rows = without_columns(&rows_of(&lake.dataset()).await, &["tags", "nums", "wake"]);
    let want = without_columns(&truth("3", "orders"), &["tags", "nums", "wake"]);
    let (got, want) = comparable("orders", "3", &rows, &want);
    assert_eq!(diff_rows(&[got], &[want]), None);
    assert_eq!(lake.run(&source).await.outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn flattened_stream_is_appended_as_plain_json() {
    // The flattened events of one table as rows, appended once, partitioned by the day of their commit.
    let of_table = |line: &String| {
        let line: serde_json::Value = serde_json::from_str(line).expect("the JSON is valid");
        let own = line["topic"] == "cdc.public.customer" && line["value"].is_object();
        own.then(|| line["value"].to_string())
    };
    let values: Vec<String> = flat_lines().iter().filter_map(of_table).collect();
    let lake = Lake::new();
    let half = values.len() / 2;
    lake.put("raw/1.json", values[..half].join("\n"));
    let target = lake
        .target(OutputMode::Append)
        .with_partition_by(["day"])
        .with_derive("day", DerivedColumn::new("at", DatePart::Date))
        .with_sql("SELECT id, name, __op, __deleted, to_timestamp_millis(CAST(__source_ts_ms AS BIGINT)) AS at FROM s");
    let job = JobSpec::builder("j").with_source("s", lake.source(SourceFormat::Json)).with_target(target);
    let job = job.build().expect("the job is valid");
    let run = async || {
        let job = DeclarativeJob::new(job.clone());
        job.run(&Run::new("j", RunId::new("r"), Instant::from_micros(0))).await.expect("the run succeeds")
    };
    assert_eq!(run().await.outputs[0].rows as usize, half);
    lake.put("raw/2.json", values[half..].join("\n"));
    assert_eq!(run().await.outputs[0].rows as usize, values.len() - half);
    assert_eq!(rows_of(&lake.dataset()).await.num_rows(), values.len());
    assert_eq!(run().await.outcome, Outcome::Unchanged);
}
