use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use aws_lc_rs::hmac;
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::encrypt::form::in_row;
use crate::keys::roots::RootKeys;
use crate::keys::secret::random;
use crate::mac::{hex, mac, mac_key};
use crate::texts::{as_text, distinct_texts, with_texts};
use crate::tokens::audit::AccessRequest;
use crate::tokens::digits::{Ff1Cipher, TokenAlphabet, TokenDirection};
use crate::tokens::normalize::{ValueNormalization, normalized};
use crate::tokens::siv;
use crate::tokens::store::TokenStore;
use crate::tokens::vault::{StoredToken, TokenVault, ValueMacs};

/// Replaces values by tokens: the same value of a namespace, the same token, so that they join and count as before.
#[derive(Debug)]
pub struct Tokenizer {
    roots: RootKeys,
    namespace: String,
    kind: TokenizerKind,
    steps: Vec<ValueNormalization>,
    /// With which tokens are made that are in no store.
    version: u16,
    /// By version, the current one first.
    macs: Vec<(u16, hmac::Key)>,
}

#[derive(Debug)]
enum TokenizerKind {
    Random(TokenVault),
    Keyed(Option<TokenVault>),
    Siv,
    Ff1(TokenAlphabet),
}

/// A column of values that were behind tokens.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DetokenizedColumn {
    /// The values.
    pub column: ArrayRef,
    /// How many are null because the value was forgotten.
    pub forgotten: u64,
}

impl Tokenizer {
    fn new(roots: RootKeys, namespace: impl Into<String>, kind: TokenizerKind) -> Result<Self> {
        let namespace = namespace.into();
        let key = |version| {
            let key = roots.derive(version, b"", &["biscuit token", &namespace], 32)?;
            Ok((version, mac_key(key.expose())))
        };
        let macs = roots.versions().map(key).collect::<Result<_>>()?;
        let version = roots.current();
        Ok(Self { roots, namespace, kind, steps: vec![], version, macs })
    }

    /// Random tokens, `tok_` and 32 hexadecimal digits, in a store: without it, not even the keys say what a token stands for. A token outlives
    /// new versions of the keys.
    ///
    /// # Errors
    /// `Internal` if a key cannot be derived; so for the others.
    pub fn random(roots: RootKeys, namespace: impl Into<String>, store: Arc<dyn TokenStore>) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Random(TokenVault::new(store)))
    }

    /// Tokens that are a keyed hash, `tok<version>_` and 32 hexadecimal digits (16 bytes of HMAC-SHA-256): they need no store, and there is no way
    /// back. Another version of the keys gives other tokens.
    ///
    /// # Errors
    /// As for [`random`](Self::random).
    pub fn keyed(roots: RootKeys, namespace: impl Into<String>) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Keyed(None))
    }

    /// The tokens of [`keyed`](Self::keyed), and a store for the way back.
    ///
    /// # Errors
    /// As for [`random`](Self::random).
    pub fn keyed_in(roots: RootKeys, namespace: impl Into<String>, store: Arc<dyn TokenStore>) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Keyed(Some(TokenVault::new(store))))
    }

    /// Tokens that are the value, encrypted so that equal values stay equal (AES-SIV): whoever has the keys reads them, without a store. Their
    /// length shows that of the value.
    ///
    /// # Errors
    /// As for [`random`](Self::random).
    pub fn siv(roots: RootKeys, namespace: impl Into<String>) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Siv)
    }

    /// Tokens of the form of their values, by FF1: `123-45-6789` becomes another such number. They do not say with which version of the keys they
    /// were made: name it with [`with_version`](Self::with_version) when there is a newer one.
    ///
    /// # Errors
    /// As for [`random`](Self::random).
    pub fn ff1(roots: RootKeys, namespace: impl Into<String>, alphabet: TokenAlphabet) -> Result<Self> {
        Self::new(roots, namespace, TokenizerKind::Ff1(alphabet))
    }

    /// The same with tokens by another version of the keys than the current one, so that they stay the same when there is a newer one.
    ///
    /// # Errors
    /// `UnknownKeyVersion`; `InStore` for tokens in a store, which stay the same by themselves.
    pub fn with_version(mut self, version: u16) -> Result<Self> {
        self.roots.derive(version, b"", &["biscuit token"], 32)?;
        if self.keeps_values() {
            return Err(Error::usage("InStore", "tokens in a store outlive new versions of the keys"));
        }
        self.version = version;
        Ok(self)
    }

    /// The same, taking values as equal that are so after these steps. The value that comes back is one of them as it came; of SIV and FF1, it is what
    /// the steps leave.
    pub fn with_normalization(mut self, steps: impl Into<Vec<ValueNormalization>>) -> Self {
        self.steps = steps.into();
        self
    }

    /// Whether values are in a store, behind their tokens.
    pub fn keeps_values(&self) -> bool {
        matches!(self.kind, TokenizerKind::Random(_) | TokenizerKind::Keyed(Some(_)))
    }

    /// The keyed hash of a normalised value, with each version.
    fn macs(&self, value: &str) -> ValueMacs {
        self.macs.iter().map(|(version, key)| (*version, mac(key, &[value.as_bytes()]))).collect()
    }

    /// The token of each value; an empty one stays empty. Values may come several times; each different one is asked for once.
    ///
    /// # Errors
    /// Those of the store; `SmallDomain` and `OtherCharacter` for values that FF1 does not take.
    pub async fn tokens(&self, values: &[&str]) -> Result<Vec<String>> {
        self.tokens_or(values).await.map_err(|(_, e)| e)
    }

    /// Says with an error which value it is about.
    async fn tokens_or(&self, values: &[&str]) -> Result<Vec<String>, (Option<usize>, Error)> {
        let plain = self.normalized(values);
        match &self.kind {
            TokenizerKind::Siv => each(&plain, |value| siv::token(&self.roots, self.version, &self.namespace, value)),
            TokenizerKind::Ff1(alphabet) => {
                let digits =
                    Ff1Cipher::new(&self.roots, self.version, &self.namespace, *alphabet).map_err(|e| (None, e))?;
                each(&plain, |value| digits.convert(value, TokenDirection::There))
            }
            TokenizerKind::Keyed(None) => each(&plain, |value| {
                let macs = self.macs(value);
                let mac = macs.iter().find(|(version, _)| *version == self.version);
                mac.map(|mac| self.keyed_token(mac)).ok_or_else(|| Error::internal("the version was looked for before"))
            }),
            TokenizerKind::Random(vault) | TokenizerKind::Keyed(Some(vault)) => {
                self.kept_tokens(vault, values, &plain).await.map_err(|e| (None, e))
            }
        }
    }

    /// Values without what does not matter of them. One of which nothing would be left stays as it is: it is not the same as all others of that kind.
    fn normalized(&self, values: &[&str]) -> Vec<Zeroizing<String>> {
        let one = |value: &&str| {
            let plain = normalized(value, &self.steps);
            Zeroizing::new(if plain.is_empty() { (*value).to_owned() } else { plain })
        };
        values.iter().map(one).collect()
    }

    /// The token of each value that has one; none is made.
    ///
    /// # Errors
    /// Those of [`tokens`](Self::tokens).
    pub async fn known(&self, values: &[&str]) -> Result<Vec<Option<String>>> {
        match &self.kind {
            TokenizerKind::Random(vault) | TokenizerKind::Keyed(Some(vault)) => {
                let macs: Vec<ValueMacs> = self.normalized(values).iter().map(|value| self.macs(value)).collect();
                vault.known(&macs).await
            }
            _ => Ok(self.tokens(values).await?.into_iter().map(Some).collect()),
        }
    }

    fn keyed_token(&self, (version, mac): &(u16, [u8; 32])) -> String {
        format!("tok{version}_{}", hex(&mac[..16]))
    }

    async fn kept_tokens(
        &self,
        vault: &TokenVault,
        values: &[&str],
        plain: &[Zeroizing<String>],
    ) -> Result<Vec<String>> {
        // Values that differ may be the same when they are normalised.
        let (mut numbers, mut firsts) = (HashMap::<&str, usize>::new(), vec![]);
        for (at, value) in plain.iter().enumerate().filter(|(_, value)| !value.is_empty()) {
            numbers.entry(value.as_str()).or_insert_with(|| {
                firsts.push(at);
                firsts.len() - 1
            });
        }
        let macs: Vec<ValueMacs> = firsts.iter().map(|at| self.macs(&plain[*at])).collect();
        let asked: Vec<&str> = firsts.iter().map(|at| values[*at]).collect();
        let new = |at: usize| match &self.kind {
            TokenizerKind::Random(_) => {
                let mut bytes = [0; 16];
                random(&mut bytes)?;
                Ok(format!("tok_{}", hex(&bytes)))
            }
            _ => Ok(self.keyed_token(&macs[at][0])),
        };
        let tokens = vault.tokens(&self.roots, &self.namespace, &asked, &macs, new).await?;
        let token =
            |value: &Zeroizing<String>| numbers.get(value.as_str()).map_or(String::new(), |at| tokens[*at].clone());
        Ok(plain.iter().map(token).collect())
    }

    /// Replaces the texts of a column, also inside of structs, lists, maps and dictionaries; numbers, dates and the like become text. Null stays null,
    /// and an empty text stays empty.
    ///
    /// # Errors
    /// Those of [`tokens`](Self::tokens), with column and row; `NotText` for a column whose values are not text throughout.
    pub async fn tokenize(&self, column: &str, values: &ArrayRef) -> Result<ArrayRef> {
        let texts = as_text(column, values)?;
        let distinct = distinct_texts(&texts);
        let asked: Vec<&str> = distinct.iter().map(|(text, _)| text.as_str()).collect();
        let tokens = self.tokens_or(&asked).await.map_err(|(at, e)| match at {
            Some(at) => placed(column, &texts, asked[at], &e),
            None => e,
        })?;
        with_texts(&texts, &asked.into_iter().zip(tokens).collect())
    }

    /// The values behind the tokens of a column, once it is written down who wants them. Those that were forgotten are null.
    ///
    /// # Errors
    /// `UnknownToken` with column and row for a text that is no token of this namespace; `OneWay` for tokens without a way back; `NoAudit`
    /// if it could not be written down; those of the store.
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
        access.record(&self.namespace, column, count, asked.len() as u64)?;
        let unknown = || {
            let message = format!("there is a text that is no token of `{}`", self.namespace);
            Error::data("UnknownToken", message)
        };
        let mut values = HashMap::new();
        let mut gone = HashMap::new();
        for ((token, count), behind) in distinct.iter().zip(self.behind(&asked).await?) {
            match behind {
                StoredToken::Value(value) => {
                    values.insert(token.as_str(), value.to_string());
                }
                StoredToken::Forgotten => {
                    gone.insert(token.as_str(), *count);
                }
                StoredToken::Unknown => return Err(placed(column, &texts, token, &unknown())),
            }
        }
        let column = with_texts(&nulled(column, &texts, &gone)?, &values)?;
        Ok(DetokenizedColumn { column, forgotten: gone.values().sum() })
    }

    async fn behind(&self, tokens: &[&str]) -> Result<Vec<StoredToken>> {
        let known = |value: Option<Zeroizing<String>>| value.map_or(StoredToken::Unknown, StoredToken::Value);
        match &self.kind {
            TokenizerKind::Random(vault) | TokenizerKind::Keyed(Some(vault)) => {
                vault.values(&self.roots, &self.namespace, tokens).await
            }
            TokenizerKind::Siv => {
                tokens.iter().map(|t| Ok(known(siv::value(&self.roots, &self.namespace, t)?))).collect()
            }
            TokenizerKind::Ff1(alphabet) => {
                let digits = Ff1Cipher::new(&self.roots, self.version, &self.namespace, *alphabet)?;
                tokens
                    .iter()
                    .map(|token| Ok(known(digits.convert(token, TokenDirection::Back).ok().map(Zeroizing::new))))
                    .collect()
            }
            TokenizerKind::Keyed(None) => {
                let message =
                    format!("tokens of `{}` are a keyed hash without a store: there is no way back", self.namespace);
                Err(Error::usage("OneWay", message))
            }
        }
    }

    /// Deletes what is behind these tokens. They stand for their values as before, and join; there is no way back.
    ///
    /// # Errors
    /// `UnknownToken` for what is none; `NoStore` for tokens that are not in a store; those of the store.
    pub async fn forget(&self, tokens: &[&str]) -> Result<u64> {
        let (TokenizerKind::Random(vault) | TokenizerKind::Keyed(Some(vault))) = &self.kind else {
            let message =
                format!("tokens of `{}` are in no store, so that nothing is there to be deleted", self.namespace);
            return Err(Error::usage("NoStore", message));
        };
        let mut forgotten = 0;
        for (at, behind) in vault.values(&self.roots, &self.namespace, tokens).await?.into_iter().enumerate() {
            match behind {
                StoredToken::Value(value) => {
                    vault.forget(tokens[at], &self.macs(&self.normalized(&[&value])[0])).await?;
                    forgotten += 1;
                }
                StoredToken::Forgotten => {}
                StoredToken::Unknown => {
                    let message = format!("token {} of {} is none of `{}`", at + 1, tokens.len(), self.namespace);
                    return Err(Error::data("UnknownToken", message));
                }
            }
        }
        Ok(forgotten)
    }
}

/// A token for each value that is not empty.
fn each(
    values: &[Zeroizing<String>],
    token: impl Fn(&str) -> Result<String>,
) -> Result<Vec<String>, (Option<usize>, Error)> {
    let one = |(at, value): (usize, &Zeroizing<String>)| {
        if value.is_empty() { Ok(String::new()) } else { token(value).map_err(|e| (Some(at), e)) }
    };
    values.iter().enumerate().map(one).collect()
}

/// The same error with the column and, where the column is flat, the row.
fn placed(column: &str, texts: &ArrayRef, text: &str, e: &Error) -> Error {
    let flat = cast(texts, &DataType::LargeUtf8).ok();
    let row = flat.and_then(|flat| flat.as_string::<i64>().iter().position(|value| value == Some(text)));
    let e = Error::new(e.kind(), e.code(), format!("column `{column}`: {}", e.message()));
    match row {
        Some(row) => in_row(e, column, row),
        None => e.with_column(column),
    }
}

/// The column with null in the place of these texts.
fn nulled(column: &str, texts: &ArrayRef, gone: &HashMap<&str, u64>) -> Result<ArrayRef> {
    if gone.is_empty() {
        return Ok(texts.clone());
    }
    if texts.data_type().is_nested() {
        let message =
            format!("values of column `{column}` were forgotten, and inside of nested columns they cannot be null");
        return Err(Error::usage("CannotDetokenize", message).with_column(column));
    }
    let internal = |e| Error::internal("text is text").with_source(e);
    let flat = cast(texts, &DataType::LargeUtf8).map_err(internal)?;
    let kept = flat.as_string::<i64>().iter().map(|text| text.filter(|text| !gone.contains_key(text)));
    let kept: ArrayRef = Arc::new(kept.collect::<arrow::array::LargeStringArray>());
    cast(&kept, texts.data_type()).map_err(internal)
}
