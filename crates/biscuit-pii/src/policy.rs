use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use biscuit_core::{Error, Result, unquoted};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::encrypt::form::EncryptedForm;
use crate::entity::EntityType;
use crate::hit::Likelihood;
use crate::tokens::digits::TokenAlphabet;
use crate::tokens::normalize::ValueNormalization;

/// What becomes of the columns of a table: the `[pii]` of a job's file.
///
/// ```
/// use biscuit_pii::{Policy, Treatment};
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
/// assert_eq!(policy.columns["phone"], Treatment::Partial { first: 0, last: 4 });
/// ```
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Policy {
    /// Where the key file is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// Where tokens and keys of subjects are kept: a file, or `dynamodb:` and the name of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The name of the table that is bound into what is encrypted; what was encrypted with another one does not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The column that says whose values a row has, for those that are encrypted with keys of subjects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// By path.
    pub columns: BTreeMap<String, ColumnTreatment>,
    /// By the class that a contract gives a column; one that is named in `columns` has that.
    pub classes: BTreeMap<String, ColumnTreatment>,
}

/// What becomes of a column. In TOML, a word where nothing more is to be said, else a table with one: `{ partial = { last = 4 } }`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ColumnTreatment {
    /// It stays as it is.
    Keep,
    /// It goes.
    Remove,
    /// What detectors find in its texts is replaced.
    Redact(RedactionOptions),
    /// A `*` for each letter and digit.
    Mask,
    /// As `Mask`, but for some letters and digits at the ends; where that would be more than half of them, none.
    Partial {
        /// At the beginning.
        first: usize,
        /// At the end.
        last: usize,
    },
    /// A keyed hash.
    Hash(HashOptions),
    /// Encrypted, value by value.
    Encrypt(ValueEncryption),
    /// A token for each value.
    Tokenize(TokenOptions),
}

/// How texts are redacted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct RedactionOptions {
    /// What is at least so likely; `likely` if none is given.
    pub min_likelihood: Option<Likelihood>,
    /// What hits become.
    pub replace: HitReplacement,
    /// What hits of single entities become.
    pub entities: BTreeMap<EntityType, HitReplacement>,
    /// Regions whose phone numbers are found without a country code; the United States if none is given.
    pub phone_regions: Vec<String>,
}

/// What a hit becomes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HitReplacement {
    /// `<EMAIL_ADDRESS>`.
    #[default]
    Type,
    /// A `*` for each letter and digit.
    Mask,
    /// As `Mask`, but for some at the ends.
    Partial {
        /// At the beginning.
        #[serde(default)]
        first: usize,
        /// At the end.
        #[serde(default)]
        last: usize,
    },
    /// `<EMAIL_ADDRESS:` and a keyed hash.
    Hash,
    /// The token that the whole value would have in a column of this namespace.
    Tokenize(TokenOptions),
    /// It stays.
    Keep,
}

/// How values are hashed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct HashOptions {
    /// Equal values of a namespace have equal hashes; the class or the name of the column if none is given.
    pub namespace: Option<String>,
    /// The version of the keys; the current one if none is given.
    pub version: Option<u16>,
}

/// How values are encrypted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct ValueEncryption {
    /// How they are stored; inside of nested columns always as text.
    pub form: EncryptedForm,
    /// Whose key.
    pub key: KeyUse,
}

/// Whose key encrypts a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyUse {
    /// One of the column and batch.
    #[default]
    Column,
    /// One of the row's subject, which can be forgotten.
    Subject,
    /// A data key of the key provider, in a message of the AWS Encryption SDK.
    Message,
    /// One of the file and column, in Parquet's own encryption: values are as they were for readers that have the keys, of any type, and only the
    /// data files hide them.
    File,
}

/// Which tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct TokenOptions {
    /// Equal values of a namespace have equal tokens; the class or the name of the column if none is given.
    pub namespace: Option<String>,
    /// Of what kind.
    pub kind: TokenKind,
    /// What of a value does not matter.
    pub normalize: Vec<ValueNormalization>,
    /// What FF1 encrypts.
    pub alphabet: TokenAlphabet,
    /// The version of the keys, for tokens that are made of nothing else; the current one if none is given.
    pub version: Option<u16>,
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TokenKind {
    /// Random ones, in the store.
    #[default]
    Random,
    /// A keyed hash, and the value in the store if there is one.
    Keyed,
    /// The value, encrypted so that equal ones stay equal (AES-SIV).
    Siv,
    /// A value of the same form (FF1).
    Ff1,
}

impl Policy {
    /// Reads it from TOML.
    ///
    /// # Errors
    /// `InvalidPolicy`, which says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text)
            .map_err(|e| Error::usage("InvalidPolicy", format!("this is no policy: {}", unquoted(&e.to_string()))))
    }

    /// The same with the places of keys and store relative to a folder.
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

    /// The same, taking the name of each class as that of a column as well: for tables whose contract is not at hand.
    pub fn all_named(&self) -> Self {
        let mut all = self.clone();
        for (class, treatment) in &self.classes {
            all.columns.entry(class.clone()).or_insert_with(|| treatment.clone());
        }
        all
    }

    /// The treatment of each column: those that are named, and those of a contract, whose columns and classes these are.
    ///
    /// # Errors
    /// `UntreatedClass` for a class that the policy does not have: what is personal data is not passed through silently.
    pub fn treatments<'a>(
        &self,
        classes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<BTreeMap<String, (ColumnTreatment, Option<String>)>> {
        let named = self.columns.iter().map(|(path, treatment)| (path.clone(), (treatment.clone(), None)));
        let mut all: BTreeMap<_, _> = named.collect();
        for (column, class) in classes {
            if let Some((_, of)) = all.get_mut(column) {
                *of = Some(class.to_owned());
                continue;
            }
            let inside = format!("{column}.");
            let treatment = match self.classes.get(class) {
                Some(treatment) => treatment.clone(),
                None if all.keys().any(|path| path.starts_with(&inside)) => continue,
                None => {
                    let message = format!(
                        "column `{column}` has the class `{class}`, and [pii] says nothing about either; `keep` lets it through"
                    );
                    return Err(Error::usage("UntreatedClass", message).with_column(column));
                }
            };
            all.insert(column.to_owned(), (treatment, Some(class.to_owned())));
        }
        Ok(all)
    }
}

const WORDS: &[&str] = &["keep", "remove", "redact", "mask", "partial", "hash", "encrypt", "tokenize"];

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
            "partial" => return Err(E::custom("`partial` says how much is shown: { partial = { last = 4 } }")),
            plain if ["md5", "sha1", "sha256", "sha512"].contains(&plain.replace(['-', '_'], "").as_str()) => {
                return Err(E::custom(format!(
                    "a plain {plain} is no secret: whoever has it tries all numbers of nine digits in seconds; `hash` has a key"
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
