//! The input of a run: selected objects, their numbers, and lists for the report.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::object::SourceObject;
use crate::selection::ignored::IgnoredReason;
use crate::selection::mode::ReadMode;

/// Maximum number of names of one kind in a report.
const NAMED: usize = 1000;

/// Numbers of objects in a selection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SelectionCounts {
    /// Number of listed objects, including ignored ones.
    pub listed: u64,
    /// Number of objects to read.
    pub selected: u64,
    /// Sum of the sizes of the objects to read, in bytes.
    pub bytes: u64,
    /// Number of objects to read that were read before and overwritten since.
    pub overwritten: u64,
    /// Number of objects that were read before and have not changed.
    pub known: u64,
    /// Number of overwritten objects that are skipped.
    pub passed_over: u64,
    /// Number of objects that appeared with a time before the allowed lateness.
    pub too_late: u64,
    /// Number of objects that the limit leaves to the next runs.
    pub left: u64,
    /// Number of objects that a replay asks for and that no longer exist, or that disappeared before they were read.
    pub gone: u64,
    /// Number of ignored objects, by the name of the reason.
    pub ignored: BTreeMap<&'static str, u64>,
}

impl fmt::Display for SelectionCounts {
    /// Writes the objects to read, and the numbers of other objects that are not 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} files, {} bytes", self.selected, self.listed, self.bytes)?;
        let others = [
            (self.overwritten, "overwritten and read again"),
            (self.known, "already read"),
            (self.passed_over, "overwritten and skipped"),
            (self.too_late, "older than the allowed lateness"),
            (self.left, "left for the next run"),
            (self.gone, "missing"),
            (self.ignored.values().sum(), "ignored"),
        ];
        others.iter().filter(|(n, _)| *n > 0).try_for_each(|(n, what)| write!(f, ", {n} {what}"))
    }
}

/// Input of a run: the objects to read, and what was found about the other ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InputSelection {
    /// Objects to read, oldest first; objects with the same time are sorted by URL.
    #[serde(skip)]
    pub objects: Vec<SourceObject>,
    /// Numbers of objects of each kind.
    pub counts: SelectionCounts,
    /// URLs of the objects to read that were overwritten.
    pub overwritten: Vec<String>,
    /// URLs of objects that appeared with a time before the allowed lateness. At most 1,000, as in the following
    /// lists.
    pub too_late: Vec<String>,
    /// URLs of ignored objects, with the reason.
    pub ignored: Vec<(String, IgnoredReason)>,
    /// URLs of objects that a replay asks for and that no longer exist, or that disappeared before they were read.
    pub gone: Vec<String>,
    /// Warnings for the user, for example about a renamed source or changed options.
    pub warnings: Vec<String>,
    #[serde(skip)]
    pub(crate) mode: ReadMode,
    #[serde(skip)]
    pub(crate) places: Vec<String>,
}

impl InputSelection {
    /// Removes an object that no longer existed when it was to be read, so that it does not count as read. Returns
    /// whether the selection contained it.
    pub fn remove_missing(&mut self, url: &str) -> bool {
        let Some(at) = self.objects.iter().position(|o| o.url() == url) else { return false };
        let object = self.objects.remove(at);
        self.counts.selected -= 1;
        self.counts.bytes -= object.listed.size;
        self.counts.gone += 1;
        push_name(&mut self.gone, object.listed.path);
        true
    }

    pub(crate) fn add(&mut self, object: SourceObject) {
        self.counts.selected += 1;
        self.counts.bytes += object.listed.size;
        self.objects.push(object);
    }
}

/// Adds a name to a list of a report, up to the maximum.
pub(crate) fn push_name<T>(names: &mut Vec<T>, name: T) {
    if names.len() < NAMED {
        names.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_name_the_numbers_that_are_not_zero() {
        let mut counts = SelectionCounts { listed: 9, selected: 2, bytes: 70, ..SelectionCounts::default() };
        assert_eq!(counts.to_string(), "2 of 9 files, 70 bytes");
        (counts.known, counts.passed_over, counts.gone) = (4, 1, 1);
        counts.ignored = BTreeMap::from([("empty", 1), ("hidden", 1)]);
        let others = "4 already read, 1 overwritten and skipped, 1 missing, 2 ignored";
        assert_eq!(counts.to_string(), format!("2 of 9 files, 70 bytes, {others}"));
    }
}
