//! Tokenization of columns: normalization, distinct values, and the four kinds of tokens.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use aws_lc_rs::hmac;
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::codes;
use crate::encrypt::form::in_row;
use crate::keys::roots::RootKeys;
use crate::keys::secret::fill_random;
use crate::mac::{compute_mac, encode_hex, mac_key};
use crate::protect::texts::{as_text, distinct_texts, with_texts};
use crate::tokens::audit::AccessRequest;
use crate::tokens::digits::{Ff1Cipher, TokenAlphabet, TokenDirection};
use crate::tokens::normalize::{ValueNormalization, normalize};
use crate::tokens::siv;
use crate::tokens::store::TokenStore;
use crate::tokens::vault::{StoredToken, TokenVault, ValueMacs};

/// Replaces values by tokens. Equal values of a namespace have equal tokens, so that tables still join.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_pii::keys::RootKeys;
/// use biscuit_pii::tokens::{MemoryStore, Tokenizer, ValueNormalization};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let tokenizer = Tokenizer::random(RootKeys::in_memory()?, "email", Arc::new(MemoryStore::new()))?
///     .with_normalization([ValueNormalization::Trim, ValueNormalization::Lowercase]);
/// let tokens = tokenizer.tokens(&["Ann@example.com", "bob@example.com", " ann@example.com"]).await?;
/// assert!(tokens[0].starts_with("tok_"));
/// assert_eq!(tokens[0], tokens[2]);
/// assert_ne!(tokens[0], tokens[1]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Tokenizer {
    roots: RootKeys,
    namespace: String,
    kind: TokenizerKind,
    steps: Vec<ValueNormalization>,
    /// Version of the root key for tokens that are not in a store.
    version: u16,
    /// Keys of the hash of a value by version, the current one first.
    macs: Vec<(u16, hmac::Key)>,
}

#[derive(Debug)]
enum TokenizerKind {
    Random(TokenVault),
    Keyed(Option<TokenVault>),
    Siv,
    Ff1(TokenAlphabet),
}

/// Detokenized column.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DetokenizedColumn {
    /// Values of the tokens.
    pub column: ArrayRef,
    /// Number of values that are null because they were forgotten.
    pub forgotten: u64,
}

impl Tokenizer {
    fn new(roots: RootKeys, namespace: impl Into<String>, kind: TokenizerKind) -> Result<Self> {
        let namespace = namespace.into();
        let key = |version| {
            let key = roots.derive_key(version, b"", &["biscuit token", &namespace], 32)?;
            Ok((version, mac_key(key.expose())))
        };
        let macs = roots.versions().map(key).collect::<Result<_>>()?;
        let version = roots.current();
        Ok(Self { roots, namespace, kind, steps: vec![], version, macs })
    }

    /// Creates a tokenizer with random tokens, `tok_` and 32 hexadecimal digits, in a store. Without the store, not
    /// even the keys reveal the value of a token. Tokens do not change with new versions of the keys.
    ///
    /// # Errors
    /// `Internal` if a key cannot be derived.
    pub fn random(roots: RootKeys, namespace: impl Into<String>, store: Arc<dyn TokenStore>) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Random(TokenVault::new(store)))
    }

    /// Creates a tokenizer with keyed hashes as tokens: `tok<version>_` and 32 hexadecimal digits (16 bytes of
    /// HMAC-SHA-256). They need no store and cannot be detokenized. Another version of the keys has other tokens.
    ///
    /// # Errors
    /// Those of [`random`](Self::random).
    pub fn keyed(roots: RootKeys, namespace: impl Into<String>) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Keyed(None))
    }

    /// Creates a tokenizer with the tokens of [`keyed`](Self::keyed) and a store, from which they can be detokenized.
    ///
    /// # Errors
    /// Those of [`random`](Self::random).
    pub fn keyed_in(roots: RootKeys, namespace: impl Into<String>, store: Arc<dyn TokenStore>) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Keyed(Some(TokenVault::new(store))))
    }

    /// Creates a tokenizer whose tokens contain the value, encrypted deterministically (AES-SIV). Whoever has the
    /// keys can detokenize them without a store. The length of a token reveals the length of the value.
    ///
    /// # Errors
    /// Those of [`random`](Self::random).
    pub fn siv(roots: RootKeys, namespace: impl Into<String>) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Siv)
    }

    /// Creates a tokenizer with tokens of the format of their values (FF1): `123-45-6789` becomes another such
    /// number. A token does not contain the version of its key; after a rotation, set the version with
    /// [`with_version`](Self::with_version).
    ///
    /// # Errors
    /// Those of [`random`](Self::random).
    pub fn ff1(roots: RootKeys, namespace: impl Into<String>, alphabet: TokenAlphabet) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Ff1(alphabet))
    }

    /// Sets the version of the root key of new tokens, so that tokens do not change when there is a newer version.
    /// The default is the current version.
    ///
    /// # Errors
    /// `UnknownKeyVersion` if there is no such version; `InStore` for tokens in a store, which do not depend on the
    /// version.
    pub fn with_version(mut self, version: u16) -> Result<Self> {
        self.roots.derive_key(version, b"", &["biscuit token"], 32)?;
        if self.keeps_values() {
            return Err(Error::new(
                codes::IN_STORE,
                "tokens in a store do not depend on the key version; remove `version`",
            ));
        }
        self.version = version;
        Ok(self)
    }

    /// Sets normalization steps: values that are equal after them get the same token. A store returns the spelling of
    /// the value that came first; SIV and FF1 return the normalized value.
    #[must_use]
    pub fn with_normalization(mut self, steps: impl Into<Vec<ValueNormalization>>) -> Self {
        self.steps = steps.into();
        self
    }

    /// Returns whether a store holds the values of the tokens.
    pub fn keeps_values(&self) -> bool {
        matches!(self.kind, TokenizerKind::Random(_) | TokenizerKind::Keyed(Some(_)))
    }

    /// Returns the keyed hash of a normalized value for each version.
    fn hash_value(&self, value: &str) -> ValueMacs {
        self.macs.iter().map(|(version, key)| (*version, compute_mac(key, &[value.as_bytes()]))).collect()
    }

    /// Returns the token of each value. An empty value has an empty token. Values may be repeated; the store is asked
    /// once for each distinct value.
    ///
    /// # Errors
    /// Those of the store; `SmallDomain` and `OtherCharacter` for values that FF1 does not support.
    pub async fn tokens(&self, values: &[&str]) -> Result<Vec<String>> {
        self.try_tokens(values).await.map_err(|(_, e)| e)
    }

    /// Like [`tokens`](Self::tokens); an error comes with the index of the value that caused it, if there is one.
    async fn try_tokens(&self, values: &[&str]) -> Result<Vec<String>, (Option<usize>, Error)> {
        let plain = self.normalize_all(values);
        match &self.kind {
            TokenizerKind::Siv => {
                token_of_each(&plain, |value| siv::encode_token(&self.roots, self.version, &self.namespace, value))
            }
            TokenizerKind::Ff1(alphabet) => {
                let digits =
                    Ff1Cipher::new(&self.roots, self.version, &self.namespace, *alphabet).map_err(|e| (None, e))?;
                token_of_each(&plain, |value| digits.convert(value, TokenDirection::There))
            }
            TokenizerKind::Keyed(None) => token_of_each(&plain, |value| {
                let macs = self.hash_value(value);
                let mac = macs.iter().find(|(version, _)| *version == self.version);
                mac.map(|mac| self.keyed_token(mac))
                    .ok_or_else(|| Error::internal("the version of the tokenizer has no key"))
            }),
            TokenizerKind::Random(vault) | TokenizerKind::Keyed(Some(vault)) => {
                self.kept_tokens(vault, values, &plain).await.map_err(|e| (None, e))
            }
        }
    }

    /// Normalizes values. A value of which nothing would remain is left as it is: with `DigitsOnly`, `n/a` and
    /// `unknown` are still two values.
    fn normalize_all(&self, values: &[&str]) -> Vec<Zeroizing<String>> {
        let one = |value: &&str| {
            let plain = normalize(value, &self.steps);
            Zeroizing::new(if plain.is_empty() { (*value).to_owned() } else { plain })
        };
        values.iter().map(one).collect()
    }

    /// Returns the token of each value that has one, and creates none.
    ///
    /// # Errors
    /// Those of [`tokens`](Self::tokens).
    pub async fn known_tokens(&self, values: &[&str]) -> Result<Vec<Option<String>>> {
        match &self.kind {
            TokenizerKind::Random(vault) | TokenizerKind::Keyed(Some(vault)) => {
                let macs: Vec<ValueMacs> =
                    self.normalize_all(values).iter().map(|value| self.hash_value(value)).collect();
                vault.known_tokens(&macs).await
            }
            _ => Ok(self.tokens(values).await?.into_iter().map(Some).collect()),
        }
    }

    fn keyed_token(&self, (version, mac): &(u16, [u8; 32])) -> String {
        format!("tok{version}_{}", encode_hex(&mac[..16]))
    }

    /// Returns tokens of a store. An empty value has an empty token.
    async fn kept_tokens(
        &self,
        vault: &TokenVault,
        values: &[&str],
        plain: &[Zeroizing<String>],
    ) -> Result<Vec<String>> {
        // Different values may be equal after normalization. The store gets the first spelling of each.
        let (mut numbers, mut firsts) = (HashMap::<&str, usize>::new(), vec![]);
        for (at, value) in plain.iter().enumerate().filter(|(_, value)| !value.is_empty()) {
            numbers.entry(value.as_str()).or_insert_with(|| {
                firsts.push(at);
                firsts.len() - 1
            });
        }
        let macs: Vec<ValueMacs> = firsts.iter().map(|at| self.hash_value(&plain[*at])).collect();
        let asked: Vec<&str> = firsts.iter().map(|at| values[*at]).collect();
        let new = |at: usize| match &self.kind {
            TokenizerKind::Random(_) => {
                let mut bytes = [0; 16];
                fill_random(&mut bytes)?;
                Ok(format!("tok_{}", encode_hex(&bytes)))
            }
            _ => Ok(self.keyed_token(&macs[at][0])),
        };
        let tokens = vault.find_or_create(&self.roots, &self.namespace, &asked, &macs, new).await?;
        let token =
            |value: &Zeroizing<String>| numbers.get(value.as_str()).map_or(String::new(), |at| tokens[*at].clone());
        Ok(plain.iter().map(token).collect())
    }

    /// Replaces the texts of a column by tokens, including texts inside of structs, lists, maps and dictionaries.
    /// Numbers, dates and similar values become text. Null remains null, and an empty text remains empty.
    ///
    /// # Errors
    /// Those of [`tokens`](Self::tokens), with column and row; `NotText` for a column that is not text throughout.
    pub async fn tokenize(&self, column: &str, values: &ArrayRef) -> Result<ArrayRef> {
        let texts = as_text(column, values)?;
        let distinct = distinct_texts(&texts);
        let asked: Vec<&str> = distinct.iter().map(|(text, _)| text.as_str()).collect();
        let tokens = self.try_tokens(&asked).await.map_err(|(at, e)| match at {
            Some(at) => with_place(column, &texts, asked[at], &e),
            None => e,
        })?;
        with_texts(&texts, &asked.into_iter().zip(tokens).collect())
    }

    /// Returns the values of the tokens of a column, after the access was recorded. Forgotten values are null.
    ///
    /// # Errors
    /// `UnknownToken` with column and row for a text that is not a token of this namespace; `OneWay` for tokens that
    /// cannot be detokenized; `NoAudit` if the access cannot be recorded; the errors of the store.
    pub async fn detokenize(
        &self,
        column: &str,
        tokens: &ArrayRef,
        access: &AccessRequest,
    ) -> Result<DetokenizedColumn> {
        let texts = as_text(column, tokens)?;
        let distinct = distinct_texts(&texts);
        let asked: Vec<&str> = distinct.iter().map(|(text, _)| text.as_str()).collect();
        let count = distinct.iter().map(|(_, count)| count).sum();
        // Before the store is asked: without an audit entry nothing is read.
        access.record(&self.namespace, column, count, asked.len() as u64)?;
        let unknown = || {
            let message = format!("a text is not a token of `{}`", self.namespace);
            Error::new(codes::UNKNOWN_TOKEN, message)
        };
        let mut values = HashMap::new();
        let mut gone = HashMap::new();
        for ((token, count), stored) in distinct.iter().zip(self.stored_tokens(&asked).await?) {
            match stored {
                StoredToken::Value(value) => {
                    values.insert(token.as_str(), value.to_string());
                }
                StoredToken::Forgotten => {
                    gone.insert(token.as_str(), *count);
                }
                StoredToken::Unknown => return Err(with_place(column, &texts, token, &unknown())),
            }
        }
        let column = with_texts(&null_forgotten(column, &texts, &gone)?, &values)?;
        Ok(DetokenizedColumn { column, forgotten: gone.values().sum() })
    }

    async fn stored_tokens(&self, tokens: &[&str]) -> Result<Vec<StoredToken>> {
        let known = |value: Option<Zeroizing<String>>| value.map_or(StoredToken::Unknown, StoredToken::Value);
        match &self.kind {
            TokenizerKind::Random(vault) | TokenizerKind::Keyed(Some(vault)) => {
                vault.stored_values(&self.roots, &self.namespace, tokens).await
            }
            TokenizerKind::Siv => {
                tokens.iter().map(|t| Ok(known(siv::decode_token(&self.roots, &self.namespace, t)?))).collect()
            }
            TokenizerKind::Ff1(alphabet) => {
                let digits = Ff1Cipher::new(&self.roots, self.version, &self.namespace, *alphabet)?;
                tokens
                    .iter()
                    .map(|token| Ok(known(digits.convert(token, TokenDirection::Back).ok().map(Zeroizing::new))))
                    .collect()
            }
            TokenizerKind::Keyed(None) => {
                let message = format!(
                    "tokens of `{}` are keyed hashes without a store and cannot be detokenized",
                    self.namespace
                );
                Err(Error::new(codes::ONE_WAY, message))
            }
        }
    }

    /// Deletes the stored values of tokens and returns their number. The tokens still stand for the values and join,
    /// but cannot be detokenized.
    ///
    /// # Errors
    /// `UnknownToken` for a text that is not a token of this namespace; `NoStore` for tokens that are not in a store;
    /// the errors of the store.
    pub async fn forget(&self, tokens: &[&str]) -> Result<u64> {
        let (TokenizerKind::Random(vault) | TokenizerKind::Keyed(Some(vault))) = &self.kind else {
            let message =
                format!("tokens of `{}` are not in a store, so there are no values to delete", self.namespace);
            return Err(Error::new(codes::NO_STORE, message));
        };
        let mut forgotten = 0;
        for (at, stored) in vault.stored_values(&self.roots, &self.namespace, tokens).await?.into_iter().enumerate() {
            match stored {
                StoredToken::Value(value) => {
                    vault.forget_token(tokens[at], &self.hash_value(&self.normalize_all(&[&value])[0])).await?;
                    forgotten += 1;
                }
                StoredToken::Forgotten => {}
                StoredToken::Unknown => {
                    let message = format!("text {} of {} is not a token of `{}`", at + 1, tokens.len(), self.namespace);
                    return Err(Error::new(codes::UNKNOWN_TOKEN, message));
                }
            }
        }
        Ok(forgotten)
    }
}

/// Computes the token of each value that is not empty.
fn token_of_each(
    values: &[Zeroizing<String>],
    token: impl Fn(&str) -> Result<String>,
) -> Result<Vec<String>, (Option<usize>, Error)> {
    let one = |(at, value): (usize, &Zeroizing<String>)| {
        if value.is_empty() { Ok(String::new()) } else { token(value).map_err(|e| (Some(at), e)) }
    };
    values.iter().enumerate().map(one).collect()
}

/// Adds the column to an error and, unless the column is nested, the row.
fn with_place(column: &str, texts: &ArrayRef, text: &str, e: &Error) -> Error {
    let flat = cast(texts, &DataType::LargeUtf8).ok();
    let row = flat.and_then(|flat| flat.as_string::<i64>().iter().position(|value| value == Some(text)));
    let e = Error::new(e.error_code(), format!("column `{column}`: {}", e.message()));
    match row {
        Some(row) => in_row(e, column, row),
        None => e.with_column(column),
    }
}

/// Replaces the texts of forgotten tokens by null.
fn null_forgotten(column: &str, texts: &ArrayRef, gone: &HashMap<&str, u64>) -> Result<ArrayRef> {
    if gone.is_empty() {
        return Ok(texts.clone());
    }
    if texts.data_type().is_nested() {
        let message =
            format!("column `{column}` has forgotten values, which cannot become null inside of a nested column");
        return Err(Error::new(codes::CANNOT_DETOKENIZE, message).with_column(column));
    }
    let internal = |e| Error::internal("cannot convert a text column").with_source(e);
    let flat = cast(texts, &DataType::LargeUtf8).map_err(internal)?;
    let kept = flat.as_string::<i64>().iter().map(|text| text.filter(|text| !gone.contains_key(text)));
    let kept: ArrayRef = Arc::new(kept.collect::<arrow::array::LargeStringArray>());
    cast(&kept, texts.data_type()).map_err(internal)
}
