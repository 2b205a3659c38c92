//! Deterministic tokens by AES-SIV (RFC 5297): a token contains the encrypted value, and equal values have equal
//! tokens.

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::keys::roots::RootKeys;

/// Creates AES-SIV with a key of 512 bits. The namespace is authenticated, so that a token opens in its namespace
/// only.
fn siv_cipher(roots: &RootKeys, version: u16, namespace: &str) -> Result<Aes256Siv> {
    let key = roots.derive_key(version, b"", &["biscuit token siv", namespace], 64)?;
    Aes256Siv::new_from_slice(key.expose()).map_err(|_| Error::internal("AES-SIV needs a key of 64 bytes"))
}

/// Returns the token of a value: `siv<version>_` and the ciphertext in base64url.
pub(crate) fn encode_token(roots: &RootKeys, version: u16, namespace: &str, value: &str) -> Result<String> {
    let sealed = siv_cipher(roots, version, namespace)?.encrypt([namespace.as_bytes()], value.as_bytes());
    let sealed = sealed.map_err(|_| Error::internal("cannot encrypt a value"))?;
    Ok(format!("siv{version}_{}", BASE64_URL_SAFE_NO_PAD.encode(sealed)))
}

/// Returns the value of a token, or `None` if the text is not a token of this namespace.
pub(crate) fn decode_token(roots: &RootKeys, namespace: &str, token: &str) -> Result<Option<Zeroizing<String>>> {
    let parts = token.strip_prefix("siv").and_then(|rest| rest.split_once('_'));
    let Some((version, sealed)) =
        parts.and_then(|(v, s)| Some((v.parse().ok()?, BASE64_URL_SAFE_NO_PAD.decode(s).ok()?)))
    else {
        return Ok(None);
    };
    let opened = siv_cipher(roots, version, namespace)?.decrypt([namespace.as_bytes()], &sealed);
    Ok(opened.ok().and_then(|bytes| String::from_utf8(bytes).ok()).map(Zeroizing::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siv_matches_the_test_vector_of_rfc_5297() {
        // RFC 5297 only has vectors for keys of 256 bits (A.1). `Aes128Siv` differs from `Aes256Siv` only in the key
        // size.
        let hex = |text: &str| {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<u8>>()
        };
        let key = hex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        let ad = hex("101112131415161718191a1b1c1d1e1f2021222324252627");
        let mut siv = aes_siv::siv::Aes128Siv::new_from_slice(&key).unwrap();
        let sealed = siv.encrypt([&ad], &hex("112233445566778899aabbccddee")).unwrap();
        assert_eq!(sealed, hex("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"));
    }
}
