//! Listings of the input: the places of a source and their objects.

use std::fmt;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::internal::table_format_around;
use biscuit_journal::{OtherTableFormats, TableStorage};
use biscuit_purge::internal::refuse_other_formats;
use biscuit_purge::{AnyStore, ListedObject, ListedVersions, ObjectListing, PurgeStore};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::object::SourceObject;
use crate::selection::ignored::{IgnoredReason, ignored_reason};

/// A place of a source: one object, all objects below a folder, or the objects that match a glob.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_bookmark::{SourcePlace, list};
/// use biscuit_journal::TableStorage;
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let storage = TableStorage::durable(Arc::new(InMemory::new()));
/// for key in ["raw/a.json", "raw/b.csv"] {
///     storage.store.put(&Path::from(key), "{}".into()).await.unwrap();
/// }
/// let place = SourcePlace::new(&storage, "memory://lake/", "raw/*.json")?;
/// assert_eq!(place.url(), "memory://lake/raw/*.json");
///
/// let objects = list(&[place]).await?.all_objects();
/// assert_eq!(objects.len(), 1);
/// assert_eq!(objects[0].url(), "memory://lake/raw/a.json");
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct SourcePlace {
    /// URL of the root of the store.
    base: String,
    /// Folder to list, or the object: the part of the path before the first segment with a wildcard.
    prefix: String,
    /// Glob below `prefix`.
    pattern: Option<glob::Pattern>,
    store: Arc<dyn ObjectStore>,
    lister: Arc<dyn PurgeStore>,
    is_disk: bool,
    other_formats: OtherTableFormats,
}

impl fmt::Debug for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl SourcePlace {
    /// Creates a place in a store. `base` is the URL of the root of the store and ends with `/` (`s3://bucket/`, or
    /// `/` for a disk). `path` is the object or the folder, and may end in a glob (`*`, `**`, `?`, `[a-z]`).
    ///
    /// # Errors
    /// `InvalidGlob` if the path is not a valid glob.
    pub fn new(storage: &TableStorage, base: &str, path: &str) -> Result<Self> {
        let path = path.trim_matches('/');
        let (prefix, pattern) = match path.find(['*', '?', '[']) {
            None => (path, None),
            Some(wild) => {
                let cut = path[..wild].rfind('/').map_or(0, |i| i + 1);
                let pattern = glob::Pattern::new(&path[cut..]).map_err(|e| {
                    Error::new(biscuit_core::codes::INVALID_GLOB, format!("`{path}` is not a valid glob: {e}"))
                        .with_source(e)
                })?;
                (path[..cut].trim_end_matches('/'), Some(pattern))
            }
        };
        Ok(Self {
            base: base.to_owned(),
            prefix: prefix.to_owned(),
            pattern,
            store: storage.store.clone(),
            lister: Arc::new(AnyStore::new(storage.store.clone())),
            is_disk: !storage.durability.is_immediate(),
            other_formats: OtherTableFormats::Refuse,
        })
    }

    /// Sets the store that lists the place. `S3Store` of `biscuit-purge` knows storage classes and lists large trees
    /// in parallel. Default: the listing of `object_store`.
    pub fn with_lister(mut self, lister: Arc<dyn PurgeStore>) -> Self {
        self.lister = lister;
        self
    }

    /// Sets the handling of folders of Delta Lake, Iceberg, Hudi and Paimon. Default: they are refused, because files
    /// that their logs have removed would be read.
    pub fn with_other_formats(mut self, other_formats: OtherTableFormats) -> Self {
        self.other_formats = other_formats;
        self
    }

    /// URL of the place, with its glob.
    pub fn url(&self) -> String {
        match &self.pattern {
            None => format!("{}{}", self.base, self.prefix),
            Some(pattern) if self.prefix.is_empty() => format!("{}{pattern}", self.base),
            Some(pattern) => format!("{}{}/{pattern}", self.base, self.prefix),
        }
    }

    async fn list(&self) -> Result<ObjectListing> {
        if self.other_formats == OtherTableFormats::Refuse
            && let Some((format, folder)) = table_format_around(&self.store, &self.prefix).await?
        {
            return Err(format.refused(&folder));
        }
        if self.pattern.is_none()
            && let Ok(path) = Path::parse(&self.prefix)
        {
            match self.store.head(&path).await {
                Ok(meta) => return Ok(std::iter::once(ListedObject::from(meta)).collect()),
                Err(object_store::Error::NotFound { .. }) => {}
                // A local folder is not an object, and some file systems report that with other errors than
                // `NotFound`.
                Err(e) => tracing::debug!(error = %e, "not an object"),
            }
        }
        let listing = self.lister.list(&self.prefix, ListedVersions::Current).await?;
        if self.other_formats == OtherTableFormats::Refuse {
            refuse_other_formats(&listing)?;
        }
        Ok(listing)
    }
}

/// Lists the objects of these places.
///
/// # Errors
/// `OtherTableFormat` for a folder of another table format; errors of the store.
pub async fn list(places: &[SourcePlace]) -> Result<ListedInput> {
    let mut parts = Vec::with_capacity(places.len());
    for place in places {
        let listing = place.list().await?;
        tracing::debug!(place = %place.url(), objects = listing.len(), "listed");
        parts.push((place.clone(), listing));
    }
    Ok(ListedInput { parts })
}

/// Objects that a listing of all places of a source contains.
#[derive(Debug, Clone, Default)]
pub struct ListedInput {
    parts: Vec<(SourcePlace, ObjectListing)>,
}

impl ListedInput {
    /// URLs of the places.
    pub fn places(&self) -> Vec<String> {
        self.parts.iter().map(|(place, _)| place.url()).collect()
    }

    /// Number of listed objects, including ignored ones.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|(_, listing)| listing.len()).sum()
    }

    /// Whether no objects were listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the objects, each with the reason why it is ignored, if it is. An object that is in two places comes
    /// twice.
    pub fn objects(&self) -> impl Iterator<Item = (SourceObject, Option<IgnoredReason>)> + '_ {
        self.parts.iter().flat_map(|(place, listing)| listing.iter().filter_map(|listed| match_listed(place, listed)))
    }

    /// Returns the objects that are not ignored, each once, sorted by URL.
    pub fn all_objects(&self) -> Vec<SourceObject> {
        let mut all: Vec<SourceObject> =
            self.objects().filter(|(_, ignored)| ignored.is_none()).map(|(o, _)| o).collect();
        all.sort();
        all.dedup_by(|a, b| a.url() == b.url());
        all
    }

    /// Returns the store of an object of the listing, and its path in that store.
    ///
    /// # Errors
    /// `InvalidPath` for a key that is not a valid path: with an empty segment, `.` or `..`.
    pub fn find(&self, object: &SourceObject) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let keys = self.parts.iter().filter_map(|(p, _)| Some((p, object.url().strip_prefix(p.base.as_str())?)));
        // If the root of one place is below the root of another, the place whose folder contains the object is
        // chosen.
        let (place, key) =
            keys.max_by_key(|(place, key)| (key.starts_with(place.prefix.as_str()), place.base.len()))
                .ok_or_else(|| Error::internal(format!("`{}` is not in a place of the source", object.url())))?;
        let path = Path::parse(key).ok().filter(|path| path.as_ref() == key);
        let message = || format!("`{}` is not a valid path of this store; it cannot be read", object.url());
        Ok((place.store.clone(), path.ok_or_else(|| Error::new(biscuit_core::codes::INVALID_PATH, message()))?))
    }

    /// Returns the path of an object below the folder of its place; for a glob, below the last folder without
    /// wildcards. If several places contain the object, the longest path is returned.
    pub fn path_below_place<'a>(&self, object: &'a SourceObject) -> &'a str {
        let below = |(place, _): &(SourcePlace, ObjectListing)| {
            let key = object.url().strip_prefix(place.base.as_str())?;
            let below = key.strip_prefix(place.prefix.as_str())?;
            (place.prefix.is_empty() || below.starts_with('/')).then(|| below.trim_start_matches('/'))
        };
        self.parts.iter().filter_map(below).max_by_key(|below| below.len()).unwrap_or_default()
    }

    /// Whether all times of modification come from a store, which sets them itself. On a disk any program can set
    /// them.
    pub(crate) fn has_store_times(&self) -> bool {
        self.parts.iter().all(|(place, _)| !place.is_disk)
    }

    /// Returns the URL of a place without objects, if there is one. Ignored objects count, because they show that the
    /// place is the right one.
    pub(crate) fn empty_place(&self) -> Option<String> {
        let is_empty = |(place, listing): &&(SourcePlace, ObjectListing)| {
            listing.iter().all(|listed| match_listed(place, listed).is_none())
        };
        self.parts.iter().find(is_empty).map(|(place, _)| place.url())
    }
}

/// Converts a listed object; `None` if the glob of its place does not match it.
fn match_listed(place: &SourcePlace, object: ListedObject) -> Option<(SourceObject, Option<IgnoredReason>)> {
    let below = object.key().strip_prefix(place.prefix.as_str()).unwrap_or(object.key()).trim_start_matches('/');
    let strict = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    if place.pattern.as_ref().is_some_and(|p| !p.matches_with(below, strict)) {
        return None;
    }
    let reason = ignored_reason(below, object.listed.size, object.storage_class.as_deref());
    let mut url = String::with_capacity(place.base.len() + object.key().len());
    url.push_str(&place.base);
    url.push_str(object.key());
    let modified = object.modified.map_or(0, biscuit_core::Instant::as_micros);
    Some((SourceObject { listed: object.listed.with_path(url), modified }, reason))
}
