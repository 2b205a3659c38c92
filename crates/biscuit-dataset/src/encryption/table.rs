//! Keeps the columns of a table encrypted: columns that were encrypted once are encrypted in every new file.

use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_core::{ErrorKind, Result};
use biscuit_journal::TableHead;
use object_store::ObjectStore;
use serde_json::{Value, json};

use crate::codes;
use crate::encryption::file_encryption::{EncryptedParts, FileEncryption, no_keys};
use crate::files::data_file::{DataFile, OpenFile};
use crate::files::writer::ParquetOptions;
use crate::paths::location::Location;

/// Returns the encrypted parts of a file. Keys are needed only for an encrypted footer. A file that is not readable
/// as Parquet has none.
pub(crate) async fn encrypted_parts(
    store: Arc<dyn ObjectStore>,
    file: DataFile,
    keys: Option<&FileEncryption>,
) -> Result<EncryptedParts> {
    let opened = match OpenFile::open(store.clone(), file.clone()).await {
        Err(e) if e.is(codes::NO_FILE_KEYS) => OpenFile::open_with(store, file, keys).await,
        Err(e) if e.kind() == ErrorKind::Data => return Ok(EncryptedParts::default()),
        opened => opened,
    };
    opened.map(|file| file.hidden_parts())
}

/// Encryption of a table: what its dataset encrypts, and what its files have encrypted so far.
#[derive(Debug, Clone)]
pub(crate) struct TableEncryption {
    /// Encryption of the dataset.
    pub(crate) own: Option<FileEncryption>,
    /// Encrypted parts of the files, as far as they are known.
    hidden: EncryptedParts,
    /// Columns that the options of a write encrypt, in addition to those of the dataset.
    named: BTreeSet<String>,
}

impl TableEncryption {
    /// Returns the encryption that the journal of a table knows.
    ///
    /// # Errors
    /// `Diverged` if its property cannot be read.
    pub(crate) fn of_table(own: Option<FileEncryption>, head: &TableHead) -> Result<Self> {
        Ok(Self { own, hidden: EncryptedParts::of_table(head)?, named: BTreeSet::new() })
    }

    /// Adds the encrypted parts of a file.
    pub(crate) fn add(&mut self, hidden: &EncryptedParts) {
        self.hidden.add(hidden);
    }

    /// Returns the options of new files, in which everything is encrypted that `options`, the dataset or files of the
    /// table encrypt. `table` is the name of the table in messages.
    ///
    /// # Errors
    /// As [`of_new_files`](Self::of_new_files).
    pub(crate) fn for_writing(&mut self, options: &ParquetOptions, table: &Location) -> Result<ParquetOptions> {
        if let Some(own) = &options.encryption {
            self.hidden.add(&own.hidden);
            self.named.clone_from(&own.hidden.columns);
        }
        let encryption = match &options.encryption {
            // The keys of the options take precedence over those of the dataset.
            Some(own) => Some(own.clone().with_hidden(&self.all_hidden())),
            None => self.of_new_files(table)?,
        };
        Ok(ParquetOptions { encryption: encryption.filter(FileEncryption::encrypts), ..options.clone() })
    }

    fn all_hidden(&self) -> EncryptedParts {
        let mut all = self.hidden.clone();
        self.own.iter().for_each(|own| all.add(&own.hidden));
        all
    }

    /// Returns the encryption of new files: the parts that the dataset names, and the parts that were encrypted before.
    /// `None` without keys.
    ///
    /// # Errors
    /// `NoFileKeys` if something was encrypted before and the dataset has no keys.
    pub(crate) fn of_new_files(&self, table: &Location) -> Result<Option<FileEncryption>> {
        let hidden = &self.hidden;
        match &self.own {
            Some(keys) => Ok(Some(keys.clone().with_hidden(hidden))),
            None if hidden.is_nothing() => Ok(None),
            None => Err(no_keys(&table.to_string(), hidden.columns.first().map(String::as_str))),
        }
    }

    /// Checks that all columns to encrypt exist.
    ///
    /// # Errors
    /// `UnknownColumn`.
    pub(crate) fn check_names(&self, is_there: &dyn Fn(&str) -> bool) -> Result<()> {
        let named = self.own.iter().flat_map(FileEncryption::columns);
        FileEncryption::check_names(named.chain(&self.named), is_there)
    }

    /// Returns the journal property with the encrypted parts, by name.
    pub(crate) fn property(&self) -> (&'static str, Value) {
        let hidden = self.all_hidden();
        (EncryptedParts::PROPERTY, if hidden.is_nothing() { Value::Null } else { json!(hidden) })
    }
}
