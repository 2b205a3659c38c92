//! Runs the job on the lake of `--lake`, with the change files of `--changes`: local paths or S3 URLs.

use std::process::ExitCode;
use std::sync::Arc;

use biscuit_apply::{ChangeFiles, ChangeFormat, MergeSink};
use biscuit_aws::{AwsEnvironment, AwsOptions};
use biscuit_change::DebeziumOptions;
use biscuit_core::{Clock, Job, Result, Run, RunId, SystemClock};
use biscuit_dataset::{Dataset, OpenLocation};
use biscuit_journal::JournalOptions;
use customer_state::CustomerState;
use job_arguments::{Argument, Arguments};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/*.jsonl.gz");

#[tokio::main]
async fn main() -> ExitCode {
    match work().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn work() -> Result<()> {
    let arguments = Arguments::new([
        Argument::text("lake").with_default("lake"),
        Argument::text("endpoint-url").with_default(""),
        Argument::text("changes").with_default(SAMPLE),
        Argument::text("run-id").with_default("by-hand"),
    ]);
    let arguments =
        arguments.parse(std::env::args().skip(1), &|name| std::env::var(format!("CUSTOMER_STATE_{name}")).ok())?;
    let lake = arguments.text("lake")?.trim_end_matches('/').to_owned();
    let mut options = AwsOptions::default();
    options.endpoint_url = Some(arguments.text("endpoint-url")?.to_owned()).filter(|url| !url.is_empty());
    // Opens S3 with the credential chain of AWS. Local folders need no credentials.
    let environment = Arc::new(AwsEnvironment::new(options));
    let changes = |table: &str| -> Result<Arc<ChangeFiles>> {
        let format = ChangeFormat::Debezium(DebeziumOptions::default().with_table(table));
        Ok(Arc::new(ChangeFiles::new([arguments.text("changes")?], format).with_opener(environment.clone())))
    };
    let sink = async |table: &str| -> Result<Arc<MergeSink>> {
        let dataset = Dataset::new(environment.open(&format!("{lake}/{table}")).await?, JournalOptions::default());
        Ok(Arc::new(MergeSink::new(dataset)))
    };
    let (customers, orders) = (sink("customer").await?, sink("orders").await?);
    let job = CustomerState {
        customer_changes: changes("public.customer")?,
        order_changes: changes("public.orders")?,
        customers: customers.clone(),
        orders: orders.clone(),
    };
    let run_id = RunId::new(arguments.text("run-id")?);
    let run = Run::new("customer-state", run_id, SystemClock.now());
    let outcome = job.run(&run).await?;
    for (name, receipt, sink) in [("customer", outcome.customers, customers), ("orders", outcome.orders, orders)] {
        let rows = sink.last_report().unwrap_or_default().rows;
        println!(
            "{name:<8} {} rows: {} inserted, {} updated, {} deleted ({})",
            rows.after, rows.inserted, rows.updated, rows.deleted, receipt.place
        );
    }
    Ok(())
}
