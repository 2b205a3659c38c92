use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::{Error, Result};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::schema::types::SchemaDescriptor;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Keys of files that are encrypted in Parquet's own way: its modular encryption, with `AES_GCM_V1`. A file has a data key of its own for its footer
/// and for each encrypted column; what it says of them in the clear is enough to get them again.
#[async_trait]
pub trait FileKeys: fmt::Debug + Send + Sync {
    /// A new data key for this part of a file.
    async fn new_key(&self, of: FilePart) -> Result<FileKey>;

    /// The data key that a file says this of.
    ///
    /// # Errors
    /// If there is none to be had for it.
    async fn key(&self, metadata: &[u8]) -> Result<Zeroizing<Vec<u8>>>;
}

const _: fn(&dyn FileKeys) = |_| {};

/// What of a file a key encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilePart {
    /// The footer, which is signed with it where it is in the clear.
    Footer,
    /// A column.
    Column,
}

/// A data key, and what a file says of it.
#[derive(Clone)]
pub struct FileKey {
    /// 16 or 32 bytes: the Parquet library takes no others.
    pub key: Zeroizing<Vec<u8>>,
    /// What a reader gets it by: the *key metadata* of the format.
    pub metadata: Vec<u8>,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({} bytes)", self.key.len())
    }
}

/// What is encrypted in the files of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EncryptedParts {
    /// By name, or the path of a field inside of structs.
    pub(crate) columns: BTreeSet<String>,
    /// Everything, also columns that come later, and the footer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) everything: bool,
    /// The footer, besides the columns.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) footer: bool,
}

impl EncryptedParts {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.columns.extend(other.columns.iter().cloned());
        self.everything |= other.everything;
        self.footer |= other.footer;
    }
}

/// Where the keys of encrypted files come from, and what is encrypted in new ones.
///
/// Where single columns are encrypted, the footer stays in the clear, and is signed: engines without keys read all other columns. In encrypted columns neither
/// pages nor statistics nor indexes show anything; they have no bloom filters, which the Parquet library would write in the clear.
#[derive(Debug, Clone)]
pub struct FileEncryption {
    keys: Arc<dyn FileKeys>,
    pub(crate) hidden: EncryptedParts,
}

impl FileEncryption {
    /// Keys that encrypted files are read with. In new files nothing is encrypted but what was in the table before.
    pub fn new(keys: Arc<dyn FileKeys>) -> Self {
        Self { keys, hidden: EncryptedParts::default() }
    }

    /// The same, encrypting these columns, too: by name, or the path of a field inside of structs, with dots.
    pub fn with_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.hidden.columns.extend(columns.into_iter().map(Into::into));
        self
    }

    /// The same, encrypting all columns, now and later, and the footer: without keys, not even the names of columns and the number of rows are seen.
    pub fn with_everything(mut self) -> Self {
        self.hidden.everything = true;
        self
    }

    /// The same, encrypting the footer as well as the columns that are named; pages of others stay in the clear. Without any, everything is encrypted.
    pub fn with_encrypted_footer(mut self) -> Self {
        self.hidden.footer = true;
        self
    }

    /// The same, encrypting also what the other one does, with the keys of this one.
    pub fn and(self, other: &Self) -> Self {
        self.hiding(&other.hidden)
    }

    /// The same keys, and nothing that is encrypted.
    pub(crate) fn only_keys(&self) -> Self {
        Self::new(self.keys.clone())
    }

    pub(crate) fn hiding(mut self, hidden: &EncryptedParts) -> Self {
        self.hidden.add(hidden);
        self
    }

    /// The columns that are encrypted in new files; none is named where everything is.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.hidden.columns
    }

    /// Whether everything is encrypted in new files.
    pub fn encrypts_everything(&self) -> bool {
        self.hidden.everything
    }

    /// Whether the footer is encrypted in new files.
    pub fn encrypts_footer(&self) -> bool {
        self.hidden.footer || self.hidden.everything
    }

    /// Whether anything is encrypted in new files.
    pub fn encrypts(&self) -> bool {
        !self.hidden.is_nothing()
    }

    /// Whether a column, or a part of it, is encrypted in new files.
    pub fn covers(&self, column: &str) -> bool {
        let is = |path: &String| is_or_inside(path, column) || is_or_inside(column, path);
        self.hidden.everything || self.hidden.columns.iter().any(is)
    }

    /// What is kept beside the rows, or in the path of a file, is not inside of one.
    ///
    /// # Errors
    /// `EncryptedColumn` if one of these columns is encrypted.
    pub fn check_clear<'a>(&self, what: &str, columns: impl IntoIterator<Item = &'a String>) -> Result<()> {
        let Some(column) = columns.into_iter().find(|column| self.covers(column)) else { return Ok(()) };
        let message = format!(
            "column `{column}` is {what}, which stands outside of the data files too, and inside of these it would be encrypted: encrypt, tokenize or hash its values instead"
        );
        Err(Error::usage("EncryptedColumn", message).with_column(column))
    }

    /// Columns that are to be encrypted, by whatever is known of them, and are not among these.
    ///
    /// # Errors
    /// `MissingColumn`: it would be in the clear.
    pub(crate) fn check_names<'a>(
        names: impl IntoIterator<Item = &'a String>,
        is_there: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        for path in names {
            let root = path.split('.').next().unwrap_or(path);
            if !is_there(path) && !is_there(root) {
                let message = format!("`{path}` is to be encrypted, and there is no such column");
                return Err(Error::usage("MissingColumn", message).with_column(path));
            }
        }
        Ok(())
    }

    /// The leaf columns of a file of this schema that are encrypted, by their paths.
    ///
    /// # Errors
    /// `MissingColumn` for a part of a column that is there, if that part is not; `ColumnCase` for a name that is there in other letters.
    pub fn leaves(&self, schema: &SchemaDescriptor) -> Result<BTreeSet<String>> {
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
                        "`{path}` is no field of the column `{root}`; inside of lists and maps, name the whole column"
                    );
                    return Err(Error::usage("MissingColumn", message).with_column(path));
                }
                let lower = root.to_lowercase();
                if let Some(leaf) = all.iter().find(|leaf| is_or_inside(&leaf.to_lowercase(), &lower)) {
                    let message = format!("`{path}` is to be encrypted, and the column is written `{leaf}`");
                    return Err(Error::usage("ColumnCase", message).with_column(path));
                }
            }
            chosen.extend(own().cloned());
        }
        // A footer alone cannot be.
        let whole = self.hidden.footer && chosen.is_empty();
        Ok(if whole { all.into_iter().collect() } else { chosen })
    }

    /// How the Parquet writer is to encrypt a new file of this schema, with keys that no other file has; none if it has nothing to encrypt. What this
    /// answers shows the keys in its `Debug`.
    ///
    /// # Errors
    /// As [`leaves`](Self::leaves), and those of the keys.
    pub async fn properties(&self, schema: &SchemaDescriptor) -> Result<Option<Arc<FileEncryptionProperties>>> {
        if self.hidden.everything {
            return self.whole().await.map(Some);
        }
        let leaves = self.leaves(schema)?;
        if leaves.is_empty() {
            return Ok(None);
        }
        if self.hidden.footer && leaves.len() == schema.num_columns() {
            return self.whole().await.map(Some);
        }
        let footer = self.keys.new_key(FilePart::Footer).await?;
        // The library has its own copies, which it does not wipe.
        let mut properties = FileEncryptionProperties::builder(footer.key.to_vec())
            .with_footer_key_metadata(footer.metadata)
            .with_plaintext_footer(!self.hidden.footer);
        for leaf in &leaves {
            let FileKey { key, metadata } = self.keys.new_key(FilePart::Column).await?;
            properties = properties.with_column_key_and_metadata(leaf, key.to_vec(), metadata);
        }
        properties.build().map(Some).map_err(incomplete)
    }

    /// How the Parquet writer is to encrypt all of a file, with a key that no other file has: also for what is kept beside a table.
    ///
    /// # Errors
    /// Those of the keys.
    pub async fn whole(&self) -> Result<Arc<FileEncryptionProperties>> {
        let FileKey { key, metadata } = self.keys.new_key(FilePart::Footer).await?;
        let properties = FileEncryptionProperties::builder(key.to_vec()).with_footer_key_metadata(metadata);
        properties.build().map_err(incomplete)
    }

    pub(crate) fn keys(&self) -> &dyn FileKeys {
        &*self.keys
    }
}

fn incomplete(e: ParquetError) -> Error {
    Error::internal("keys of a file could not be put together").with_source(e)
}

/// Whether a path is this column, or of a part of it.
pub(crate) fn is_or_inside(path: &str, column: &str) -> bool {
    path.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// There are no keys for what is encrypted.
pub(crate) fn no_keys(place: &str, column: Option<&str>) -> Error {
    let what = column.map_or_else(|| "the file".to_owned(), |column| format!("column `{column}`"));
    let message = format!("{what} is encrypted (Parquet's modular encryption), and no keys of files are given");
    let e = Error::usage("NoFileKeys", message).in_file(place);
    match column {
        Some(column) => e.with_column(column),
        None => e,
    }
}
