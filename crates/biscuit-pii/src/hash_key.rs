use std::fmt;

use aws_lc_rs::hmac;
use biscuit_core::{Error, Result};

use crate::keys::roots::RootKeys;
use crate::keys::secret::KeyBytes;
use crate::mac::{hex, mac, mac_key};

/// The key of a keyed hash; wiped when it is dropped, and never printed.
#[derive(Clone)]
pub struct HashKey {
    key: hmac::Key,
    namespace: String,
}

/// What RFC 2104 asks of a key: not shorter than what the hash makes.
const LEAST: usize = 32;

impl HashKey {
    /// A key of at least 32 bytes for a namespace: the same text has another hash in another namespace.
    ///
    /// # Errors
    /// `WeakKey` for a shorter one.
    pub fn new(bytes: impl Into<Vec<u8>>, namespace: impl Into<String>) -> Result<Self> {
        let bytes = KeyBytes::new(bytes);
        let length = bytes.expose().len();
        if length < LEAST {
            let message = format!("a hash key has {LEAST} bytes at least; this one has {length}");
            return Err(Error::usage("WeakKey", message));
        }
        Ok(Self { key: mac_key(bytes.expose()), namespace: namespace.into() })
    }

    /// The key of a namespace that the current root key makes.
    ///
    /// # Errors
    /// `Internal` if it cannot be derived.
    pub fn of(roots: &RootKeys, namespace: impl Into<String>) -> Result<Self> {
        Self::of_version(roots, roots.current(), namespace)
    }

    /// The key of a namespace that one version of the root keys makes.
    ///
    /// # Errors
    /// `UnknownKeyVersion`.
    pub fn of_version(roots: &RootKeys, version: u16, namespace: impl Into<String>) -> Result<Self> {
        let namespace = namespace.into();
        let key = roots.derive(version, b"", &["biscuit hash", &namespace], 32)?;
        Self::new(key.expose(), namespace)
    }

    /// HMAC-SHA-256 (RFC 2104, FIPS 180-4) of the namespace's length and bytes and the text: the first 16 bytes, as 32 hexadecimal digits.
    pub fn hash(&self, text: &str) -> String {
        let length = (self.namespace.len() as u64).to_be_bytes();
        hex(&mac(&self.key, &[&length, self.namespace.as_bytes(), text.as_bytes()])[..16])
    }

    /// What may stand for a text in a message: `<email:3f2a>`, the namespace and four digits of the hash. The same text has the same tag, and one
    /// in 65,536 others.
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
    fn a_hash_depends_on_key_namespace_and_text_and_the_key_is_not_printed() {
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
