//! Recognition of folders of other table formats by the names of their log files.

use std::fmt;

use biscuit_core::Error;

use crate::codes;

/// A table format that has a log of its own. Biscuit does not read these logs, so it can neither tell which files of
/// such a folder are live nor change files without breaking the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ForeignTableFormat {
    /// Delta Lake: a folder `_delta_log`.
    DeltaLake,
    /// Apache Iceberg: a folder `metadata` with `*.metadata.json` or `version-hint.text`.
    Iceberg,
    /// Apache Hudi: a folder `.hoodie`.
    Hudi,
    /// Apache Paimon: `schema/schema-0` and further numbers.
    Paimon,
}

impl fmt::Display for ForeignTableFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeltaLake => "Delta Lake",
            Self::Iceberg => "Apache Iceberg",
            Self::Hudi => "Apache Hudi",
            Self::Paimon => "Apache Paimon",
        })
    }
}

impl ForeignTableFormat {
    /// All formats that are recognised.
    pub const ALL: [Self; 4] = [Self::DeltaLake, Self::Iceberg, Self::Hudi, Self::Paimon];

    /// Name of the folder of the log, directly below the folder of its table.
    pub fn log_folder(self) -> &'static str {
        match self {
            Self::DeltaLake => "_delta_log",
            Self::Iceberg => "metadata",
            Self::Hudi => ".hoodie",
            Self::Paimon => "schema",
        }
    }

    /// Returns the error `OtherTableFormat` for the folder of a table of this format.
    pub fn refused(self, folder: &str) -> Error {
        let message = format!(
            "`{folder}` is a table of {self}, whose own log decides which files are live; nothing was done; use the tools of {self}, or allow other table formats (`--allow-other-formats`) to use the files as they are"
        );
        Error::new(codes::OTHER_TABLE_FORMAT, message)
    }

    /// Returns the format and the folder of the table whose log contains this key; `None` if the key is not part of a
    /// log.
    ///
    /// ```
    /// use biscuit_purge::ForeignTableFormat as Format;
    ///
    /// let found = Format::of_log("lake/t/_delta_log/00000000000000000000.json");
    /// assert_eq!(found, Some((Format::DeltaLake, "lake/t")));
    /// assert_eq!(Format::of_log("lake/t/metadata/v3.metadata.json"), Some((Format::Iceberg, "lake/t")));
    /// assert_eq!(Format::of_log("lake/t/metadata/notes.json"), None);
    /// ```
    pub fn of_log(key: &str) -> Option<(Self, &str)> {
        let mut from = 0;
        loop {
            let end = key[from..].find('/').map(|i| from + i)?;
            let rest = &key[end + 1..];
            if let Some(format) =
                Self::ALL.into_iter().find(|f| key[from..end] == *f.log_folder() && f.is_log_file(rest))
            {
                return Some((format, key[..from].trim_end_matches('/')));
            }
            from = end + 1;
        }
    }

    /// Whether a path below the folder of the log is one that only this format writes. The names `metadata` and
    /// `schema` are common, so for these the name of the file decides.
    fn is_log_file(self, rest: &str) -> bool {
        match self {
            Self::DeltaLake | Self::Hudi => true,
            Self::Iceberg => rest.ends_with(".metadata.json") || rest == "version-hint.text",
            Self::Paimon => rest
                .strip_prefix("schema-")
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_recognised_at_any_depth_and_at_the_root() {
        assert_eq!(ForeignTableFormat::of_log("_delta_log/0.json"), Some((ForeignTableFormat::DeltaLake, "")));
        assert_eq!(
            ForeignTableFormat::of_log("a/b/.hoodie/hoodie.properties"),
            Some((ForeignTableFormat::Hudi, "a/b"))
        );
        assert_eq!(ForeignTableFormat::of_log("a/schema/schema-12"), Some((ForeignTableFormat::Paimon, "a")));
        assert_eq!(
            ForeignTableFormat::of_log("a/metadata/version-hint.text"),
            Some((ForeignTableFormat::Iceberg, "a"))
        );
    }

    #[test]
    fn folders_with_similar_names_are_not_logs() {
        for other in
            ["a/schema/schema-x", "a/metadata/x.json", "a/_delta_log", "a/_delta_logs/0.json", "part-0.parquet"]
        {
            assert_eq!(ForeignTableFormat::of_log(other), None, "{other}");
        }
    }
}
