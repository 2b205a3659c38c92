//! The folder of a purge with its tables: which table it is, which tables are around and within it, and what stops a
//! purge.

use biscuit_core::{Error, Result};
use biscuit_dataset::internal::refuse_raw;
use biscuit_journal::internal::table_format_around;
use biscuit_journal::{Journal, JournalOptions, OtherTableFormats, TableStorage, tables_around, tables_within};
use biscuit_purge::internal::refuse_other_formats;
use biscuit_purge::{AllowedDeletes, ObjectListing, ProtectedTable};
use object_store::path::Path as StorePath;

use crate::place::DeletePlace;

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
/// let mut commit = table.replace(&observed);
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
    pub(crate) place: DeletePlace,
    pub(crate) storage: TableStorage,
    journal: Option<Journal>,
    pub(crate) allow: AllowedDeletes,
}

impl FolderPurge {
    /// Creates a purge. `storage` is the store of the place, through which the journals of tables are read.
    pub fn new(place: DeletePlace, storage: TableStorage) -> Self {
        Self { place, storage, journal: None, allow: AllowedDeletes::default() }
    }

    /// Sets the journal of the table whose folder is purged, such as one with another state root or with an
    /// interrupt. Default: the journal that the pointer of the folder names.
    pub fn with_journal(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Sets the guards that are switched off. Default: none.
    pub fn allowing(mut self, allow: AllowedDeletes) -> Self {
        self.allow = allow;
        self
    }

    /// Place of the purge.
    pub fn place(&self) -> &DeletePlace {
        &self.place
    }

    /// Returns the journal of the table, if the folder is one.
    pub(crate) async fn own_table(&self) -> Result<Option<Journal>> {
        let prefix = self.place.prefix();
        if prefix.is_empty() {
            return Ok(None);
        }
        let journal = match &self.journal {
            Some(journal) => journal.clone(),
            None => {
                let path = StorePath::parse(prefix).map_err(|e| {
                    let message = format!("`{}` is not a valid path of this store", self.place.name());
                    Error::new(biscuit_core::codes::INVALID_PATH, message).with_plain_source(e)
                })?;
                let formats = match self.allow.other_formats {
                    true => OtherTableFormats::Allow,
                    false => OtherTableFormats::Refuse,
                };
                let options = JournalOptions::default().with_other_formats(formats);
                Journal::new(self.storage.clone(), path, options).follow_pointer().await?
            }
        };
        Ok((journal.head().await?.version > 0).then_some(journal))
    }

    /// Returns the folder for the temporary objects of the probe.
    ///
    /// It is in the state root of the table. On a local disk without a table it is the parent folder, so that no new
    /// folder remains.
    pub(crate) fn scratch(&self, own: Option<&Journal>) -> String {
        let prefix = self.place.prefix();
        match (own, prefix.rsplit_once('/'), self.place.bucket()) {
            (Some(own), ..) => format!("{}/probe", own.state_root()),
            (None, Some((parent, name)), Some(_)) => format!("{parent}/.biscuit/{name}/probe"),
            (None, None, Some(_)) => format!(".biscuit/{prefix}/probe"),
            (None, Some((parent, _)), None) => parent.to_owned(),
            (None, None, None) => String::new(),
        }
    }

    /// Returns the tables around the folder and within the listings. It has to be called after listing.
    ///
    /// # Errors
    /// `OtherTableFormat`, unless that is allowed.
    pub(crate) async fn tables(
        &self,
        own: Option<&Journal>,
        listings: &[&ObjectListing],
    ) -> Result<Vec<ProtectedTable>> {
        let (storage, prefix) = (&self.storage, self.place.prefix());
        if !self.allow.other_formats {
            if let Some((format, folder)) = table_format_around(&storage.store, prefix).await? {
                return Err(format.refused(&folder));
            }
            listings.iter().try_for_each(|listing| refuse_other_formats(listing))?;
        }
        let mut tables = tables_around(storage, prefix).await?;
        if let Some(own) = own {
            // The caller may name another state root than the one that was found.
            tables.retain(|t| t.root != prefix);
            tables.extend(own.protected().await?);
        }
        for listing in listings {
            tables.extend(tables_within(storage, listing).await?);
        }
        Ok(tables)
    }

    /// Refuses to purge a folder that contains, or belongs to, a table that is declared `raw`.
    pub(crate) async fn refuse_raw_tables(&self, tables: &[ProtectedTable]) -> Result<()> {
        for table in tables.iter().filter(|t| !t.root.is_empty() && !t.state.is_empty()) {
            let (root, state) = (StorePath::from(table.root.as_str()), StorePath::from(table.state.as_str()));
            let journal = Journal::new(self.storage.clone(), root, JournalOptions::default());
            refuse_raw(&journal.with_state_root(state).head().await?, "purged")?;
        }
        Ok(())
    }
}
