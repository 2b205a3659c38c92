use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::encrypt::message::context_bytes;
use crate::keys::provider::{DataKey, KeyContext, KeyProvider, SealedKey};
use crate::keys::secret::{Secret, random};

/// Keys of one's own that seal data keys: of a file, or of memory. The form is that of the AWS Encryption SDK's raw AES keyring, so that whoever has
/// the key opens its messages with any of its libraries.
#[derive(Debug, Clone)]
pub struct WrappingKeys {
    namespace: String,
    current: String,
    keys: BTreeMap<String, Secret>,
}

const NONCE: usize = 12;
const TAG: usize = 16;

impl WrappingKeys {
    /// A key of 16, 24 or 32 bytes by its name. Others may have the same namespace, and unseal what they have a key of that name for.
    ///
    /// # Errors
    /// `WeakKey` for another length.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, key: Secret) -> Result<Self> {
        let (namespace, name) = (namespace.into(), name.into());
        Self { namespace, current: name.clone(), keys: BTreeMap::new() }.with_key(name, key)
    }

    /// A random key that is nowhere else: what it seals ends with it. For tests.
    ///
    /// # Errors
    /// Those of [`Secret::random`].
    pub fn in_memory() -> Result<Self> {
        Self::new("biscuit", "memory", Secret::random()?)
    }

    /// The same, with another key that unseals and does not seal: an older one.
    ///
    /// # Errors
    /// `WeakKey`, as for [`new`](Self::new).
    pub fn with_key(mut self, name: impl Into<String>, key: Secret) -> Result<Self> {
        cipher(&key)?;
        self.keys.insert(name.into(), key);
        Ok(self)
    }

    /// The name of the key that seals.
    pub fn current(&self) -> &str {
        &self.current
    }

    pub(crate) fn keys(&self) -> &BTreeMap<String, Secret> {
        &self.keys
    }
}

fn cipher(key: &Secret) -> Result<LessSafeKey> {
    let algorithm = match key.expose().len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        32 => &AES_256_GCM,
        n => return Err(Error::usage("WeakKey", format!("a wrapping key has 16, 24 or 32 bytes; this one has {n}"))),
    };
    let key = UnboundKey::new(algorithm, key.expose()).map_err(|_| Error::internal("AES takes keys of this length"))?;
    Ok(LessSafeKey::new(key))
}

#[async_trait]
impl KeyProvider for WrappingKeys {
    async fn generate(&self, context: &KeyContext) -> Result<DataKey> {
        let secret = Secret::random()?;
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let mut bytes = secret.expose().to_vec();
        let key = cipher(&self.keys[&self.current])?;
        let sealed = key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context_bytes(context)?),
            &mut bytes,
        );
        sealed.map_err(|_| Error::internal("a data key could not be sealed"))?;
        let mut info = self.current.as_bytes().to_vec();
        info.extend((TAG as u32 * 8).to_be_bytes());
        info.extend((NONCE as u32).to_be_bytes());
        info.extend(nonce);
        Ok(DataKey { secret, sealed: SealedKey { provider: self.namespace.clone(), info, bytes } })
    }

    async fn unseal(&self, sealed: &SealedKey, context: &KeyContext) -> Result<Option<Secret>> {
        // The name, the length of the tag in bits, that of the nonce in bytes, the nonce.
        let behind_name = sealed.info.len().checked_sub(8 + NONCE);
        let Some(name) = behind_name.and_then(|at| std::str::from_utf8(&sealed.info[..at]).ok()) else {
            return Ok(None);
        };
        let Some(key) = self.keys.get(name).filter(|_| sealed.provider == self.namespace) else { return Ok(None) };
        let cannot = || {
            let message = format!(
                "a data key was not sealed by the wrapping key `{name}`, or not for what it is used for, or is damaged"
            );
            Error::data("CannotUnseal", message)
        };
        let (lengths, nonce) = sealed.info[name.len()..].split_at(8);
        let wanted = [(TAG as u32 * 8).to_be_bytes(), (NONCE as u32).to_be_bytes()].concat();
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| cannot())?;
        if lengths != wanted {
            return Err(cannot());
        }
        let mut bytes = Zeroizing::new(sealed.bytes.clone());
        let opened = cipher(key)?.open_in_place(nonce, Aad::from(context_bytes(context)?), &mut bytes);
        let length = opened.map_err(|_| cannot())?.len();
        bytes.truncate(length);
        Ok(Some(Secret::from(bytes)))
    }
}
