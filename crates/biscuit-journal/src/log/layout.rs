//! Names of files and objects: data files, trial copies, objects of the journal, run folders, and their maximum
//! lengths.

use object_store::path::Path;

/// Prefix of data files that Biscuit writes: `biscuit-<writer id>-<number>.<ending>`. A writer id has 16 hexadecimal
/// digits, so two executions never write the same name.
const MARK: &str = "biscuit-";

/// Folder that contains the default state roots of the tables beside it.
pub(crate) const STATE: &str = ".biscuit";

/// Name of the pointer in the default state root of every table with a journal. The pointer names the state root.
pub(crate) const POINTER: &str = "root.json";

/// Name of a data file of the execution with this writer id.
pub(crate) fn data_name(writer_id: &str, number: u32, ending: &str) -> String {
    format!("{MARK}{writer_id}-{number:05}.{ending}")
}

/// Prefix of the trial copies of a run in the folders of the table. Readers skip them because of the underscore.
const TRIAL: &str = "_biscuit-trial-";

/// Name of a trial copy of the execution with this base and writer id.
pub(crate) fn trial_name(base: u64, writer_id: &str) -> String {
    format!("{TRIAL}{base}-{writer_id}")
}

/// Base of the run that made the trial copy with this path; none for any other file.
pub(crate) fn trial_base(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?.strip_prefix(TRIAL)?;
    parse_run_folder(name).map(|(base, _)| base)
}

/// Maximum length of a name on common file systems, in bytes.
pub const MAX_NAME: usize = 255;

/// Maximum length of a key on S3, in bytes.
pub(crate) const MAX_KEY: usize = 1024;

/// Returns the writer id in the name of a data file that Biscuit wrote; none for any other file.
///
/// ```
/// use biscuit_journal::writer_id_of;
///
/// assert_eq!(writer_id_of("day=1/biscuit-00000000000000ff-00003.parquet"), Some("00000000000000ff"));
/// assert_eq!(writer_id_of("day=1/part-00000.snappy.parquet"), None);
/// ```
pub fn writer_id_of(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?.strip_prefix(MARK)?;
    let (writer_id, rest) = name.split_once('-')?;
    let number = rest.split_once('.')?.0;
    let hex = writer_id.len() == 16 && writer_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (hex && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(writer_id)
}

/// Whether Hive-style readers skip a path relative to the table. They skip a path with a segment that starts with `_`
/// or `.` (except a partition folder such as `_col=value`), checksum files (`.crc`), and folder markers
/// (`_$folder$`).
///
/// ```
/// use biscuit_journal::internal::is_hidden;
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

/// Returns the default state root of a table: `.biscuit/<table>` beside the folder of the table.
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

/// Kind of an object in the folder of the journal, with its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JournalObjectKind {
    Record(u64),
    Done(u64),
    Checkpoint(u64),
}

impl JournalObjectKind {
    pub(crate) fn path(self, state: &Path) -> Path {
        // Twenty digits hold every `u64`, and with leading zeros the order of names is the order of versions.
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

/// Parses the name of a run folder, `<base>-<writer id>`. A run writes into `<kind>/<base>-<writer id>/` before its
/// commit, so the name shows when the run is dead: once version `base + 1` is finished.
pub(crate) fn parse_run_folder(name: &str) -> Option<(u64, &str)> {
    let (base, writer_id) = name.split_once('-')?;
    Some((base.parse().ok()?, writer_id))
}

pub(crate) fn run_folder(state: &Path, kind: &str, base: u64, writer_id: &str) -> Path {
    state.clone().join(kind).join(format!("{base}-{writer_id}"))
}

/// Returns the path of `relative` below `root`. Segments are taken literally: `%2F` in a partition value is not
/// decoded, and only a segment that is not a valid part of a path is percent-encoded.
pub(crate) fn path_below(root: &Path, relative: &str) -> Path {
    relative
        .split('/')
        .fold(root.clone(), |p, segment| Path::parse(format!("{p}/{segment}")).unwrap_or_else(|_| p.join(segment)))
}

/// Returns the folder of a relative path; empty for a file at the root.
pub(crate) fn folder_of(relative: &str) -> &str {
    relative.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_journal_objects_round_trip() {
        let state = Path::from(".biscuit/t");
        for e in [JournalObjectKind::Record(7), JournalObjectKind::Done(7), JournalObjectKind::Checkpoint(32)] {
            assert_eq!(JournalObjectKind::parse(&e.path(&state)), Some(e));
        }
        assert_eq!(JournalObjectKind::parse(&Path::from(".biscuit/t/journal/7.json")), None);
    }

    #[test]
    fn a_percent_sign_in_a_partition_value_is_not_decoded() {
        assert_eq!(path_below(&Path::from("t"), "c=a%2Fb/x").as_ref(), "t/c=a%2Fb/x");
    }

    #[test]
    fn incomplete_biscuit_names_are_not_biscuit_files() {
        for other in
            ["biscuit-ff-0.parquet", "biscuit-00000000000000FF-0.parquet", "biscuit-00000000000000ff-x.parquet"]
        {
            assert_eq!(writer_id_of(other), None, "{other}");
        }
    }
}
