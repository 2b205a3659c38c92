//! Writes the sales of a day to both sinks below `./out`. In a second run both sinks report that it was done already.

use std::process::ExitCode;
use std::sync::Arc;

use biscuit_core::{Clock, Error, ErrorCode, ErrorKind, Result, Run, RunId, Sink, SystemClock};
use biscuit_journal::{Journal, JournalOptions, TableStorage};
use custom_sink::{CsvSink, Day, Sale, SqliteSink};
use object_store::local::LocalFileSystem;
use object_store::path::Path;

/// A single code needs no list.
const NO_FOLDER: ErrorCode = ErrorCode::new(
    "NoFolder",
    ErrorKind::Usage,
    "The folder for the output cannot be created.",
    "Run the example in a folder that can be written.",
);

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
    let failed = |e: std::io::Error| Error::new(NO_FOLDER, "cannot create the folder `out`").with_source(e);
    std::fs::create_dir_all("out").map_err(failed)?;
    let store = LocalFileSystem::new_with_prefix("out")
        .map_err(|e| Error::new(NO_FOLDER, "cannot open the folder `out`").with_source(e))?;
    let journal = Journal::new(TableStorage::local(Arc::new(store)), Path::from("sales"), JournalOptions::default());
    let sinks: [Arc<dyn Sink<Day>>; 2] = [Arc::new(CsvSink::new(journal)), Arc::new(SqliteSink::new("out/sales.db"))];
    let run = Run::new("sales", RunId::new("2024-02-29"), SystemClock.now());
    let sale = |shop: &str, cents| Sale { shop: shop.to_owned(), cents };
    let day = Day { day: "2024-02-29".to_owned(), sales: vec![sale("Oslo", 1250), sale("Bergen, harbour", 399)] };
    for sink in sinks {
        let receipt = sink.write(&run, &run.commit_id("sales"), day.clone()).await?;
        println!("{:?}: {} rows at {}", receipt.outcome, receipt.rows, receipt.place);
    }
    Ok(())
}
