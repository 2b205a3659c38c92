//! A token store in a local file, with redb as embedded database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use biscuit_core::{Error, Result};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::codes;
use crate::tokens::store::{TokenRecord, TokenStore};

/// Records by key. A value has the length of the alias in two bytes, the alias, and the value of the record.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Keys of records by alias.
const ALIASES: TableDefinition<'_, &str, &str> = TableDefinition::new("aliases");

/// Store in a local file (redb). One process at a time can open it. The effect of each call is durable when it
/// returns.
pub struct FileStore {
    path: PathBuf,
    database: Arc<Database>,
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Pause between attempts to open a file that another process has open.
const PAUSE: Duration = Duration::from_millis(50);

impl FileStore {
    /// Opens the file, or creates it if it does not exist. On Unix, only the owner can read a file that is created
    /// here. Waits up to `patience` while another process has the file open.
    ///
    /// # Errors
    /// `StoreInUse` if another process still has the file open; `StoreFailed` for a file that is not a store or
    /// cannot be created.
    pub async fn open(path: impl Into<PathBuf>, patience: Duration) -> Result<Self> {
        let path = path.into();
        let tries = patience.as_millis() / PAUSE.as_millis();
        for tried in 0.. {
            match open(&path).await? {
                Some(database) => return Ok(Self { path, database: Arc::new(database) }),
                None if tried < tries => tokio::time::sleep(PAUSE).await,
                None => break,
            }
        }
        let message = format!(
            "the store {} is open in another process, and only one process can use it; run again after the \
            other has ended, or use DynamoDB",
            path.display()
        );
        Err(Error::new(codes::STORE_IN_USE, message))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T> {
        let database = self.database.clone();
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        done.map_err(|e| panic_error(&self.path, e))?.map_err(|e| store_error(&self.path, e))
    }
}

/// Turns a panic of redb into an error: redb asserts the structure of the file, so a damaged file makes it panic.
fn panic_error(path: &Path, e: tokio::task::JoinError) -> Error {
    let message = format!("cannot read the store {}: it is damaged", path.display());
    Error::new(codes::STORE_FAILED, message).with_source(e)
}

fn store_error(path: &Path, e: impl Into<redb::Error>) -> Error {
    let e = e.into();
    let message = format!("cannot read or write the store {}: {e}", path.display());
    Error::new(codes::STORE_FAILED, message).with_source(e)
}

/// Opens the database. Returns `None` if another process has it open.
async fn open(path: &Path) -> Result<Option<Database>> {
    let at = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        create_private(&at).map_err(|e| DatabaseError::Storage(redb::StorageError::Io(e)))?;
        Database::create(&at)
    });
    let database = match opened.await.map_err(|e| panic_error(path, e))? {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Ok(None),
        Err(e) => return Err(store_error(path, e)),
    };
    let tables = || -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        write.open_table(RECORDS)?;
        write.open_table(ALIASES)?;
        write.commit()?;
        Ok(())
    };
    tables().map_err(|e| store_error(path, e))?;
    Ok(Some(database))
}

/// Creates the file with read permission for its owner only, if it does not exist. Before redb opens it, since redb
/// would create it with default permissions.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn bytes_of(record: &TokenRecord) -> Vec<u8> {
    let alias = record.alias.as_deref().unwrap_or_default();
    [&(alias.len() as u16).to_be_bytes(), alias.as_bytes(), &record.value].concat()
}

fn record_of(key: &str, bytes: &[u8]) -> TokenRecord {
    let (length, rest) = bytes.split_first_chunk::<2>().unwrap_or((&[0, 0], &[]));
    let (alias, value) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let alias = Some(String::from_utf8_lossy(alias).into_owned()).filter(|alias| !alias.is_empty());
    TokenRecord { key: key.to_owned(), value: value.to_vec(), alias }
}

#[async_trait]
impl TokenStore for FileStore {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        let keys = keys.to_vec();
        self.run(move |database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let one = |key: &String| Ok(table.get(key.as_str())?.map(|bytes| record_of(key, bytes.value())));
            keys.iter().map(one).collect()
        })
        .await
    }

    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        let aliases = aliases.to_vec();
        self.run(move |database| {
            let read = database.begin_read()?;
            let (names, records) = (read.open_table(ALIASES)?, read.open_table(RECORDS)?);
            let one = |alias: &String| {
                let Some(key) = names.get(alias.as_str())? else { return Ok(None) };
                Ok(records.get(key.value())?.map(|bytes| record_of(key.value(), bytes.value())))
            };
            aliases.iter().map(one).collect()
        })
        .await
    }

    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>> {
        self.run(move |database| {
            let write = database.begin_write()?;
            let mut out = Vec::with_capacity(records.len());
            {
                let (mut table, mut aliases) = (write.open_table(RECORDS)?, write.open_table(ALIASES)?);
                for record in records {
                    let there = table.get(record.key.as_str())?.map(|bytes| record_of(&record.key, bytes.value()));
                    out.push(match there {
                        Some(there) => there,
                        None => {
                            table.insert(record.key.as_str(), bytes_of(&record).as_slice())?;
                            if let Some(alias) = &record.alias {
                                aliases.insert(alias.as_str(), record.key.as_str())?;
                            }
                            record
                        }
                    });
                }
            }
            write.commit()?;
            Ok(out)
        })
        .await
    }

    async fn replace(&self, record: TokenRecord) -> Result<()> {
        self.run(move |database| {
            let write = database.begin_write()?;
            {
                let (mut table, mut aliases) = (write.open_table(RECORDS)?, write.open_table(ALIASES)?);
                // The old alias is removed, so that it no longer leads to the record.
                let before = table.get(record.key.as_str())?.and_then(|bytes| record_of("", bytes.value()).alias);
                if let Some(alias) = before {
                    aliases.remove(alias.as_str())?;
                }
                table.insert(record.key.as_str(), bytes_of(&record).as_slice())?;
                if let Some(alias) = &record.alias {
                    aliases.insert(alias.as_str(), record.key.as_str())?;
                }
            }
            write.commit()?;
            Ok(())
        })
        .await
    }
}
