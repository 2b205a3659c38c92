//! Bookmarks by name.

use biscuit_core::{Error, Result};
use biscuit_journal::{Journal, TableHead};

use crate::codes;
use crate::options::BookmarkOptions;
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
}
