//! Keeps the columns of a table encrypted: columns that were encrypted once are encrypted in every new file.

use std::collections::HashSet;
use std::sync::Arc;

use biscuit_core::{ErrorKind, Result};
use futures::FutureExt;
use object_store::ObjectStore;
use serde_json::{Value, json};

use crate::codes;
use crate::encryption::file_encryption::{EncryptedParts, FileEncryption, no_keys};
use crate::files::data_file::{DataFile, OpenFile};
use crate::files::writer::ParquetOptions;
use crate::version::table_version::{COLUMNS, TableVersion};

/// Returns the encrypted parts of a file. Keys are needed only for an encrypted footer. A file that is not readable
/// as Parquet has none.
async fn look_at(store: Arc<dyn ObjectStore>, file: DataFile, keys: Option<&FileEncryption>) -> Result<EncryptedParts> {
    let opened = match OpenFile::open(store.clone(), file.clone()).await {
        Err(e) if e.is(codes::NO_FILE_KEYS) => OpenFile::open_with(store, file, keys).await,
        Err(e) if e.kind() == ErrorKind::Data => return Ok(EncryptedParts::default()),
        opened => opened,
    };
    opened.map(|file| file.hidden())
}

impl TableVersion {
    /// Sets the [encryption](crate::Dataset::with_encryption) of the dataset of this version.
    #[must_use]
    pub fn with_encryption(mut self, encryption: FileEncryption) -> Self {
        self.dataset = self.dataset.with_encryption(encryption);
        self
    }

    /// Prepares this version for writing. Returns it with the options of its new files, in which everything is
    /// encrypted that `options`, the dataset or files of the table encrypt. `open` are files that are already open;
    /// other files that no commit has described are opened.
    ///
    /// # Errors
    /// `NoFileKeys` if files of the table are encrypted and there are no keys: the new files would not be encrypted.
    /// The errors of [`OpenFile::open_with`].
    pub async fn for_writing(self, options: &ParquetOptions, open: &[OpenFile]) -> Result<(Self, ParquetOptions)> {
        let mut this = self.looked_at(open).await?;
        if let Some(own) = &options.encryption {
            this.hidden.add(&own.hidden);
            this.named.clone_from(&own.hidden.columns);
        }
        let encryption = match &options.encryption {
            // The keys of the options take precedence over those of the dataset.
            Some(own) => Some(own.clone().hiding(&this.all_hidden())),
            None => this.encryption()?,
        };
        let options = ParquetOptions { encryption: encryption.filter(FileEncryption::encrypts), ..options.clone() };
        Ok((this, options))
    }

    /// Finds the encrypted parts of all files. `open` are files that are already open; other files that no commit has
    /// described are opened, which needs keys only for encrypted footers. A file that is not readable as Parquet has
    /// no encrypted parts.
    ///
    /// # Errors
    /// `NoFileKeys` for an encrypted footer; the errors of the keys and of the store.
    pub async fn looked_at(mut self, open: &[OpenFile]) -> Result<Self> {
        open.iter().for_each(|file| self.hidden.add(&file.hidden()));
        let known: HashSet<&str> = open.iter().map(OpenFile::path).collect();
        let unknown = |file: &&DataFile| !known.contains(file.path());
        let unknown: Vec<DataFile> = self.undescribed().filter(unknown).cloned().collect();
        let (store, keys) = (self.store(), self.dataset.encryption());
        let hidden = self.each(unknown.into_iter().map(|file| look_at(store.clone(), file, keys).boxed())).await?;
        hidden.iter().for_each(|hidden| self.hidden.add(hidden));
        Ok(self)
    }

    /// Returns the files that no commit has described: external files, or all files of a table without columns in its
    /// journal.
    fn undescribed(&self) -> impl Iterator<Item = &DataFile> {
        let described = self.observed.head.properties.contains_key(COLUMNS) && !self.observed.diverged;
        let external: HashSet<&str> = self.observed.external.iter().map(|external| external.path.as_str()).collect();
        self.files.iter().filter(move |file| !described || external.contains(file.path()))
    }

    fn all_hidden(&self) -> EncryptedParts {
        let mut all = self.hidden.clone();
        self.dataset.encryption().iter().for_each(|own| all.add(&own.hidden));
        all
    }

    /// Returns the encryption of new files, as far as commits describe it: the parts that the dataset names, and the
    /// parts that were encrypted before. `None` without keys.
    ///
    /// # Errors
    /// `NoFileKeys` if something was encrypted before and the dataset has no keys.
    pub fn encryption(&self) -> Result<Option<FileEncryption>> {
        let hidden = &self.hidden;
        match self.dataset.encryption() {
            Some(keys) => Ok(Some(keys.clone().hiding(hidden))),
            None if hidden.is_nothing() => Ok(None),
            None => Err(no_keys(&self.dataset.location().to_string(), hidden.columns.first().map(String::as_str))),
        }
    }

    /// Checks that all columns to encrypt exist.
    ///
    /// # Errors
    /// `UnknownColumn`: a misspelt name would leave the column without encryption.
    pub fn check_encrypted(&self, is_there: &dyn Fn(&str) -> bool) -> Result<()> {
        let named = self.dataset.encryption().into_iter().flat_map(|own| own.columns());
        FileEncryption::check_names(named.chain(&self.named), is_there)
    }

    /// Returns the journal property with the encrypted parts, by name. It is one of the
    /// [`properties`](Self::properties), for commits that set none of the others.
    pub fn encrypted_property(&self) -> (&'static str, Value) {
        let hidden = self.all_hidden();
        (EncryptedParts::PROPERTY, if hidden.is_nothing() { Value::Null } else { json!(hidden) })
    }
}
