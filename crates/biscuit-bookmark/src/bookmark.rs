//! Bookmarks by name.

use biscuit_core::{Error, Result};
use biscuit_journal::{Journal, TableHead};

use crate::codes;
use crate::input::{ListedInput, SourcePlace, list};
use crate::options::{BookmarkOptions, MissingObjects};
use crate::selection::mode::ReadMode;
use crate::selection::selected::InputSelection;
use crate::state::BookmarkState;

/// A bookmark of an output: the named memory of which objects of one source the output has read.
///
/// ```
/// use biscuit_bookmark::{Bookmark, BookmarkOptions, LatePolicy};
///
/// let options = BookmarkOptions::default().with_late(LatePolicy::Read);
/// let bookmark = Bookmark::new("orders")?.with_options(options);
/// assert_eq!((bookmark.name(), bookmark.options().late), ("orders", LatePolicy::Read));
/// assert_eq!(Bookmark::new("raw/orders").unwrap_err().code(), "InvalidBookmark");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Bookmark {
    name: String,
    options: BookmarkOptions,
}

impl Bookmark {
    /// Creates a bookmark. The name has 1 to 100 characters, which are letters, digits, `_`, `-` and `.`; it does not
    /// begin with `.`.
    ///
    /// # Errors
    /// `InvalidBookmark` for any other name.
    pub fn new(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(fits) {
            let message = format!(
                "`{name}` is not a valid name of a bookmark; use up to 100 letters, digits, `_`, `-` and `.`, and no `.` first"
            );
            return Err(Error::new(codes::INVALID_BOOKMARK, message));
        }
        Ok(Self { name: name.to_owned(), options: BookmarkOptions::default() })
    }

    /// Sets the options. Default: [`BookmarkOptions::default`].
    #[must_use]
    pub fn with_options(mut self, options: BookmarkOptions) -> Self {
        self.options = options;
        self
    }

    /// Name of the bookmark.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Options of the bookmark.
    pub fn options(&self) -> &BookmarkOptions {
        &self.options
    }

    /// Loads the state of the bookmark in this version of the output.
    ///
    /// # Errors
    /// `NewerFormat`, `OlderFormat`, `UnreadableBookmark`, `Conflict` if a newer version has replaced the state,
    /// `Diverged` if the state is lost, and errors of the store.
    pub async fn load(&self, journal: &Journal, head: &TableHead) -> Result<BookmarkState> {
        BookmarkState::load(&self.name, &self.options, journal, head).await
    }

    /// Selects the input of a run in this mode: loads the state in this version of the output, lists the places, and
    /// selects from the listing.
    ///
    /// The version is observed before the places are listed, and the run commits on it. If another run advances the
    /// bookmark meanwhile, the commit conflicts instead of storing an object twice.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use biscuit_bookmark::{Bookmark, MissingObjects, ReadMode, SourcePlace};
    /// use biscuit_journal::{Journal, JournalOptions, TableStorage};
    /// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
    /// let storage = TableStorage::durable(Arc::new(InMemory::new()));
    /// storage.store.put(&Path::from("raw/a.json"), "{}".into()).await.unwrap();
    /// let journal = Journal::new(storage.clone(), Path::from("lake/orders"), JournalOptions::default());
    /// let head = journal.observe().await?.head;
    ///
    /// let places = [SourcePlace::new(&storage, "memory://lake/", "raw")?];
    /// let bookmark = Bookmark::new("orders")?;
    /// let input = bookmark.select(&journal, &head, &places, &ReadMode::Advance, MissingObjects::Refuse).await?;
    /// assert_eq!(input.selection.objects[0].url(), "memory://lake/raw/a.json");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`load`](Self::load), [`list`] and [`BookmarkState::select`]; `MissingInput` if objects of a replay no
    /// longer exist and `missing` is [`MissingObjects::Refuse`].
    pub async fn select(
        &self,
        journal: &Journal,
        head: &TableHead,
        places: &[SourcePlace],
        mode: &ReadMode,
        missing: MissingObjects,
    ) -> Result<SelectedInput> {
        let state = self.load(journal, head).await?;
        let listed = list(places).await?;
        let selection = state.select(&listed, mode)?;
        if let Some(url) = selection.gone.first().filter(|_| missing == MissingObjects::Refuse) {
            let message = format!(
                "{} of the files to replay no longer exist; use `--allow-missing`, or `allow_missing` of the source, to replay the rest",
                selection.counts.gone
            );
            return Err(Error::new(codes::MISSING_INPUT, message).in_file(url));
        }
        Ok(SelectedInput { state, listed, selection })
    }
}

/// The input of a run, and what it was selected from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SelectedInput {
    /// State of the bookmark before the run.
    pub state: BookmarkState,
    /// Listing of the places.
    pub listed: ListedInput,
    /// Objects to read.
    pub selection: InputSelection,
}
