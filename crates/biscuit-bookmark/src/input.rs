use std::fmt;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::{OtherTableFormats, TableStorage, table_format_around};
use biscuit_purge::{AnyStore, ListedObject, ObjectListing, PurgeStore, refuse_other_formats};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::ignore::{IgnoredReason, ignored};
use crate::object::SourceObject;

/// Where objects of a source are: an object, all below a folder, or those of them that a glob matches.
#[derive(Clone)]
pub struct SourcePlace {
    base: String,
    prefix: String,
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
    /// A place in a storage. `base` is the URL of its root, with a `/` at its end (`s3://bucket/`, `/` for a disk); `path` is the object or
    /// folder, and may end in a glob (`*`, `**`, `?`, `[a-z]`).
    ///
    /// # Errors
    /// `InvalidGlob`.
    pub fn new(storage: &TableStorage, base: &str, path: &str) -> Result<Self> {
        let path = path.trim_matches('/');
        let (prefix, pattern) = match path.find(['*', '?', '[']) {
            None => (path, None),
            Some(wild) => {
                let cut = path[..wild].rfind('/').map_or(0, |i| i + 1);
                let pattern = glob::Pattern::new(&path[cut..])
                    .map_err(|e| Error::usage("InvalidGlob", format!("`{path}` is no glob: {e}")).with_source(e))?;
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

    /// The same place, listed in another way: by S3's own listing storage classes are known, and large trees listed in parallel.
    pub fn with_lister(mut self, lister: Arc<dyn PurgeStore>) -> Self {
        self.lister = lister;
        self
    }

    /// The same place with another choice for folders of Delta Lake, Iceberg, Hudi and Paimon. Default: they are refused, since files that
    /// their logs have removed would be read.
    pub fn with_other_formats(mut self, other_formats: OtherTableFormats) -> Self {
        self.other_formats = other_formats;
        self
    }

    /// Its URL, with the glob if it has one.
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
                // A local folder is no object, which some file systems say in their own way.
                Err(e) => tracing::debug!(error = %e, "not an object"),
            }
        }
        let listing = self.lister.list(&self.prefix, false).await?;
        if self.other_formats == OtherTableFormats::Refuse {
            refuse_other_formats(&listing)?;
        }
        Ok(listing)
    }
}

/// Lists the objects of these places.
///
/// # Errors
/// `OtherTableFormat` for a folder of another table format; those of the store.
pub async fn list(places: &[SourcePlace]) -> Result<ListedInput> {
    let mut parts = Vec::with_capacity(places.len());
    for place in places {
        let listing = place.list().await?;
        tracing::debug!(place = %place.url(), objects = listing.len(), "listed");
        parts.push((place.clone(), listing));
    }
    Ok(ListedInput { parts })
}

/// What a listing of all places showed.
#[derive(Debug, Clone, Default)]
pub struct ListedInput {
    parts: Vec<(SourcePlace, ObjectListing)>,
}

impl ListedInput {
    /// The places, as URLs.
    pub fn places(&self) -> Vec<String> {
        self.parts.iter().map(|(place, _)| place.url()).collect()
    }

    /// How many objects there are, with those that are ignored.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|(_, listing)| listing.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects, and of each why it is ignored, if it is. One that two places have comes twice.
    pub fn objects(&self) -> impl Iterator<Item = (SourceObject, Option<IgnoredReason>)> + '_ {
        self.parts.iter().flat_map(|(place, listing)| listing.iter().filter_map(|listed| look(place, listed)))
    }

    /// The objects that are not ignored, each once, by URL.
    pub fn everything(&self) -> Vec<SourceObject> {
        let mut all: Vec<SourceObject> =
            self.objects().filter(|(_, ignored)| ignored.is_none()).map(|(o, _)| o).collect();
        all.sort();
        all.dedup_by(|a, b| a.url == b.url);
        all
    }

    /// The store that an object of the listing is in, and its path there.
    ///
    /// # Errors
    /// `InvalidPath` for a key that is none: with an empty segment, `.` or `..`.
    pub fn find(&self, object: &SourceObject) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let keys = self.parts.iter().filter_map(|(p, _)| Some((p, object.url.strip_prefix(p.base.as_str())?)));
        // Where one root is below another one, the place that it is in says which of them it is.
        let (place, key) = keys
            .max_by_key(|(place, key)| (key.starts_with(place.prefix.as_str()), place.base.len()))
            .ok_or_else(|| Error::internal(format!("`{}` is in no place of the source", object.url)))?;
        let path = Path::parse(key).ok().filter(|path| path.as_ref() == key);
        let message = || format!("`{}` is no path that this store can name; it cannot be read", object.url);
        Ok((place.store.clone(), path.ok_or_else(|| Error::usage("InvalidPath", message()))?))
    }

    /// The path of an object below its place: below the folder, or what of it has no wildcards. Of several places that have it, the one that is
    /// furthest up.
    pub fn below<'a>(&self, object: &'a SourceObject) -> &'a str {
        let below = |(place, _): &(SourcePlace, ObjectListing)| {
            let key = object.url.strip_prefix(place.base.as_str())?;
            let below = key.strip_prefix(place.prefix.as_str())?;
            (place.prefix.is_empty() || below.starts_with('/')).then(|| below.trim_start_matches('/'))
        };
        self.parts.iter().filter_map(below).max_by_key(|below| below.len()).unwrap_or_default()
    }

    /// Whether times of modification are those of a store, which nobody can set, and not those of a disk.
    pub(crate) fn has_store_times(&self) -> bool {
        self.parts.iter().all(|(place, _)| !place.is_disk)
    }

    /// A place that has no object; those that are ignored count, since somebody has put them there.
    pub(crate) fn empty_place(&self) -> Option<String> {
        let is_empty = |(place, listing): &&(SourcePlace, ObjectListing)| {
            listing.iter().all(|listed| look(place, listed).is_none())
        };
        self.parts.iter().find(is_empty).map(|(place, _)| place.url())
    }
}

fn look(place: &SourcePlace, listed: ListedObject) -> Option<(SourceObject, Option<IgnoredReason>)> {
    let below = listed.key.strip_prefix(place.prefix.as_str()).unwrap_or(&listed.key).trim_start_matches('/');
    let strict = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    if place.pattern.as_ref().is_some_and(|p| !p.matches_with(below, strict)) {
        return None;
    }
    let reason = ignored(below, listed.size, listed.storage_class.as_deref());
    let mut url = String::with_capacity(place.base.len() + listed.key.len());
    url.push_str(&place.base);
    url.push_str(&listed.key);
    let modified = listed.modified.map_or(0, biscuit_core::Instant::as_micros);
    Some((SourceObject { url, size: listed.size, etag: listed.etag, modified }, reason))
}
