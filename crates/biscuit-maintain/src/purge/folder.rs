//! The purge of a folder: its options, its plans, and how a plan is carried out.

use std::time::Duration;

use biscuit_core::Result;
use biscuit_journal::{Journal, TableStorage};
use biscuit_purge::AllowedDeletes;
use biscuit_rewrite::RunMode;

use crate::place::DeletePlace;
use crate::purge::by_age::{self, AgeLimit};
use crate::purge::event::PurgeEvent;
use crate::purge::orphans::{self, OrphanLimit};
use crate::purge::planned::{PlannedPurge, PurgeOutcome};
use crate::purge::target::TargetFolder;
use crate::purge::{retained, stored};

/// A purge of one folder. The `plan_…` methods change no object except a marker for the probe; plans of orphans and of
/// retained files also finish an unfinished version of the table, unless they are dry runs.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::{Journal, JournalOptions, TableStorage};
/// use biscuit_maintain::{AgeLimit, DeletePlace, FolderPurge};
/// use biscuit_purge::{AllowedDeletes, AnyStore};
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let storage = TableStorage::durable(Arc::new(InMemory::new()));
/// let table = Journal::new(storage.clone(), Path::from("data/lake/orders"), JournalOptions::default());
/// let observed = table.observe().await?;
/// let mut commit = table.begin_commit(&observed);
/// commit.stage("", "parquet", "rows".into()).await?;
/// commit.commit().await?;
/// storage.store.put(&Path::from("data/lake/tmp/part-0"), "x".into()).await?;
/// # std::thread::sleep(std::time::Duration::from_millis(5));
///
/// // The folder contains a table, which is refused unless it is allowed.
/// let place = DeletePlace::new(Arc::new(AnyStore::new(storage.store.clone())), "memory://shop/", "data/lake");
/// let (purge, limit) = (FolderPurge::new(place, storage), AgeLimit::before("2999-01-01".parse()?));
/// assert_eq!(purge.plan_by_age(&limit).await.unwrap_err().code(), "OverlapsTable");
///
/// // The files of the table are kept in any case.
/// let mut allow = AllowedDeletes::default();
/// allow.overlap = true;
/// let planned = purge.allowing(allow).plan_by_age(&limit).await?;
/// assert_eq!((planned.totals().objects, planned.totals().kept["live"]), (1, 1));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct FolderPurge {
    folder: TargetFolder,
}

impl FolderPurge {
    /// Creates a purge. `storage` is the store of the place, through which the journals of tables are read.
    pub fn new(place: DeletePlace, storage: TableStorage) -> Self {
        Self { folder: TargetFolder::new(place, storage) }
    }

    /// Sets the journal of the table whose folder is purged, such as one with another state root or with an
    /// interrupt. Default: the journal that the pointer of the folder names.
    pub fn with_journal(mut self, journal: Journal) -> Self {
        self.folder.journal = Some(journal);
        self
    }

    /// Sets the guards that are switched off. Default: none.
    pub fn allowing(mut self, allow: AllowedDeletes) -> Self {
        self.folder.allow = allow;
        self
    }

    /// Place of the purge.
    pub fn place(&self) -> &DeletePlace {
        &self.folder.place
    }

    /// Plans to delete the objects of the folder that are older than the limit and are not part of a table.
    ///
    /// # Errors
    /// `NothingThere` and `EmptyPrefix` of [`DeletePlace::check_allowed`]; `OtherTableFormat`;
    /// `RawLayer` for a table that is declared raw; `Unfinished` if the newest version of a table is not finished; the
    /// guards of [`PurgeRules::plan`](biscuit_purge::PurgeRules::plan); the errors of the store.
    pub async fn plan_by_age(&self, limit: &AgeLimit) -> Result<PlannedPurge> {
        by_age::plan_by_age(&self.folder, limit).await
    }

    /// Plans to delete leftovers. The journal decides about leftovers of Biscuit; name and age decide about leftovers
    /// of other programs. Unless it is a dry run, an unfinished version of the table is finished first.
    ///
    /// # Errors
    /// Those of [`plan_by_age`](Self::plan_by_age) except the guards of rules; `Unfinished` in a dry run;
    /// `EmptyPrefix` for a whole store.
    pub async fn plan_orphans(&self, limit: &OrphanLimit, mode: RunMode) -> Result<PlannedPurge> {
        orphans::plan_orphans(&self.folder, limit, mode).await
    }

    /// Plans to delete retained files whose retention ended at least `grace` ago, by the clock of the store. Unless it
    /// is a dry run, an unfinished version of the table is finished first.
    ///
    /// # Errors
    /// `NothingThere`, `EmptyPrefix`; `NoJournal` for a folder that is not a table; `Unfinished` in a dry run; the
    /// errors of [`Journal::retained_files`](biscuit_journal::Journal::retained_files) and of the store.
    pub async fn plan_retained(&self, grace: Duration, mode: RunMode) -> Result<PlannedPurge> {
        retained::plan_retained(&self.folder, grace, mode).await
    }

    /// Reads a plan from JSON lines ([`PurgePlan::json_lines`](biscuit_purge::PurgePlan::json_lines)) and compares it
    /// with the tables as they are now. The stored plan decides which objects are deleted: objects that aged since then
    /// are not added. `name` is the name of the plan in messages.
    ///
    /// # Errors
    /// `UnreadablePlan`; `OutsidePrefix` for an object that is not in the folder; `LiveFiles` if an object of the plan
    /// has become part of a table, or belongs to a state root; those of [`plan_by_age`](Self::plan_by_age) except the
    /// guards of rules.
    pub async fn plan_stored(&self, name: &str, content: &[u8]) -> Result<PlannedPurge> {
        stored::plan_stored(&self.folder, name, content).await
    }

    /// Carries the plans out, and passes each outcome to `each`. One failure does not stop the other deletes.
    ///
    /// After a purge of orphans the journal deletes empty folders and partial files of dead runs on a local disk,
    /// which listings do not show.
    ///
    /// # Errors
    /// Errors of the release of retained files, which is one commit: `Conflict` if another run has committed since the
    /// plan. Failures of other deletes are outcomes.
    pub async fn carry_out(
        &self,
        planned: &PlannedPurge,
        each: &mut (dyn FnMut(PurgeEvent<'_>) + Send),
    ) -> Result<PurgeOutcome> {
        planned.carry_out(&self.folder, each).await
    }
}
