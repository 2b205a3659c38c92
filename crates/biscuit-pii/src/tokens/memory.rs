use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use biscuit_core::Result;

use crate::tokens::store::{TokenRecord, TokenStore};

/// Store in memory that is lost when the process ends. For tests.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<StoredRecords>);

#[derive(Debug, Default)]
struct StoredRecords {
    records: HashMap<String, TokenRecord>,
    aliases: HashMap<String, String>,
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns all records, sorted by key. For tests that check what is stored.
    pub fn records(&self) -> Vec<TokenRecord> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<TokenRecord> = kept.records.values().cloned().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }
}

#[async_trait]
impl TokenStore for MemoryStore {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.iter().map(|key| kept.records.get(key).cloned()).collect())
    }

    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = |alias| kept.aliases.get(alias).and_then(|key| kept.records.get(key)).cloned();
        Ok(aliases.iter().map(record).collect())
    }

    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let put = |record: TokenRecord| match kept.records.get(&record.key) {
            Some(there) => there.clone(),
            None => {
                kept.put_record(&record);
                record
            }
        };
        Ok(records.into_iter().map(put).collect())
    }

    async fn replace(&self, record: TokenRecord) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put_record(&record);
        Ok(())
    }
}

impl StoredRecords {
    fn put_record(&mut self, record: &TokenRecord) {
        if let Some(alias) = &record.alias {
            self.aliases.insert(alias.clone(), record.key.clone());
        }
        if let Some(before) = self.records.insert(record.key.clone(), record.clone())
            && let Some(alias) = before.alias.filter(|alias| record.alias.as_ref() != Some(alias))
        {
            self.aliases.remove(&alias);
        }
    }
}
