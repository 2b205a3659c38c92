use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::encrypt::cell::{NONCE, random_nonce, seal, unseal};
use crate::keys::cache::{KeyCache, KeyLimits};
use crate::keys::provider::{KeyContext, KeyProvider, SealedKey};
use crate::keys::secret::KeyBytes;
use crate::keys::wrapping::{cipher, info, read_info};

/// Data keys of Parquet's modular encryption, and what a file says of them: *key material* of version 1 (`PKMT1`) with double wrapping, as parquet-mr's
/// and Arrow's key tools write and read it. A data key is sealed by a key-encryption key that is used for many files, and that one by the key
/// provider: KMS is asked once for many files.
///
/// Readers without Biscuit give these tools a client that unwraps key-encryption keys; the README has one for Python.
#[derive(Debug)]
pub struct ParquetKeys {
    keys: KeyCache,
}

/// What a data key of a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParquetPart {
    /// The footer.
    Footer,
    /// A column.
    Column,
}

/// A data key, and what the file says of it.
#[derive(Debug, Clone)]
pub struct ParquetKey {
    /// 32 bytes of a new one.
    pub secret: KeyBytes,
    /// Its key material, in JSON.
    pub metadata: Vec<u8>,
}

/// Key material, as far as it is read: <https://github.com/apache/parquet-java>, `KeyMaterial` and `KeyMetadata` of parquet-hadoop.
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

/// The only type of key material there is.
const TYPE: &str = "PKMT1";
/// What the tools call a KMS that has no more to be said of.
const DEFAULT: &str = "DEFAULT";
/// What messages of the AWS Encryption SDK call KMS.
const AWS_KMS: &str = "aws-kms";
/// Bytes of a key-encryption key's name.
const NAME: usize = 16;

fn context() -> KeyContext {
    KeyContext::from([("use".to_owned(), "parquet".to_owned())])
}

fn invalid(reason: &str) -> Error {
    Error::data("InvalidKey", format!("what the file says of a key cannot be used: {reason}"))
}

impl ParquetKeys {
    /// Keys of this provider; a key-encryption key is used within the usual limits.
    pub fn new(provider: Arc<dyn KeyProvider>) -> Self {
        Self { keys: KeyCache::new(provider, KeyLimits::default()) }
    }

    /// A new data key.
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn new_key(&self, of: ParquetPart) -> Result<ParquetKey> {
        let secret = KeyBytes::random()?;
        let wrapping = self.keys.data_key(&context(), secret.expose().len() as u64).await?;
        let name = &digest(&SHA256, &wrapping.sealed.bytes).as_ref()[..NAME].to_vec();
        let nonce = random_nonce()?;
        let mut sealed = nonce.to_vec();
        seal(&cipher(&wrapping.secret)?, nonce, name, secret.expose(), &mut sealed)?;
        let (master_key_id, wrapped) = named(&wrapping.sealed)?;
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
        let metadata = metadata.map_err(|e| Error::internal("key material could not be written").with_source(e))?;
        Ok(ParquetKey { secret, metadata })
    }

    /// The data key that a file says this of: of single or double wrapping, by any writer whose client of a KMS wraps as ours does.
    ///
    /// # Errors
    /// `InvalidKey` for what is no key material, or is kept in another place; `UnknownKey` for a master key that is not the provider's;
    /// `CannotUnseal`, and those of the provider.
    pub async fn key(&self, metadata: &[u8]) -> Result<KeyBytes> {
        if metadata.is_empty() {
            return Err(invalid("it says nothing"));
        }
        let material: KeyMaterial =
            serde_json::from_slice(metadata).map_err(|_| invalid("it is no key material in JSON"))?;
        if material.key_material_type != TYPE {
            return Err(invalid("its type is another than PKMT1"));
        }
        if !material.internal_storage {
            return Err(invalid("it is kept outside of the file"));
        }
        let wrapped = decoded(&material.wrapped_dek)?;
        if !material.double_wrapping {
            return self.unwrapped(&material.master_key_id, &wrapped).await;
        }
        let (Some(name), Some(kek)) = (&material.kek_id, &material.wrapped_kek) else {
            return Err(invalid("it names no key-encryption key"));
        };
        let name = decoded(name)?;
        let wrapping = self.unwrapped(&material.master_key_id, &decoded(kek)?).await?;
        let opened = wrapped.split_first_chunk::<NONCE>();
        let opened =
            opened.map(|(nonce, sealed)| Ok(unseal(&cipher(&wrapping)?, *nonce, &name, sealed))).transpose()?;
        opened.flatten().map(KeyBytes::from).ok_or_else(|| {
            let message = "a data key was not sealed by the key-encryption key that the file names, or is damaged";
            Error::data("CannotUnseal", message)
        })
    }

    async fn unwrapped(&self, master_key: &str, wrapped: &[u8]) -> Result<KeyBytes> {
        for sealed in sealed_by(master_key, wrapped) {
            if let Some(key) = self.keys.unseal(&sealed, &context()).await? {
                return Ok(key);
            }
        }
        let message = format!("the key `{master_key}`, which the file names, is not one of the key file");
        Err(Error::usage("UnknownKey", message))
    }
}

fn decoded(text: &str) -> Result<Vec<u8>> {
    BASE64_STANDARD.decode(text).map_err(|_| invalid("it is not base64 where it is to be"))
}

/// The name of the master key, and the wrapped key: the bytes that KMS has answered with, else nonce, ciphertext and tag.
fn named(sealed: &SealedKey) -> Result<(String, Vec<u8>)> {
    if sealed.provider == AWS_KMS {
        let arn = String::from_utf8(sealed.info.clone()).map_err(|_| invalid("the name of a key is no text"))?;
        return Ok((arn, sealed.bytes.clone()));
    }
    let (name, nonce) = read_info(&sealed.info).ok_or_else(|| invalid("a provider that is unknown has sealed it"))?;
    Ok((format!("{}/{name}", sealed.provider), [&nonce[..], &sealed.bytes].concat()))
}

/// What [`named`] may have been made of: a key of a key file, or one of KMS, by its ARN, its id or an alias.
fn sealed_by(master_key: &str, wrapped: &[u8]) -> Vec<SealedKey> {
    let local = master_key.rsplit_once('/').filter(|_| !master_key.starts_with("arn:"));
    let local = local.zip(wrapped.split_first_chunk::<NONCE>()).map(|((provider, name), (nonce, bytes))| SealedKey {
        provider: provider.to_owned(),
        info: info(name, *nonce),
        bytes: bytes.to_vec(),
    });
    let (provider, info) = (AWS_KMS.to_owned(), master_key.as_bytes().to_vec());
    local.into_iter().chain([SealedKey { provider, info, bytes: wrapped.to_vec() }]).collect()
}
