//! The policy of a table as it is written in TOML: one treatment for each column, or for each class of a contract.
//! Reading a policy needs neither keys nor a store; [`crate::protect::ready`] connects it to these.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use biscuit_core::{Error, Result, remove_quoted_text};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::codes;
use crate::detect::entity::EntityType;
use crate::detect::hit::Likelihood;
use crate::encrypt::form::EncryptedForm;
use crate::keys::key_file::KeyFile;
use crate::tokens::digits::TokenAlphabet;
use crate::tokens::embedded::FileStore;
use crate::tokens::normalize::ValueNormalization;

/// Prefix of a store that is a DynamoDB table.
const DYNAMODB: &str = "dynamodb:";
/// Maximum time to wait for a store that another process has open.
const PATIENCE: Duration = Duration::from_secs(30);

/// Treatment of the columns of a table that hold personal data: the `[pii]` section of a job file.
///
/// ```
/// use biscuit_pii::Policy;
/// use biscuit_pii::treatment::ColumnTreatment;
///
/// let policy = Policy::parse(r#"
///     keys = "pii-keys.toml"
///     store = "tokens.redb"
///
///     [columns]
///     ssn = "tokenize"
///     bio = "redact"
///     email = "encrypt"
///     phone = { partial = { last = 4 } }
///     "address.street" = "remove"
/// "#).unwrap();
/// assert_eq!(policy.columns["phone"], ColumnTreatment::Partial { first: 0, last: 4 });
/// ```
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Policy {
    /// Path of the key file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// Store of tokens and of subject keys: the path of a file, or `dynamodb:` followed by the name of a DynamoDB
    /// table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Table name that is authenticated with each encrypted value; the default is the name of the table or output.
    /// Values that were encrypted under another name cannot be decrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Column that identifies the subject of a row. Required if a column is encrypted with keys of subjects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Treatments by the path of the column.
    pub columns: BTreeMap<String, ColumnTreatment>,
    /// Treatments by the class that a contract gives to a column. An entry in `columns` takes precedence.
    pub classes: BTreeMap<String, ColumnTreatment>,
}

/// Treatment of one column. In TOML it is a word, such as `"mask"`, or a table with one entry if it has options, such
/// as
/// `{ partial = { last = 4 } }`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ColumnTreatment {
    /// Leaves the values unchanged.
    Keep,
    /// Removes the column.
    Remove,
    /// Replaces the personal data that detectors find in the texts of the column.
    Redact(RedactionOptions),
    /// Replaces each letter and digit by `*`.
    Mask,
    /// Like `Mask`, but shows some letters and digits at the ends. A text of which this would show more than half is
    /// masked completely.
    Partial {
        /// Number of letters and digits to show at the beginning.
        first: usize,
        /// Number of letters and digits to show at the end.
        last: usize,
    },
    /// Replaces each value by a keyed hash.
    Hash(HashOptions),
    /// Encrypts each value by itself.
    Encrypt(ValueEncryption),
    /// Replaces each value by a token.
    Tokenize(TokenOptions),
}

/// Options for the redaction of texts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct RedactionOptions {
    /// Minimum likelihood of a hit that is replaced; the default is `likely`.
    pub min_likelihood: Option<Likelihood>,
    /// Replacement of hits whose entity type is not in `entities`.
    pub replace: HitReplacement,
    /// Replacement of hits by entity type.
    pub entities: BTreeMap<EntityType, HitReplacement>,
    /// Regions, as ISO 3166-1 codes of two letters, whose phone numbers are found without a country code, in addition
    /// to numbers of the United States.
    pub phone_regions: Vec<String>,
}

/// Text that replaces a hit.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HitReplacement {
    /// The entity type: `<EMAIL_ADDRESS>`.
    #[default]
    Type,
    /// The hit with `*` for each letter and digit.
    Mask,
    /// Like `Mask`, but shows some letters and digits at the ends.
    Partial {
        /// Number of letters and digits to show at the beginning.
        #[serde(default)]
        first: usize,
        /// Number of letters and digits to show at the end.
        #[serde(default)]
        last: usize,
    },
    /// The entity type and a keyed hash: `<EMAIL_ADDRESS:…>`.
    Hash,
    /// The token that a column of this namespace has for the same value.
    Tokenize(TokenOptions),
    /// The hit itself: it is not replaced.
    Keep,
}

/// Options for keyed hashes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct HashOptions {
    /// Namespace: equal values have equal hashes in the same namespace only. The default is the class of the column,
    /// or its name if it has no class.
    pub namespace: Option<String>,
    /// Version of the root key; the default is the current version.
    pub version: Option<u16>,
}

/// Options for the encryption of values.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct ValueEncryption {
    /// Form in which encrypted values are stored. Values inside of nested columns are always stored as text.
    pub form: EncryptedForm,
    /// Kind of key that encrypts the values.
    pub key: KeyUse,
}

/// Kind of key that encrypts a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyUse {
    /// A key of the column, derived from the root key for one or more batches.
    #[default]
    Column,
    /// The key of the row's subject. Deleting it makes the values of the subject unreadable.
    Subject,
    /// A data key of the key provider. Each value becomes a message of the AWS Encryption SDK.
    Message,
    /// A key of the file and column, used by Parquet's modular encryption. Only the data files hide the values:
    /// readers that have the keys see columns of any type as they were.
    File,
}

/// Options for tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct TokenOptions {
    /// Namespace: equal values have equal tokens in the same namespace only. The default is the class of the column,
    /// or its name if it has no class.
    pub namespace: Option<String>,
    /// Kind of the tokens.
    pub kind: TokenKind,
    /// Normalization steps that are applied to a value before it gets its token.
    pub normalize: Vec<ValueNormalization>,
    /// Characters that FF1 encrypts.
    pub alphabet: TokenAlphabet,
    /// Version of the root key for tokens that are not in a store; the default is the current version.
    pub version: Option<u16>,
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TokenKind {
    /// A random token, stored together with the encrypted value.
    #[default]
    Random,
    /// A keyed hash. If there is a store, it holds the encrypted value.
    Keyed,
    /// The value, encrypted deterministically (AES-SIV, RFC 5297), so that equal values have equal tokens.
    Siv,
    /// A value of the same format (format-preserving encryption with FF1).
    Ff1,
}

impl Policy {
    /// Reads a policy from TOML.
    ///
    /// # Errors
    /// `InvalidPolicy` if the text is not a policy; the message contains the reason and the place.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| {
            Error::new(codes::INVALID_POLICY, format!("invalid [pii] policy: {}", remove_quoted_text(&e.to_string())))
        })
    }

    /// Resolves the paths of key file and store relative to a folder. Values that contain a colon, such as
    /// `dynamodb:tokens`, remain as they are.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        let below = |place: &mut String| {
            if !place.contains(':') {
                *place = folder.join(&*place).to_string_lossy().into_owned();
            }
        };
        self.keys.iter_mut().for_each(below);
        self.store.iter_mut().for_each(below);
        self
    }

    /// Returns a policy that also treats columns whose name equals a class. Use it for tables whose contract is not
    /// available.
    #[must_use]
    pub fn all_named(&self) -> Self {
        let mut all = self.clone();
        for (class, treatment) in &self.classes {
            all.columns.entry(class.clone()).or_insert_with(|| treatment.clone());
        }
        all
    }

    /// Returns the treatment of each column by path, with the class of the column if it has one. Covers the columns
    /// that the policy names and the columns of a contract, given as pairs of column and class in `classes`.
    ///
    /// ```
    /// use biscuit_pii::Policy;
    /// use biscuit_pii::treatment::ColumnTreatment;
    ///
    /// let policy = Policy::parse("classes.email = \"mask\"")?;
    /// let treatments = policy.treatments([("contact", "email")])?;
    /// assert_eq!(treatments["contact"].0, ColumnTreatment::Mask);
    ///
    /// let e = policy.treatments([("mobile", "phone")]).unwrap_err();
    /// assert_eq!((e.code(), e.column()), ("UntreatedClass", Some("mobile")));
    /// # Ok::<(), biscuit_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `UntreatedClass` for a column whose class the policy does not have: personal data never passes through
    /// silently.
    pub fn treatments<'a>(
        &self,
        classes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<BTreeMap<String, (ColumnTreatment, Option<String>)>> {
        let named = self.columns.iter().map(|(path, treatment)| (path.clone(), (treatment.clone(), None)));
        let mut all: BTreeMap<_, _> = named.collect();
        for (column, class) in classes {
            // The entry in `columns` takes precedence. The class is retained because it is the default namespace.
            if let Some((_, of)) = all.get_mut(column) {
                *of = Some(class.to_owned());
                continue;
            }
            // A column may be treated through its fields: with an entry for `address.street`, `address` needs no
            // entry.
            let inside = format!("{column}.");
            let treatment = match self.classes.get(class) {
                Some(treatment) => treatment.clone(),
                None if all.keys().any(|path| path.starts_with(&inside)) => continue,
                None => {
                    let message = format!(
                        "column `{column}` has the class `{class}`, and [pii] has no treatment for either; \
                        add one, such as `keep`"
                    );
                    return Err(Error::new(codes::UNTREATED_CLASS, message).with_column(column));
                }
            };
            all.insert(column.to_owned(), (treatment, Some(class.to_owned())));
        }
        Ok(all)
    }

    /// Returns the name of the DynamoDB table if the store is one.
    pub fn dynamodb_table(&self) -> Option<&str> {
        self.store.as_deref()?.strip_prefix(DYNAMODB)
    }

    /// Opens the key file if the policy names one. A relative path is relative to `folder`.
    ///
    /// # Errors
    /// Those of [`KeyFile::open`].
    pub fn key_file(&self, folder: &Path) -> Result<Option<KeyFile>> {
        self.keys.as_ref().map(|keys| KeyFile::open(&folder.join(keys))).transpose()
    }

    /// Opens the store if it is a file. A relative path is relative to `folder`. Waits up to 30 seconds while another
    /// process has the file open.
    ///
    /// # Errors
    /// `InvalidPolicy` for a URL; the errors of [`FileStore::open`].
    pub async fn file_store(&self, folder: &Path) -> Result<Option<FileStore>> {
        let Some(store) = self.store.as_ref().filter(|_| self.dynamodb_table().is_none()) else { return Ok(None) };
        if store.contains("://") {
            let message = format!(
                "`{store}` is not a token store; use the path of a local file, or `dynamodb:` and a table name"
            );
            return Err(Error::new(codes::INVALID_POLICY, message));
        }
        FileStore::open(folder.join(store), PATIENCE).await.map(Some)
    }
}

const WORDS: &[&str] = &["keep", "remove", "redact", "mask", "partial", "hash", "encrypt", "tokenize"];

// Deserialized by hand, since a treatment is either a word or a table with one entry.
impl<'de> Deserialize<'de> for ColumnTreatment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordOrTable)
    }
}

struct WordOrTable;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TreatmentTable {
    Redact(RedactionOptions),
    Partial(KeptEnds),
    Hash(HashOptions),
    Encrypt(ValueEncryption),
    Tokenize(TokenOptions),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct KeptEnds {
    first: usize,
    last: usize,
}

impl<'de> Visitor<'de> for WordOrTable {
    type Value = ColumnTreatment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}, or a table with one of them", WORDS.join(", "))
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<ColumnTreatment, E> {
        Ok(match word {
            "keep" => ColumnTreatment::Keep,
            "remove" => ColumnTreatment::Remove,
            "redact" => ColumnTreatment::Redact(RedactionOptions::default()),
            "mask" => ColumnTreatment::Mask,
            "hash" => ColumnTreatment::Hash(HashOptions::default()),
            "encrypt" => ColumnTreatment::Encrypt(ValueEncryption::default()),
            "tokenize" => ColumnTreatment::Tokenize(TokenOptions::default()),
            "partial" => {
                return Err(E::custom("`partial` needs the number of characters to show: { partial = { last = 4 } }"));
            }
            plain if ["md5", "sha1", "sha256", "sha512"].contains(&plain.replace(['-', '_'], "").as_str()) => {
                return Err(E::custom(format!(
                    "a plain {plain} hides nothing: it can be computed for all nine-digit numbers in \
                    seconds; use `hash`, which has a key"
                )));
            }
            other => return Err(E::unknown_variant(other, WORDS)),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnTreatment, A::Error> {
        Ok(match TreatmentTable::deserialize(MapAccessDeserializer::new(map))? {
            TreatmentTable::Redact(how) => ColumnTreatment::Redact(how),
            TreatmentTable::Partial(KeptEnds { first, last }) => ColumnTreatment::Partial { first, last },
            TreatmentTable::Hash(how) => ColumnTreatment::Hash(how),
            TreatmentTable::Encrypt(how) => ColumnTreatment::Encrypt(how),
            TreatmentTable::Tokenize(how) => ColumnTreatment::Tokenize(how),
        })
    }
}
