//! Merges a change file into a table, and is killed or stopped at a given call to the store. The tests of real
//! processes start it.
//!
//! Arguments: table (a path or an S3 URL), change file, number of the call (0 for none), and what happens at the
//! call. `before` and `after`: the process is killed before or after it. `stopped`: it is stopped after the call
//! until it gets SIGCONT.

use std::process::{Command, ExitCode};
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::Dataset;
use biscuit_flows::process;
use biscuit_testkit::{FaultStore, InjectedFault};

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
        return Err(Error::new(
            biscuit_core::codes::INVALID_ARGUMENTS,
            "merger TABLE CHANGES CALL before|after|stopped",
        ));
    };
    let at = at.parse().map_err(|_| Error::new(biscuit_core::codes::INVALID_ARGUMENTS, "the call must be a number"))?;
    let fault = if when == "before" { InjectedFault::Pause } else { InjectedFault::PauseAfter };
    let signal = if when == "stopped" { "-STOP" } else { "-KILL" };
    let location = process::location(table).await?;
    let store = FaultStore::new(location.storage().store.clone(), fault, at);
    let watched = store.clone();
    tokio::spawn(async move {
        if watched.wait_for_pause().await {
            // This call does not return before the process ends or continues.
            let sent = Command::new("kill").arg(signal).arg(std::process::id().to_string()).status();
            sent.expect("the command `kill` is on every Unix");
            watched.resume();
        }
    });
    let storage = location.storage().with_store(Arc::new(store.clone()));
    let dataset = Dataset::new(location.with_storage(storage), process::options());
    process::merge(&dataset, changes).await?;
    Ok(store.calls())
}
