use std::fmt;
use std::sync::Arc;

use biscuit_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

/// Bytes of a key: wiped when the last copy of it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(Arc<Zeroizing<Vec<u8>>>);

impl KeyBytes {
    /// These bytes; the caller's own copy is not wiped.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// 32 random bytes.
    ///
    /// # Errors
    /// `Internal` if the operating system gives none.
    pub fn random() -> Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        random(&mut bytes)?;
        Ok(Self(Arc::new(bytes)))
    }

    /// The bytes, for a cipher.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Zeroizing<Vec<u8>>> for KeyBytes {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Fills with what the operating system gives. Chance is no argument here: keys and nonces that a caller chooses are the one mistake that these
/// ciphers do not forgive.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    let failed =
        |_| Error::new(ErrorKind::Unavailable, "NoRandomNumbers", "the operating system gives no random numbers");
    aws_lc_rs::rand::fill(bytes).map_err(failed)
}
