use std::fmt;

use async_trait::async_trait;
use biscuit_core::Result;

/// What a store keeps: no clear text, neither in keys nor in values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its key: a kind, a version and a keyed hash, of at most 1,024 bytes.
    pub key: String,
    /// Its value, of at most 300 KB.
    pub value: Vec<u8>,
    /// A second name by which it is found.
    pub alias: Option<String>,
}

/// A place for small records, of which the first with a key wins.
///
/// Whatever implements it can be shown to do so by [`store_conformance`](crate::store_conformance).
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync {
    /// The records with these keys, in their order: each put or replaced before is there. A key may come twice.
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>>;

    /// The records with these aliases, in their order. A record that was put just before may still be missing.
    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>>;

    /// Puts each record unless one with its key is there, and gives the one that is there then: of any number of callers with the same key, in
    /// any processes, one wins, and all get that one's record. Records of one call have different keys.
    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>>;

    /// Puts a record in the place of whatever has its key.
    async fn replace(&self, record: TokenRecord) -> Result<()>;
}

const _: fn(&dyn TokenStore) = |_| {};
