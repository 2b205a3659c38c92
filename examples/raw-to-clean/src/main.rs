//! Reads raw JSON, each file once, and writes typed Parquet by day.

use std::path::Path;
use std::process::ExitCode;

use biscuit_core::{Clock, Result, Run, RunId, SystemClock};
use biscuit_job::{DeclarativeJob, JobReport, JobSpec, RunOptions};

/// The job file: source, contract and target.
const JOB: &str = r#"
    name = "orders"

    [sources.orders]
    url = "raw/orders"
    format = "json"
    source_file = "source_file"

    [sources.orders.contract]
    on_error = "quarantine"
    columns = [
        { name = "id", type = "bigint", nullable = false },
        { name = "order_datetime", type = "timestamp", nullable = false },
        { name = "zip", type = "string", comment = "leading zeros are significant" },
        { name = "amount", type = "decimal(15,2)" },
    ]

    [target]
    url = "clean/orders"
    mode = "append"
    partition_by = ["order_date"]
    derive.order_date = { from = "order_datetime", as = "date" }
    audit.processing_datetime = "etl_processing_datetime"
"#;

const SAMPLE: &str = r#"{"id":1,"order_datetime":"2024-02-29T12:00:00Z","zip":"02134","amount":10.5}
{"id":2,"order_datetime":1709294400,"zip":"10115","amount":"7.00"}
"#;

/// Runs the job on a lake in the folder `lake`.
async fn clean(lake: &Path, run: &Run) -> Result<JobReport> {
    let at = |path: &str| lake.join(path).display().to_string();
    let set = [("sources.orders.url".to_owned(), at("raw/orders")), ("target.url".to_owned(), at("clean/orders"))];
    DeclarativeJob::new(JobSpec::from_toml(JOB, &set)?).run(run, &RunOptions::default()).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let lake = std::env::args().nth(1).unwrap_or_else(|| "lake".to_owned());
    let lake = Path::new(&lake);
    let raw = lake.join("raw/orders");
    if !raw.exists() {
        let written = std::fs::create_dir_all(&raw).and_then(|()| std::fs::write(raw.join("1.json"), SAMPLE));
        if let Err(e) = written {
            eprintln!("error: cannot write the sample: {e}");
            return ExitCode::FAILURE;
        }
    }
    match clean(lake, &Run::new("orders", RunId::new("by-hand"), SystemClock.now())).await {
        Ok(report) => {
            let output = &report.outputs[0];
            println!("{}: {} rows, {} partitions changed", output.outcome, output.rows, output.partitions.len());
            output.partitions.iter().for_each(|p| println!("  {p}"));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use biscuit_core::Instant;

    use super::*;

    #[tokio::test]
    async fn each_file_is_read_once_and_late_orders_are_in_their_partition() {
        let lake = tempfile::tempdir().unwrap();
        let raw = lake.path().join("raw/orders");
        std::fs::create_dir_all(&raw).unwrap();
        std::fs::write(raw.join("1.json"), SAMPLE).unwrap();
        let run = |id: &str| Run::new("orders", RunId::new(id), Instant::from_micros(1_709_300_000_000_000));
        let report = clean(lake.path(), &run("monday")).await.unwrap();
        assert_eq!(report.outputs[0].partitions, ["order_date=2024-02-29", "order_date=2024-03-01"]);
        assert_eq!(clean(lake.path(), &run("retry")).await.unwrap().outcome, "unchanged");
        let late = "{\"id\":3,\"order_datetime\":\"2024-02-29T23:59:59Z\",\"zip\":\"00501\",\"amount\":1}\n";
        std::fs::write(raw.join("2.json"), late).unwrap();
        let report = clean(lake.path(), &run("tuesday")).await.unwrap();
        assert_eq!(
            (report.outputs[0].rows, report.outputs[0].partitions.clone()),
            (1, vec!["order_date=2024-02-29".to_owned()])
        );
    }
}
