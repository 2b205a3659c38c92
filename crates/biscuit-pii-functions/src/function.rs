//! One function of SQL. Its `invoke_async_with_args` evaluates a batch; the constant arguments select namespace,
//! column and kind of token.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::Error;
use biscuit_pii::internal::{hash_texts, mask_texts};
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::context::FunctionContext;

/// Function to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FunctionKind {
    Redact,
    Mask,
    Hash,
    Encrypt,
    Decrypt,
    Tokenize,
    Detokenize,
}

/// Asynchronous scalar function of DataFusion.
#[derive(Debug)]
pub(crate) struct PiiFunction {
    kind: FunctionKind,
    of: Arc<FunctionContext>,
    signature: Signature,
}

impl PiiFunction {
    pub(crate) fn new(kind: FunctionKind, of: Arc<FunctionContext>) -> Self {
        // Volatile functions are not folded into a constant: encryption and random tokens differ, and detokenization
        // is audited.
        let volatility = match kind {
            FunctionKind::Redact | FunctionKind::Mask | FunctionKind::Hash => Volatility::Stable,
            _ => Volatility::Volatile,
        };
        Self { kind, of, signature: Signature::variadic_any(volatility) }
    }
}

impl PartialEq for PiiFunction {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && Arc::ptr_eq(&self.of, &other.of)
    }
}

impl Eq for PiiFunction {}

impl Hash for PiiFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        Arc::as_ptr(&self.of).hash(state);
    }
}

fn execution_error(e: Error) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

/// Returns a constant text argument. `what` describes the argument in the error.
fn constant_text(name: &str, args: &[ColumnarValue], at: usize, what: &str) -> Result<String> {
    let text = match args.get(at) {
        Some(ColumnarValue::Scalar(
            ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text),
        )) => text.clone(),
        _ => None,
    };
    text.ok_or_else(|| {
        execution_error(Error::new(
            biscuit_core::codes::INVALID_ARGUMENTS,
            format!("{name} needs {what} as a constant text"),
        ))
    })
}

/// Returns a constant argument that is a number of at least 0.
fn constant_number(name: &str, args: &[ColumnarValue], at: usize) -> Result<usize> {
    let number = match args.get(at) {
        Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(n)))) => usize::try_from(*n).ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        execution_error(Error::new(
            biscuit_core::codes::INVALID_ARGUMENTS,
            format!("{name} needs constant numbers of at least 0"),
        ))
    })
}

impl ScalarUDFImpl for PiiFunction {
    fn name(&self) -> &str {
        match self.kind {
            FunctionKind::Redact => "pii_redact",
            FunctionKind::Mask => "pii_mask",
            FunctionKind::Hash => "pii_hash",
            FunctionKind::Encrypt => "pii_encrypt",
            FunctionKind::Decrypt => "pii_decrypt",
            FunctionKind::Tokenize => "pii_tokenize",
            FunctionKind::Detokenize => "pii_detokenize",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        let (minimum, maximum) = match self.kind {
            FunctionKind::Redact => (1, 1),
            FunctionKind::Mask => (3, 3),
            FunctionKind::Hash | FunctionKind::Encrypt | FunctionKind::Decrypt => (2, 2),
            FunctionKind::Tokenize | FunctionKind::Detokenize => (2, 3),
        };
        if !(minimum..=maximum).contains(&args.len()) {
            let message = format!("{} needs {minimum} to {maximum} arguments, not {}", self.name(), args.len());
            return Err(execution_error(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message)));
        }
        Ok(match (&args[0], self.kind) {
            (_, FunctionKind::Encrypt) => DataType::Binary,
            (_, FunctionKind::Decrypt) => DataType::Utf8,
            (text @ (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View), _) => text.clone(),
            (kind, FunctionKind::Redact) => {
                let message = format!("{} needs a text column, not {kind}", self.name());
                return Err(execution_error(Error::new(biscuit_core::codes::NOT_TEXT, message)));
            }
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(execution_error(Error::internal("the function can only be called asynchronously")))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for PiiFunction {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (name, of, given) = (self.name(), &self.of, &args.args);
        let values: ArrayRef = given[0].to_array(args.number_rows)?;
        let namespace = || constant_text(name, given, 1, "a namespace");
        let kind =
            || if given.len() > 2 { constant_text(name, given, 2, "a token kind") } else { Ok("random".to_owned()) };
        let made = match self.kind {
            FunctionKind::Redact => of.redactor.redact("", &values).await.map(|redacted| redacted.column),
            FunctionKind::Mask => {
                mask_texts(name, &values, constant_number(name, given, 1)?, constant_number(name, given, 2)?)
            }
            FunctionKind::Hash => of.hash_key(&namespace()?).and_then(|key| hash_texts(name, &values, &key)),
            FunctionKind::Encrypt => {
                let column = constant_text(name, given, 1, "a column name")?;
                of.encryptor().and_then(|cells| cells.encrypt(&column, &values))
            }
            FunctionKind::Decrypt => {
                let column = constant_text(name, given, 1, "a column name")?;
                let cells = of.encryptor().map_err(execution_error)?;
                let count = (values.len() - values.null_count()) as u64;
                of.access()
                    .and_then(|access| access.record(&column, &column, count, count))
                    .map_err(execution_error)?;
                cells.decrypt(&column, &values, &DataType::Utf8).await.map(|decrypted| decrypted.column)
            }
            FunctionKind::Tokenize => {
                let (namespace, kind) = (namespace()?, kind()?);
                let tokenizer = of.tokenizer(&namespace, &kind).map_err(execution_error)?;
                tokenizer.tokenize(&namespace, &values).await
            }
            FunctionKind::Detokenize => {
                let (namespace, kind) = (namespace()?, kind()?);
                let tokenizer = of.tokenizer(&namespace, &kind).map_err(execution_error)?;
                let access = of.access().map_err(execution_error)?;
                tokenizer.detokenize(&namespace, &values, access).await.map(|back| back.column)
            }
        };
        made.map(ColumnarValue::Array).map_err(execution_error)
    }
}
