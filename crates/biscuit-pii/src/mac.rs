//! HMAC-SHA-256, the keyed hash that all modules of this crate share.

use aws_lc_rs::hmac;

/// Returns the HMAC-SHA-256 (RFC 2104, FIPS 180-4) of the concatenated parts. Parts are not separated: callers that
/// need `["ab", "c"]` and `["a", "bc"]` to differ put lengths between them.
pub(crate) fn compute_mac(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = hmac::Context::with_key(key);
    parts.iter().for_each(|part| mac.update(part));
    *mac.sign().as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// Creates a key of [`compute_mac`].
pub(crate) fn mac_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

/// Returns bytes as lower-case hexadecimal digits.
pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_matches_the_test_cases_of_rfc_4231() {
        // Test cases 2 and 4: short and long keys.
        let of = |key: &[u8], data: &[u8]| encode_hex(&compute_mac(&mac_key(key), &[data])[..8]);
        assert_eq!(of(b"Jefe", b"what do ya want for nothing?"), "5bdcc146bf60754e");
        let key: Vec<u8> = (1..=25).collect();
        assert_eq!(of(&key, &[0xcd; 50]), "82558a389a443c0e");
        assert_eq!(
            compute_mac(&mac_key(b"k"), &[b"ab", b"c"]),
            compute_mac(&mac_key(b"k"), &[b"a", b"bc"]),
            "parts are concatenated"
        );
    }
}
