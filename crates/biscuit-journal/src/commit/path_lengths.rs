//! Limits of the lengths of names and paths, checked before a commit.

use biscuit_core::{Error, Result};
use object_store::path::Path;

use crate::log::layout::{MAX_KEY, MAX_NAME};
use crate::log::record::CommitRecord;

/// Refuses files whose names are too long for S3 or for common file systems. Both limits apply in every store,
/// because a table can be moved to another store.
///
/// # Errors
/// `NameTooLong`.
pub(crate) fn check_lengths(table: &Path, state: &Path, record: &CommitRecord) -> Result<()> {
    let too_long = |what: &str, key: &str, limit: usize, has: usize| {
        let message = format!(
            "{what} of `{}` would have {has} bytes, and the maximum is {limit}; nothing was committed; partition by a shorter value or use a shorter path for the table",
            shorten(key)
        );
        Error::new(biscuit_core::codes::NAME_TOO_LONG, message)
    };
    for file in &record.publish {
        if let Some(name) = file.path.split('/').find(|name| name.len() > MAX_NAME) {
            return Err(too_long("a name in the path", &file.path, MAX_NAME, name.len()));
        }
        for (root, path) in [(table, &file.path), (state, &file.staged)] {
            let length = root.as_ref().len() + 1 + path.len();
            if length > MAX_KEY {
                return Err(too_long("the path", path, MAX_KEY, length));
            }
        }
    }
    Ok(())
}

/// Returns the first 80 characters of a text, with an ellipsis if the text is longer.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
