use std::fmt;

use async_trait::async_trait;
use biscuit_core::Result;

/// Record of a store. Neither key nor value contains clear text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "implementations of `TokenStore` write it as a literal")]
pub struct TokenRecord {
    /// Key: a kind, a version and a keyed hash. At most 1,024 bytes.
    pub key: String,
    /// Value of at most 300 KB. Empty if the value was forgotten.
    pub value: Vec<u8>,
    /// Second name by which the record is found: the token.
    pub alias: Option<String>,
}

/// Store for small records, in which the first record with a key wins.
///
/// [`store_conformance`](crate::tokens::store_conformance) tests an implementation.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync {
    /// Returns the records with these keys, in the order of the keys. The read is consistent: it sees all records
    /// that were inserted or replaced before. A key may occur twice.
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>>;

    /// Returns the records with these aliases, in the order of the aliases. A record that was inserted a moment ago
    /// may be missing.
    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>>;

    /// Inserts each record unless its key exists, and returns the records that the store then has. Of any number of
    /// concurrent calls with the same key, in any processes, exactly one wins, and all get its record. The records of
    /// one call have different keys.
    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>>;

    /// Inserts a record, or replaces the record with the same key.
    async fn replace(&self, record: TokenRecord) -> Result<()>;
}

const _: fn(&dyn TokenStore) = |_| {};
