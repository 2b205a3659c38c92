//! State that all commands share: the environment with the stores, the interrupt of the run, and the costs so far.

use std::sync::Arc;

use biscuit_aws::AwsEnvironment;
use biscuit_core::{Clock, Error, Instant, Result, SystemClock};
use biscuit_dataset::encryption::FileEncryption;
use biscuit_dataset::{Dataset, OpenLocation, TableVersion};
use biscuit_journal::{JournalOptions, RunInterrupt};
use serde_json::{Value, json};

use crate::args::table::TableArgs;
use crate::process::memory::peak_memory;

/// State of the process that all commands share.
#[derive(Debug)]
pub(crate) struct CommandContext {
    /// Opens stores, keys and catalogs, and counts their requests.
    pub(crate) stores: Arc<AwsEnvironment>,
    pub(crate) interrupt: Arc<RunInterrupt>,
    /// Whether errors may contain keys and values of rows.
    pub(crate) show_values: bool,
    /// Path or URL of the key file for encrypted Parquet files.
    file_keys: Option<String>,
    started: Instant,
}

impl CommandContext {
    pub(crate) fn new(stores: AwsEnvironment, show_values: bool, file_keys: Option<String>) -> Self {
        Self { stores: Arc::new(stores), interrupt: Arc::default(), show_values, file_keys, started: SystemClock.now() }
    }

    /// Opens an existing table.
    ///
    /// # Errors
    /// `NoTable` if the path has neither a version nor an object: a misspelled path is not an empty table.
    pub(crate) async fn open_table(&self, args: &TableArgs) -> Result<Dataset> {
        let dataset = self.open(args, JournalOptions::default()).await?;
        match dataset.is_there().await? {
            true => Ok(dataset),
            false => Err(no_table(args)),
        }
    }

    /// Opens an existing table, and observes its newest version for a read.
    ///
    /// # Errors
    /// As [`open_table`](Self::open_table).
    pub(crate) async fn view_table(&self, args: &TableArgs) -> Result<(Dataset, TableVersion)> {
        let dataset = self.dataset(args, JournalOptions::default()).await?;
        let (dataset, version) = match args.state {
            Some(_) => {
                let version = dataset.view().await?;
                (dataset, version)
            }
            None => dataset.follow_and_view().await?,
        };
        let is_there = version.observed.head.version > 0 || !version.files().is_empty() || dataset.is_there().await?;
        if is_there { Ok((dataset, version)) } else { Err(no_table(args)) }
    }

    /// Opens a table with its state root. The table may have no version yet.
    pub(crate) async fn open(&self, args: &TableArgs, options: JournalOptions) -> Result<Dataset> {
        let dataset = self.dataset(args, options).await?;
        match args.state {
            Some(_) => Ok(dataset),
            None => dataset.follow_pointer().await,
        }
    }

    /// Opens a table, and observes its newest version for a change.
    pub(crate) async fn observe(&self, args: &TableArgs, options: JournalOptions) -> Result<(Dataset, TableVersion)> {
        let dataset = self.dataset(args, options).await?;
        match args.state {
            Some(_) => {
                let version = dataset.observe().await?;
                Ok((dataset, version))
            }
            None => dataset.follow_and_observe().await,
        }
    }

    /// Opens a table in the state root of the options, or otherwise in its default one.
    async fn dataset(&self, args: &TableArgs, options: JournalOptions) -> Result<Dataset> {
        // The interrupt has to be attached before the journal is used: a signal stops only the commits that it knows.
        let options = options.with_other_formats(self.stores.other_formats());
        let dataset = Dataset::new(self.stores.open(&args.url).await?, options);
        let journal = dataset.journal().clone().with_interrupt(self.interrupt.clone());
        let mut dataset = dataset.with_journal(journal);
        if let Some(keys) = self.file_keys().await? {
            dataset = dataset.with_encryption(keys);
        }
        match &args.state {
            Some(state) => dataset.with_state_root(&self.stores.open(state).await?),
            None => Ok(dataset),
        }
    }

    /// Returns the keys for encrypted Parquet files, if `--file-keys` is given.
    pub(crate) async fn file_keys(&self) -> Result<Option<FileEncryption>> {
        match &self.file_keys {
            Some(url) => Ok(Some(self.stores.file_encryption(url).await?)),
            None => Ok(None),
        }
    }

    /// Returns the seconds since the command began.
    pub(crate) fn seconds(&self) -> f64 {
        (SystemClock.now().as_micros() - self.started.as_micros()) as f64 / 1e6
    }

    /// Returns the costs of the command so far: seconds, requests by kind, bytes and memory.
    pub(crate) fn costs(&self) -> Value {
        let mut costs = json!(self.stores.counts());
        costs["seconds"] = json!((self.seconds() * 1000.0).round() / 1000.0);
        costs["peak_memory_bytes"] = json!(peak_memory());
        costs
    }
}

fn no_table(args: &TableArgs) -> Error {
    Error::new(biscuit_dataset::codes::NO_TABLE, format!("there is no table at `{}`", args.url))
}
