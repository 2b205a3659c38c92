use biscuit_core::{Error, Result};
use object_store::path::Path;

use crate::journal::Journal;
use crate::log::record::CommitRecord;

/// Files of Biscuit are called `biscuit-<writer_id>-<number>.<ending>`; the nonce is 16 hexadecimal digits.
const MARK: &str = "biscuit-";

/// The folder in which state roots are by default.
pub(crate) const STATE: &str = ".biscuit";

/// In the default state root of every table with a journal: where its state is.
pub(crate) const POINTER: &str = "root.json";

/// The name of a data file of the run with this nonce.
pub(crate) fn data_name(writer_id: &str, number: u32, ending: &str) -> String {
    format!("{MARK}{writer_id}-{number:05}.{ending}")
}

/// What the trial copies of a run are called, in the folders of the table; readers pass over them.
const TRIAL: &str = "_biscuit-trial-";

/// The name of a trial copy of the run with this base and nonce.
pub(crate) fn trial(base: u64, writer_id: &str) -> String {
    format!("{TRIAL}{base}-{writer_id}")
}

/// The base of the run whose trial copy has this path; none for any other file.
pub(crate) fn trial_base(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?.strip_prefix(TRIAL)?;
    parse_run_folder(name).map(|(base, _)| base)
}

/// Bytes that a name may have on common file systems.
pub const MAX_NAME: usize = 255;

/// Bytes that a whole key may have on S3.
pub const MAX_KEY: usize = 1024;

/// Refuses files whose names are too long for S3 or for common file systems, whichever store this is: a table can be moved.
///
/// # Errors
/// `NameTooLong`.
pub(crate) fn check_lengths(journal: &Journal, record: &CommitRecord) -> Result<()> {
    let too_long = |what: &str, key: &str, limit: usize, has: usize| {
        let message = format!(
            "{what} of `{}` would have {has} bytes, and stores take {limit}; nothing was committed: partition by a shorter text, or use a shorter path for the table",
            shortened(key)
        );
        Error::data("NameTooLong", message)
    };
    for file in &record.publish {
        if let Some(name) = file.path.split('/').find(|name| name.len() > MAX_NAME) {
            return Err(too_long("a name in the path", &file.path, MAX_NAME, name.len()));
        }
        for (root, path) in [(&journal.table, &file.path), (&journal.state, &file.staged)] {
            let length = root.as_ref().len() + 1 + path.len();
            if length > MAX_KEY {
                return Err(too_long("the path", path, MAX_KEY, length));
            }
        }
    }
    Ok(())
}

/// The first characters of a text that may be long.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The nonce in the name of a data file that Biscuit wrote; none for any other file.
///
/// ```
/// use biscuit_journal::biscuit_nonce;
///
/// assert_eq!(biscuit_nonce("day=1/biscuit-00000000000000ff-00003.parquet"), Some("00000000000000ff"));
/// assert_eq!(biscuit_nonce("day=1/part-00000.snappy.parquet"), None);
/// ```
pub fn writer_id_of(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?.strip_prefix(MARK)?;
    let (writer_id, rest) = name.split_once('-')?;
    let number = rest.split_once('.')?.0;
    let hex = writer_id.len() == 16 && writer_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (hex && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(writer_id)
}

/// Whether Hive-style readers pass over a path relative to the table: a segment starts with `_` or `.` (a partition
/// folder `_col=value` does not count), or the file is a marker that some tools leave for a folder.
///
/// ```
/// use biscuit_journal::is_hidden;
///
/// assert!(is_hidden("_temporary/0/part-0.parquet") && is_hidden("a=1/.part-0.crc") && is_hidden("a_$folder$"));
/// assert!(!is_hidden("_a=1/part-0.parquet"));
/// ```
pub fn is_hidden(relative: &str) -> bool {
    let mut segments = relative.split('/').peekable();
    while let Some(segment) = segments.next() {
        let folder = segments.peek().is_some();
        if segment.starts_with('.') || (segment.starts_with('_') && !(folder && segment.contains('='))) {
            return true;
        }
    }
    relative.ends_with("_$folder$") || relative.ends_with(".crc")
}

/// Where the state of a table lives unless told otherwise: the sibling `.biscuit/<table>` of the table's folder.
///
/// ```
/// use biscuit_journal::default_state_root;
/// use object_store::path::Path;
///
/// assert_eq!(default_state_root(&Path::from("lake/orders")), Path::from("lake/.biscuit/orders"));
/// ```
pub fn default_state_root(table: &Path) -> Path {
    let mut parts: Vec<_> = table.parts().collect();
    let name = parts.pop();
    Path::from_iter(parts.into_iter().chain([STATE.into()]).chain(name))
}

/// The kinds of objects in the journal's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JournalObjectKind {
    Record(u64),
    Done(u64),
    Checkpoint(u64),
}

impl JournalObjectKind {
    pub(crate) fn path(self, state: &Path) -> Path {
        let name = match self {
            Self::Record(v) => format!("{v:020}.json"),
            Self::Done(v) => format!("{v:020}.done"),
            Self::Checkpoint(v) => format!("{v:020}.checkpoint"),
        };
        journal_folder(state).join(name)
    }

    pub(crate) fn parse(path: &Path) -> Option<Self> {
        let (number, ending) = path.filename()?.split_once('.')?;
        let v = (number.len() == 20).then(|| number.parse().ok())??;
        match ending {
            "json" => Some(Self::Record(v)),
            "done" => Some(Self::Done(v)),
            "checkpoint" => Some(Self::Checkpoint(v)),
            _ => None,
        }
    }
}

pub(crate) fn journal_folder(state: &Path) -> Path {
    state.clone().join("journal")
}

/// What a run writes before its commit lives in `<kind>/<base>-<writer_id>/`; this reads the base and the nonce back.
pub(crate) fn parse_run_folder(name: &str) -> Option<(u64, &str)> {
    let (base, writer_id) = name.split_once('-')?;
    Some((base.parse().ok()?, writer_id))
}

pub(crate) fn run_folder(state: &Path, kind: &str, base: u64, writer_id: &str) -> Path {
    state.clone().join(kind).join(format!("{base}-{writer_id}"))
}

/// A path below the table from its relative form.
pub(crate) fn below(root: &Path, relative: &str) -> Path {
    relative
        .split('/')
        .fold(root.clone(), |p, segment| Path::parse(format!("{p}/{segment}")).unwrap_or_else(|_| p.join(segment)))
}

/// The folder part of a relative path; empty for a file at the root.
pub(crate) fn folder_of(relative: &str) -> &str {
    relative.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back() {
        let state = Path::from(".biscuit/t");
        for e in [JournalObjectKind::Record(7), JournalObjectKind::Done(7), JournalObjectKind::Checkpoint(32)] {
            assert_eq!(JournalObjectKind::parse(&e.path(&state)), Some(e));
        }
        assert_eq!(JournalObjectKind::parse(&Path::from(".biscuit/t/journal/7.json")), None);
    }

    #[test]
    fn a_percent_in_a_partition_value_stays_as_it_is() {
        assert_eq!(below(&Path::from("t"), "c=a%2Fb/x").as_ref(), "t/c=a%2Fb/x");
    }

    #[test]
    fn only_whole_biscuit_names_are_biscuit_files() {
        for other in
            ["biscuit-ff-0.parquet", "biscuit-00000000000000FF-0.parquet", "biscuit-00000000000000ff-x.parquet"]
        {
            assert_eq!(writer_id_of(other), None, "{other}");
        }
    }
}
