//! The objects that count as read, by the hash of their URL.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::object::ObjectFingerprint;
use crate::options::ObjectIdentity;

/// Last version of each object that counts as read, and the run that read it; by the hash of the URL.
#[derive(Debug, Default)]
pub(crate) struct ReadVersions {
    by_url: HashMap<u64, SeenObject, BuildHasherDefault<IdentityHasher>>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SeenObject {
    content: u64,
    modified: i64,
    pub(crate) run: u64,
}

impl SeenObject {
    /// Whether the object of this fingerprint is the one that was read.
    pub(crate) fn matches(&self, fingerprint: &ObjectFingerprint, identity: ObjectIdentity) -> bool {
        match identity {
            ObjectIdentity::Content => self.content == fingerprint.content,
            ObjectIdentity::Modified => self.modified == fingerprint.modified,
        }
    }
}

impl ReadVersions {
    pub(crate) fn with_capacity(objects: usize) -> Self {
        Self { by_url: HashMap::with_capacity_and_hasher(objects, BuildHasherDefault::default()) }
    }

    /// Adds an object that a run read. Of several runs the latest counts, in whatever order they are added.
    pub(crate) fn add_read(&mut self, fingerprint: ObjectFingerprint, run: u64) {
        let seen = SeenObject { content: fingerprint.content, modified: fingerprint.modified, run };
        self.by_url.entry(fingerprint.url).and_modify(|s| *s = if run >= s.run { seen } else { *s }).or_insert(seen);
    }

    pub(crate) fn get(&self, fingerprint: &ObjectFingerprint) -> Option<SeenObject> {
        self.by_url.get(&fingerprint.url).copied()
    }
}

/// Hasher that returns its key: the keys are hashes already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
