//! Root keys and the derivation of all other keys from them.

use std::collections::BTreeMap;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::codes;
use crate::keys::provider::{KeyContext, KeyProvider, SealedKey};
use crate::keys::secret::KeyBytes;

/// Root keys by version, from which all other keys are derived. New values use the current version, and each stored
/// value is read with the version that it names.
#[derive(Debug, Clone)]
pub struct RootKeys {
    current: u16,
    keys: BTreeMap<u16, KeyBytes>,
}

/// Context with which root keys are sealed.
pub(crate) fn root_context() -> KeyContext {
    KeyContext::from([("purpose".into(), "biscuit-root".into())])
}

impl RootKeys {
    /// Creates root keys from their bytes by version. Each key needs at least 32 bytes, and `current` has to be one
    /// of the versions.
    ///
    /// # Errors
    /// `UnknownKeyVersion` if there is no key for `current`; `WeakKey` for a key of fewer than 32 bytes.
    pub fn new(current: u16, keys: BTreeMap<u16, KeyBytes>) -> Result<Self> {
        if let Some((version, key)) = keys.iter().find(|(_, key)| key.expose().len() < 32) {
            let message = format!("root key {version} has {} bytes; at least 32 are needed", key.expose().len());
            return Err(Error::new(codes::WEAK_KEY, message));
        }
        let roots = Self { current, keys };
        roots.key(current)?;
        Ok(roots)
    }

    /// Creates a single random root key that is not stored: values that are made with it cannot be read after the
    /// process ends. For tests.
    ///
    /// # Errors
    /// Those of [`KeyBytes::random`].
    pub fn in_memory() -> Result<Self> {
        Self::new(1, BTreeMap::from([(1, KeyBytes::random()?)]))
    }

    /// Unseals root keys with a provider.
    ///
    /// # Errors
    /// `UnknownKey` if the provider does not have the key that sealed a root key; the errors of the provider and of
    /// [`new`](Self::new).
    pub async fn unseal(provider: &dyn KeyProvider, current: u16, sealed: &BTreeMap<u16, SealedKey>) -> Result<Self> {
        let mut keys = BTreeMap::new();
        for (version, sealed) in sealed {
            let key = provider.unseal(sealed, &root_context()).await?.ok_or_else(|| {
                let name =
                    String::from_utf8_lossy(&sealed.info).chars().take_while(|c| !c.is_control()).collect::<String>();
                let message = format!(
                    "root key {version} is sealed by the key {name} of `{}`, which is not available",
                    sealed.provider
                );
                Error::new(biscuit_core::codes::UNKNOWN_KEY, message)
            })?;
            keys.insert(*version, key);
        }
        Self::new(current, keys)
    }

    /// Returns the version of new values.
    pub fn current(&self) -> u16 {
        self.current
    }

    /// Returns all versions, the current one first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = u16> {
        let others = self.keys.keys().copied().filter(|version| *version != self.current);
        std::iter::once(self.current).chain(others)
    }

    fn key(&self, version: u16) -> Result<&KeyBytes> {
        self.keys.get(&version).ok_or_else(|| {
            let known: Vec<String> = self.keys.keys().map(u16::to_string).collect();
            let message = format!("there is no root key {version}; the versions are {}", known.join(", "));
            Error::new(codes::UNKNOWN_KEY_VERSION, message)
        })
    }

    /// Derives a key of `bytes` bytes for one purpose: HKDF-SHA-256 (RFC 5869) of the root key with a salt. Each part
    /// of `purpose` follows its length, so that no two purposes have the same info bytes, and no two uses share a
    /// key.
    pub(crate) fn derive_key(&self, version: u16, salt: &[u8], purpose: &[&str], bytes: usize) -> Result<KeyBytes> {
        let lengths: Vec<[u8; 4]> = purpose.iter().map(|part| (part.len() as u32).to_be_bytes()).collect();
        let info: Vec<&[u8]> =
            purpose.iter().zip(&lengths).flat_map(|(part, length)| [&length[..], part.as_bytes()]).collect();
        let mut out = Zeroizing::new(vec![0; bytes]);
        let key = Salt::new(HKDF_SHA256, salt).extract(self.key(version)?.expose());
        let made = key.expand(&info, KeyLength(bytes)).and_then(|okm| okm.fill(&mut out));
        made.map_err(|_| Error::internal("cannot derive a key"))?;
        Ok(KeyBytes::from(out))
    }
}

pub(crate) struct KeyLength(pub(crate) usize);

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_keys_depend_on_version_salt_and_purpose() {
        let roots =
            RootKeys::new(2, BTreeMap::from([(1, KeyBytes::new([1; 32])), (2, KeyBytes::new([2; 32]))])).unwrap();
        let derive = |version, salt: &[u8], purpose: &[&str]| roots.derive_key(version, salt, purpose, 32).unwrap();
        let all = [
            derive(2, b"", &["a", "bc"]),
            derive(1, b"", &["a", "bc"]),
            derive(2, b"x", &["a", "bc"]),
            derive(2, b"", &["ab", "c"]),
            derive(2, b"", &["abc"]),
        ];
        for (at, key) in all.iter().enumerate() {
            assert!(!all[..at].contains(key), "{at}");
        }
        assert_eq!(roots.versions().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(roots.derive_key(3, b"", &["a"], 32).unwrap_err().code(), "UnknownKeyVersion");
        assert_eq!(RootKeys::new(3, roots.keys.clone()).unwrap_err().code(), "UnknownKeyVersion");
        assert_eq!(RootKeys::new(1, BTreeMap::from([(1, KeyBytes::new([0; 31]))])).unwrap_err().code(), "WeakKey");
        assert!(!format!("{roots:?}").contains("[2"), "keys are not printed: {roots:?}");
    }
}
