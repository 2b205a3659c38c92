//! A dataset: a folder of Parquet files and its journal, as the start of reads and writes.

use biscuit_core::{Error, Result};
use biscuit_journal::{Journal, JournalOptions, ObservedTable, store_error};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;
use object_store::ObjectStore;

use crate::codes;
use crate::encryption::file_encryption::FileEncryption;
use crate::paths::location::Location;
use crate::version::opened_before::OpenedBefore;
use crate::version::table_version::TableVersion;

/// Maximum number of attempts to read a version whose files are replaced during the read.
const READS: usize = 8;

/// A table: a folder of Parquet files under Hive paths, with its journal.
///
/// ```
/// use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sales = Dataset::new(Location::parse("memory://dataset/lake/sales")?, JournalOptions::default());
/// assert!(!sales.is_there().await?);
///
/// let rows = dataframe!("id" => [1, 2], "amount" => [10, 20])?;
/// sales.observe().await?.write(rows, WriteMode::Append, &WriteOptions::default()).await?;
/// assert!(sales.is_there().await?);
/// assert_eq!(sales.load(&SessionContext::new()).await?.count().await?, 2);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Dataset {
    location: Location,
    journal: Journal,
    encryption: Option<FileEncryption>,
    opened: OpenedBefore,
}

impl Dataset {
    /// Creates the table at `location`, with its state root in the default place.
    pub fn new(location: Location, options: JournalOptions) -> Self {
        let journal = Journal::new(location.storage().clone(), location.path().clone(), options);
        Self { location, journal, encryption: None, opened: OpenedBefore::default() }
    }

    /// Returns the dataset that a version was observed in, with the encryption of the version.
    pub fn of_version(version: &TableVersion) -> Self {
        let (location, journal) = (version.location().clone(), version.journal().clone());
        let opened = version.opened.clone();
        Self { location, journal, encryption: version.dataset_encryption().cloned(), opened }
    }

    /// Sets the state root to another folder of the same store.
    ///
    /// # Errors
    /// `StateRootElsewhere` for another store, because files could not be published in one step. `StateRootInTable`
    /// if one of the folders contains the other.
    pub fn with_state_root(mut self, root: &Location) -> Result<Self> {
        let (table, state) = (self.location.path(), root.path());
        if !self.location.same_store(root) {
            return Err(Error::new(
                codes::STATE_ROOT_ELSEWHERE,
                format!("the state root `{root}` must be in the same store as the table `{}`", self.location),
            ));
        }
        if table.prefix_matches(state) || state.prefix_matches(table) {
            return Err(Error::new(
                codes::STATE_ROOT_IN_TABLE,
                format!("the state root `{root}` and the table `{}` must not contain each other", self.location),
            ));
        }
        self.journal = self.journal.with_state_root(state.clone());
        Ok(self)
    }

    /// Uses the state root that the pointer of the table names, if there is one.
    pub async fn follow_pointer(mut self) -> Result<Self> {
        self.journal = self.journal.follow_pointer().await?;
        Ok(self)
    }

    /// Sets the journal, for tests.
    #[must_use]
    pub fn with_journal(mut self, journal: Journal) -> Self {
        self.journal = journal;
        self
    }

    /// Sets the keys for files with Parquet modular encryption, and the columns that are encrypted in new files.
    #[must_use]
    pub fn with_encryption(mut self, encryption: FileEncryption) -> Self {
        self.encryption = Some(encryption);
        // Files that were opened with other keys do not know these.
        self.opened = OpenedBefore::default();
        self
    }

    /// Returns the keys for encrypted files.
    pub fn encryption(&self) -> Option<&FileEncryption> {
        self.encryption.as_ref()
    }

    /// Returns the location of the table.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns the journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Returns whether the table exists: it has a version, or its folder contains an object.
    ///
    /// # Errors
    /// The errors of [`Journal::head`] and of the store.
    pub async fn is_there(&self) -> Result<bool> {
        if self.journal.head().await?.version > 0 {
            return Ok(true);
        }
        let folder = self.location.path();
        let mut objects = self.location.storage().store.list(Some(folder));
        Ok(objects.try_next().await.map_err(|e| store_error("list", folder, e))?.is_some())
    }

    /// Observes the newest version for a change. First finishes a version that a dead run left unfinished.
    ///
    /// # Errors
    /// The errors of [`Journal::observe`]; `NotHivePath`; `MixedPartitioning`.
    pub async fn observe(&self) -> Result<TableVersion> {
        self.table_version(self.journal.observe().await?)
    }

    /// Observes the newest version for a change, in the state root that the pointer of the table names. Returns the
    /// dataset with this state root.
    ///
    /// # Errors
    /// As [`follow_pointer`](Self::follow_pointer) and [`observe`](Self::observe).
    pub async fn follow_and_observe(mut self) -> Result<(Self, TableVersion)> {
        let (journal, observed) = self.journal.follow_and_observe().await?;
        self.journal = journal;
        let version = self.table_version(observed)?;
        Ok((self, version))
    }

    /// Observes the newest version for a read. Writes nothing.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub async fn view(&self) -> Result<TableVersion> {
        self.table_version(self.journal.view().await?)
    }

    /// Observes the newest version for a read, in the state root that the pointer of the table names. Returns the dataset
    /// with this state root.
    ///
    /// # Errors
    /// As [`follow_pointer`](Self::follow_pointer) and [`view`](Self::view).
    pub async fn follow_and_view(mut self) -> Result<(Self, TableVersion)> {
        let (journal, observed) = self.journal.follow_and_view().await?;
        self.journal = journal;
        let version = self.table_version(observed)?;
        Ok((self, version))
    }

    /// Runs `read` on the newest version. If another run replaces files of the version during the read, `read` is
    /// called again with the newer version, so that its result is from one version.
    ///
    /// # Errors
    /// As [`view`](Self::view); the errors of `read`; `Conflict` if other runs replace files faster than they are
    /// read.
    pub async fn read<T, R>(&self, read: impl Fn(TableVersion) -> R) -> Result<T>
    where
        R: Future<Output = Result<T>>,
    {
        self.read_on(self.view().await?, read).await
    }

    /// Runs `read` on a version that was just observed, and otherwise as [`read`](Self::read) does.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_on<T, R>(&self, version: TableVersion, read: impl Fn(TableVersion) -> R) -> Result<T>
    where
        R: Future<Output = Result<T>>,
    {
        let mut first = Some(version);
        for _ in 0..READS {
            let snapshot = match first.take() {
                Some(version) => version,
                None => self.view().await?,
            };
            let head = snapshot.observed.head.clone();
            let e = match read(snapshot).await {
                Ok(found) => return Ok(found),
                Err(e) => self.journal.explain_error(e, &head).await,
            };
            if !e.is(biscuit_core::codes::CONFLICT) {
                return Err(e);
            }
        }
        let message =
            format!("other runs replaced files of `{}` during each attempt to read them; run again", self.location);
        Err(Error::new(biscuit_core::codes::CONFLICT, message))
    }

    /// Loads the newest rows as a DataFrame. If another run replaces files before they are opened, the newer version
    /// is loaded.
    ///
    /// # Errors
    /// As [`view`](Self::view) and [`TableVersion::load`].
    pub async fn load(&self, ctx: &SessionContext) -> Result<DataFrame> {
        self.read(|snapshot| async move { snapshot.load(ctx).await }).await
    }

    fn table_version(&self, observed: ObservedTable) -> Result<TableVersion> {
        let opened = self.opened.clone();
        TableVersion::new(self.location.clone(), self.journal.clone(), self.encryption.clone(), observed, opened)
    }
}
