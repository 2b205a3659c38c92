//! Reads raw JSON, each file once, and writes typed Parquet by day.

use std::path::Path;
use std::process::ExitCode;

use biscuit_core::{Clock, Job, Result, Run, RunId, SystemClock};
use biscuit_job::report::JobReport;
use biscuit_job::settings::{AuditSpec, DatePart, DerivedColumn};
use biscuit_job::{DeclarativeJob, JobSpec, OutputMode, OutputSpec, SourceFormat, SourceSpec};
use biscuit_schema::{ColumnType, Contract, ContractColumn, OnError};

const SAMPLE: &str = r#"{"id":1,"order_datetime":"2024-02-29T12:00:00Z","zip":"02134","amount":10.5}
{"id":2,"order_datetime":1709294400,"zip":"10115","amount":"7.00"}
"#;

/// Returns the contract of raw orders. Rows that do not comply with it are quarantined.
fn raw_orders() -> Result<Contract> {
    let column = |name: &str, of: &str| Ok(ContractColumn::new(name, ColumnType::parse(of)?));
    let mut contract = Contract::new([
        column("id", "bigint")?.required(),
        column("order_datetime", "timestamp")?.required(),
        column("zip", "string")?.with_comment("leading zeros are significant"),
        column("amount", "decimal(15,2)")?,
    ])?;
    contract.on_error = OnError::Quarantine;
    Ok(contract)
}

/// Builds the job on a lake in the folder `lake`: source, contract and target.
fn job(lake: &Path) -> Result<JobSpec> {
    let at = |path: &str| lake.join(path).display().to_string();
    let raw = SourceSpec::new([at("raw/orders")], SourceFormat::Json)
        .with_source_file("source_file")
        .with_contract(raw_orders()?);
    let clean = OutputSpec::new(at("clean/orders"), OutputMode::Append)
        .with_partition_by(["order_date"])
        .with_derive("order_date", DerivedColumn::new("order_datetime", DatePart::Date))
        .with_audit(AuditSpec::default().with_processing_datetime("etl_processing_datetime"));
    JobSpec::builder("orders").with_source("orders", raw).with_target(clean).build()
}

/// Runs the job on a lake in the folder `lake`.
async fn clean(lake: &Path, run: &Run) -> Result<JobReport> {
    DeclarativeJob::new(job(lake)?).run(run).await
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
    use biscuit_core::{Instant, Outcome};

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
        assert_eq!(clean(lake.path(), &run("retry")).await.unwrap().outcome, Outcome::Unchanged);
        let late = "{\"id\":3,\"order_datetime\":\"2024-02-29T23:59:59Z\",\"zip\":\"00501\",\"amount\":1}\n";
        std::fs::write(raw.join("2.json"), late).unwrap();
        let report = clean(lake.path(), &run("tuesday")).await.unwrap();
        assert_eq!(
            (report.outputs[0].rows, report.outputs[0].partitions.clone()),
            (1, vec!["order_date=2024-02-29".to_owned()])
        );
    }
}
