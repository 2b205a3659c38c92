use std::fmt;

use aws_lc_rs::hmac;
use biscuit_core::{Error, Result};

use crate::codes;
use crate::keys::roots::RootKeys;
use crate::keys::secret::KeyBytes;
use crate::mac::{compute_mac, encode_hex, mac_key};

/// Key of a keyed hash. It is wiped when it is dropped and does not appear in `Debug` output.
///
/// ```
/// use biscuit_pii::HashKey;
///
/// let emails = HashKey::new(vec![7_u8; 32], "email")?;
/// let names = HashKey::new(vec![7_u8; 32], "name")?;
/// assert_eq!(emails.hash("ann@example.com").len(), 32);
/// assert_ne!(emails.hash("ann@example.com"), names.hash("ann@example.com"));
/// assert_eq!(HashKey::new(vec![7_u8; 16], "email").unwrap_err().code(), "WeakKey");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Clone)]
pub struct HashKey {
    key: hmac::Key,
    namespace: String,
}

/// Minimum length of a key: RFC 2104 discourages keys that are shorter than the output of the hash.
const LEAST: usize = 32;

impl HashKey {
    /// Creates a key from at least 32 bytes. The same text has different hashes in different namespaces.
    ///
    /// # Errors
    /// `WeakKey` for fewer than 32 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>, namespace: impl Into<String>) -> Result<Self> {
        let bytes = KeyBytes::new(bytes);
        let length = bytes.expose().len();
        if length < LEAST {
            let message = format!("a hash key needs at least {LEAST} bytes; this one has {length}");
            return Err(Error::new(codes::WEAK_KEY, message));
        }
        Ok(Self { key: mac_key(bytes.expose()), namespace: namespace.into() })
    }

    /// Derives the key of a namespace from the current root key.
    ///
    /// # Errors
    /// `Internal` if the key cannot be derived.
    pub fn from_roots(roots: &RootKeys, namespace: impl Into<String>) -> Result<Self> {
        Self::of_version(roots, roots.current(), namespace)
    }

    /// Derives the key of a namespace from a version of the root keys.
    ///
    /// # Errors
    /// `UnknownKeyVersion` if there is no such version.
    pub fn of_version(roots: &RootKeys, version: u16, namespace: impl Into<String>) -> Result<Self> {
        let namespace = namespace.into();
        let key = roots.derive_key(version, b"", &["biscuit hash", &namespace], 32)?;
        Self::new(key.expose(), namespace)
    }

    /// Returns the hash of a text as 32 hexadecimal digits. It is the first 16 bytes of HMAC-SHA-256 (RFC 2104, FIPS
    /// 180-4) over the length of the namespace, the namespace and the text.
    pub fn hash(&self, text: &str) -> String {
        let length = (self.namespace.len() as u64).to_be_bytes();
        encode_hex(&compute_mac(&self.key, &[&length, self.namespace.as_bytes(), text.as_bytes()])[..16])
    }

    /// Returns a short replacement of a text for messages, such as `<email:3f2a>`: the namespace and four digits of
    /// the hash. Equal texts have equal tags; two different texts have the same tag with a probability of 1 in
    /// 65,536.
    pub fn tag(&self, text: &str) -> String {
        format!("<{}:{}>", self.namespace, &self.hash(text)[..4])
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKey").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_key_namespace_and_text_and_debug_hides_the_key() {
        let key = |byte: u8, namespace: &str| HashKey::new(vec![byte; 32], namespace).unwrap();
        let hash = key(7, "email").hash("a@b.c");
        assert_eq!((hash.len(), &hash), (32, &key(7, "email").hash("a@b.c")));
        for other in [key(8, "email").hash("a@b.c"), key(7, "login").hash("a@b.c"), key(7, "email").hash("a@b.d")] {
            assert_ne!(hash, other);
        }
        assert_ne!(key(7, "a").hash("bc"), key(7, "ab").hash("c"));
        let tag = key(7, "email").tag("a@b.c");
        assert_eq!(tag, format!("<email:{}>", &hash[..4]));
        assert_eq!(HashKey::new(vec![1; 31], "email").unwrap_err().code(), "WeakKey");
        assert_eq!(format!("{:?}", key(77, "email")), "HashKey { namespace: \"email\", .. }");
    }
}
