//! Format of a message of the AWS Encryption SDK, version 2:
//! <https://github.com/awslabs/aws-encryption-sdk-specification>, `data-format`.
//!
//! A message has a header (context and sealed data keys), a tag of the header, a body of frames or of one block, and
//! a signature for suite 0578. Reading has two steps: [`EnvelopeMessage::read`] parses the header to find a data key,
//! and [`EnvelopeMessage::open`] checks commitment, header, body and signature.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA512, Salt};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use biscuit_core::{Error, Result};
use zeroize::Zeroizing;

use crate::codes;
use crate::keys::provider::{DataKey, KeyContext, SealedKey};
use crate::keys::roots::KeyLength;
use crate::keys::secret::{KeyBytes, fill_random};

/// Suite with AES-256-GCM, HKDF-SHA-512 and key commitment.
const COMMITTED: u16 = 0x0478;
/// The same suite with a signature by ECDSA P-384.
const SIGNED: u16 = 0x0578;
const VERSION: u8 = 2;
const FRAMED: u8 = 2;
const WHOLE: u8 = 1;
const FRAME_LENGTH: u32 = 4096;
const ID: usize = 32;
const IV: usize = 12;
const TAG: usize = 16;
const LAST: u32 = u32::MAX;
const PUBLIC_KEY: &str = "aws-crypto-public-key";

fn invalid_message(reason: &str) -> Error {
    Error::new(codes::INVALID_MESSAGE, format!("cannot open the message: {reason}"))
}

/// Encodes an encryption context as messages and raw keyrings authenticate it: the number of pairs, then the pairs
/// sorted by the bytes of their keys. An empty context has no bytes.
///
/// # Errors
/// `InvalidContext` for a context of more than 65,535 bytes.
pub(crate) fn context_bytes(context: &KeyContext) -> Result<Vec<u8>> {
    let mut out = vec![];
    if context.is_empty() {
        return Ok(out);
    }
    let length = |n: usize| {
        u16::try_from(n)
            .map_err(|_| Error::new(codes::INVALID_CONTEXT, "an encryption context has at most 65,535 bytes"))
    };
    out.extend(length(context.len())?.to_be_bytes());
    for text in context.iter().flat_map(|(name, value)| [name, value]) {
        out.extend(length(text.len())?.to_be_bytes());
        out.extend(text.as_bytes());
    }
    length(out.len())?;
    Ok(out)
}

/// Derives the key of a message and its commitment. The commitment is in the header: a message opens with one data
/// key only, so that it cannot show different texts to holders of different keys.
fn derive_key(secret: &KeyBytes, suite: u16, id: &[u8]) -> Result<(LessSafeKey, [u8; 32])> {
    let failed = |_| Error::internal("cannot derive the key of a message");
    let prk = Salt::new(HKDF_SHA512, id).extract(secret.expose());
    let (mut key, mut commitment) = (Zeroizing::new([0; 32]), [0; 32]);
    prk.expand(&[&suite.to_be_bytes(), b"DERIVEKEY"], KeyLength(32))
        .and_then(|okm| okm.fill(&mut key[..]))
        .map_err(failed)?;
    prk.expand(&[b"COMMITKEY"], KeyLength(32)).and_then(|okm| okm.fill(&mut commitment)).map_err(failed)?;
    let key = UnboundKey::new(&AES_256_GCM, &key[..]).map_err(failed)?;
    Ok((LessSafeKey::new(key), commitment))
}

/// Returns the additional authenticated data of a frame or block. It contains the number of the frame, so that frames
/// cannot be exchanged, and marks the last one, so that a message cannot be cut.
fn body_aad(id: &[u8], kind: &str, number: u32, length: usize) -> Vec<u8> {
    [id, kind.as_bytes(), &number.to_be_bytes(), &(length as u64).to_be_bytes()].concat()
}

const FRAME: &str = "AWSKMSEncryptionClient Frame";
const FINAL_FRAME: &str = "AWSKMSEncryptionClient Final Frame";
const SINGLE_BLOCK: &str = "AWSKMSEncryptionClient Single Block";

/// Returns the nonce of a frame: its number. Number 0 is for the header. Each message has its own derived key.
fn nonce_of(number: u32) -> Nonce {
    let mut iv = [0; IV];
    iv[IV - 4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(iv)
}

/// Encrypts bytes as a message of suite 0478 with frames of 4,096 bytes.
pub(crate) fn seal(plain: &[u8], key: &DataKey, context: &KeyContext) -> Result<Vec<u8>> {
    let failed = |_| Error::internal("cannot encrypt a message");
    let mut id = [0; ID];
    fill_random(&mut id)?;
    let (cipher, commitment) = derive_key(&key.secret, COMMITTED, &id)?;
    let context = context_bytes(context)?;
    let sealed = key.sealed.to_bytes()?;
    let mut out = Vec::with_capacity(plain.len() + context.len() + sealed.len() + 160);
    out.push(VERSION);
    out.extend(COMMITTED.to_be_bytes());
    out.extend(id);
    out.extend((context.len() as u16).to_be_bytes());
    out.extend(context);
    out.extend(1u16.to_be_bytes());
    out.extend(sealed);
    out.push(FRAMED);
    out.extend(FRAME_LENGTH.to_be_bytes());
    out.extend(commitment);
    let tag = cipher.seal_in_place_separate_tag(nonce_of(0), Aad::from(&out[..]), &mut []).map_err(failed)?;
    out.extend(tag.as_ref());
    let full = plain.len().saturating_sub(1) / FRAME_LENGTH as usize;
    let mut frames = plain.chunks(FRAME_LENGTH as usize);
    let mut number = 0u32;
    for at in 0..=full {
        // An empty text has one empty final frame.
        let (frame, last) = (frames.next().unwrap_or_default(), at == full);
        number =
            number.checked_add(1).filter(|n| *n < LAST).ok_or_else(|| invalid_message("it has too many frames"))?;
        if last {
            out.extend(LAST.to_be_bytes());
        }
        out.extend(number.to_be_bytes());
        out.extend(nonce_of(number).as_ref());
        if last {
            out.extend((frame.len() as u32).to_be_bytes());
        }
        let begin = out.len();
        out.extend(frame);
        let aad = body_aad(&id, if last { FINAL_FRAME } else { FRAME }, number, frame.len());
        let tag =
            cipher.seal_in_place_separate_tag(nonce_of(number), Aad::from(aad), &mut out[begin..]).map_err(failed)?;
        out.extend(tag.as_ref());
    }
    Ok(out)
}

/// Message whose header was parsed but not yet verified.
#[derive(Debug)]
pub(crate) struct EnvelopeMessage<'a> {
    suite: u16,
    id: &'a [u8],
    /// Encryption context that the message contains, which is not yet verified.
    pub(crate) context: KeyContext,
    /// Data key, sealed by one or several keys.
    pub(crate) keys: Vec<SealedKey>,
    content: u8,
    frame_length: usize,
    commitment: &'a [u8],
    header: &'a [u8],
    tag: &'a [u8],
    body: &'a [u8],
    all: &'a [u8],
}

/// Reader of bytes from front to back. Each read past the end is an error.
struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    fn take_bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(|| invalid_message("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn read_number<const N: usize>(&mut self) -> Result<u64> {
        Ok(self.take_bytes(N)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn read_short(&mut self) -> Result<usize> {
        Ok(self.read_number::<2>()? as usize)
    }

    fn read_counted(&mut self) -> Result<&'a [u8]> {
        let length = self.read_short()?;
        self.take_bytes(length)
    }

    fn read_text(&mut self) -> Result<String> {
        let text = std::str::from_utf8(self.read_counted()?)
            .map_err(|_| invalid_message("it has a text that is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

impl<'a> EnvelopeMessage<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut at = ByteReader(bytes);
        match at.read_number::<1>()? {
            2 => {}
            1 => return Err(commitment_error("version 1")),
            _ => return Err(invalid_message("its version is unknown")),
        }
        let suite = at.read_short()? as u16;
        if suite != COMMITTED && suite != SIGNED {
            return Err(commitment_error(&format!("suite {suite:04x}")));
        }
        let id = at.take_bytes(ID)?;
        let context = read_context(&mut at)?;
        let mut keys = vec![];
        for _ in 0..at.read_short()? {
            let (provider, info, bytes) = (at.read_text()?, at.read_counted()?.to_vec(), at.read_counted()?.to_vec());
            keys.push(SealedKey { provider, info, bytes });
        }
        let content = at.take_bytes(1)?[0];
        let frame_length = at.read_number::<4>()? as usize;
        if !matches!((content, frame_length), (FRAMED, 1..) | (WHOLE, 0)) {
            return Err(invalid_message("its content type is unknown"));
        }
        let commitment = at.take_bytes(32)?;
        let header = &bytes[..bytes.len() - at.0.len()];
        let tag = at.take_bytes(TAG)?;
        Ok(Self { suite, id, context, keys, content, frame_length, commitment, header, tag, body: at.0, all: bytes })
    }

    /// Verifies and decrypts the message. `unwritten` is the part of the context that is authenticated but not in the
    /// message.
    ///
    /// # Errors
    /// `InvalidMessage` if any part differs from what was sealed with this key.
    pub(crate) fn open(&self, secret: &KeyBytes, unwritten: &KeyContext) -> Result<Zeroizing<Vec<u8>>> {
        let (cipher, commitment) = derive_key(secret, self.suite, self.id)?;
        verify_slices_are_equal(&commitment, self.commitment)
            .map_err(|_| invalid_message("it commits to another key"))?;
        let aad = Aad::from([self.header, &context_bytes(unwritten)?].concat());
        let checked = cipher.open_separate_gather(nonce_of(0), aad, &[], self.tag, &mut []);
        checked.map_err(|_| invalid_message("its header was changed"))?;
        let mut at = ByteReader(self.body);
        let plain = match self.content {
            WHOLE => self.open_whole(&cipher, &mut at)?,
            _ => self.open_frames(&cipher, &mut at)?,
        };
        if self.suite == SIGNED {
            self.verify_signature(&mut at)?;
        }
        if at.0.is_empty() { Ok(plain) } else { Err(invalid_message("there are bytes after its end")) }
    }

    fn open_part(&self, cipher: &LessSafeKey, aad: &[u8], sealed: &[&[u8]; 3], out: &mut Vec<u8>) -> Result<()> {
        let [iv, content, tag] = sealed;
        let nonce = Nonce::try_assume_unique_for_key(iv).map_err(|_| invalid_message("a nonce is too short"))?;
        let begin = out.len();
        out.resize(begin + content.len(), 0);
        let opened = cipher.open_separate_gather(nonce, Aad::from(aad), content, tag, &mut out[begin..]);
        opened.map_err(|_| invalid_message("its content was changed"))
    }

    fn open_whole(&self, cipher: &LessSafeKey, at: &mut ByteReader<'a>) -> Result<Zeroizing<Vec<u8>>> {
        let mut plain = Zeroizing::new(vec![]);
        let iv = at.take_bytes(IV)?;
        let length = usize::try_from(at.read_number::<8>()?).map_err(|_| invalid_message("it is too long"))?;
        let sealed = [iv, at.take_bytes(length)?, at.take_bytes(TAG)?];
        self.open_part(cipher, &body_aad(self.id, SINGLE_BLOCK, 1, length), &sealed, &mut plain)?;
        Ok(plain)
    }

    fn open_frames(&self, cipher: &LessSafeKey, at: &mut ByteReader<'a>) -> Result<Zeroizing<Vec<u8>>> {
        // Allocated once with the maximum size: a buffer that grows leaves copies of the plaintext that are not
        // wiped.
        let mut plain = Zeroizing::new(Vec::with_capacity(at.0.len()));
        for number in 1u32.. {
            let mut read = at.read_number::<4>()? as u32;
            let last = read == LAST;
            if last {
                read = at.read_number::<4>()? as u32;
            }
            if read != number {
                return Err(invalid_message("its frames are not in order"));
            }
            let iv = at.take_bytes(IV)?;
            let length = if last { at.read_number::<4>()? as usize } else { self.frame_length };
            if length > self.frame_length {
                return Err(invalid_message("its last frame is too long"));
            }
            let sealed = [iv, at.take_bytes(length)?, at.take_bytes(TAG)?];
            let aad = body_aad(self.id, if last { FINAL_FRAME } else { FRAME }, number, length);
            self.open_part(cipher, &aad, &sealed, &mut plain)?;
            if last {
                break;
            }
        }
        Ok(plain)
    }

    /// Reads the footer and verifies that the key in the context signed the whole message.
    fn verify_signature(&self, at: &mut ByteReader<'a>) -> Result<()> {
        let signed = &self.all[..self.all.len() - at.0.len()];
        let signature = at.read_counted()?;
        let key = self
            .context
            .get(PUBLIC_KEY)
            .ok_or_else(|| invalid_message("it is signed, but its context has no public key"))?;
        let key = BASE64_STANDARD.decode(key).map_err(|_| invalid_message("its public key is not base64"))?;
        let verified = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, key).verify(signed, signature);
        verified.map_err(|_| invalid_message("its signature is wrong"))
    }
}

fn read_context(at: &mut ByteReader<'_>) -> Result<KeyContext> {
    let mut context = BTreeMap::new();
    let mut inside = ByteReader(at.read_counted()?);
    if inside.0.is_empty() {
        return Ok(context);
    }
    let count = inside.read_short()?;
    let mut before: Option<&[u8]> = None;
    for _ in 0..count {
        let key = inside.read_counted()?;
        let key_text = std::str::from_utf8(key).map_err(|_| invalid_message("it has a text that is not UTF-8"))?;
        // Keys have to be in ascending order: only the canonical form of a context can be verified.
        if before.is_some_and(|before| before >= key) {
            return Err(invalid_message("its context is not in order"));
        }
        before = Some(key);
        context.insert(key_text.to_owned(), inside.read_text()?);
    }
    if count == 0 || !inside.0.is_empty() {
        return Err(invalid_message("the length of its context is wrong"));
    }
    Ok(context)
}

fn commitment_error(what: &str) -> Error {
    let message = format!(
        "a message of {what} does not commit to its key, so it could open to different texts; only suites \
        0478 and 0578 are supported"
    );
    Error::new(codes::UNCOMMITTED_MESSAGE, message)
}
