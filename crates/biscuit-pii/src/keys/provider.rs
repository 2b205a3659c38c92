use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use biscuit_core::{Error, Result};

use crate::codes;
use crate::keys::secret::KeyBytes;

/// Purpose of a data key as names and values, which are not secret. A data key is sealed with its context and can
/// only be unsealed with the same context. KMS calls it the encryption context and writes it to CloudTrail.
pub type KeyContext = BTreeMap<String, String>;

/// Sealed data key that can be stored beside the data it encrypted: the encrypted data key of an AWS Encryption SDK
/// message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "implementations of `KeyProvider` write it as a literal")]
pub struct SealedKey {
    /// Provider that can unseal the key: `aws-kms`, or the namespace of local keys.
    pub provider: String,
    /// Key of the provider that sealed the data key: its ARN, or the name of a local key with the nonce.
    pub info: Vec<u8>,
    /// Sealed bytes of the key.
    pub bytes: Vec<u8>,
}

impl SealedKey {
    /// Encodes the key as in the header of a message: each part after its length in two bytes.
    ///
    /// # Errors
    /// `InvalidKey` for a part of more than 65,535 bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for part in [self.provider.as_bytes(), &self.info, &self.bytes] {
            let length = u16::try_from(part.len())
                .map_err(|_| Error::new(codes::INVALID_KEY, "a part of a sealed key is longer than 65,535 bytes"))?;
            out.extend(length.to_be_bytes());
            out.extend(part);
        }
        Ok(out)
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes).
    ///
    /// # Errors
    /// `InvalidKey` for bytes that are not a sealed key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let invalid = || Error::new(codes::INVALID_KEY, "the bytes are not a sealed key");
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

/// Data key of 32 bytes, in clear and sealed.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "implementations of `KeyProvider` write it as a literal")]
pub struct DataKey {
    /// Key in clear.
    pub secret: KeyBytes,
    /// Sealed key.
    pub sealed: SealedKey,
}

/// Creates data keys and unseals them, such as AWS KMS or [`WrappingKeys`](crate::keys::WrappingKeys).
#[async_trait]
pub trait KeyProvider: fmt::Debug + Send + Sync {
    /// Creates a new data key for a context.
    async fn generate(&self, context: &KeyContext) -> Result<DataKey>;

    /// Unseals a data key. Returns `None` if a key sealed it that is not one of this provider.
    ///
    /// # Errors
    /// `CannotUnseal` if a key of this provider sealed it, but the context or the bytes differ.
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
