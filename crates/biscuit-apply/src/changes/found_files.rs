//! Change files as they were listed: finding them, and reading their bytes.

use std::ops::Range;
use std::sync::Arc;

use biscuit_core::{Error, ObjectRef, Result};
use biscuit_dataset::Location;
use biscuit_dataset::internal::as_listed;
use biscuit_journal::internal::{is_hidden, table_format_around};
use biscuit_journal::{ForeignTableFormat, OtherTableFormats, store_error};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::codes;

/// A change file that the caller has found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FoundFile {
    /// The file as it was listed. Its path is the name of the file in messages, such as its URL. A file with another
    /// ETag stops the run.
    pub listed: ObjectRef,
    /// Store of the file.
    pub store: Arc<dyn ObjectStore>,
    /// Path of the file in the store.
    pub object: Path,
}

impl FoundFile {
    /// Creates a file: as it was listed, its store, and its path in the store.
    pub fn new(listed: ObjectRef, store: Arc<dyn ObjectStore>, object: Path) -> Self {
        Self { listed, store, object }
    }
}

impl FoundFile {
    /// Name of the file in messages.
    pub fn name(&self) -> &str {
        &self.listed.path
    }

    /// Returns the store such that reading the file fails if its ETag has changed.
    pub(crate) fn pinned_store(&self) -> Arc<dyn ObjectStore> {
        as_listed(self.store.clone(), [(self.object.clone(), self.listed.etag.clone())])
    }

    /// Reads a range of bytes.
    pub(crate) async fn fetch_range(&self, range: Range<u64>) -> Result<Bytes> {
        let fetched = match range == (0..self.listed.size) {
            true => async { self.pinned_store().get(&self.object).await?.bytes().await }.await,
            false => self.pinned_store().get_range(&self.object, range).await,
        };
        fetched.map_err(|e| self.explain_error(store_error("read", &self.object, e)))
    }

    /// Converts an error of reading the file to one that says what happened to the file.
    pub(crate) fn explain_error(&self, e: Error) -> Error {
        if e.is(biscuit_dataset::codes::NO_FILE_KEYS) {
            let message = "the file uses Parquet modular encryption; change files must not be encrypted";
            return Error::new(codes::ENCRYPTED_INPUT, message).in_file(self.name()).with_source(e);
        }
        input_failed(e, self.name())
    }
}

/// Converts an error of reading an input file of this name: a file that was deleted or overwritten is a conflict, not
/// damaged input. Any other error gets the name of the file, unless it names a file already.
pub fn input_failed(e: Error, file: &str) -> Error {
    let (code, what) = match e.error_code() {
        biscuit_core::codes::NOT_FOUND => (codes::INPUT_GONE, "was deleted"),
        biscuit_core::codes::CONFLICT => (codes::INPUT_CHANGED, "was overwritten"),
        _ if e.file().is_some() => return e,
        _ => return e.in_file(file),
    };
    let message = format!("the file {what} after it was listed and before it was read; run again");
    Error::new(code, message).in_file(file).with_source(e)
}

/// Parses the pattern of a glob.
pub(crate) fn pattern_of(place: &str, pattern: Option<&str>) -> Result<Option<glob::Pattern>> {
    let invalid =
        |e| Error::new(biscuit_core::codes::INVALID_GLOB, format!("`{place}` is not a valid glob: {e}")).with_source(e);
    pattern.map(glob::Pattern::new).transpose().map_err(invalid)
}

/// Finds the files of one place, sorted by path. With `OtherTableFormats::Refuse`, a folder that is part of a table
/// of another format is refused, and so is a folder that contains one.
pub(crate) async fn list_place(
    location: &Location,
    pattern: Option<&glob::Pattern>,
    other_formats: OtherTableFormats,
) -> Result<Vec<ObjectMeta>> {
    let store = &location.storage().store;
    let refuse = other_formats == OtherTableFormats::Refuse;
    let around = async {
        match refuse {
            true => table_format_around(store, location.path().as_ref()).await,
            false => Ok(None),
        }
    };
    let as_file = async {
        match pattern {
            Some(_) => None,
            None => Some(store.head(location.path()).await),
        }
    };
    // The place may be a file or a folder. Both are asked for at once, and the listing does not count for a file: its
    // reader may have no right to list.
    let below = store.list(Some(location.path())).boxed().try_collect::<Vec<ObjectMeta>>();
    let (around, as_file, below) = futures::join!(around, as_file, below);
    if let Some((format, folder)) = around? {
        return Err(format.refused(&folder));
    }
    match as_file {
        Some(Ok(meta)) => return Ok(vec![meta]),
        Some(Err(object_store::Error::NotFound { .. })) | None => {}
        // A local folder is not an object. File systems report that with different errors.
        Some(Err(e)) => tracing::debug!(error = %e, "not a file"),
    }
    let listed = below.map_err(|e| store_error("list", location, e))?;
    if refuse
        && let Some((format, folder)) = listed.iter().find_map(|m| ForeignTableFormat::of_log(m.location.as_ref()))
    {
        return Err(format.refused(folder));
    }
    let strict = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    let fits = |meta: &ObjectMeta| {
        let below: Vec<_> =
            meta.location.prefix_match(location.path()).into_iter().flatten().map(|p| p.as_ref().to_owned()).collect();
        let relative = below.join("/");
        let chosen = pattern.is_none_or(|p| p.matches_with(&relative, strict));
        chosen && meta.size > 0 && !is_hidden(&relative)
    };
    let mut found: Vec<ObjectMeta> = listed.into_iter().filter(|m| fits(m)).collect();
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}

/// Returns the name of a file in messages: as the caller wrote it if it is the place itself, else the place and the
/// path below it.
pub(crate) fn display_name(place: &str, location: &Location, path: &Path) -> String {
    if path == location.path() {
        return place.to_owned();
    }
    let below: Vec<_> =
        path.prefix_match(location.path()).into_iter().flatten().map(|p| p.as_ref().to_owned()).collect();
    format!("{location}/{}", below.join("/"))
}
