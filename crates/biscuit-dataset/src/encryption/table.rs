//! That what was encrypted in a table once stays so, whoever writes it.

use std::collections::HashSet;
use std::sync::Arc;

use biscuit_core::{Error, ErrorKind, Result};
use biscuit_journal::TableHead;
use futures::FutureExt;
use object_store::ObjectStore;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::encryption::file_encryption::{EncryptedParts, FileEncryption, no_keys};
use crate::files::data_file::{DataFile, OpenFile};
use crate::files::writer::ParquetOptions;
use crate::version::table_version::{COLUMNS, TableVersion};

/// The fact that says what is encrypted inside of the files.
const ENCRYPTED: &str = "encrypted";

/// What the journal knows to be encrypted.
///
/// # Errors
/// `Diverged` if its fact cannot be read.
pub(crate) fn hidden_of(head: &TableHead) -> Result<EncryptedParts> {
    let Some(property) = head.properties.get(ENCRYPTED).filter(|property| !property.is_null()) else {
        return Ok(EncryptedParts::default());
    };
    EncryptedParts::deserialize(property).map_err(|e| {
        Error::data("Diverged", "what the journal says of encrypted columns cannot be read").with_source(e)
    })
}

/// What is encrypted in a file. Keys are needed for an encrypted footer alone; what is no Parquet file hides nothing.
async fn look_at(store: Arc<dyn ObjectStore>, file: DataFile, keys: Option<&FileEncryption>) -> Result<EncryptedParts> {
    let opened = match OpenFile::open(store.clone(), file.clone()).await {
        Err(e) if e.code() == "NoFileKeys" => OpenFile::open_with(store, file, keys).await,
        Err(e) if e.kind() == ErrorKind::Data => return Ok(EncryptedParts::default()),
        opened => opened,
    };
    opened.map(|file| file.hidden())
}

impl TableVersion {
    /// The same snapshot, of the dataset with this [encryption](crate::Dataset::with_encryption).
    pub fn with_encryption(mut self, encryption: FileEncryption) -> Self {
        self.dataset = self.dataset.with_encryption(encryption);
        self
    }

    /// The snapshot as it is written to, and the options that its new files are written with: what these, the dataset and all that was in the table before
    /// have encrypted, is encrypted. `open` are the files of it that are open already; others that no commit has described are opened.
    ///
    /// # Errors
    /// `NoFileKeys` if something was encrypted, and there are no keys: values of it would be in the clear. Those of [`OpenFile::open_with`].
    pub async fn for_writing(self, options: &ParquetOptions, open: &[OpenFile]) -> Result<(Self, ParquetOptions)> {
        let mut this = self.looked_at(open).await?;
        if let Some(own) = &options.encryption {
            this.hidden.add(&own.hidden);
            this.named.clone_from(&own.hidden.columns);
        }
        let encryption = match &options.encryption {
            // The keys of the options go before.
            Some(own) => Some(own.clone().hiding(&this.all_hidden())),
            None => this.encryption()?,
        };
        let options = ParquetOptions { encryption: encryption.filter(FileEncryption::encrypts), ..options.clone() };
        Ok((this, options))
    }

    /// The same snapshot, knowing what is encrypted in all of its files. `open` are those that are open already; others that no commit has described are
    /// looked at, for which no keys are needed unless their footers are encrypted. One that is no Parquet file hides nothing.
    ///
    /// # Errors
    /// `NoFileKeys` for an encrypted footer, and those of the keys and of the store.
    pub async fn looked_at(mut self, open: &[OpenFile]) -> Result<Self> {
        open.iter().for_each(|file| self.hidden.add(&file.hidden()));
        let known: HashSet<&str> = open.iter().map(|open| open.file.path.as_str()).collect();
        let unknown = |file: &&DataFile| !known.contains(file.path.as_str());
        let unknown: Vec<DataFile> = self.undescribed().filter(unknown).cloned().collect();
        let (store, keys) = (self.store(), self.dataset.encryption());
        let hidden = self.each(unknown.into_iter().map(|file| look_at(store.clone(), file, keys).boxed())).await?;
        hidden.iter().for_each(|hidden| self.hidden.add(hidden));
        Ok(self)
    }

    /// Files that no commit has described.
    fn undescribed(&self) -> impl Iterator<Item = &DataFile> {
        let described = self.observed.head.properties.contains_key(COLUMNS) && !self.observed.diverged;
        let external: HashSet<&str> = self.observed.external.iter().map(|external| external.path.as_str()).collect();
        self.files.iter().filter(move |file| !described || external.contains(file.path.as_str()))
    }

    fn all_hidden(&self) -> EncryptedParts {
        let mut all = self.hidden.clone();
        self.dataset.encryption().iter().for_each(|own| all.add(&own.hidden));
        all
    }

    /// How new files of the table are encrypted, as far as commits have said it: what its dataset names, and what was encrypted before. None without keys.
    ///
    /// # Errors
    /// `NoFileKeys` if something was encrypted before, and the dataset has no keys.
    pub fn encryption(&self) -> Result<Option<FileEncryption>> {
        let hidden = &self.hidden;
        match self.dataset.encryption() {
            Some(keys) => Ok(Some(keys.clone().hiding(hidden))),
            None if hidden.is_nothing() => Ok(None),
            None => Err(no_keys(&self.dataset.location().to_string(), hidden.columns.first().map(String::as_str))),
        }
    }

    /// Whether all columns that are named to be encrypted are there, by their names.
    ///
    /// # Errors
    /// `MissingColumn`: a misspelt name would protect nothing.
    pub fn check_encrypted(&self, is_there: &dyn Fn(&str) -> bool) -> Result<()> {
        let named = self.dataset.encryption().into_iter().flat_map(|own| own.columns());
        FileEncryption::check_names(named.chain(&self.named), is_there)
    }

    /// What the journal is to know of what is encrypted, by name: one of the [`properties`](Self::facts), for commits that have none of the others.
    pub fn encrypted_property(&self) -> (&'static str, Value) {
        let hidden = self.all_hidden();
        (ENCRYPTED, if hidden.is_nothing() { Value::Null } else { json!(hidden) })
    }
}
