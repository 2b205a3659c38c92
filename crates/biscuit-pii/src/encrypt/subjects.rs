//! Keys of subjects, for crypto-shredding: each subject has a random key in a store, sealed by a root key. Deleting
//! the stored key makes all values that were encrypted with it unreadable, in every copy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::LessSafeKey;
use biscuit_core::{Clock, Error, Instant, Result, SystemClock};

use crate::codes;
use crate::encrypt::cell::{MADE, NONCE, SUBJECT, TAG, random_nonce, seal, unseal, value_cipher};
use crate::keys::roots::RootKeys;
use crate::keys::secret::{KeyBytes, fill_random};
use crate::mac::{compute_mac, encode_hex, mac_key};
use crate::tokens::store::{TokenRecord, TokenStore};

/// One key for each subject, in a store. Deleting a key makes everything that was encrypted with it unreadable, in
/// every file and old version.
///
/// The store contains a keyed hash of the subject and the sealed key, but no names. A forgotten subject remains
/// forgotten: its values become null even if old input is read again, until [`SubjectKeys::readmit`].
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_pii::encrypt::SubjectKeys;
/// use biscuit_pii::keys::RootKeys;
/// use biscuit_pii::tokens::MemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let subjects = SubjectKeys::new(Arc::new(MemoryStore::new()), RootKeys::in_memory()?);
/// subjects.forget("4711").await?;
/// assert!(subjects.is_forgotten("4711").await?);
/// assert!(!subjects.is_forgotten("4712").await?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SubjectKeys {
    store: Arc<dyn TokenStore>,
    roots: RootKeys,
    clock: Arc<dyn Clock>,
    /// How long a cached key is used before the store is asked again whether it still exists.
    age: Duration,
    held: Mutex<HashMap<[u8; SUBJECT], CachedKey>>,
}

/// Key, or `None` for a forgotten subject, and the time at which the store was asked.
type CachedKey = (Option<SubjectKey>, Instant);

/// Key of a subject. `made` is the random id of the key, which differs for each key that the subject ever had.
#[derive(Debug, Clone)]
pub(crate) struct SubjectKey {
    pub(crate) subject: [u8; SUBJECT],
    pub(crate) made: [u8; MADE],
    pub(crate) cipher: Arc<LessSafeKey>,
}

/// Maximum number of cached keys. The cache is emptied when it is full.
const HELD: usize = 100_000;

impl SubjectKeys {
    /// Creates keys in a store. A key is cached for five minutes; for that long a running process can still read the
    /// values of a subject that was forgotten elsewhere.
    pub fn new(store: Arc<dyn TokenStore>, roots: RootKeys) -> Self {
        let (clock, age, held) = (Arc::new(SystemClock), Duration::from_secs(300), Mutex::default());
        Self { store, roots, clock, age, held }
    }

    /// Sets how long a key is cached. The default is five minutes.
    #[must_use]
    pub fn with_age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Sets the clock that measures the age of cached keys, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Deletes the key of a subject. A subject that the store does not know is remembered as forgotten before its
    /// first value arrives.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget(&self, subject: &str) -> Result<()> {
        // All versions: another process may still create subjects with an older root key.
        for version in self.roots.versions() {
            let id = self.subject_id(version, subject)?;
            self.store.replace(TokenRecord { key: key_of(&id), value: vec![], alias: None }).await?;
            self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
        Ok(())
    }

    /// Returns whether the subject was forgotten.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn is_forgotten(&self, subject: &str) -> Result<bool> {
        let ids = self.roots.versions().map(|version| self.subject_id(version, subject)).collect::<Result<Vec<_>>>()?;
        let keys: Vec<String> = ids.iter().map(key_of).collect();
        Ok(self.store.get(&keys).await?.into_iter().flatten().any(|record| record.value.is_empty()))
    }

    /// Creates a new key for a forgotten subject. Its earlier values remain unreadable.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn readmit(&self, subject: &str) -> Result<()> {
        for version in self.roots.versions() {
            let id = self.subject_id(version, subject)?;
            let there = self.store.get(&[key_of(&id)]).await?;
            if there.into_iter().flatten().any(|record| record.value.is_empty()) {
                self.store.replace(self.new_record(&id)?).await?;
                self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
        }
        Ok(())
    }

    /// Returns the key of each subject, and creates the key of a new subject. Returns `None` for forgotten subjects.
    pub(crate) async fn find_or_create(&self, subjects: &[&str]) -> Result<Vec<Option<SubjectKey>>> {
        // The outer `Option` is whether the store knows the subject, the inner one whether it still has a key. The
        // current root key is asked first, older ones only for subjects that it does not know.
        let mut out: Vec<Option<Option<SubjectKey>>> = vec![None; subjects.len()];
        for version in self.roots.versions() {
            let open: Vec<usize> = (0..out.len()).filter(|at| out[*at].is_none()).collect();
            let ids = open.iter().map(|at| self.subject_id(version, subjects[*at])).collect::<Result<Vec<_>>>()?;
            for (at, found) in open.into_iter().zip(self.fetch_keys(&ids).await?) {
                out[at] = found;
            }
        }
        let open: Vec<usize> = (0..out.len()).filter(|at| out[*at].is_none()).collect();
        let ids =
            open.iter().map(|at| self.subject_id(self.roots.current(), subjects[*at])).collect::<Result<Vec<_>>>()?;
        // The first insert wins. A process that loses a race takes the key of the winner, not the one it just made.
        let records = ids.iter().map(|id| self.new_record(id)).collect::<Result<Vec<_>>>()?;
        for ((at, id), winner) in open.into_iter().zip(ids).zip(self.store.insert(records).await?) {
            out[at] = Some(self.cache_key(id, &winner.value)?);
        }
        Ok(out.into_iter().map(Option::flatten).collect())
    }

    /// Returns for each id `None` if the store does not know it, `Some(None)` if the subject was forgotten, else its
    /// key.
    pub(crate) async fn fetch_keys(&self, ids: &[[u8; SUBJECT]]) -> Result<Vec<Option<Option<SubjectKey>>>> {
        let now = self.clock.now();
        let mut out: Vec<Option<Option<SubjectKey>>> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = |id| held.get(id).filter(|(_, since)| now < since.saturating_add(self.age));
            ids.iter().map(|id| fresh(id).map(|(key, _)| key.clone())).collect()
        };
        let open: Vec<usize> = (0..ids.len()).filter(|at| out[*at].is_none()).collect();
        let keys: Vec<String> = open.iter().map(|at| key_of(&ids[*at])).collect();
        for (at, record) in open.into_iter().zip(self.store.get(&keys).await?) {
            if let Some(record) = record {
                out[at] = Some(self.cache_key(ids[at], &record.value)?);
            }
        }
        Ok(out)
    }

    /// Opens the value of a record and caches the result. An empty value means that the subject was forgotten.
    fn cache_key(&self, subject: [u8; SUBJECT], value: &[u8]) -> Result<Option<SubjectKey>> {
        let key = if value.is_empty() { None } else { Some(self.open(subject, value)?) };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD {
            held.clear();
        }
        held.insert(subject, (key.clone(), self.clock.now()));
        Ok(key)
    }

    /// Returns the id of a subject: the first 16 bytes of HMAC-SHA-256 with a derived key.
    fn subject_id(&self, version: u16, subject: &str) -> Result<[u8; SUBJECT]> {
        let key = self.roots.derive_key(version, b"", &["biscuit subject id"], 32)?;
        let mac = compute_mac(&mac_key(key.expose()), &[subject.as_bytes()]);
        let mut id = [0; SUBJECT];
        id.copy_from_slice(&mac[..SUBJECT]);
        Ok(id)
    }

    /// Creates a record with a new random key. Its value is `made | version of the root key | nonce | sealed key |
    /// tag`. The id is authenticated, so that the record of one subject cannot be used for another.
    fn new_record(&self, id: &[u8; SUBJECT]) -> Result<TokenRecord> {
        let (secret, version) = (KeyBytes::random()?, self.roots.current());
        let mut value = vec![0; MADE];
        fill_random(&mut value)?;
        value.extend(version.to_be_bytes());
        let nonce = random_nonce()?;
        value.extend(nonce);
        let aad = [id, &value[..]].concat();
        let key = value_cipher(&self.roots.derive_key(version, id, &["biscuit subject key"], 32)?)?;
        seal(&key, nonce, &aad, secret.expose(), &mut value)?;
        Ok(TokenRecord { key: key_of(id), value, alias: None })
    }

    fn open(&self, subject: [u8; SUBJECT], value: &[u8]) -> Result<SubjectKey> {
        const HEAD: usize = MADE + 2 + NONCE;
        let invalid = || {
            Error::new(
                codes::INVALID_RECORD,
                "the store has a key of a subject that is damaged, or sealed by other root keys",
            )
        };
        if value.len() != HEAD + 32 + TAG {
            return Err(invalid());
        }
        let (head, sealed) = value.split_at(HEAD);
        let version = u16::from_be_bytes([head[MADE], head[MADE + 1]]);
        let key = value_cipher(&self.roots.derive_key(version, &subject, &["biscuit subject key"], 32)?)?;
        let nonce = head[MADE + 2..].try_into().map_err(|_| invalid())?;
        let opened = unseal(&key, nonce, &[&subject, head].concat(), sealed).ok_or_else(invalid)?;
        let cipher = Arc::new(value_cipher(&KeyBytes::from(opened))?);
        let mut made = [0; MADE];
        made.copy_from_slice(&head[..MADE]);
        Ok(SubjectKey { subject, made, cipher })
    }
}

fn key_of(id: &[u8; SUBJECT]) -> String {
    format!("subject:{}", encode_hex(id))
}
