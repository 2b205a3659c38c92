//! The set of functions with their shared context: keys, store, detectors, and the access that the audit records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use biscuit_core::{Error, Result};
use biscuit_pii::{AccessRequest, HashKey, PiiContext, Redactor, RootKeys, TokenAlphabet, Tokenizer, ValueEncryptor};
use datafusion::logical_expr::async_udf::AsyncScalarUDF;
use datafusion::prelude::SessionContext;

use crate::function::{FunctionKind, PiiFunction};

/// Functions of SQL that redact, mask, hash, encrypt and tokenize values, and the context that they share.
///
/// ```
/// use biscuit_pii::PiiContext;
/// use biscuit_pii_functions::PiiFunctions;
/// use datafusion::prelude::SessionContext;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ctx = SessionContext::new();
/// PiiFunctions::new(PiiContext::new(), "customer").register(&ctx);
///
/// // `pii_redact` and `pii_mask` need neither keys nor a store.
/// let frame = ctx.sql("SELECT pii_mask(phone, 0, 4) AS phone FROM (VALUES ('+1 212-555-0100')) AS t(phone)").await?;
/// let text = datafusion::arrow::util::pretty::pretty_format_batches(&frame.collect().await?)?.to_string();
/// assert!(text.contains("| +* ***-***-0100 |"), "{text}");
///
/// // Functions that return original values exist only with an access, which is recorded.
/// let refused = ctx.sql("SELECT pii_detokenize(phone, 'phone') FROM (VALUES ('x')) AS t(phone)").await;
/// assert!(refused.is_err());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PiiFunctions {
    means: PiiContext,
    table: String,
    access: Option<AccessRequest>,
    pub(crate) redactor: Redactor,
    tokenizers: Mutex<HashMap<(String, String), Arc<Tokenizer>>>,
    cells: Mutex<Option<Arc<ValueEncryptor>>>,
}

impl PiiFunctions {
    /// Creates functions with a context. `table` is the name that is authenticated with encrypted values.
    pub fn new(means: PiiContext, table: impl Into<String>) -> Self {
        let (tokenizers, cells, redactor) = (Mutex::default(), Mutex::default(), Redactor::defaults());
        Self { means, table: table.into(), access: None, redactor, tokenizers, cells }
    }

    /// Adds `pii_decrypt` and `pii_detokenize`, whose calls are recorded by the audit of `access`.
    #[must_use]
    pub fn with_access(mut self, access: AccessRequest) -> Self {
        self.access = Some(access);
        self
    }

    /// Sets the detectors and actions of `pii_redact`. The default is [`Redactor::defaults`].
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// Registers the functions in a session. `pii_decrypt` and `pii_detokenize` are registered only with an access.
    pub fn register(self, ctx: &SessionContext) {
        let shared = Arc::new(self);
        let kinds = [
            FunctionKind::Redact,
            FunctionKind::Mask,
            FunctionKind::Hash,
            FunctionKind::Encrypt,
            FunctionKind::Tokenize,
        ];
        let back = [FunctionKind::Decrypt, FunctionKind::Detokenize];
        let back = back.into_iter().filter(|_| shared.access.is_some());
        for kind in kinds.into_iter().chain(back) {
            let function = AsyncScalarUDF::new(Arc::new(PiiFunction::new(kind, shared.clone())));
            ctx.register_udf(function.into_scalar_udf());
        }
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
        HashKey::of(&self.roots()?, namespace)
    }

    /// Returns the encryptor that all calls share, so that keys of a column are used for several batches.
    pub(crate) fn cells(&self) -> Result<Arc<ValueEncryptor>> {
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
