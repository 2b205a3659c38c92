use std::fmt;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

/// Bytes of a key. They are wiped when the last clone is dropped, and do not appear in `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(Arc<Zeroizing<Vec<u8>>>);

impl KeyBytes {
    /// Creates a key from bytes. Other copies that the caller has are not wiped.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// Creates a key of 32 random bytes.
    ///
    /// # Errors
    /// `NoRandomNumbers` if the operating system returns no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        fill_random(&mut bytes)?;
        Ok(Self(Arc::new(bytes)))
    }

    /// Returns the bytes, to pass them to a cipher.
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
        write!(f, "KeyBytes({} bytes)", self.0.len())
    }
}

/// Fills a buffer with random bytes of the operating system. Randomness is deliberately not an argument here, as it
/// is elsewhere: these ciphers do not survive keys or nonces that a caller chooses.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    let failed =
        |_| Error::new(biscuit_core::codes::NO_RANDOM_NUMBERS, "the operating system returned no random numbers");
    aws_lc_rs::rand::fill(bytes).map_err(failed)
}
