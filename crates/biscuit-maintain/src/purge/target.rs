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

/// Folder in which a purge deletes, with the store through which the journals of its tables are read.
#[derive(Debug, Clone)]
pub(crate) struct TargetFolder {
    pub(crate) place: DeletePlace,
    pub(crate) storage: TableStorage,
    /// Journal of the table whose folder this is; `None` for the journal that the pointer of the folder names.
    pub(crate) journal: Option<Journal>,
    pub(crate) allow: AllowedDeletes,
}

impl TargetFolder {
    pub(crate) fn new(place: DeletePlace, storage: TableStorage) -> Self {
        Self { place, storage, journal: None, allow: AllowedDeletes::default() }
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
            tables.extend(own.protected_table().await?);
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
