use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use biscuit_core::Result;

use crate::tokens::store::{Record, Store};

/// A store that ends with the process. For tests.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    records: HashMap<String, Record>,
    aliases: HashMap<String, String>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// All records, by key. For tests that look at what is stored.
    pub fn records(&self) -> Vec<Record> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Record> = kept.records.values().cloned().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Record>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.iter().map(|key| kept.records.get(key).cloned()).collect())
    }

    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<Record>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = |alias| kept.aliases.get(alias).and_then(|key| kept.records.get(key)).cloned();
        Ok(aliases.iter().map(record).collect())
    }

    async fn insert(&self, records: Vec<Record>) -> Result<Vec<Record>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let put = |record: Record| match kept.records.get(&record.key) {
            Some(there) => there.clone(),
            None => {
                kept.put(&record);
                record
            }
        };
        Ok(records.into_iter().map(put).collect())
    }

    async fn replace(&self, record: Record) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(&record);
        Ok(())
    }
}

impl Kept {
    fn put(&mut self, record: &Record) {
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
