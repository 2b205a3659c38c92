use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use biscuit_core::{Error, Result};

use crate::keys::secret::KeyBytes;

/// What a data key is for, in names and values that are no secret: sealed with it, and needed to unseal it. KMS calls it the encryption context, and
/// writes it into its log.
pub type KeyContext = BTreeMap<String, String>;

/// A data key as it may be kept beside what it has encrypted: the encrypted data key of an AWS Encryption SDK message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SealedKey {
    /// Who can unseal it: `aws-kms`, or the namespace of local keys.
    pub provider: String,
    /// Which of the provider's keys does: the ARN, or the name of a local key and what it was sealed with.
    pub info: Vec<u8>,
    /// The sealed key.
    pub bytes: Vec<u8>,
}

impl SealedKey {
    /// As in the header of a message: each part behind its length, in two bytes.
    ///
    /// # Errors
    /// `InvalidKey` for a part of more than 65,535 bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for part in [self.provider.as_bytes(), &self.info, &self.bytes] {
            let length = u16::try_from(part.len())
                .map_err(|_| Error::data("InvalidKey", "a part of a sealed key has more than 65,535 bytes"))?;
            out.extend(length.to_be_bytes());
            out.extend(part);
        }
        Ok(out)
    }

    /// What [`to_bytes`](Self::to_bytes) has written.
    ///
    /// # Errors
    /// `InvalidKey` for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let invalid = || Error::data("InvalidKey", "these bytes are no sealed key");
        let mut rest = bytes;
        let mut part = || {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            let (part, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = behind;
            Some(part.to_vec())
        };
        let (Some(provider), Some(info), Some(bytes)) = (part(), part(), part()) else { return Err(invalid()) };
        let provider = String::from_utf8(provider).map_err(|_| invalid())?;
        if rest.is_empty() { Ok(Self { provider, info, bytes }) } else { Err(invalid()) }
    }
}

/// A data key of 32 bytes.
#[derive(Debug, Clone)]
pub struct DataKey {
    /// The key.
    pub secret: KeyBytes,
    /// The same, sealed.
    pub sealed: SealedKey,
}

/// Makes data keys, and unseals those that it has made.
#[async_trait]
pub trait KeyProvider: fmt::Debug + Send + Sync {
    /// A new data key for this context.
    async fn generate(&self, context: &KeyContext) -> Result<DataKey>;

    /// The data key, or none if it was sealed by a key that is not this provider's.
    ///
    /// # Errors
    /// `CannotUnseal` if it was sealed by a key of this provider, and context or bytes are not those of then.
    async fn unseal(&self, sealed: &SealedKey, context: &KeyContext) -> Result<Option<KeyBytes>>;
}

const _: fn(&dyn KeyProvider) = |_| {};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_keys_are_written_and_read() {
        let key = SealedKey { provider: "aws-kms".into(), info: "arn:é".into(), bytes: vec![7; 300] };
        let bytes = key.to_bytes().unwrap();
        assert_eq!(SealedKey::from_bytes(&bytes).unwrap(), key);
        for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &[]] {
            assert_eq!(SealedKey::from_bytes(wrong).unwrap_err().code(), "InvalidKey");
        }
        assert_eq!(SealedKey { info: vec![0; 65_536], ..key }.to_bytes().unwrap_err().code(), "InvalidKey");
    }
}
