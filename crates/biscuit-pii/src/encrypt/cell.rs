//! Compact format of an encrypted value, called a cell.
//!
//! ```text
//! key of a column   1 | version of the root key, 2 bytes | salt, 16 | counter, 4 | ciphertext | tag, 16
//! key of a subject  2 | subject, 16 | id of its key, 8 | nonce, 12               | ciphertext | tag, 16
//! ```
//!
//! The key of a column is HKDF-SHA-256 of the root key with the salt. The salt is random for each column and batch,
//! so that a counter suffices as nonce. The key of a subject is random and used for a long time, so its nonces are
//! random. Table, column and everything before the ciphertext are authenticated.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::keys::secret::{KeyBytes, fill_random};

pub(crate) const SALT: usize = 16;
pub(crate) const TAG: usize = 16;
pub(crate) const SUBJECT: usize = 16;
pub(crate) const MADE: usize = 8;
pub(crate) const NONCE: usize = 12;
pub(crate) const OF_COLUMN: u8 = 1;
pub(crate) const OF_SUBJECT: u8 = 2;
pub(crate) const COLUMN_HEAD: usize = 1 + 2 + SALT + 4;
pub(crate) const SUBJECT_HEAD: usize = 1 + SUBJECT + MADE + NONCE;

/// Key of a cell, as its head names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CellKey {
    Column { version: u16, salt: [u8; SALT] },
    Subject { subject: [u8; SUBJECT], made: [u8; MADE] },
}

/// Parts of a cell.
pub(crate) struct EncryptedCell<'a> {
    pub(crate) key: CellKey,
    head: &'a [u8],
    nonce: [u8; NONCE],
    sealed: &'a [u8],
    tag: &'a [u8],
}

/// Returns the authenticated place of a cell: table and column, each after its length, so that no other pair of names
/// has the same bytes.
pub(crate) fn cell_binding(table: &str, column: &str) -> Vec<u8> {
    let mut out = vec![];
    for part in [table, column] {
        out.extend((part.len() as u32).to_be_bytes());
        out.extend(part.as_bytes());
    }
    out
}

/// Creates AES-256-GCM for a key of a column or subject.
pub(crate) fn value_cipher(key: &KeyBytes) -> Result<LessSafeKey> {
    let key =
        UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| Error::internal("AES-256 needs a key of 32 bytes"))?;
    Ok(LessSafeKey::new(key))
}

/// Returns the nonce of a counter. Never use a counter twice with the same key: equal nonces reveal the XOR of the
/// values and break authentication.
pub(crate) fn counter_nonce(counter: u32) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    nonce[NONCE - 4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// Appends ciphertext and tag of a value to `out`. `aad` is the additional authenticated data; for cells it is the
/// binding and the head.
pub(crate) fn seal(
    cipher: &LessSafeKey,
    nonce: [u8; NONCE],
    aad: &[u8],
    value: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let begin = out.len();
    out.extend_from_slice(value);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out[begin..]);
    out.extend_from_slice(tag.map_err(|_| Error::internal("cannot encrypt a value"))?.as_ref());
    Ok(())
}

/// Opens ciphertext and tag. Returns `None` if they were not sealed with this key, nonce and `aad`.
pub(crate) fn unseal(
    cipher: &LessSafeKey,
    nonce: [u8; NONCE],
    aad: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let length = cipher.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

/// Returns a random nonce, for keys that have no counter.
pub(crate) fn random_nonce() -> Result<[u8; NONCE]> {
    let mut nonce = [0; NONCE];
    fill_random(&mut nonce)?;
    Ok(nonce)
}

impl<'a> EncryptedCell<'a> {
    /// Splits a cell into its parts without opening it. Returns `None` if the bytes are not a cell.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let length = match *bytes.first()? {
            OF_COLUMN => COLUMN_HEAD,
            OF_SUBJECT => SUBJECT_HEAD,
            _ => return None,
        };
        let (head, rest) = bytes.split_at_checked(length)?;
        let (sealed, tag) = rest.split_at_checked(rest.len().checked_sub(TAG)?)?;
        let (key, nonce) = if head[0] == OF_COLUMN {
            let (version, rest) = head[1..].split_first_chunk::<2>()?;
            let (salt, counter) = rest.split_first_chunk::<SALT>()?;
            let version = u16::from_be_bytes(*version);
            (CellKey::Column { version, salt: *salt }, counter_nonce(u32::from_be_bytes(counter.try_into().ok()?)))
        } else {
            let (subject, rest) = head[1..].split_first_chunk::<SUBJECT>()?;
            let (made, nonce) = rest.split_first_chunk::<MADE>()?;
            (CellKey::Subject { subject: *subject, made: *made }, nonce.try_into().ok()?)
        };
        Some(Self { key, head, nonce, sealed, tag })
    }

    /// Opens a cell and appends the value to `out`. Returns `false`, with `out` unchanged, if the cell was not sealed
    /// with this key for this place. `aad` is a buffer.
    pub(crate) fn open(&self, cipher: &LessSafeKey, binding: &[u8], aad: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        aad.clear();
        aad.extend_from_slice(binding);
        aad.extend_from_slice(self.head);
        let begin = out.len();
        // Decrypted directly into the output, without a second buffer of plaintext that would have to be wiped.
        out.resize(begin + self.sealed.len(), 0);
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let opened = cipher.open_separate_gather(nonce, Aad::from(&aad[..]), self.sealed, self.tag, &mut out[begin..]);
        if opened.is_err() {
            out.truncate(begin);
        }
        opened.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn cipher_matches_the_test_vector_of_the_gcm_specification() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16.
        let key = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let nonce = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
        let plain = bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let sealed = bytes(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
        );
        let mut out = vec![7];
        let aad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        seal(&value_cipher(&KeyBytes::new(key)).unwrap(), nonce, &aad, &plain, &mut out).unwrap();
        assert_eq!(out, [&[7], &sealed[..]].concat());
    }
}
