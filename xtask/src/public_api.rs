//! The command `public-api`: the public items of each crate as a text file, so that a review shows every change of
//! them.

use crate::Result;
use crate::public_items::public_items;
use crate::rustdoc::document_crates;
use crate::workspace::{LibraryCrate, Workspace};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Prints the public items of all crates.
pub(crate) fn print() -> Result<()> {
    for (_, text) in api_texts(&Workspace::load()?)? {
        print!("{text}");
    }
    Ok(())
}

/// Writes the files.
pub(crate) fn write() -> Result<()> {
    let workspace = Workspace::load()?;
    for (library, text) in api_texts(&workspace)? {
        let file = library.api_file();
        std::fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    }
    Ok(())
}

/// Compares the files with the public items.
///
/// # Errors
/// The differences of all crates.
pub(crate) fn check() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut message = String::new();
    for (library, text) in api_texts(&workspace)? {
        let file = library.api_file();
        let stored = match std::fs::read_to_string(&file) {
            Ok(stored) => stored,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
        };
        let differences = differing_lines(&stored, &text);
        if !differences.is_empty() {
            let file = file.strip_prefix(&workspace.root).unwrap_or(&file);
            let _ = write!(message, "{}:\n{differences}\n", file.display());
        }
    }
    if message.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{message}The public items above differ from the files. If the change is intended, run `cargo xtask public-api --write`, \
         commit the files, and describe the change in the CHANGELOG of the crate."
    ))
}

fn api_texts(workspace: &Workspace) -> Result<Vec<(&LibraryCrate, String)>> {
    let docs = document_crates(workspace)?;
    let texts = public_items(&docs).into_iter().map(|items| {
        items.into_iter().fold(String::new(), |mut text, item| {
            text.push_str(&item.text);
            text.push('\n');
            text
        })
    });
    Ok(workspace.libraries.iter().zip(texts).collect())
}

/// Lines of only one of the texts, with `-` for `stored` and `+` for `current`. The lines of a list are all different,
/// so a comparison of sets is enough.
fn differing_lines(stored: &str, current: &str) -> String {
    if stored == current {
        return String::new();
    }
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (stored.lines().collect(), current.lines().collect());
    let mut text = String::new();
    for line in stored.lines().filter(|line| !after.contains(line)) {
        let _ = writeln!(text, "- {line}");
    }
    for line in current.lines().filter(|line| !before.contains(line)) {
        let _ = writeln!(text, "+ {line}");
    }
    if text.is_empty() { "the lines are in another order\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_added_lines_are_shown() {
        let stored = "pub fn a::f()\npub fn a::g()\n";
        let current = "pub fn a::f()\npub fn a::g(n: u64)\npub fn a::h()\n";
        assert_eq!(differing_lines(stored, current), "- pub fn a::g()\n+ pub fn a::g(n: u64)\n+ pub fn a::h()\n");
        assert_eq!(differing_lines(stored, stored), "");
    }

    #[test]
    fn another_order_and_a_missing_file_are_differences() {
        assert_eq!(differing_lines("b\na\n", "a\nb\n"), "the lines are in another order\n");
        assert_eq!(differing_lines("", "a\n"), "+ a\n");
    }
}
