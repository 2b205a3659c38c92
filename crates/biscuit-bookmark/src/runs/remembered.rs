//! The runs that a bookmark remembers, in one version of its output: their manifests, and a property with the rewound
//! runs.

use std::collections::BTreeSet;

use biscuit_core::{Error, Instant, Result};
use biscuit_journal::{Journal, TableHead};
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::object::SourceObject;
use crate::runs::manifest::{ManifestEntry, RunManifest, RunRecord};
use crate::selection::known::ReadVersions;
use crate::selection::mode::RunRef;

/// Folder of the state files of bookmarks, among the state files of the table.
const FOLDER: &str = "bookmarks";

/// Property of the table that belongs to a bookmark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BookmarkProperty {
    /// Number of the last run.
    pub(crate) runs: u64,
    /// Rewound runs, whose objects no longer count as read: first and last run of each span, ascending.
    #[serde(default)]
    pub(crate) rewound: Vec<(u64, u64)>,
    /// The newest run whose entries were compacted to fingerprints; 0 if there is none.
    #[serde(default)]
    pub(crate) compacted: u64,
    /// Newest time of modification among the objects of compacted runs that were not rewound.
    #[serde(default)]
    pub(crate) newest_compacted: Option<i64>,
}

/// Runs that a bookmark remembers, and the objects that they read.
#[derive(Debug, Clone)]
pub(crate) struct RememberedRuns {
    /// Name of the bookmark, for messages.
    bookmark: String,
    pub(crate) property: BookmarkProperty,
    /// Manifests with the first and the last run of each, oldest first. Together they cover all runs without gaps.
    pub(crate) manifests: Vec<(u64, u64, RunManifest)>,
}

impl RememberedRuns {
    /// Reads what the journal stores of a bookmark.
    pub(crate) async fn load(bookmark: &str, journal: &Journal, head: &TableHead) -> Result<Self> {
        let property = match head.properties.get(&property_name(bookmark)) {
            Some(value) => {
                serde_json::from_value(value.clone()).map_err(|e| unreadable_state(bookmark).with_source(e))?
            }
            None => BookmarkProperty::default(),
        };
        let mut manifests = read(bookmark, journal, head, usize::MAX).await?;
        manifests.sort_by_key(|(first, ..)| *first);
        Ok(Self { bookmark: bookmark.to_owned(), property, manifests })
    }

    /// Number of the last run; 0 if there was none.
    pub(crate) fn last(&self) -> u64 {
        self.property.runs
    }

    /// Returns the runs that are remembered by name, oldest first. The second value tells whether the objects of the
    /// run count as read; it is false for a rewound run.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&RunRecord, bool)> {
        self.manifests.iter().flat_map(|(.., m)| &m.runs).map(|r| (r, !self.is_rewound(r.number)))
    }

    /// Size of the compressed parts of all state files, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.manifests.iter().map(|(.., m)| m.bytes()).sum()
    }

    /// Newest time of modification among the objects that count as read, on the clock of the store.
    pub(crate) fn watermark(&self) -> Option<Instant> {
        let counted = self.runs().filter(|(r, counts)| *counts && r.objects > 0).map(|(r, _)| r.newest);
        counted.chain(self.property.newest_compacted).max().map(Instant::from_micros)
    }

    /// Returns the number of a run.
    ///
    /// # Errors
    /// `UnknownRun`, `RunCompacted`.
    pub(crate) fn number(&self, run: &RunRef) -> Result<u64> {
        let last = self.property.runs;
        match run {
            RunRef::Number(0) => Ok(0),
            RunRef::Number(number) if *number > 0 && *number < self.property.compacted => {
                let compacted = self.property.compacted;
                let message = format!("the objects of runs up to {compacted} are no longer remembered by name");
                Err(Error::new(codes::RUN_COMPACTED, message))
            }
            RunRef::Number(number) if *number <= last => Ok(*number),
            RunRef::Number(number) => {
                let message = format!("the bookmark `{}` has no run {number}; its last one is {last}", self.bookmark);
                Err(Error::new(codes::UNKNOWN_RUN, message))
            }
            RunRef::Id(id) => {
                let found = self.runs().filter(|(r, _)| r.id == *id).last().map(|(r, _)| r.number);
                let message = || format!("the bookmark `{}` has no run with the id `{id}`", self.bookmark);
                found.ok_or_else(|| Error::new(codes::UNKNOWN_RUN, message()))
            }
        }
    }

    /// Newest run whose entries were compacted to fingerprints; 0 if there is none.
    pub(crate) fn compacted(&self) -> u64 {
        self.property.compacted
    }

    pub(crate) fn is_rewound(&self, run: u64) -> bool {
        self.property.rewound.iter().any(|(first, last)| (*first..=*last).contains(&run))
    }

    /// Returns all objects that count as read. Entries are read as fingerprints, without allocating their texts.
    pub(crate) fn known(&self) -> Result<ReadVersions> {
        let mut known = ReadVersions::with_capacity(self.manifests.iter().map(|(.., m)| m.len()).sum());
        for (.., manifest) in &self.manifests {
            let mut reader = manifest.reader()?;
            while let Some((fingerprint, run)) = reader.read_fingerprint()? {
                if !self.is_rewound(run) {
                    known.add_read(fingerprint, run);
                }
            }
            while let Some(compacted) = reader.read_compacted()? {
                if !self.is_rewound(compacted.run) {
                    known.add_read(compacted.fingerprint, compacted.run);
                }
            }
        }
        Ok(known)
    }

    /// Returns the runs that read the object with this URL, sorted by number, each with the object as it was then.
    pub(crate) fn readings(&self, url: &str) -> Result<Vec<(u64, SourceObject)>> {
        let mut found = Vec::new();
        self.each_entry(&mut |entry| {
            if entry.object.url() == url {
                found.push((entry.run, entry.object));
            }
        })?;
        found.sort_by_key(|(run, _)| *run);
        Ok(found)
    }

    /// Returns the URLs of the objects that the selected runs read.
    pub(crate) fn urls_of(&self, wants: &dyn Fn(u64) -> bool) -> Result<BTreeSet<String>> {
        let mut urls = BTreeSet::new();
        self.each_entry(&mut |entry| {
            if wants(entry.run) {
                urls.insert(entry.object.listed.path);
            }
        })?;
        Ok(urls)
    }

    /// Calls `f` with every object that is remembered by name.
    pub(crate) fn each_entry(&self, f: &mut dyn FnMut(ManifestEntry)) -> Result<()> {
        self.manifests.iter().try_for_each(|(.., manifest)| manifest.visit_entries(f, &mut |_| ()))
    }
}

pub(crate) fn property_name(bookmark: &str) -> String {
    format!("bookmark.{bookmark}")
}

pub(crate) fn state_name(bookmark: &str, first: u64, last: u64) -> String {
    format!("{FOLDER}/{bookmark}/{first:010}-{last:010}")
}

fn unreadable_state(bookmark: &str) -> Error {
    let message = format!("the state of the bookmark `{bookmark}` cannot be read");
    Error::new(codes::UNREADABLE_BOOKMARK, message)
}

/// Reads the newest `count` state files of a bookmark, oldest first.
pub(crate) async fn read(
    bookmark: &str,
    journal: &Journal,
    head: &TableHead,
    count: usize,
) -> Result<Vec<(u64, u64, RunManifest)>> {
    let prefix = format!("{FOLDER}/{bookmark}/");
    let mut named = Vec::new();
    for (name, file) in &head.state {
        let Some(span) = name.strip_prefix(&prefix) else { continue };
        let span = span.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (first, last): (u64, u64) = span.ok_or_else(|| unreadable_state(bookmark))?;
        named.push((first, last, name, file));
    }
    named.sort_by_key(|(first, ..)| *first);
    let mut manifests = Vec::new();
    for (first, last, name, file) in named.split_off(named.len().saturating_sub(count)) {
        let bytes = journal.read_state(head, file).await?;
        manifests.push((first, last, RunManifest::parse(&bytes, name)?));
    }
    Ok(manifests)
}
