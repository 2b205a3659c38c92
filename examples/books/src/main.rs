//! Runs the job of `books.toml` in the current folder.

use std::process::ExitCode;

use biscuit_core::{Clock, Job, Run, RunId, SystemClock};
use biscuit_job::DeclarativeJob;

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

async fn work() -> biscuit_core::Result<()> {
    let run = Run::new("books", RunId::new("by-hand"), SystemClock.now());
    let report = DeclarativeJob::new(books::job(&[])?).run(&run).await?;
    for output in &report.outputs {
        println!("{}: {}, {} rows in {}", output.name, output.outcome, output.rows, output.url);
    }
    Ok(())
}
