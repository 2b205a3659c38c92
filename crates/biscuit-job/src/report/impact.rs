use std::collections::BTreeSet;

use biscuit_bookmark::{Bookmark, RunRef, bookmark_names};
use biscuit_core::{Error, Result};
use biscuit_dataset::TableVersion;

use crate::codes;

/// Returns the partitions that contain rows of the given objects, by URL, or of all objects that the given runs read.
/// These are the partitions to rebuild if the input was wrong. If the partitions of an object are not known, all
/// partitions that its runs wrote to are returned.
///
/// # Errors
/// `UnknownBookmark` if the table has no bookmark, or not the given one; `UnknownRun`; `UnknownInput` for an object
/// that no run has read.
pub async fn impact(
    snapshot: &TableVersion,
    bookmark: Option<&str>,
    objects: &[String],
    runs: &[RunRef],
) -> Result<BTreeSet<String>> {
    let head = &snapshot.observed.head;
    let names = match bookmark {
        Some(name) => vec![name.to_owned()],
        None => bookmark_names(head),
    };
    if names.is_empty() || bookmark.is_some_and(|name| !bookmark_names(head).iter().any(|n| n == name)) {
        let message = match bookmark {
            Some(name) => format!("the table has no bookmark `{name}`; omit the name to search all bookmarks"),
            None => "the table has no bookmark, so its input is not known".to_owned(),
        };
        return Err(Error::new(codes::UNKNOWN_BOOKMARK, message));
    }
    let (mut found, mut read) = (BTreeSet::new(), BTreeSet::new());
    let mut numbered = 0;
    let mut unknown = None;
    for name in names {
        let state = Bookmark::new(&name)?.load(snapshot.journal(), head).await?;
        let mut numbers = BTreeSet::new();
        for run in runs {
            match state.run_number(run) {
                Ok(number) => drop(numbers.insert(number)),
                Err(e) => unknown = Some(e),
            }
        }
        numbered += numbers.len();
        let seen = std::cell::RefCell::new(BTreeSet::new());
        let wants = |url: &str, run: u64| {
            let named = objects.iter().any(|o| o == url);
            if named {
                seen.borrow_mut().insert(url.to_owned());
            }
            named || numbers.contains(&run)
        };
        found.extend(state.partitions_of(&wants)?);
        read.extend(seen.into_inner());
    }
    // A run belongs to one bookmark, so it is unknown only if no bookmark knows it.
    match (unknown.filter(|_| numbered == 0), objects.iter().find(|o| !read.contains(*o))) {
        (Some(e), _) => Err(e),
        (None, Some(object)) => {
            let message = format!("no run in the bookmark has read `{object}`; check the URL");
            Err(Error::new(codes::UNKNOWN_INPUT, message).in_file(object))
        }
        (None, None) => Ok(found),
    }
}
