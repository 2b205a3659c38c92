use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use biscuit_core::{Error, Instant, Result};
use biscuit_purge::{KeepReason, ListedObject, PurgePlan};
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::commit::publish::OrphanedState;
use crate::commit::table_commit::CommitSummary;
use crate::journal::Journal;
use crate::log::head::TableHead;
use crate::log::layout::{JournalObjectKind, below, journal_folder};
use crate::log::record::FileRef;
use crate::observe::observed::ObservedTable;
use crate::store_error;

/// What is provably dead: no run that is alive or yet to come has a use for it.
#[derive(Debug, Clone)]
pub struct OrphanedObjects {
    /// The version that shows it.
    pub version: u64,
    /// Objects of the state root that dead runs left: staged files, and state files that are not in force.
    pub dead: Vec<ObjectMeta>,
    /// Biscuit files in the table's folder that are not part of it.
    pub orphan_files: Vec<FileRef>,
}

/// Files that were replaced and stayed for those that still read them.
#[derive(Debug, Clone)]
pub struct RetainedFiles {
    /// What they were found in.
    pub observed: ObservedTable,
    /// The files, when they were replaced, on the store's clock and at the latest, and how long they are to stay from then on.
    pub files: Vec<(FileRef, Instant, Duration)>,
}

impl RetainedFiles {
    /// A plan for those files whose time is over by now and `grace`, on the store's clock, and these files, as
    /// [`Journal::release`] takes them; the others stay, as held.
    ///
    /// # Errors
    /// Those of a [`PurgePlan`].
    pub fn due(&self, table: &Path, now: Instant, grace: Duration) -> Result<(PurgePlan, Vec<FileRef>)> {
        // Stores cut times to whole seconds.
        let over =
            |since: Instant, stays: Duration| since.saturating_add(stays + grace + Duration::from_secs(1)) <= now;
        let key = |file: &FileRef| below(table, &file.path).to_string();
        let (due, young): (Vec<_>, Vec<_>) = self.files.iter().partition(|(_, since, stays)| over(*since, *stays));
        let young: BTreeSet<String> = young.iter().map(|(file, ..)| key(file)).collect();
        let listing = self.files.iter().map(|(file, since, _)| {
            let mut object = ListedObject::new(key(file), file.size, file.etag.clone());
            object.modified = Some(*since);
            object
        });
        let plan =
            PurgePlan::keeping(table, listing.collect(), |o| young.contains(&o.key).then_some(KeepReason::Held))?;
        Ok((plan, due.into_iter().map(|(file, ..)| file.clone()).collect()))
    }
}

impl Journal {
    /// What dead runs have left. Changes nothing.
    ///
    /// # Errors
    /// `Unfinished` where a version is committed and not finished, whose staging is alive; as [`view`](Self::view).
    pub async fn orphaned_objects(&self) -> Result<OrphanedObjects> {
        for _ in 0..8 {
            let head = self.quiet_head().await?;
            let observed = self.classify(&head, self.list_folder().await?.files);
            let (mut objects, dead) = (Vec::new(), OrphanedState::new(self, &head));
            for root in &dead.roots {
                let listed = self.storage.store.list(Some(root)).try_collect::<Vec<ObjectMeta>>().await;
                let listed = listed.map_err(|e| store_error("list", root, e))?;
                objects.extend(listed.into_iter().filter(|object| dead.has(root, &object.location)));
            }
            // A file that is not live in this version may be so in the next one, which publishes only behind its record.
            if self.head().await? == head {
                return Ok(OrphanedObjects {
                    version: head.version,
                    dead: objects,
                    orphan_files: observed?.orphan_files,
                });
            }
        }
        Err(self.busy())
    }

    /// The files that were replaced and stayed, of which some may go. Changes nothing.
    ///
    /// # Errors
    /// As [`orphaned_objects`](Self::leftovers).
    pub async fn retained_files(&self) -> Result<RetainedFiles> {
        for _ in 0..8 {
            let head = self.quiet_head().await?;
            let observed = self.classify(&head, self.list_folder().await?.files);
            let committed = self.commit_times().await?;
            if self.head().await? != head {
                continue;
            }
            let observed = observed?;
            let mut files = Vec::new();
            for (path, retained) in &head.retained {
                // A record that was dropped is older than the ones behind it.
                let (_, at) = committed.range(retained.since..).next().ok_or_else(|| {
                    Error::data("Diverged", format!("the journal says nothing from version {} on", retained.since))
                })?;
                // As it is now, if it is there.
                let file = observed.retained.iter().find(|f| f.path == *path).cloned();
                let file =
                    file.unwrap_or(FileRef { path: path.clone(), size: retained.size, etag: retained.etag.clone() });
                files.push((file, *at, Duration::from_secs(retained.seconds)));
            }
            return Ok(RetainedFiles { observed, files });
        }
        Err(self.busy())
    }

    /// Deletes these files, which were held, in a version of its own, which does nothing else.
    ///
    /// # Errors
    /// Those of a commit: `Conflict` if another run was first.
    pub async fn release(&self, observed: &ObservedTable, files: &[FileRef]) -> Result<CommitSummary> {
        let mut replace = self.replace(observed);
        files.iter().for_each(|file| replace.release(file));
        replace.commit_alone().await
    }

    async fn quiet_head(&self) -> Result<TableHead> {
        crate::log::pointer::check(self).await?;
        let head = self.head().await?;
        self.check_finished(&head)?;
        Ok(head)
    }

    /// When the records and checkpoints that are there were written, on the store's clock.
    async fn commit_times(&self) -> Result<BTreeMap<u64, Instant>> {
        let folder = journal_folder(&self.state);
        let mut objects = self.storage.store.list(Some(&folder));
        let mut times = BTreeMap::new();
        while let Some(properties) = objects.try_next().await.map_err(|e| store_error("list", &folder, e))? {
            let at = Instant::from_micros(properties.last_modified.timestamp_micros());
            match JournalObjectKind::parse(&properties.location) {
                Some(JournalObjectKind::Record(v)) => drop(times.insert(v, at)),
                Some(JournalObjectKind::Checkpoint(v)) => drop(times.entry(v).or_insert(at)),
                _ => {}
            }
        }
        Ok(times)
    }

    fn busy(&self) -> Error {
        Error::conflict("Conflict", format!("other runs keep changing `{}`; run again", self.table))
    }
}
