//! Format-preserving tokens: FF1 of NIST SP 800-38G over the letters and digits of a value.

use aes::Aes256;
use biscuit_core::{Error, Result};
use fpe::ff1::{FF1, FlexibleNumeralString};

use crate::codes;
use crate::keys::roots::RootKeys;

/// Characters of a value that FF1 encrypts. Separators remain where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TokenAlphabet {
    /// `0` to `9`.
    #[default]
    Digits,
    /// `0` to `9` and `a` to `z`. Capital letters are refused, because detokenization could not restore them;
    /// normalize values with `lowercase`.
    Alphanumeric,
}

impl TokenAlphabet {
    fn radix(self) -> u32 {
        match self {
            Self::Digits => 10,
            Self::Alphanumeric => 36,
        }
    }

    /// Minimum number of characters. It is the smallest with at least a million values, which NIST SP 800-38G Rev. 1
    /// requires.
    fn minimum_length(self) -> usize {
        match self {
            Self::Digits => 6,
            Self::Alphanumeric => 4,
        }
    }
}

/// FF1 (NIST SP 800-38G) with AES-256 over the characters of an alphabet. The namespace is the tweak.
pub(crate) struct Ff1Cipher {
    ff1: FF1<Aes256>,
    tweak: Vec<u8>,
    alphabet: TokenAlphabet,
}

/// Direction of a conversion: value to token, or token to value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenDirection {
    There,
    Back,
}

impl Ff1Cipher {
    pub(crate) fn new(roots: &RootKeys, version: u16, namespace: &str, alphabet: TokenAlphabet) -> Result<Self> {
        let key = roots.derive_key(version, b"", &["biscuit token ff1", namespace], 32)?;
        let ff1 =
            FF1::new(key.expose(), alphabet.radix()).map_err(|_| Error::internal("FF1 does not take this radix"))?;
        Ok(Self { ff1, tweak: namespace.as_bytes().to_vec(), alphabet })
    }

    /// Encrypts or decrypts the letters and digits of a value and puts the results into the same places.
    ///
    /// # Errors
    /// `SmallDomain` for a value with too few characters; `OtherCharacter` for a letter or digit that is not in the
    /// alphabet and would remain in clear.
    pub(crate) fn convert(&self, value: &str, way: TokenDirection) -> Result<String> {
        let radix = self.alphabet.radix();
        if value.chars().any(|c| c.is_alphanumeric() && (!c.is_ascii() || c.is_ascii_uppercase() || !c.is_digit(radix)))
        {
            let message = format!(
                "a value has a letter or digit that is not one of the {radix} that FF1 encrypts, and would \
                remain in clear"
            );
            return Err(Error::new(codes::OTHER_CHARACTER, message));
        }
        let numerals: Vec<u16> = value.chars().filter_map(|c| c.to_digit(radix)).map(|n| n as u16).collect();
        let minimum = self.alphabet.minimum_length();
        if numerals.len() < minimum {
            let message = format!(
                "FF1 would hide nothing in a value of {} characters, with fewer than a million forms; it \
                needs {minimum} characters (NIST SP 800-38G)",
                numerals.len()
            );
            return Err(Error::new(codes::SMALL_DOMAIN, message));
        }
        let numerals = FlexibleNumeralString::from(numerals);
        let made = match way {
            TokenDirection::There => self.ff1.encrypt(&self.tweak, &numerals),
            TokenDirection::Back => self.ff1.decrypt(&self.tweak, &numerals),
        };
        let made = made.map_err(|_| Error::new(codes::SMALL_DOMAIN, "FF1 does not support a value of this length"))?;
        let mut made = Vec::<u16>::from(made).into_iter();
        let put = |c: char| {
            if !c.is_alphanumeric() {
                return c;
            }
            made.next().and_then(|n| char::from_digit(u32::from(n), radix)).unwrap_or(c)
        };
        Ok(value.chars().map(put).collect())
    }
}

#[cfg(test)]
mod tests {
    use aes::{Aes128, Aes192, Aes256};

    use super::*;

    /// Samples of NIST,
    /// <https://csrc.nist.gov/CSRC/media/Projects/Cryptographic-Standards-and-Guidelines/documents/examples/FF1samples.pdf>.
    #[test]
    fn ff1_matches_the_samples_of_nist() {
        const KEY: [u8; 32] = [
            0x2B, 0x7E, 0x15, 0x16, 0x28, 0xAE, 0xD2, 0xA6, 0xAB, 0xF7, 0x15, 0x88, 0x09, 0xCF, 0x4F, 0x3C, 0xEF, 0x43,
            0x59, 0xD8, 0xD5, 0x80, 0xAA, 0x4F, 0x7F, 0x03, 0x6D, 0x6F, 0x04, 0xFC, 0x6A, 0x94,
        ];
        const DIGITS: &str = "0123456789";
        const LETTERS: &str = "0123456789abcdefghi";
        let (short, long) = (b"9876543210".as_slice(), b"7777pqrs777".as_slice());
        let samples = [
            (16, 10, b"".as_slice(), DIGITS, "2433477484"),
            (16, 10, short, DIGITS, "6124200773"),
            (16, 36, long, LETTERS, "a9tv40mll9kdu509eum"),
            (24, 10, b"", DIGITS, "2830668132"),
            (24, 10, short, DIGITS, "2496655549"),
            (24, 36, long, LETTERS, "xbj3kv35jrawxv32ysr"),
            (32, 10, b"", DIGITS, "6657667009"),
            (32, 10, short, DIGITS, "1001623463"),
            (32, 36, long, LETTERS, "xs8a0azh2avyalyzuwd"),
        ];
        for (bytes, radix, tweak, plain, sealed) in samples {
            let numerals = |text: &str| text.chars().map(|c| c.to_digit(radix).unwrap() as u16).collect::<Vec<_>>();
            let input = FlexibleNumeralString::from(numerals(plain));
            let key = &KEY[..bytes];
            let made = match bytes {
                16 => FF1::<Aes128>::new(key, radix).unwrap().encrypt(tweak, &input),
                24 => FF1::<Aes192>::new(key, radix).unwrap().encrypt(tweak, &input),
                _ => FF1::<Aes256>::new(key, radix).unwrap().encrypt(tweak, &input),
            };
            assert_eq!(Vec::<u16>::from(made.unwrap()), numerals(sealed), "{bytes} {radix} {plain}");
            if bytes == 32 && radix == 36 {
                let own = Ff1Cipher {
                    ff1: FF1::new(key, radix).unwrap(),
                    tweak: tweak.into(),
                    alphabet: TokenAlphabet::Alphanumeric,
                };
                assert_eq!(own.convert(plain, TokenDirection::There).unwrap(), sealed);
                assert_eq!(own.convert(sealed, TokenDirection::Back).unwrap(), plain);
            }
        }
    }
}
