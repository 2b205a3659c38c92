//! Tokens in a store, with the sealed value of each token.
//!
//! The keyed hash of a value leads to its token; the token leads to the sealed value. After a rotation of the root
//! keys, a token that was found under an older version is inserted under the current one as well, so that the older
//! key can be removed later.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::codes;
use crate::encrypt::cell::{NONCE, random_nonce, seal, unseal, value_cipher};
use crate::keys::roots::RootKeys;
use crate::mac::encode_hex;
use crate::tokens::store::{TokenRecord, TokenStore};

/// Keyed hashes of a value by version of the root key, the current one first.
pub(crate) type ValueMacs = Vec<(u16, [u8; 32])>;

/// Tokens in a store, each with its sealed value.
///
/// ```text
/// key    token:<version>:<HMAC-SHA-256 of namespace and value>
/// alias  the token
/// value  version of the root key, 2 bytes | nonce, 12 | sealed value | tag, 16; empty after the value was forgotten
/// ```
pub(crate) struct TokenVault {
    store: Arc<dyn TokenStore>,
    held: Mutex<HashMap<[u8; 32], String>>,
}

impl fmt::Debug for TokenVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVault").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Maximum number of cached tokens. The cache is emptied when it is full.
const HELD: usize = 200_000;

/// Number of records in one insert.
const AT_ONCE: usize = 1000;

fn key_of((version, mac): &(u16, [u8; 32])) -> String {
    format!("token:{version}:{}", encode_hex(mac))
}

impl TokenVault {
    pub(crate) fn new(store: Arc<dyn TokenStore>) -> Self {
        Self { store, held: Mutex::default() }
    }

    /// Returns the token of each value. The values are distinct; `new` creates the token of a value that has none.
    pub(crate) async fn find_or_create(
        &self,
        roots: &RootKeys,
        namespace: &str,
        values: &[&str],
        macs: &[ValueMacs],
        new: impl Fn(usize) -> Result<String> + Send + Sync,
    ) -> Result<Vec<String>> {
        let mut tokens: Vec<Option<String>> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            macs.iter().map(|macs| held.get(&macs[0].1).cloned()).collect()
        };
        // Index of each value that has a token only under an older version, and of each value that was forgotten.
        let (mut older, mut forgotten) = (vec![], HashSet::new());
        let open: Vec<usize> = (0..tokens.len()).filter(|at| tokens[*at].is_none()).collect();
        let of: Vec<&ValueMacs> = open.iter().map(|at| &macs[*at]).collect();
        for (at, found) in open.into_iter().zip(self.find_records(&of).await?) {
            let Some((version, record)) = found else { continue };
            if record.value.is_empty() {
                forgotten.insert(at);
            }
            tokens[at] = Some(token_of(record)?);
            if version > 0 {
                older.push(at);
            }
        }
        let open: Vec<usize> = (0..tokens.len()).filter(|at| tokens[*at].is_none()).collect();
        let put: Vec<usize> = older.iter().copied().chain(open).collect();
        for put in put.chunks(AT_ONCE) {
            let record = |at: &usize| {
                // A token that was found under an older version is inserted under the current version with the same
                // alias.
                let token = tokens[*at].clone().map_or_else(|| new(*at), Ok)?;
                if forgotten.contains(at) {
                    // A forgotten value must not be stored again only because the keys were rotated.
                    return Ok(TokenRecord { key: key_of(&macs[*at][0]), value: vec![], alias: Some(token) });
                }
                new_record(roots, namespace, &macs[*at][0], token, values[*at])
            };
            let records = put.iter().map(record).collect::<Result<Vec<_>>>()?;
            for (at, winner) in put.iter().zip(self.store.insert(records).await?) {
                // Another process may have inserted the value first; its token counts.
                tokens[*at] = Some(token_of(winner)?);
            }
        }
        let tokens: Vec<String> = tokens.into_iter().flatten().collect();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() + tokens.len() > HELD {
            held.clear();
        }
        for (macs, token) in macs.iter().zip(&tokens) {
            held.entry(macs[0].1).or_insert_with(|| token.clone());
        }
        Ok(tokens)
    }

    /// Returns the token of each value that has one.
    pub(crate) async fn known_tokens(&self, macs: &[ValueMacs]) -> Result<Vec<Option<String>>> {
        let macs: Vec<&ValueMacs> = macs.iter().collect();
        let found = self.find_records(&macs).await?;
        found.into_iter().map(|found| found.map(|(_, record)| token_of(record)).transpose()).collect()
    }

    /// Returns the record of each value with the index of the version that found it. The current version is asked
    /// first, older ones only for values that it does not know.
    async fn find_records(&self, macs: &[&ValueMacs]) -> Result<Vec<Option<(usize, TokenRecord)>>> {
        let mut all: Vec<Option<(usize, TokenRecord)>> = vec![None; macs.len()];
        let versions = 0..macs.first().map_or(0, |macs| macs.len());
        for version in versions {
            let open: Vec<usize> = (0..all.len()).filter(|at| all[*at].is_none()).collect();
            let keys: Vec<String> = open.iter().map(|at| key_of(&macs[*at][version])).collect();
            for (at, record) in open.into_iter().zip(self.store.get(&keys).await?) {
                all[at] = record.map(|record| (version, record));
            }
        }
        Ok(all)
    }

    /// Returns the value of each token.
    pub(crate) async fn stored_values(
        &self,
        roots: &RootKeys,
        namespace: &str,
        tokens: &[&str],
    ) -> Result<Vec<StoredToken>> {
        let aliases: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        let records = self.store.find(&aliases).await?;
        let value = |(token, record): (&&str, Option<TokenRecord>)| match record {
            None => Ok(StoredToken::Unknown),
            Some(record) if record.value.is_empty() => Ok(StoredToken::Forgotten),
            Some(record) => open(roots, namespace, token, &record.value),
        };
        tokens.iter().zip(records).map(value).collect()
    }

    /// Deletes the value of a token under all versions. The token remains.
    pub(crate) async fn forget_token(&self, token: &str, macs: &ValueMacs) -> Result<()> {
        for mac in macs {
            let key = key_of(mac);
            let there = self.store.get(std::slice::from_ref(&key)).await?.into_iter().flatten().next();
            if there.is_some() {
                self.store.replace(TokenRecord { key, value: vec![], alias: Some(token.to_owned()) }).await?;
            }
        }
        Ok(())
    }
}

/// Result of the search for the value of a token.
#[derive(Debug)]
pub(crate) enum StoredToken {
    Value(Zeroizing<String>),
    Forgotten,
    Unknown,
}

fn token_of(record: TokenRecord) -> Result<String> {
    record.alias.ok_or_else(|| Error::new(codes::INVALID_RECORD, "the store has a token record without a token"))
}

fn new_record(
    roots: &RootKeys,
    namespace: &str,
    mac: &(u16, [u8; 32]),
    token: String,
    value: &str,
) -> Result<TokenRecord> {
    let version = roots.current();
    let mut sealed = version.to_be_bytes().to_vec();
    let nonce = random_nonce()?;
    sealed.extend(nonce);
    // Each token has its own key: a key with random nonces is safe for only a few billion messages.
    let key = roots.derive_key(version, token.as_bytes(), &["biscuit token value", namespace], 32)?;
    seal(&value_cipher(&key)?, nonce, token.as_bytes(), value.as_bytes(), &mut sealed)?;
    Ok(TokenRecord { key: key_of(mac), value: sealed, alias: Some(token) })
}

fn open(roots: &RootKeys, namespace: &str, token: &str, sealed: &[u8]) -> Result<StoredToken> {
    let parts = sealed.split_first_chunk::<2>().and_then(|(v, rest)| Some((v, rest.split_first_chunk::<NONCE>()?)));
    let Some((version, (nonce, sealed))) = parts else { return Ok(StoredToken::Unknown) };
    let key =
        roots.derive_key(u16::from_be_bytes(*version), token.as_bytes(), &["biscuit token value", namespace], 32)?;
    let opened = unseal(&value_cipher(&key)?, *nonce, token.as_bytes(), sealed);
    // A token of another namespace does not open, and counts as unknown.
    let text = opened.as_ref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    Ok(text.map_or(StoredToken::Unknown, |text| StoredToken::Value(Zeroizing::new(text.to_owned()))))
}
