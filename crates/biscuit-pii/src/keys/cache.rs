use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use biscuit_core::{Clock, Instant, Result, SystemClock};

use crate::keys::provider::{DataKey, KeyContext, KeyProvider, SealedKey};
use crate::keys::secret::KeyBytes;

/// How long and for how much one data key is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyLimits {
    /// How long since it was made.
    pub age: Duration,
    /// How many bytes it encrypts.
    pub bytes: u64,
    /// How many messages or cells it encrypts; what is above 2^32 means 2^32, the most that AES-GCM has nonces for here.
    pub messages: u64,
}

impl Default for KeyLimits {
    /// An hour, 64 GiB, 2^32 messages.
    fn default() -> Self {
        Self { age: Duration::from_secs(3600), bytes: 1 << 36, messages: 1 << 32 }
    }
}

impl KeyLimits {
    /// The same with another age.
    pub fn with_age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// The same with another number of bytes.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// The same with another number of messages.
    pub fn with_messages(mut self, messages: u64) -> Self {
        self.messages = messages.clamp(1, 1 << 32);
        self
    }
}

/// What was used of a key.
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

    /// How many messages there were, if so much more is within the limits; a first use always is.
    pub(crate) fn take(&mut self, limits: &KeyLimits, now: Instant, messages: u64, bytes: u64) -> Option<u64> {
        let before = self.messages;
        let (messages, bytes) = (before.saturating_add(messages), self.bytes.saturating_add(bytes));
        let within = messages <= limits.messages.min(1 << 32)
            && bytes <= limits.bytes
            && now >= self.since
            && now < self.since.saturating_add(limits.age);
        if !within && before > 0 {
            return None;
        }
        (self.messages, self.bytes) = (messages, bytes);
        Some(before)
    }
}

/// Data keys of a provider that are used several times: the caching materials manager of the AWS Encryption SDK's specification. Keys of different
/// contexts are different.
#[derive(Debug)]
pub struct KeyCache {
    provider: Arc<dyn KeyProvider>,
    limits: KeyLimits,
    clock: Arc<dyn Clock>,
    made: Mutex<HashMap<KeyContext, (DataKey, KeyCounters)>>,
    unsealed: Mutex<HashMap<(SealedKey, KeyContext), (KeyBytes, Instant)>>,
}

/// Unsealed keys that are held at once.
const HELD: usize = 4096;

impl KeyCache {
    /// Keys of this provider, within these limits.
    pub fn new(provider: Arc<dyn KeyProvider>, limits: KeyLimits) -> Self {
        let (clock, made, unsealed) = (Arc::new(SystemClock), Mutex::default(), Mutex::default());
        Self { provider, limits, clock, made, unsealed }
    }

    /// The same with another clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// A data key for one more message of so many bytes.
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn data_key(&self, context: &KeyContext, bytes: u64) -> Result<DataKey> {
        let now = self.clock.now();
        if let Some((key, used)) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get_mut(context)
            && used.take(&self.limits, now, 1, bytes).is_some()
        {
            return Ok(key.clone());
        }
        let (key, mut used) = (self.provider.generate(context).await?, KeyCounters::new(now));
        used.take(&self.limits, now, 1, bytes);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(context.clone(), (key.clone(), used));
        Ok(key)
    }

    /// A data key that was sealed, or none if the provider has not sealed it.
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
