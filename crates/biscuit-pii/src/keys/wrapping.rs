//! Local wrapping keys, in the format of the raw AES keyring of the AWS Encryption SDK.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
use biscuit_core::{Error, Result};

use crate::codes;
use crate::encrypt::cell::{NONCE, TAG, random_nonce, seal, unseal};
use crate::encrypt::message::context_bytes;
use crate::keys::provider::{DataKey, KeyContext, KeyProvider, SealedKey};
use crate::keys::secret::KeyBytes;

/// Local keys that seal data keys, from a key file or in memory. Sealed keys have the format of the raw AES keyring
/// of the AWS Encryption SDK, so that any of its libraries opens messages with the same key.
#[derive(Debug, Clone)]
pub struct WrappingKeys {
    namespace: String,
    current: String,
    keys: BTreeMap<String, KeyBytes>,
}

impl WrappingKeys {
    /// Creates a provider with one key of 16, 24 or 32 bytes. Another provider with the same namespace and a key of
    /// the same name and bytes can unseal its data keys.
    ///
    /// # Errors
    /// `WeakKey` for a key of another length.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, key: KeyBytes) -> Result<Self> {
        let (namespace, name) = (namespace.into(), name.into());
        Self { namespace, current: name.clone(), keys: BTreeMap::new() }.with_key(name, key)
    }

    /// Creates a provider with a random key that is not stored: its data keys cannot be unsealed after the process
    /// ends. For tests.
    ///
    /// # Errors
    /// Those of [`KeyBytes::random`].
    pub fn in_memory() -> Result<Self> {
        Self::new("biscuit", "memory", KeyBytes::random()?)
    }

    /// Adds an older key, which unseals data keys but does not seal new ones.
    ///
    /// # Errors
    /// `WeakKey` for a key of another length, as in [`new`](Self::new).
    pub fn with_key(mut self, name: impl Into<String>, key: KeyBytes) -> Result<Self> {
        wrapping_cipher(&key)?;
        self.keys.insert(name.into(), key);
        Ok(self)
    }

    /// Returns the name of the key that seals new data keys.
    pub fn current(&self) -> &str {
        &self.current
    }

    pub(crate) fn keys(&self) -> &BTreeMap<String, KeyBytes> {
        &self.keys
    }
}

/// Creates AES-GCM for a wrapping key.
///
/// # Errors
/// `WeakKey` if the key does not have 16, 24 or 32 bytes.
pub(crate) fn wrapping_cipher(key: &KeyBytes) -> Result<LessSafeKey> {
    let algorithm = match key.expose().len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        32 => &AES_256_GCM,
        n => {
            return Err(Error::new(
                codes::WEAK_KEY,
                format!("a wrapping key needs 16, 24 or 32 bytes; this one has {n}"),
            ));
        }
    };
    let key = UnboundKey::new(algorithm, key.expose())
        .map_err(|_| Error::internal("AES does not take keys of this length"))?;
    Ok(LessSafeKey::new(key))
}

/// Length of the tag in bits and of the nonce in bytes, which are between the name of the key and the nonce.
const LENGTHS: [u8; 8] = [0, 0, 0, 8 * TAG as u8, 0, 0, 0, NONCE as u8];

/// Provider information of a raw AES keyring: the name of the wrapping key, [`LENGTHS`] and the nonce.
pub(crate) fn provider_info(name: &str, nonce: [u8; NONCE]) -> Vec<u8> {
    [name.as_bytes(), &LENGTHS, &nonce].concat()
}

/// Returns the name and the nonce, or `None` if `info` is not of a raw AES keyring.
pub(crate) fn read_info(info: &[u8]) -> Option<(&str, [u8; NONCE])> {
    let (rest, nonce) = info.split_last_chunk::<NONCE>()?;
    let name = rest.strip_suffix(&LENGTHS)?;
    Some((std::str::from_utf8(name).ok()?, *nonce))
}

#[async_trait]
impl KeyProvider for WrappingKeys {
    async fn generate(&self, context: &KeyContext) -> Result<DataKey> {
        let (secret, nonce, mut bytes) = (KeyBytes::random()?, random_nonce()?, vec![]);
        let key = wrapping_cipher(&self.keys[&self.current])?;
        seal(&key, nonce, &context_bytes(context)?, secret.expose(), &mut bytes)?;
        let info = provider_info(&self.current, nonce);
        Ok(DataKey { secret, sealed: SealedKey { provider: self.namespace.clone(), info, bytes } })
    }

    async fn unseal(&self, sealed: &SealedKey, context: &KeyContext) -> Result<Option<KeyBytes>> {
        let Some((name, nonce)) = read_info(&sealed.info) else { return Ok(None) };
        let Some(key) = self.keys.get(name).filter(|_| sealed.provider == self.namespace) else { return Ok(None) };
        let opened = unseal(&wrapping_cipher(key)?, nonce, &context_bytes(context)?, &sealed.bytes);
        opened.map(|bytes| Some(KeyBytes::from(bytes))).ok_or_else(|| {
            let message = format!(
                "cannot unseal a data key with the wrapping key `{name}`: another key sealed it, its \
                context differs, or it is damaged"
            );
            Error::new(codes::CANNOT_UNSEAL, message)
        })
    }
}
