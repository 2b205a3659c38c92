use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
use biscuit_core::{Error, Result};

use crate::encrypt::cell::{NONCE, TAG, random_nonce, seal, unseal};
use crate::encrypt::message::context_bytes;
use crate::keys::provider::{DataKey, KeyContext, KeyProvider, SealedKey};
use crate::keys::secret::KeyBytes;

/// Keys of one's own that seal data keys: of a file, or of memory. The form is that of the AWS Encryption SDK's raw AES keyring, so that whoever has
/// the key opens its messages with any of its libraries.
#[derive(Debug, Clone)]
pub struct WrappingKeys {
    namespace: String,
    current: String,
    keys: BTreeMap<String, KeyBytes>,
}

impl WrappingKeys {
    /// A key of 16, 24 or 32 bytes by its name. Others may have the same namespace, and unseal what they have a key of that name for.
    ///
    /// # Errors
    /// `WeakKey` for another length.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, key: KeyBytes) -> Result<Self> {
        let (namespace, name) = (namespace.into(), name.into());
        Self { namespace, current: name.clone(), keys: BTreeMap::new() }.with_key(name, key)
    }

    /// A random key that is nowhere else: what it seals ends with it. For tests.
    ///
    /// # Errors
    /// Those of [`KeyBytes::random`].
    pub fn in_memory() -> Result<Self> {
        Self::new("biscuit", "memory", KeyBytes::random()?)
    }

    /// The same, with another key that unseals and does not seal: an older one.
    ///
    /// # Errors
    /// `WeakKey`, as for [`new`](Self::new).
    pub fn with_key(mut self, name: impl Into<String>, key: KeyBytes) -> Result<Self> {
        cipher(&key)?;
        self.keys.insert(name.into(), key);
        Ok(self)
    }

    /// The name of the key that seals.
    pub fn current(&self) -> &str {
        &self.current
    }

    pub(crate) fn keys(&self) -> &BTreeMap<String, KeyBytes> {
        &self.keys
    }
}

/// AES-GCM with a key that seals others.
///
/// # Errors
/// `WeakKey` for one that has not 16, 24 or 32 bytes.
pub(crate) fn cipher(key: &KeyBytes) -> Result<LessSafeKey> {
    let algorithm = match key.expose().len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        32 => &AES_256_GCM,
        n => return Err(Error::usage("WeakKey", format!("a wrapping key has 16, 24 or 32 bytes; this one has {n}"))),
    };
    let key = UnboundKey::new(algorithm, key.expose()).map_err(|_| Error::internal("AES takes keys of this length"))?;
    Ok(LessSafeKey::new(key))
}

/// Bits of a tag and bytes of a nonce, which stand between the name of a key and the nonce.
const LENGTHS: [u8; 8] = [0, 0, 0, 8 * TAG as u8, 0, 0, 0, NONCE as u8];

/// What a sealed key says of who has sealed it: the name of the key, and the nonce.
pub(crate) fn info(name: &str, nonce: [u8; NONCE]) -> Vec<u8> {
    [name.as_bytes(), &LENGTHS, &nonce].concat()
}

/// The name and the nonce; none for what is no such description.
pub(crate) fn read_info(info: &[u8]) -> Option<(&str, [u8; NONCE])> {
    let (rest, nonce) = info.split_last_chunk::<NONCE>()?;
    let name = rest.strip_suffix(&LENGTHS)?;
    Some((std::str::from_utf8(name).ok()?, *nonce))
}

#[async_trait]
impl KeyProvider for WrappingKeys {
    async fn generate(&self, context: &KeyContext) -> Result<DataKey> {
        let (secret, nonce, mut bytes) = (KeyBytes::random()?, random_nonce()?, vec![]);
        let key = cipher(&self.keys[&self.current])?;
        seal(&key, nonce, &context_bytes(context)?, secret.expose(), &mut bytes)?;
        let info = info(&self.current, nonce);
        Ok(DataKey { secret, sealed: SealedKey { provider: self.namespace.clone(), info, bytes } })
    }

    async fn unseal(&self, sealed: &SealedKey, context: &KeyContext) -> Result<Option<KeyBytes>> {
        let Some((name, nonce)) = read_info(&sealed.info) else { return Ok(None) };
        let Some(key) = self.keys.get(name).filter(|_| sealed.provider == self.namespace) else { return Ok(None) };
        let opened = unseal(&cipher(key)?, nonce, &context_bytes(context)?, &sealed.bytes);
        opened.map(|bytes| Some(KeyBytes::from(bytes))).ok_or_else(|| {
            let message = format!(
                "a data key was not sealed by the wrapping key `{name}`, or not for what it is used for, or is damaged"
            );
            Error::data("CannotUnseal", message)
        })
    }
}
