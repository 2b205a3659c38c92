use biscuit_core::{Error, Result};
use biscuit_journal::{Journal, JournalOptions, ObservedTable, store_error};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;
use object_store::ObjectStore;

use crate::encryption::file_encryption::FileEncryption;
use crate::{Location, TableVersion};

/// How often a version is read whose files are replaced meanwhile.
const READS: usize = 8;

/// A table: a folder of Parquet files under Hive paths, and its journal.
#[derive(Debug, Clone)]
pub struct Dataset {
    location: Location,
    journal: Journal,
    encryption: Option<FileEncryption>,
}

impl Dataset {
    /// The table at a location, with its state root in the default place.
    pub fn new(location: Location, options: JournalOptions) -> Self {
        let journal = Journal::new(location.storage().clone(), location.path().clone(), options);
        Self { location, journal, encryption: None }
    }

    /// The same table with its state root at another place of the same store.
    ///
    /// # Errors
    /// `StateRootElsewhere` for another store: files could not be moved in one step. `StateRootInTable` if either is
    /// inside the other.
    pub fn with_state_root(mut self, root: &Location) -> Result<Self> {
        let (table, state) = (self.location.path(), root.path());
        if !self.location.same_store(root) {
            return Err(Error::usage(
                "StateRootElsewhere",
                format!("`{root}` is not in the same store as `{}`", self.location),
            ));
        }
        if table.prefix_matches(state) || state.prefix_matches(table) {
            return Err(Error::usage(
                "StateRootInTable",
                format!("`{root}` and `{}` are inside one another", self.location),
            ));
        }
        self.journal = self.journal.with_state_root(state.clone());
        Ok(self)
    }

    /// The same table with the state root that its pointer names, if it has one.
    pub async fn follow_pointer(mut self) -> Result<Self> {
        self.journal = self.journal.follow_pointer().await?;
        Ok(self)
    }

    /// The same table with another journal, as tests need it.
    pub fn with_journal(mut self, journal: Journal) -> Self {
        self.journal = journal;
        self
    }

    /// The same table with keys for files that are encrypted in Parquet's own way, and the columns that are encrypted in new ones.
    pub fn with_encryption(mut self, encryption: FileEncryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// The keys of its encrypted files.
    pub fn encryption(&self) -> Option<&FileEncryption> {
        self.encryption.as_ref()
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Its journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether there is something at its place: a version, or an object in its folder.
    ///
    /// # Errors
    /// Those of [`Journal::head`] and of the store.
    pub async fn is_there(&self) -> Result<bool> {
        if self.journal.head().await?.version > 0 {
            return Ok(true);
        }
        let folder = self.location.path();
        let mut objects = self.location.storage().store.list(Some(folder));
        Ok(objects.try_next().await.map_err(|e| store_error("list", folder, e))?.is_some())
    }

    /// What a change starts from; finishes a version that a run left unfinished.
    ///
    /// # Errors
    /// Those of [`Journal::observe`], `NotHivePath`, `MixedPartitioning`.
    pub async fn observe(&self) -> Result<TableVersion> {
        self.snapshot(self.journal.observe().await?)
    }

    /// What a reader starts from; nothing is written.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub async fn view(&self) -> Result<TableVersion> {
        self.snapshot(self.journal.view().await?)
    }

    /// Reads the newest version: `read` has read all that it wants when it ends. If a newer version has replaced files meanwhile, it is called
    /// again with that one, so that what it answers is of one version.
    ///
    /// # Errors
    /// As [`view`](Self::view) and those of `read`; `Conflict` where other runs replace files faster than they are read.
    pub async fn read<T, R>(&self, read: impl Fn(TableVersion) -> R) -> Result<T>
    where
        R: Future<Output = Result<T>>,
    {
        for _ in 0..READS {
            let snapshot = self.view().await?;
            let head = snapshot.observed.head.clone();
            let e = match read(snapshot).await {
                Ok(found) => return Ok(found),
                Err(e) => self.journal.explain(e, &head).await,
            };
            if e.code() != "Conflict" {
                return Err(e);
            }
        }
        let message = format!("other runs keep replacing files of `{}` while they are read; run again", self.location);
        Err(Error::conflict("Conflict", message))
    }

    /// The newest rows as a DataFrame. If a newer version replaces files before they are opened, that one is loaded.
    ///
    /// # Errors
    /// As [`view`](Self::view) and [`TableVersion::load`].
    pub async fn load(&self, ctx: &SessionContext) -> Result<DataFrame> {
        self.read(|snapshot| async move { snapshot.load(ctx).await }).await
    }

    fn snapshot(&self, observed: ObservedTable) -> Result<TableVersion> {
        TableVersion::new(self.clone(), observed)
    }
}
