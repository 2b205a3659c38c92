//! Checks that a place of input does not overlap the table that is written.

use biscuit_core::{Error, Result};
use biscuit_journal::internal::is_hidden;
use object_store::path::Path;

use crate::codes;
use crate::paths::location::{Location, OpenLocation};

/// Refuses a place of input that contains, or will contain, files of the table that is written, because each run
/// would read what the run before it wrote. `place` is a path or URL of a file or a folder, or a glob.
///
/// # Errors
/// `InputOverlapsTable`, and the errors of the opener.
pub async fn check_input(place: &str, target: &Location, opener: &dyn OpenLocation) -> Result<()> {
    let (folder, pattern) = split_glob(place);
    // An invalid place is reported where it is read.
    let Ok(input) = opener.open(folder).await else { return Ok(()) };
    if !input.same_store(target) || !overlaps_table(input.path(), pattern.unwrap_or_default(), target.path()) {
        return Ok(());
    }
    let message = format!(
        "the input `{place}` contains files of the table `{target}`, so that a run would read what another run wrote; \
         use separate folders or a narrower glob"
    );
    Err(Error::new(codes::INPUT_OVERLAPS_TABLE, message))
}

/// Splits a path or URL with wildcards into the folder above the first wildcard, and the glob below it. Returns no
/// glob for a place without wildcards.
pub fn split_glob(place: &str) -> (&str, Option<&str>) {
    let Some(wild) = place.find(['*', '?', '[']) else { return (place, None) };
    let cut = place[..wild].rfind('/').map_or(0, |slash| slash + 1);
    let (folder, pattern) = place.split_at(cut);
    (if folder.is_empty() { "." } else { folder }, Some(pattern))
}

/// Returns whether a folder or glob contains files of the table at `target`. A glob is tested with two typical names:
/// a file in the folder of the table, and a file in a partition.
fn overlaps_table(folder: &Path, pattern: &str, target: &Path) -> bool {
    if folder.prefix_matches(target) {
        return true;
    }
    let Some(below) = target.prefix_match(folder) else { return false };
    let below = below.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
    // A read of a folder skips hidden files and folders.
    if is_hidden(&below) {
        return false;
    }
    let Ok(pattern) = glob::Pattern::new(pattern) else { return false };
    let strict = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    let files = [format!("{below}/part-0.parquet"), format!("{below}/day=1/part-0.parquet")];
    pattern.as_str().is_empty() || files.iter().any(|file| pattern.matches_with(file, strict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_and_table_have_folders_of_their_own() {
        let overlaps =
            |folder: &str, pattern: &str, target: &str| overlaps_table(&folder.into(), pattern, &target.into());
        for (folder, pattern, target) in [
            ("raw", "", "raw/clean"),
            ("raw", "**", "raw/clean"),
            ("raw", "**/*.parquet", "raw/clean"),
            ("raw", "c*/*", "raw/clean"),
            ("raw", "", "raw"),
            ("lake/t", "*.json", "lake/t"),
            ("lake/t/day=1", "", "lake/t"),
            ("lake/t/day=1/a.parquet", "", "lake/t"),
        ] {
            assert!(overlaps(folder, pattern, target), "{folder} {pattern} {target}");
        }
        for (folder, pattern, target) in [
            ("raw", "", "rawer"),
            ("raw", "", "lake/raw"),
            ("raw", "*", "raw/clean"),
            ("raw", "*.json", "raw/clean"),
            ("raw", "**/*.json", "raw/clean"),
            ("raw", "new/**", "raw/clean"),
            ("raw", "", "raw/_clean"),
            ("lake/t2", "", "lake/t"),
            ("lake/t.jsonl", "", "lake/t"),
        ] {
            assert!(!overlaps(folder, pattern, target), "{folder} {pattern} {target}");
        }
    }
}
