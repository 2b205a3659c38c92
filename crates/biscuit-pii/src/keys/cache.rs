//! Limits for the use of one key, and a cache of data keys that respects them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use biscuit_core::{Clock, Instant, Result, SystemClock};

use crate::keys::provider::{DataKey, KeyContext, KeyProvider, SealedKey};
use crate::keys::secret::KeyBytes;

/// Limits for the use of one data key. A new key is made when a further use would exceed one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct KeyLimits {
    /// Maximum age of a key.
    pub age: Duration,
    /// Maximum number of bytes that a key encrypts.
    pub bytes: u64,
    /// Maximum number of messages or values that a key encrypts. Numbers above 2^32 count as 2^32, since nonces have
    /// a counter of 32 bits.
    pub messages: u64,
}

impl Default for KeyLimits {
    /// One hour, 64 GiB and 2^32 messages.
    fn default() -> Self {
        Self { age: Duration::from_secs(3600), bytes: 1 << 36, messages: 1 << 32 }
    }
}

impl KeyLimits {
    /// Sets the maximum age of a key. The default is one hour.
    pub fn with_age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Sets the maximum number of bytes that a key encrypts. The default is 64 GiB. One larger message is allowed,
    /// with a key of its own.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the maximum number of messages or values that a key encrypts. The default and maximum are 2^32, the
    /// minimum is 1.
    pub fn with_messages(mut self, messages: u64) -> Self {
        self.messages = messages.clamp(1, 1 << 32);
        self
    }
}

/// Use of a key so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyCounters {
    since: Instant,
    bytes: u64,
    messages: u64,
}

impl KeyCounters {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, messages: 0 }
    }

    /// Counts a use of `messages` and `bytes` if it is within the limits, and returns the number of messages before
    /// it. The first use is always allowed. The number returned is the first free counter of a nonce.
    pub(crate) fn count_use(&mut self, limits: &KeyLimits, now: Instant, messages: u64, bytes: u64) -> Option<u64> {
        let before = self.messages;
        let (messages, bytes) = (before.saturating_add(messages), self.bytes.saturating_add(bytes));
        let within = messages <= limits.messages.min(1 << 32)
            && bytes <= limits.bytes
            // A clock that was set back also ends the use of a key.
            && now >= self.since
            && now < self.since.saturating_add(limits.age);
        if !within && before > 0 {
            return None;
        }
        (self.messages, self.bytes) = (messages, bytes);
        Some(before)
    }
}

/// Cache of the data keys of a provider, like the caching materials manager of the AWS Encryption SDK. Keys of
/// different contexts are different.
#[derive(Debug)]
pub struct KeyCache {
    provider: Arc<dyn KeyProvider>,
    limits: KeyLimits,
    clock: Arc<dyn Clock>,
    made: Mutex<HashMap<KeyContext, (DataKey, KeyCounters)>>,
    unsealed: Mutex<HashMap<(SealedKey, KeyContext), (KeyBytes, Instant)>>,
}

/// Maximum number of unsealed keys in the cache. The cache is emptied when it is full.
const HELD: usize = 4096;

impl KeyCache {
    /// Creates a cache of the data keys of a provider.
    pub fn new(provider: Arc<dyn KeyProvider>, limits: KeyLimits) -> Self {
        let (clock, made, unsealed) = (Arc::new(SystemClock), Mutex::default(), Mutex::default());
        Self { provider, limits, clock, made, unsealed }
    }

    /// Sets the clock that measures the age of keys, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Returns a data key for one more message of `bytes` bytes.
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn data_key(&self, context: &KeyContext, bytes: u64) -> Result<DataKey> {
        let now = self.clock.now();
        if let Some((key, used)) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get_mut(context)
            && used.count_use(&self.limits, now, 1, bytes).is_some()
        {
            return Ok(key.clone());
        }
        // The lock is not held during the request. Tasks that miss at the same time each get a key of their own, and
        // the last one is cached: correct, since each of the keys was counted for its own message.
        let (key, mut used) = (self.provider.generate(context).await?, KeyCounters::new(now));
        used.count_use(&self.limits, now, 1, bytes);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(context.clone(), (key.clone(), used));
        Ok(key)
    }

    /// Returns an unsealed data key, or `None` if another provider sealed it.
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn unseal(&self, sealed: &SealedKey, context: &KeyContext) -> Result<Option<KeyBytes>> {
        let (now, at) = (self.clock.now(), (sealed.clone(), context.clone()));
        if let Some((key, since)) = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner).get(&at)
            && now < since.saturating_add(self.limits.age)
        {
            return Ok(Some(key.clone()));
        }
        let Some(key) = self.provider.unseal(sealed, context).await? else { return Ok(None) };
        let mut held = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD {
            held.clear();
        }
        held.insert(at, (key.clone(), now));
        Ok(Some(key))
    }
}
