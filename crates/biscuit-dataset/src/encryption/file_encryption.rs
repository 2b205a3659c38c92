//! Encryption of Parquet files: the source of keys, and the parts of new files that are encrypted.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::{Error, Result};
use biscuit_journal::TableHead;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::schema::types::SchemaDescriptor;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::codes;

/// Source of keys for Parquet modular encryption (`AES_GCM_V1`). A file has a data key for its footer and one for
/// each encrypted column. The file contains the key metadata of each data key in plain form, from which
/// [`key`](Self::key) gets the data key again.
#[async_trait]
pub trait FileKeys: fmt::Debug + Send + Sync {
    /// Creates a data key for a part of a file.
    async fn new_key(&self, of: FilePart) -> Result<FileKey>;

    /// Returns the data key for key metadata of a file.
    ///
    /// # Errors
    /// An error if the key does not exist or may not be used.
    async fn key(&self, metadata: &[u8]) -> Result<Zeroizing<Vec<u8>>>;
}

const _: fn(&dyn FileKeys) = |_| {};

/// Part of a file that a key encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two kinds of keys in Parquet's modular encryption")]
pub enum FilePart {
    /// The footer. A footer that is not encrypted is signed with the key.
    Footer,
    /// One column.
    Column,
}

/// A data key and its key metadata.
#[derive(Clone)]
#[expect(clippy::exhaustive_structs, reason = "implementations of `FileKeys` write it as a literal")]
pub struct FileKey {
    /// Data key of 16 or 32 bytes. The Parquet library accepts no other length.
    pub key: Zeroizing<Vec<u8>>,
    /// *Key metadata* of the format, by which a reader gets the key.
    pub metadata: Vec<u8>,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({} bytes)", self.key.len())
    }
}

/// Encrypted parts of the files of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EncryptedParts {
    /// Columns: a name, or the path of a field inside of structs.
    pub(crate) columns: BTreeSet<String>,
    /// Whether everything is encrypted: all columns, including columns that are added later, and the footer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) everything: bool,
    /// Whether the footer is encrypted in addition to the columns.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) footer: bool,
}

impl EncryptedParts {
    /// Name of the journal property with the encrypted parts of the files of a table.
    pub(crate) const PROPERTY: &str = "encrypted";

    /// Returns the encrypted parts that the journal of a table knows.
    ///
    /// # Errors
    /// `Diverged` if the property cannot be read.
    pub(crate) fn of_table(head: &TableHead) -> Result<Self> {
        let Some(property) = head.properties.get(Self::PROPERTY).filter(|property| !property.is_null()) else {
            return Ok(Self::default());
        };
        Self::deserialize(property).map_err(|e| {
            Error::new(biscuit_journal::codes::DIVERGED, "the journal property `encrypted` cannot be read")
                .with_source(e)
        })
    }

    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.columns.extend(other.columns.iter().cloned());
        self.everything |= other.everything;
        self.footer |= other.footer;
    }
}

/// Source of keys, and the parts of new files that are encrypted.
///
/// If single columns are encrypted, the footer is signed but not encrypted, so engines without keys read all other
/// columns. Pages, statistics and page indexes of encrypted columns are encrypted. Encrypted columns have no bloom
/// filters, because the Parquet library writes bloom filters without encryption.
#[derive(Debug, Clone)]
#[must_use]
pub struct FileEncryption {
    keys: Arc<dyn FileKeys>,
    pub(crate) hidden: EncryptedParts,
}

impl FileEncryption {
    /// Creates an encryption that reads encrypted files. New files are encrypted only where files of the table were.
    pub fn new(keys: Arc<dyn FileKeys>) -> Self {
        Self { keys, hidden: EncryptedParts::default() }
    }

    /// Adds columns to encrypt in new files: names, or paths of fields inside of structs, with dots.
    pub fn with_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.hidden.columns.extend(columns.into_iter().map(Into::into));
        self
    }

    /// Encrypts all columns, including columns that are added later, and the footer. Without keys, not even the names
    /// of columns and the number of rows can be read.
    pub fn with_everything(mut self) -> Self {
        self.hidden.everything = true;
        self
    }

    /// Encrypts the footer in addition to the columns. Pages of other columns are not encrypted. Without columns,
    /// everything is encrypted.
    pub fn with_encrypted_footer(mut self) -> Self {
        self.hidden.footer = true;
        self
    }

    /// Adds the encrypted parts of `other`. The keys are those of this encryption.
    pub fn and(self, other: &Self) -> Self {
        self.with_hidden(&other.hidden)
    }

    /// Returns an encryption with the same keys and no encrypted parts.
    pub(crate) fn only_keys(&self) -> Self {
        Self::new(self.keys.clone())
    }

    pub(crate) fn with_hidden(mut self, hidden: &EncryptedParts) -> Self {
        self.hidden.add(hidden);
        self
    }

    /// Returns the columns that are encrypted in new files. Empty if everything is encrypted by
    /// [`with_everything`](Self::with_everything).
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.hidden.columns
    }

    /// Returns whether everything is encrypted in new files.
    pub fn encrypts_everything(&self) -> bool {
        self.hidden.everything
    }

    /// Returns whether the footer is encrypted in new files.
    pub fn encrypts_footer(&self) -> bool {
        self.hidden.footer || self.hidden.everything
    }

    /// Returns whether anything is encrypted in new files.
    pub fn encrypts(&self) -> bool {
        !self.hidden.is_nothing()
    }

    /// Returns whether a column, or a part of it, is encrypted in new files.
    pub fn covers(&self, column: &str) -> bool {
        let is = |path: &String| is_or_inside(path, column) || is_or_inside(column, path);
        self.hidden.everything || self.hidden.columns.iter().any(is)
    }

    /// Checks that none of `columns` is encrypted. The values of these columns are also stored outside of the files,
    /// such as in paths, where they would not be encrypted. `what` describes the columns in the message: "a partition
    /// column".
    ///
    /// # Errors
    /// `EncryptedColumn`.
    pub fn check_clear<'a>(&self, what: &str, columns: impl IntoIterator<Item = &'a String>) -> Result<()> {
        let Some(column) = columns.into_iter().find(|column| self.covers(column)) else { return Ok(()) };
        let message = format!(
            "column `{column}` cannot be encrypted: it is {what}, whose values are also stored outside of the data files. Encrypt, tokenize or hash its values instead"
        );
        Err(Error::new(codes::ENCRYPTED_COLUMN, message).with_column(column))
    }

    /// Checks that the columns to encrypt exist.
    ///
    /// # Errors
    /// `UnknownColumn`: a misspelt name would leave the column without encryption.
    pub(crate) fn check_names<'a>(
        names: impl IntoIterator<Item = &'a String>,
        is_there: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        for path in names {
            let root = path.split('.').next().unwrap_or(path);
            if !is_there(path) && !is_there(root) {
                let message = format!("there is no column `{path}` to encrypt");
                return Err(Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message).with_column(path));
            }
        }
        Ok(())
    }

    /// Returns the encrypted leaf columns of a file with this schema, by their paths.
    ///
    /// # Errors
    /// `UnknownColumn` if the column exists but has no such field, and if it exists in another letter case.
    pub fn encrypted_leaves(&self, schema: &SchemaDescriptor) -> Result<BTreeSet<String>> {
        let all: Vec<String> = schema.columns().iter().map(|leaf| leaf.path().string()).collect();
        if self.hidden.everything {
            return Ok(all.into_iter().collect());
        }
        let mut chosen = BTreeSet::new();
        for path in &self.hidden.columns {
            let own = || all.iter().filter(|leaf| is_or_inside(leaf, path));
            let root = path.split('.').next().unwrap_or(path);
            if own().next().is_none() {
                if all.iter().any(|leaf| is_or_inside(leaf, root)) {
                    let message = format!(
                        "`{path}` is not a field of the column `{root}`; for a list or map, name the whole column"
                    );
                    return Err(Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message).with_column(path));
                }
                let lower = root.to_lowercase();
                if let Some(leaf) = all.iter().find(|leaf| is_or_inside(&leaf.to_lowercase(), &lower)) {
                    let message = format!("there is no column `{path}` to encrypt; the column is `{leaf}`");
                    return Err(Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message).with_column(path));
                }
            }
            chosen.extend(own().cloned());
        }
        // The format cannot encrypt a footer without any column.
        let whole = self.hidden.footer && chosen.is_empty();
        Ok(if whole { all.into_iter().collect() } else { chosen })
    }

    /// Returns the encryption properties of a new file for the Parquet writer, with keys that no other file has.
    /// Returns `None` if nothing is encrypted. The `Debug` output of the result contains the keys.
    ///
    /// # Errors
    /// As [`encrypted_leaves`](Self::encrypted_leaves), and the errors of the keys.
    pub async fn file_properties(&self, schema: &SchemaDescriptor) -> Result<Option<Arc<FileEncryptionProperties>>> {
        if self.hidden.everything {
            return self.whole_file_properties().await.map(Some);
        }
        let leaves = self.encrypted_leaves(schema)?;
        if leaves.is_empty() {
            return Ok(None);
        }
        if self.hidden.footer && leaves.len() == schema.num_columns() {
            return self.whole_file_properties().await.map(Some);
        }
        let footer = self.keys.new_key(FilePart::Footer).await?;
        // The Parquet library makes copies of the keys, which it does not wipe.
        let mut properties = FileEncryptionProperties::builder(footer.key.to_vec())
            .with_footer_key_metadata(footer.metadata)
            .with_plaintext_footer(!self.hidden.footer);
        for leaf in &leaves {
            let FileKey { key, metadata } = self.keys.new_key(FilePart::Column).await?;
            properties = properties.with_column_key_and_metadata(leaf, key.to_vec(), metadata);
        }
        properties.build().map(Some).map_err(incomplete_error)
    }

    /// Returns the properties that encrypt a whole file with a key that no other file has. Also used for files that
    /// are stored beside a table.
    ///
    /// # Errors
    /// The errors of the keys.
    pub async fn whole_file_properties(&self) -> Result<Arc<FileEncryptionProperties>> {
        let FileKey { key, metadata } = self.keys.new_key(FilePart::Footer).await?;
        let properties = FileEncryptionProperties::builder(key.to_vec()).with_footer_key_metadata(metadata);
        properties.build().map_err(incomplete_error)
    }

    pub(crate) fn keys(&self) -> &dyn FileKeys {
        &*self.keys
    }
}

fn incomplete_error(e: ParquetError) -> Error {
    Error::internal("the encryption properties of a file are incomplete").with_source(e)
}

/// Returns whether `path` is the column `column` or a part of it.
pub(crate) fn is_or_inside(path: &str, column: &str) -> bool {
    path.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Error for an encrypted part without keys.
pub(crate) fn no_keys(place: &str, column: Option<&str>) -> Error {
    let what = column.map_or_else(|| "the file".to_owned(), |column| format!("column `{column}`"));
    let message = format!(
        "{what} is encrypted (Parquet modular encryption), and there are no file keys; configure the keys of the table"
    );
    let e = Error::new(codes::NO_FILE_KEYS, message).in_file(place);
    match column {
        Some(column) => e.with_column(column),
        None => e,
    }
}
