use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::bookmark::Identity;
use crate::object::Print;

/// Which version of each object was read last, and by which run.
#[derive(Debug, Default)]
pub(crate) struct Known {
    by_url: HashMap<u64, Seen, BuildHasherDefault<AsItIs>>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    content: u64,
    modified: i64,
    pub(crate) run: u64,
}

impl Seen {
    pub(crate) fn is(&self, print: &Print, identity: Identity) -> bool {
        match identity {
            Identity::Content => self.content == print.content,
            Identity::Modified => self.modified == print.modified,
        }
    }
}

impl Known {
    pub(crate) fn with_capacity(objects: usize) -> Self {
        Self { by_url: HashMap::with_capacity_and_hasher(objects, BuildHasherDefault::default()) }
    }

    /// An object that a run read; of several runs the latest counts.
    pub(crate) fn add(&mut self, print: Print, run: u64) {
        let seen = Seen { content: print.content, modified: print.modified, run };
        self.by_url.entry(print.url).and_modify(|s| *s = if run >= s.run { seen } else { *s }).or_insert(seen);
    }

    pub(crate) fn get(&self, print: &Print) -> Option<Seen> {
        self.by_url.get(&print.url).copied()
    }
}

/// The keys are hashes already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
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
