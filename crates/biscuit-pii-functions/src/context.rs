//! The context that all functions share: keys, store, detectors, and the access that the audit records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use biscuit_core::{Error, Result};
use biscuit_pii::encrypt::ValueEncryptor;
use biscuit_pii::keys::RootKeys;
use biscuit_pii::tokens::{AccessRequest, TokenAlphabet, Tokenizer};
use biscuit_pii::{HashKey, PiiContext, Redactor};

/// Context of all calls of the functions of a session.
#[derive(Debug)]
pub(crate) struct FunctionContext {
    means: PiiContext,
    table: String,
    pub(crate) access: Option<AccessRequest>,
    pub(crate) redactor: Redactor,
    tokenizers: Mutex<HashMap<(String, String), Arc<Tokenizer>>>,
    cells: Mutex<Option<Arc<ValueEncryptor>>>,
}

impl FunctionContext {
    pub(crate) fn new(means: PiiContext, table: String) -> Self {
        let (tokenizers, cells, redactor) = (Mutex::default(), Mutex::default(), Redactor::defaults());
        Self { means, table, access: None, redactor, tokenizers, cells }
    }

    pub(crate) fn access(&self) -> Result<&AccessRequest> {
        self.access.as_ref().ok_or_else(|| {
            Error::new(biscuit_pii::codes::NO_ACCESS, "the function needs an access with a name and a reason")
        })
    }

    fn roots(&self) -> Result<RootKeys> {
        self.means.roots.clone().ok_or_else(|| {
            Error::new(
                biscuit_pii::codes::NO_KEYS,
                "the function needs root keys; set them with `PiiContext::with_roots`",
            )
        })
    }

    pub(crate) fn hash_key(&self, namespace: &str) -> Result<HashKey> {
        HashKey::from_roots(&self.roots()?, namespace)
    }

    /// Returns the encryptor that all calls share, so that keys of a column are used for several batches.
    pub(crate) fn encryptor(&self) -> Result<Arc<ValueEncryptor>> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cells {
            Some(cells) => Ok(cells.clone()),
            None => Ok(cells.insert(Arc::new(ValueEncryptor::new(self.roots()?, &self.table))).clone()),
        }
    }

    /// Returns the tokenizer of a namespace and kind. Tokenizers are shared by all calls, with their caches.
    pub(crate) fn tokenizer(&self, namespace: &str, kind: &str) -> Result<Arc<Tokenizer>> {
        let mut all = self.tokenizers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), kind.to_owned());
        if let Some(tokenizer) = all.get(&key) {
            return Ok(tokenizer.clone());
        }
        let (roots, store) = (self.roots()?, self.means.store.clone());
        let tokenizer = match (kind, store) {
            ("random", Some(store)) => Tokenizer::random(roots, namespace, store)?,
            ("random", None) => {
                return Err(Error::new(
                    biscuit_pii::codes::NO_STORE,
                    "random tokens need a store, and there is none; set one with `PiiContext::with_store`, \
                    or use `siv`",
                ));
            }
            ("keyed", Some(store)) => Tokenizer::keyed_in(roots, namespace, store)?,
            ("keyed", None) => Tokenizer::keyed(roots, namespace)?,
            ("siv", _) => Tokenizer::siv(roots, namespace)?,
            ("ff1", _) => Tokenizer::ff1(roots, namespace, TokenAlphabet::Digits)?,
            (other, _) => {
                let message = format!("unknown token kind `{other}`; use `random`, `keyed`, `siv` or `ff1`");
                return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
            }
        };
        let tokenizer = Arc::new(tokenizer);
        all.insert(key, tokenizer.clone());
        Ok(tokenizer)
    }
}
