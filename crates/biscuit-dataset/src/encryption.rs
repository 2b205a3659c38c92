use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use biscuit_core::{Error, Result};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::schema::types::SchemaDescriptor;
use zeroize::Zeroizing;

use crate::reader::parquet_error;

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
    /// 16, 24 or 32 bytes.
    pub key: Zeroizing<Vec<u8>>,
    /// What a reader gets it by: the *key metadata* of the format.
    pub metadata: Vec<u8>,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({} bytes)", self.key.len())
    }
}

/// Where the keys of encrypted files come from, and which columns of new files are encrypted.
///
/// The footer stays in the clear, and is signed: engines without keys read all other columns. In encrypted columns neither pages nor statistics nor
/// indexes show anything; they have no bloom filters, which would.
#[derive(Debug, Clone)]
pub struct Encryption {
    keys: Arc<dyn FileKeys>,
    columns: BTreeSet<String>,
    footer: bool,
}

impl Encryption {
    /// Keys that encrypted files are read with. Files that take the place of encrypted ones are encrypted like these.
    pub fn new(keys: Arc<dyn FileKeys>) -> Self {
        Self { keys, columns: BTreeSet::new(), footer: false }
    }

    /// The same, encrypting these columns, too: by name, or the path of a field inside of structs, with dots.
    pub fn with_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.columns.extend(columns.into_iter().map(Into::into));
        self
    }

    /// The same, encrypting the footer too: without keys, not even the names of columns and the number of rows are seen, and no column is read.
    pub fn with_encrypted_footer(mut self) -> Self {
        self.footer = true;
        self
    }

    /// The columns that are encrypted in new files.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.columns
    }

    /// Whether footers of new files are encrypted.
    pub fn encrypts_footer(&self) -> bool {
        self.footer
    }

    /// Whether anything is encrypted in new files.
    pub fn encrypts(&self) -> bool {
        self.footer || !self.columns.is_empty()
    }

    /// Whether a column, or a part of it, is encrypted in new files.
    pub fn covers(&self, column: &str) -> bool {
        self.columns.iter().any(|path| is_or_inside(path, column))
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

    /// The leaf columns of a file of this schema that are encrypted, by their paths.
    ///
    /// # Errors
    /// `MissingColumn` for a part of a column that is there, if that part is not.
    fn leaves(&self, schema: &SchemaDescriptor) -> Result<BTreeSet<String>> {
        let all: Vec<String> = schema.columns().iter().map(|leaf| leaf.path().string()).collect();
        let mut chosen = BTreeSet::new();
        for path in &self.columns {
            let own = || all.iter().filter(|leaf| is_or_inside(leaf, path)).cloned();
            let root = path.split('.').next().unwrap_or(path);
            if own().next().is_none() && all.iter().any(|leaf| is_or_inside(leaf, root)) {
                let message = format!(
                    "`{path}` is no field of the column `{root}`; inside of lists and maps, name the whole column"
                );
                return Err(Error::usage("MissingColumn", message).with_column(path));
            }
            chosen.extend(own());
        }
        Ok(chosen)
    }

    /// How the Parquet writer is to encrypt a new file of this schema, with keys that no other file has; none if it has nothing to encrypt.
    ///
    /// # Errors
    /// `MissingColumn` for a part of a column that is there, if that part is not; those of the keys.
    pub async fn properties(&self, schema: &SchemaDescriptor) -> Result<Option<Arc<FileEncryptionProperties>>> {
        let leaves = self.leaves(schema)?;
        if leaves.is_empty() && !self.footer {
            return Ok(None);
        }
        let footer = self.keys.new_key(FilePart::Footer).await?;
        // The library has its own copies, which it does not wipe.
        let mut properties = FileEncryptionProperties::builder(footer.key.to_vec())
            .with_footer_key_metadata(footer.metadata)
            .with_plaintext_footer(!self.footer);
        for leaf in &leaves {
            let FileKey { key, metadata } = self.keys.new_key(FilePart::Column).await?;
            properties = properties.with_column_key_and_metadata(leaf, key.to_vec(), metadata);
        }
        let internal = |e| Error::internal("keys of a file could not be put together").with_source(e);
        properties.build().map(Some).map_err(internal)
    }

    /// How the Parquet writer is to encrypt all of a file, with a key that no other file has: for what is kept beside a table.
    ///
    /// # Errors
    /// Those of the keys.
    pub async fn whole(&self) -> Result<Arc<FileEncryptionProperties>> {
        let FileKey { key, metadata } = self.keys.new_key(FilePart::Footer).await?;
        let properties = FileEncryptionProperties::builder(key.to_vec()).with_footer_key_metadata(metadata).build();
        properties.map_err(|e| Error::internal("keys of a file could not be put together").with_source(e))
    }

    /// The leaf columns of which nothing may be in the clear: those that are encrypted, of all if the footer alone is.
    ///
    /// # Errors
    /// As [`properties`](Self::properties).
    pub fn hidden(&self, schema: &SchemaDescriptor) -> Result<BTreeSet<String>> {
        let leaves = self.leaves(schema)?;
        if self.footer && leaves.is_empty() {
            return Ok(schema.columns().iter().map(|leaf| leaf.path().string()).collect());
        }
        Ok(leaves)
    }

    pub(crate) fn keys(&self) -> &dyn FileKeys {
        &*self.keys
    }
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

/// How the Parquet library is to read a file in memory, which may be encrypted.
///
/// # Errors
/// `NoFileKeys`, `UnreadableParquet`, those of the keys.
pub async fn reading(bytes: &Bytes, place: &str, keys: Option<&Encryption>) -> Result<ArrowReaderOptions> {
    let fetched = Arc::new(Fetched::default());
    let options = ArrowReaderOptions::new();
    let Some(keys) = keys else {
        return if bytes.ends_with(ENCRYPTED_FOOTER) { Err(no_keys(place, None)) } else { Ok(options) };
    };
    let failed = |e| parquet_error(place, e);
    let properties = fetched.properties().map_err(failed)?;
    loop {
        let reader = ParquetMetaDataReader::new().with_decryption_properties(Some(properties.clone()));
        let read = reader.parse_and_finish(bytes);
        if !fetched.fetch(keys.keys()).await.map_err(|e| e.in_file(place))? {
            return read.map(|_| options.with_file_decryption_properties(properties)).map_err(failed);
        }
    }
}

/// What a file ends with whose footer is encrypted.
pub(crate) const ENCRYPTED_FOOTER: &[u8] = b"PARE";

/// The keys of one file, which the Parquet library asks for while it cannot wait: what it misses is fetched before it is asked again.
#[derive(Default)]
pub(crate) struct Fetched(Mutex<Keys>);

#[derive(Default)]
struct Keys {
    held: HashMap<Vec<u8>, Zeroizing<Vec<u8>>>,
    missing: BTreeSet<Vec<u8>>,
}

impl Fetched {
    pub(crate) fn properties(self: &Arc<Self>) -> parquet::errors::Result<Arc<FileDecryptionProperties>> {
        FileDecryptionProperties::with_key_retriever(self.clone()).build()
    }

    /// Fetches what was missed; whether there was anything.
    pub(crate) async fn fetch(&self, keys: &dyn FileKeys) -> Result<bool> {
        let missing = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).missing);
        let any = !missing.is_empty();
        for metadata in missing {
            let key = keys.key(&metadata).await?;
            self.0.lock().unwrap_or_else(PoisonError::into_inner).held.insert(metadata, key);
        }
        Ok(any)
    }
}

impl KeyRetriever for Fetched {
    fn retrieve_key(&self, metadata: &[u8]) -> parquet::errors::Result<Vec<u8>> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.held.get(metadata) {
            return Ok(key.to_vec());
        }
        keys.missing.insert(metadata.to_vec());
        Err(ParquetError::General("a key is not there yet".to_owned()))
    }
}
