//! Merges change files into a table on the local disk, and is killed at a storage call of its choice: what the test of
//! real processes starts. Arguments: table, change file, number of the call (0 for none), `before` or `after` it.

use std::process::{Command, ExitCode};
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, Location};
use biscuit_flows::process;
use biscuit_testkit::{Fault, FaultStore};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(calls) => {
            println!("{calls}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("{}", e.code());
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<u64> {
    let words: Vec<String> = std::env::args().collect();
    let [_, table, changes, at, when] = words.as_slice() else {
        return Err(Error::usage("InvalidArguments", "merger TABLE CHANGES CALL before|after"));
    };
    let at = at.parse().map_err(|_| Error::usage("InvalidArguments", "the call is a number"))?;
    let fault = if when == "after" { Fault::PauseAfter } else { Fault::Pause };
    let location = Location::parse(table)?;
    let store = FaultStore::new(location.storage().store.clone(), fault, at);
    let watched = store.clone();
    tokio::spawn(async move {
        if watched.paused().await {
            // Asleep at this call; it is never woken, and the process ends here.
            let killed = Command::new("kill").arg("-KILL").arg(std::process::id().to_string()).status();
            killed.expect("the command `kill` is on every Unix");
        }
    });
    let storage = location.storage().with_store(Arc::new(store.clone()));
    let dataset = Dataset::new(location.with_storage(storage), process::options());
    process::merge(&dataset, changes).await?;
    Ok(store.calls())
}
