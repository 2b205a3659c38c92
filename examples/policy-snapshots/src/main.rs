//! Merges the sample deliveries into a lake in a local folder, and prints the policies of a date.

use std::process::ExitCode;

use biscuit_core::{Error, Outcome, Result};
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::JournalOptions;
use job_arguments::{Argument, Arguments};
use policy_snapshots::{Policies, delivery};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

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
        Argument::text("as-of").with_default("2024-02-29"),
    ]);
    let arguments = arguments.parse(std::env::args().skip(1), &|_| None)?;
    let table = format!("{}/policies", arguments.text("lake")?.trim_end_matches('/'));
    let policies = Policies::new(Dataset::new(Location::parse(&table)?, JournalOptions::default()))?;
    for day in ["2024-01-31", "2024-02-29", "2024-03-31"] {
        let report = policies.deliver(delivery(&format!("{DATA}/{day}.jsonl")).await?, day.parse()?).await?;
        println!("{day}  {} ({} of {} records pending)", report.outcome, report.pending, report.records);
        let touched = report.periods.iter().filter(|m| m.keys > 0 || m.is_new);
        for month in touched.filter(|_| report.outcome == Outcome::Committed) {
            println!(
                "  {}  {} policies, {} carried over from earlier months",
                month.period, month.after, month.carried
            );
        }
    }
    let shown = policies.as_of(arguments.text("as-of")?.parse()?).await?;
    let shown = shown.to_string().await.map_err(|e| Error::internal("cannot print the rows").with_source(e))?;
    println!("as of {}\n{shown}", arguments.text("as-of")?);
    Ok(())
}
