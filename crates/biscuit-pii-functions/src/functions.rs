//! The set of functions, and their registration in a session.

use std::sync::Arc;

use biscuit_pii::tokens::AccessRequest;
use biscuit_pii::{PiiContext, Redactor};
use datafusion::logical_expr::async_udf::AsyncScalarUDF;
use datafusion::prelude::SessionContext;

use crate::context::FunctionContext;
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
    context: FunctionContext,
}

impl PiiFunctions {
    /// Creates functions with a context. `table` is the name that is authenticated with encrypted values.
    pub fn new(means: PiiContext, table: impl Into<String>) -> Self {
        Self { context: FunctionContext::new(means, table.into()) }
    }

    /// Adds `pii_decrypt` and `pii_detokenize`, whose calls are recorded by the audit of `access`.
    #[must_use]
    pub fn with_access(mut self, access: AccessRequest) -> Self {
        self.context.access = Some(access);
        self
    }

    /// Sets the detectors and actions of `pii_redact`. The default is [`Redactor::defaults`].
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.context.redactor = redactor;
        self
    }

    /// Registers the functions in a session. `pii_decrypt` and `pii_detokenize` are registered only with an access.
    pub fn register(self, ctx: &SessionContext) {
        let shared = Arc::new(self.context);
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
}
