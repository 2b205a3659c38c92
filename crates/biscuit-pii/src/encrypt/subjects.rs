use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::LessSafeKey;
use biscuit_core::{Clock, Error, Instant, Result, SystemClock};

use crate::encrypt::cell::{MADE, NONCE, SUBJECT, TAG, cipher, random_nonce, seal, unseal};
use crate::keys::roots::RootKeys;
use crate::keys::secret::{KeyBytes, random};
use crate::mac::{hex, mac, mac_key};
use crate::tokens::store::{TokenRecord, TokenStore};

/// A key for each subject, kept in a store: whoever deletes one makes all that was encrypted with it unreadable, in every file and old version.
///
/// The store knows subjects by a keyed hash and their keys sealed: it names nobody. A subject that was forgotten stays so: its values become null, also
/// when old input is read again, until [`SubjectKeys::readmit`].
#[derive(Debug)]
pub struct SubjectKeys {
    store: Arc<dyn TokenStore>,
    roots: RootKeys,
    clock: Arc<dyn Clock>,
    /// How long a key is used without asking the store whether it is still there.
    age: Duration,
    held: Mutex<HashMap<[u8; SUBJECT], CachedKey>>,
}

/// A key, or none for a subject that was forgotten, and when the store was asked.
type CachedKey = (Option<SubjectKey>, Instant);

/// The key of a subject.
#[derive(Debug, Clone)]
pub(crate) struct SubjectKey {
    pub(crate) subject: [u8; SUBJECT],
    pub(crate) made: [u8; MADE],
    pub(crate) cipher: Arc<LessSafeKey>,
}

/// Keys that are held at once.
const HELD: usize = 100_000;

impl SubjectKeys {
    /// Keys in this store. A key is held for five minutes: so long after a subject was forgotten, a process that runs may still read it.
    pub fn new(store: Arc<dyn TokenStore>, roots: RootKeys) -> Self {
        let (clock, age, held) = (Arc::new(SystemClock), Duration::from_secs(300), Mutex::default());
        Self { store, roots, clock, age, held }
    }

    /// The same, holding keys for so long.
    pub fn with_age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// The same with another clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Deletes the key of a subject. It may be unknown: then it is forgotten before it comes.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget(&self, subject: &str) -> Result<()> {
        // Another process may still make new subjects with an older root key.
        for version in self.roots.versions() {
            let id = self.id(version, subject)?;
            self.store.replace(TokenRecord { key: key_of(&id), value: vec![], alias: None }).await?;
            self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
        Ok(())
    }

    /// Whether the subject was forgotten.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn is_forgotten(&self, subject: &str) -> Result<bool> {
        let ids = self.roots.versions().map(|version| self.id(version, subject)).collect::<Result<Vec<_>>>()?;
        let keys: Vec<String> = ids.iter().map(key_of).collect();
        Ok(self.store.get(&keys).await?.into_iter().flatten().any(|record| record.value.is_empty()))
    }

    /// Gives a subject that was forgotten a new key. What it was before stays unreadable.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn readmit(&self, subject: &str) -> Result<()> {
        for version in self.roots.versions() {
            let id = self.id(version, subject)?;
            let there = self.store.get(&[key_of(&id)]).await?;
            if there.into_iter().flatten().any(|record| record.value.is_empty()) {
                self.store.replace(self.new_record(&id)?).await?;
                self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
        }
        Ok(())
    }

    /// The key of each subject, made where there is none; none for those that were forgotten.
    pub(crate) async fn keys(&self, subjects: &[&str]) -> Result<Vec<Option<SubjectKey>>> {
        let mut out: Vec<Option<Option<SubjectKey>>> = vec![None; subjects.len()];
        for version in self.roots.versions() {
            let open: Vec<usize> = (0..out.len()).filter(|at| out[*at].is_none()).collect();
            let ids = open.iter().map(|at| self.id(version, subjects[*at])).collect::<Result<Vec<_>>>()?;
            for (at, found) in open.into_iter().zip(self.fetch(&ids).await?) {
                out[at] = found;
            }
        }
        let open: Vec<usize> = (0..out.len()).filter(|at| out[*at].is_none()).collect();
        let ids = open.iter().map(|at| self.id(self.roots.current(), subjects[*at])).collect::<Result<Vec<_>>>()?;
        let records = ids.iter().map(|id| self.new_record(id)).collect::<Result<Vec<_>>>()?;
        for ((at, id), winner) in open.into_iter().zip(ids).zip(self.store.insert(records).await?) {
            out[at] = Some(self.hold(id, &winner.value)?);
        }
        Ok(out.into_iter().map(Option::flatten).collect())
    }

    /// Of each id: nothing if it is unknown, and a key or none if it was forgotten.
    pub(crate) async fn fetch(&self, ids: &[[u8; SUBJECT]]) -> Result<Vec<Option<Option<SubjectKey>>>> {
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
                out[at] = Some(self.hold(ids[at], &record.value)?);
            }
        }
        Ok(out)
    }

    fn hold(&self, subject: [u8; SUBJECT], value: &[u8]) -> Result<Option<SubjectKey>> {
        let key = if value.is_empty() { None } else { Some(self.open(subject, value)?) };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD {
            held.clear();
        }
        held.insert(subject, (key.clone(), self.clock.now()));
        Ok(key)
    }

    /// A keyed hash of the subject: 16 bytes of HMAC-SHA-256.
    fn id(&self, version: u16, subject: &str) -> Result<[u8; SUBJECT]> {
        let key = self.roots.derive(version, b"", &["biscuit subject id"], 32)?;
        let mac = mac(&mac_key(key.expose()), &[subject.as_bytes()]);
        let mut id = [0; SUBJECT];
        id.copy_from_slice(&mac[..SUBJECT]);
        Ok(id)
    }

    /// `made | version of the root key | nonce | sealed key | tag`.
    fn new_record(&self, id: &[u8; SUBJECT]) -> Result<TokenRecord> {
        let (secret, version) = (KeyBytes::random()?, self.roots.current());
        let mut value = vec![0; MADE];
        random(&mut value)?;
        value.extend(version.to_be_bytes());
        let nonce = random_nonce()?;
        value.extend(nonce);
        let aad = [id, &value[..]].concat();
        let key = cipher(&self.roots.derive(version, id, &["biscuit subject key"], 32)?)?;
        seal(&key, nonce, &aad, secret.expose(), &mut value)?;
        Ok(TokenRecord { key: key_of(id), value, alias: None })
    }

    fn open(&self, subject: [u8; SUBJECT], value: &[u8]) -> Result<SubjectKey> {
        const HEAD: usize = MADE + 2 + NONCE;
        let invalid =
            || Error::data("InvalidRecord", "the store holds a subject's key that is damaged, or of other root keys");
        if value.len() != HEAD + 32 + TAG {
            return Err(invalid());
        }
        let (head, sealed) = value.split_at(HEAD);
        let version = u16::from_be_bytes([head[MADE], head[MADE + 1]]);
        let key = cipher(&self.roots.derive(version, &subject, &["biscuit subject key"], 32)?)?;
        let nonce = head[MADE + 2..].try_into().map_err(|_| invalid())?;
        let opened = unseal(&key, nonce, &[&subject, head].concat(), sealed).ok_or_else(invalid)?;
        let cipher = Arc::new(cipher(&KeyBytes::from(opened))?);
        let mut made = [0; MADE];
        made.copy_from_slice(&head[..MADE]);
        Ok(SubjectKey { subject, made, cipher })
    }
}

fn key_of(id: &[u8; SUBJECT]) -> String {
    format!("subject:{}", hex(id))
}
