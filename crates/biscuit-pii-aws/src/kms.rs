//! AWS KMS as a provider of data keys.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use biscuit_core::{Error, Result};
use biscuit_pii::keys::{DataKey, KeyBytes, KeyContext, KeyProvider, SealedKey};
use zeroize::Zeroizing;

use crate::codes;
use crate::error::failed;

/// Name of KMS as a provider in messages of the AWS Encryption SDK.
const PROVIDER: &str = "aws-kms";

/// Provider of data keys with AWS KMS: `GenerateDataKey` and `Decrypt`. The key context is the encryption context of
/// KMS, which CloudTrail records.
#[derive(Debug, Clone)]
pub struct KmsKeyProvider {
    client: Client,
    key: String,
    older: Vec<String>,
}

impl KmsKeyProvider {
    /// Creates a provider that seals data keys with a key of KMS, given by its id, its ARN or an alias (`alias/pii`).
    pub fn new(client: Client, key: impl Into<String>) -> Self {
        Self { client, key: key.into(), older: vec![] }
    }

    /// Adds an older key, which unseals data keys but does not seal new ones.
    #[must_use]
    pub fn with_older(mut self, key: impl Into<String>) -> Self {
        self.older.push(key.into());
        self
    }
}

/// Returns the encryption context of KMS, or `None` for an empty context.
fn context_of(context: &KeyContext) -> Option<HashMap<String, String>> {
    let pairs = context.iter().map(|(name, value)| (name.clone(), value.clone()));
    Some(pairs.collect()).filter(|pairs: &HashMap<_, _>| !pairs.is_empty())
}

/// Takes a secret out of an answer. Data keys of Biscuit have 32 bytes; keys of other writers may be shorter.
fn secret_of(blob: Option<Blob>) -> Option<KeyBytes> {
    let is_key = |secret: &KeyBytes| matches!(secret.expose().len(), 16 | 24 | 32);
    Some(KeyBytes::from(Zeroizing::new(blob?.into_inner()))).filter(is_key)
}

/// Returns whether the name `by` in a sealed key is the key with the ARN `answered`. Biscuit stores ARNs. Other
/// writers of Parquet files store the id of a key, or an alias, which is accepted if it equals the requested name
/// `asked`.
fn is_named(by: &str, asked: &str, answered: &str) -> bool {
    let id = answered.split_once(":key/").map_or("", |(_, id)| id);
    by == answered || (!by.is_empty() && by == id) || (by == asked && by.starts_with("alias/"))
}

/// Returns the error for an answer without a required field.
fn missing_field(what: &str) -> Error {
    Error::new(codes::SERVICE_UNAVAILABLE, format!("the answer of KMS has no {what}; run again"))
}

#[async_trait]
impl KeyProvider for KmsKeyProvider {
    async fn generate(&self, context: &KeyContext) -> Result<DataKey> {
        let ask = self.client.generate_data_key().key_id(&self.key).key_spec(DataKeySpec::Aes256);
        let answer = ask.set_encryption_context(context_of(context)).send().await;
        let answer = answer.map_err(|e| {
            let doing = format!("get a data key of the KMS key `{}`", self.key);
            failed!(aws_sdk_kms, &doing, e)
        })?;
        let (Some(arn), Some(sealed)) = (answer.key_id, answer.ciphertext_blob) else {
            return Err(missing_field("sealed key"));
        };
        let secret = secret_of(answer.plaintext).filter(|secret| secret.expose().len() == 32);
        let secret = secret.ok_or_else(|| missing_field("key of 32 bytes"))?;
        let sealed = SealedKey { provider: PROVIDER.into(), info: arn.into_bytes(), bytes: sealed.into_inner() };
        Ok(DataKey { secret, sealed })
    }

    async fn unseal(&self, sealed: &SealedKey, context: &KeyContext) -> Result<Option<KeyBytes>> {
        let Some(arn) = std::str::from_utf8(&sealed.info).ok().filter(|_| sealed.provider == PROVIDER) else {
            return Ok(None);
        };
        for key in std::iter::once(&self.key).chain(&self.older) {
            // An ARN can be compared here, without a request. Only KMS knows the key of an id or alias; it refuses
            // data keys that another key sealed.
            if key.contains(":key/") && !is_named(arn, key, key) {
                continue;
            }
            let ask = self.client.decrypt().key_id(key).ciphertext_blob(Blob::new(sealed.bytes.clone()));
            let e = match ask.set_encryption_context(context_of(context)).send().await {
                Ok(answer) => {
                    // The requested name may be an alias that was moved; the answer contains the key that was used.
                    if !is_named(arn, key, answer.key_id.as_deref().unwrap_or_default()) {
                        continue;
                    }
                    let none = || missing_field("key of a valid length");
                    return secret_of(answer.plaintext).map(Some).ok_or_else(none);
                }
                Err(e) => e,
            };
            match e.as_service_error().and_then(|e| e.code()) {
                Some("IncorrectKeyException") => {}
                Some("InvalidCiphertextException") => {
                    let message = format!(
                        "cannot unseal a data key of `{arn}`: another key sealed it, its context differs, \
                        or it is damaged"
                    );
                    return Err(Error::new(biscuit_pii::codes::CANNOT_UNSEAL, message));
                }
                _ => {
                    let doing = format!("unseal a data key with the KMS key `{key}`");
                    return Err(failed!(aws_sdk_kms, &doing, e));
                }
            }
        }
        Ok(None)
    }
}
