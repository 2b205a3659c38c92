//! Where the rows of partitions come from: a run may replace partitions only if it reads all their input.

use std::collections::BTreeSet;

use biscuit_bookmark::{Bookmark, RunKind, SourceObject, bookmark_names};
use biscuit_core::{Error, Result};
use biscuit_dataset::TableVersion;
use biscuit_journal::writer_id_of;

use crate::codes;
use crate::read::choose::ChosenInput;

/// Checks that partitions can be rebuilt: all their rows must come from known input.
///
/// # Errors
/// `UnknownPartition` if no input of the partition is known; `CannotReplace` if a file in it was written by
/// another program, and as [`check_others`].
pub(crate) async fn check_rebuild(
    chosen: &[ChosenInput],
    snapshot: &TableVersion,
    partitions: &BTreeSet<String>,
    objects: &[Vec<SourceObject>],
) -> Result<()> {
    let mut known = BTreeSet::new();
    let mut taken: BTreeSet<&String> = BTreeSet::new();
    for input in chosen.iter().filter(|c| c.bookmark.is_some()) {
        known.extend(input.state.partitions()?);
        // A bookmark that was set to now took the existing files as the result of its input, whoever wrote them.
        let as_read = input.state.runs().filter(|(r, _)| r.kind == RunKind::SetToNow);
        taken.extend(as_read.flat_map(|(r, _)| &r.output.partitions));
    }
    let files = &snapshot.observed.files;
    if let Some(unknown) = partitions.iter().find(|p| !known.contains(*p)) {
        let message = match files.iter().any(|f| f.folder() == unknown) {
            true => format!("the input of the rows in `{unknown}` is not known; a rebuild would lose them"),
            false => {
                format!("the table has no partition `{unknown}`, and no known input has rows in it; check the name")
            }
        };
        return Err(Error::new(codes::UNKNOWN_PARTITION, message));
    }
    let external = files.iter().filter(|f| partitions.contains(f.folder()) && writer_id_of(&f.path).is_none());
    if let Some(file) = external.into_iter().find(|f| !taken.contains(&f.folder().to_owned())) {
        let message = format!("`{}` was written by another program; a rebuild would lose its rows", file.path);
        return Err(Error::new(biscuit_bookmark::codes::CANNOT_REPLACE, message).in_file(&file.path));
    }
    check_others(chosen, snapshot, partitions, objects).await
}

/// Checks that the input of other bookmarks of the table in these partitions is read as well.
///
/// # Errors
/// `CannotReplace` if it is not, since its rows would be lost.
pub(crate) async fn check_others(
    chosen: &[ChosenInput],
    snapshot: &TableVersion,
    partitions: &BTreeSet<String>,
    objects: &[Vec<SourceObject>],
) -> Result<()> {
    let head = &snapshot.observed.head;
    let own = |name: &String| chosen.iter().any(|c| c.bookmark.as_ref() == Some(name));
    let read: BTreeSet<&str> = objects.iter().flatten().map(|o| o.url()).collect();
    for name in bookmark_names(head).into_iter().filter(|n| !own(n)) {
        let state = Bookmark::new(&name)?.load(snapshot.journal(), head).await?;
        if let Some(url) = state.urls_in(partitions)?.into_iter().find(|url| !read.contains(url.as_str())) {
            let message = format!(
                "`{url}`, read by the bookmark `{name}`, has rows in partitions that this run replaces, but this job does not read it; its rows would be lost"
            );
            return Err(Error::new(biscuit_bookmark::codes::CANNOT_REPLACE, message).in_file(&url));
        }
    }
    Ok(())
}
