//! Hive paths: escaping of folder names, partition values of a path, and checks of partition columns.

use biscuit_core::{Error, Result};
use biscuit_journal::internal::MAX_NAME;

use crate::codes;

/// Folder value that stands for null.
pub(crate) const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Characters that Hive escapes as `%XX` in names of partition folders, in addition to control characters.
const ESCAPED: &str = "\"#%'*/:=?\\{[]^\u{7f}";

/// Escapes a text for the name of a partition folder.
///
/// ```
/// assert_eq!(biscuit_dataset::internal::escape("10:30 a/b"), "10%3A30 a%2Fb");
/// ```
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c < ' ' || ESCAPED.contains(c) {
            out.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Reverses [`escape`]. A `%` that is not followed by two hexadecimal digits stands for itself.
pub fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = text.get(i + 1..i + 3).filter(|_| bytes[i] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(b) => {
                out.push(b);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns the partition columns and values of a path relative to its table. `None` is null.
///
/// # Errors
/// `NotHivePath` for a folder that is not `column=value`.
///
/// ```
/// let values = biscuit_dataset::internal::partition_values("a=x%2Fy/b=__HIVE_DEFAULT_PARTITION__/f.parquet").unwrap();
/// assert_eq!(values, [("a".into(), Some("x/y".into())), ("b".into(), None)]);
/// ```
pub fn partition_values(path: &str) -> Result<Vec<(String, Option<String>)>> {
    let Some((folders, _)) = path.rsplit_once('/') else { return Ok(vec![]) };
    let value = |folder: &str| match folder.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((unescape(name), (value != HIVE_NULL).then(|| unescape(value)))),
        _ => Err(Error::new(codes::NOT_HIVE_PATH, format!("the folder `{folder}` of `{path}` is not `column=value`"))),
    };
    folders.split('/').map(value).collect()
}

/// Checks that a text of a partition column can be the name of a folder.
///
/// # Errors
/// `PartitionValue` for the empty text, the text that stands for null, and a text whose folder name would be too
/// long.
pub(crate) fn check_folder(column: &str, text: &str) -> Result<()> {
    folder_name(column, Some(text)).map(drop)
}

/// Returns the folder for a value of a column.
///
/// # Errors
/// `PartitionValue` for a text without a folder in Hive (the empty text, and the text that stands for null), and for
/// a folder name that would be too long.
pub(crate) fn folder_name(column: &str, value: Option<&str>) -> Result<String> {
    let value = match value {
        None => HIVE_NULL.to_owned(),
        Some("") => return Err(no_folder(column, "an empty text")),
        Some(HIVE_NULL) => return Err(no_folder(column, "the text that stands for null")),
        Some(v) => escape(v),
    };
    let name = format!("{}={value}", escape(column));
    if name.len() > MAX_NAME {
        let message = format!(
            "partition column `{column}` contains a text whose folder name would have {} bytes; the maximum is {MAX_NAME}. Partition by a shorter text",
            name.len()
        );
        return Err(Error::new(codes::PARTITION_VALUE, message).with_column(column));
    }
    Ok(name)
}

/// Refuses partition columns that readers could not read: a column that is named twice (ignoring case, as Hive
/// compares names), a column whose name is empty or hidden from readers, and partitioning by all columns, which
/// leaves files without a column. `columns` are all columns of the rows, partition columns included.
///
/// # Errors
/// `PartitionColumns`.
pub fn check_partition_columns<'a>(columns: impl IntoIterator<Item = &'a str>, partition_by: &[String]) -> Result<()> {
    check_partition_names(partition_by)?;
    if !partition_by.is_empty() && columns.into_iter().all(|column| partition_by.iter().any(|p| p == column)) {
        let message = "all columns are partition columns, so the files would have no columns; leave one out";
        return Err(Error::new(codes::PARTITION_COLUMNS, message));
    }
    Ok(())
}

/// Checks the names like [`check_partition_columns`], without the check for other columns: there may be no rows yet.
pub(crate) fn check_partition_names(partition_by: &[String]) -> Result<()> {
    let refused = |message: String| Err(Error::new(codes::PARTITION_COLUMNS, message));
    for (i, name) in partition_by.iter().enumerate() {
        if partition_by[..i].iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return refused(format!("partition column `{name}` is given twice"));
        }
        if name.is_empty() || name.starts_with('.') {
            return refused(format!(
                "column `{name}` cannot be a partition column: readers skip folders whose names are empty or begin with a dot"
            ));
        }
    }
    Ok(())
}

fn no_folder(column: &str, what: &str) -> Error {
    let message = format!("partition column `{column}` contains {what}, which has no Hive path");
    Error::new(codes::PARTITION_VALUE, message).with_column(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_texts_are_read_back() {
        for text in ["a b", "ä=ö/ü", "100%", "%2F", "\u{1}\u{7f}", "…", "x:y?z", "%zz"] {
            assert_eq!(unescape(&escape(text)), text);
        }
        assert_eq!(unescape("50%"), "50%");
    }

    #[test]
    fn folder_without_a_column_name_is_refused() {
        assert_eq!(partition_values("2024/f.parquet").unwrap_err().code(), "NotHivePath");
        assert_eq!(partition_values("f.parquet").unwrap(), []);
    }

    #[test]
    fn texts_without_a_folder_are_refused() {
        assert_eq!(folder_name("c", Some("")).unwrap_err().code(), "PartitionValue");
        assert_eq!(folder_name("c", Some(HIVE_NULL)).unwrap_err().code(), "PartitionValue");
        assert_eq!(folder_name("c", None).unwrap(), "c=__HIVE_DEFAULT_PARTITION__");
    }

    #[test]
    fn texts_with_too_long_a_folder_name_are_refused() {
        assert_eq!(folder_name("c", Some(&"x".repeat(253))).unwrap().len(), 255);
        // Each text has 254 bytes or more after escaping: an escaped slash has three bytes.
        for text in ["x".repeat(254), "/".repeat(85), "ä".repeat(127)] {
            let e = folder_name("c", Some(&text)).unwrap_err();
            assert_eq!((e.code(), e.column()), ("PartitionValue", Some("c")), "{text}");
        }
    }

    #[test]
    fn partition_columns_leave_readable_rows() {
        let check = |columns: &[&str], by: &[&str]| {
            let by: Vec<String> = by.iter().map(|name| (*name).to_owned()).collect();
            check_partition_columns(columns.iter().copied(), &by).err().map(|e| e.code())
        };
        assert_eq!(check(&["a", "b"], &["b"]), None);
        assert_eq!(check(&["a", "b"], &[]), None);
        assert_eq!(check(&["_a", "b"], &["_a"]), None);
        for (columns, by) in [
            (&["a", "b"][..], &["a", "b"][..]),
            (&["a", "b"], &["b", "b"]),
            (&["a", "b", "B"], &["b", "B"]),
            (&["a", ".b"], &[".b"]),
            (&["a", ""], &[""]),
        ] {
            assert_eq!(check(columns, by), Some("PartitionColumns"), "{by:?}");
        }
    }
}
