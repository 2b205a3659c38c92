//! Data keys for Parquet's modular encryption and their key material, compatible with the key tools of parquet-mr and
//! Arrow.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::encrypt::cell::{NONCE, random_nonce, seal, unseal};
use crate::keys::cache::{KeyCache, KeyLimits};
use crate::keys::provider::{KeyContext, KeyProvider, SealedKey};
use crate::keys::secret::KeyBytes;
use crate::keys::wrapping::{provider_info, read_info, wrapping_cipher};

/// Data keys of Parquet's modular encryption and their metadata in the file. The metadata is *key material* of
/// version 1 (`PKMT1`) with double wrapping, as the key tools of parquet-mr and Arrow read and write it. A
/// key-encryption key seals the data keys of many files, and the key provider seals the key-encryption key, so that
/// KMS gets one request for many files.
///
/// Readers without Biscuit need a client of these tools that unwraps key-encryption keys; the README has one for
/// Python.
#[derive(Debug)]
pub struct ParquetKeys {
    keys: KeyCache,
}

/// Part of a file that a data key encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two kinds of keys in Parquet's modular encryption")]
pub enum ParquetPart {
    /// The footer.
    Footer,
    /// A column.
    Column,
}

/// Data key of a part of a file, with its metadata.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ParquetKey {
    /// The key; new keys have 32 bytes.
    pub secret: KeyBytes,
    /// Key material in JSON, which the file contains.
    pub metadata: Vec<u8>,
}

/// Fields of the key material that are used: <https://github.com/apache/parquet-java>, `KeyMaterial` and
/// `KeyMetadata` of parquet-hadoop.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyMaterial {
    key_material_type: String,
    internal_storage: bool,
    #[serde(default)]
    is_footer_key: bool,
    #[serde(rename = "kmsInstanceID", default, skip_serializing_if = "Option::is_none")]
    kms_instance_id: Option<String>,
    #[serde(rename = "kmsInstanceURL", default, skip_serializing_if = "Option::is_none")]
    kms_instance_url: Option<String>,
    #[serde(rename = "masterKeyID", default)]
    master_key_id: String,
    #[serde(rename = "wrappedDEK", default)]
    wrapped_dek: String,
    #[serde(default)]
    double_wrapping: bool,
    #[serde(rename = "keyEncryptionKeyID", default, skip_serializing_if = "Option::is_none")]
    kek_id: Option<String>,
    #[serde(rename = "wrappedKEK", default, skip_serializing_if = "Option::is_none")]
    wrapped_kek: Option<String>,
}

/// The only type of key material.
const TYPE: &str = "PKMT1";
/// Name of a KMS instance if no other was configured.
const DEFAULT: &str = "DEFAULT";
/// Name of KMS as a provider in messages of the AWS Encryption SDK.
const AWS_KMS: &str = "aws-kms";
/// Length of the name of a key-encryption key in bytes.
const NAME: usize = 16;

fn material_context() -> KeyContext {
    KeyContext::from([("use".to_owned(), "parquet".to_owned())])
}

fn invalid_material(reason: &str) -> Error {
    Error::new(codes::INVALID_KEY, format!("cannot use the key material of the file: {reason}"))
}

impl ParquetKeys {
    /// Creates data keys with a provider. A key-encryption key is used within the default [`KeyLimits`].
    pub fn new(provider: Arc<dyn KeyProvider>) -> Self {
        Self { keys: KeyCache::new(provider, KeyLimits::default()) }
    }

    /// Creates a data key for a part of a file.
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn new_key(&self, of: ParquetPart) -> Result<ParquetKey> {
        let secret = KeyBytes::random()?;
        let wrapping = self.keys.data_key(&material_context(), secret.expose().len() as u64).await?;
        // The name is derived from the wrapped key, so that equal key-encryption keys have equal names in all files.
        // It is authenticated with the data key.
        let name = &digest(&SHA256, &wrapping.sealed.bytes).as_ref()[..NAME].to_vec();
        let nonce = random_nonce()?;
        let mut sealed = nonce.to_vec();
        seal(&wrapping_cipher(&wrapping.secret)?, nonce, name, secret.expose(), &mut sealed)?;
        let (master_key_id, wrapped) = master_key_of(&wrapping.sealed)?;
        let footer = of == ParquetPart::Footer;
        let kms = footer.then(|| DEFAULT.to_owned());
        let material = KeyMaterial {
            key_material_type: TYPE.to_owned(),
            internal_storage: true,
            is_footer_key: footer,
            kms_instance_id: kms.clone(),
            kms_instance_url: kms,
            master_key_id,
            wrapped_dek: BASE64_STANDARD.encode(sealed),
            double_wrapping: true,
            kek_id: Some(BASE64_STANDARD.encode(name)),
            wrapped_kek: Some(BASE64_STANDARD.encode(wrapped)),
        };
        let metadata = serde_json::to_vec(&material);
        let metadata = metadata.map_err(|e| Error::internal("cannot write key material").with_source(e))?;
        Ok(ParquetKey { secret, metadata })
    }

    /// Unwraps the data key of key material, of single or double wrapping. The material may be of another writer if
    /// its KMS client wraps keys in the same format.
    ///
    /// # Errors
    /// `InvalidKey` if the metadata is not key material, or the material is outside of the file; `UnknownKey` if the
    /// provider does not have the master key; `CannotUnseal` if a key does not open; the errors of the provider.
    pub async fn key(&self, metadata: &[u8]) -> Result<KeyBytes> {
        if metadata.is_empty() {
            return Err(invalid_material("it is empty"));
        }
        let material: KeyMaterial =
            serde_json::from_slice(metadata).map_err(|_| invalid_material("it is not JSON key material"))?;
        if material.key_material_type != TYPE {
            return Err(invalid_material("its type is not PKMT1"));
        }
        if !material.internal_storage {
            return Err(invalid_material("it is stored outside of the file"));
        }
        let wrapped = decode_base64(&material.wrapped_dek)?;
        if !material.double_wrapping {
            return self.unwrap_key(&material.master_key_id, &wrapped).await;
        }
        let (Some(name), Some(kek)) = (&material.kek_id, &material.wrapped_kek) else {
            return Err(invalid_material("it has no key-encryption key"));
        };
        let name = decode_base64(name)?;
        let wrapping = self.unwrap_key(&material.master_key_id, &decode_base64(kek)?).await?;
        let opened = wrapped.split_first_chunk::<NONCE>();
        let opened = opened
            .map(|(nonce, sealed)| Ok(unseal(&wrapping_cipher(&wrapping)?, *nonce, &name, sealed)))
            .transpose()?;
        opened.flatten().map(KeyBytes::from).ok_or_else(|| {
            let message =
                "cannot unseal a data key: it was not sealed by the key-encryption key of the file, or is damaged";
            Error::new(codes::CANNOT_UNSEAL, message)
        })
    }

    async fn unwrap_key(&self, master_key: &str, wrapped: &[u8]) -> Result<KeyBytes> {
        for sealed in sealed_by(master_key, wrapped) {
            if let Some(key) = self.keys.unseal(&sealed, &material_context()).await? {
                return Ok(key);
            }
        }
        let message = format!("the file needs the master key `{master_key}`, which the key file does not have");
        Err(Error::new(biscuit_core::codes::UNKNOWN_KEY, message))
    }
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    BASE64_STANDARD.decode(text).map_err(|_| invalid_material("a field is not base64"))
}

/// Returns the name of the master key and the wrapped key: the ciphertext blob of KMS, or nonce, ciphertext and tag.
fn master_key_of(sealed: &SealedKey) -> Result<(String, Vec<u8>)> {
    if sealed.provider == AWS_KMS {
        let arn =
            String::from_utf8(sealed.info.clone()).map_err(|_| invalid_material("the name of a key is not UTF-8"))?;
        return Ok((arn, sealed.bytes.clone()));
    }
    let (name, nonce) = read_info(&sealed.info).ok_or_else(|| invalid_material("an unknown provider sealed it"))?;
    Ok((format!("{}/{name}", sealed.provider), [&nonce[..], &sealed.bytes].concat()))
}

/// Returns the sealed keys that [`master_key_of`] may have encoded: one of a key file, and one of KMS by ARN, id or
/// alias.
fn sealed_by(master_key: &str, wrapped: &[u8]) -> Vec<SealedKey> {
    let local = master_key.rsplit_once('/').filter(|_| !master_key.starts_with("arn:"));
    let local = local.zip(wrapped.split_first_chunk::<NONCE>()).map(|((provider, name), (nonce, bytes))| SealedKey {
        provider: provider.to_owned(),
        info: provider_info(name, *nonce),
        bytes: bytes.to_vec(),
    });
    let (provider, info) = (AWS_KMS.to_owned(), master_key.as_bytes().to_vec());
    local.into_iter().chain([SealedKey { provider, info, bytes: wrapped.to_vec() }]).collect()
}
