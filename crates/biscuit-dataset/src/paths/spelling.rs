//! The spelling of partition folders: several texts can stand for one value, such as `m=01` and `m=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_schema::internal::{cast_exactly, plain_type};
use datafusion::arrow::array::{Array, ArrayRef, StringArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::DataType;

use crate::codes;
use crate::files::data_file::DataFile;
use crate::paths::hive;

/// Spelling of the folders of a table, for values with several spellings, such as `m=01` for 1. New rows go to the
/// folder in the spelling of the table, so that no value has two folders.
#[derive(Debug, Clone, Default)]
pub struct FolderSpelling {
    /// Existing folders, by the folder that Biscuit would choose for the same values.
    folders: BTreeMap<String, String>,
    /// Spelling of the table, by column and by the text that Biscuit would write.
    values: BTreeMap<(String, String), SpelledValue>,
    /// Folders of the table.
    own: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum SpelledValue {
    /// Text of the same value in the table.
    As(String),
    /// Another text that is the same number, if it is unknown whether the column contains text or numbers.
    Alike(String),
    /// Several texts of the same value: the spelling of the table is ambiguous.
    Several,
}

impl FolderSpelling {
    /// Collects the spelling from the files of a table. `partition` contains the partition columns with their types;
    /// the flag shows whether the type was declared or inferred from the folders.
    ///
    /// # Errors
    /// `PartitionType`.
    pub(crate) fn from_files(files: &[DataFile], partition: &[(String, DataType, bool)]) -> Result<Self> {
        let mut spelling = Self::default();
        let folder = |f: &DataFile| f.listed.folder().to_owned();
        let rows: BTreeMap<String, &[(String, Option<String>)]> =
            files.iter().map(|f| (folder(f), f.partition.as_slice())).collect();
        let value = |row: &&[(String, Option<String>)], at: usize| row.get(at).and_then(|(_, v)| v.clone());
        let mut made: Vec<Vec<Option<String>>> = Vec::new();
        // For each column, find the text that Biscuit would write for each existing value. `made` collects these
        // texts by column, in the order of the folders.
        for (at, (name, t, declared)) in partition.iter().enumerate() {
            let texts: ArrayRef = Arc::new(rows.values().map(|row| value(row, at)).collect::<StringArray>());
            let values = cast_with_options(&texts, t, &CastOptions::default())
                .map_err(|e| Error::internal("partition values could not be read").with_source(e))?;
            let values = folder_texts(&values, name)?;
            let column: Vec<Option<String>> = values.iter().map(|v| v.map(str::to_owned)).collect();
            for (row, made) in rows.values().zip(&column) {
                let (Some(own), Some(made)) = (value(row, at), made) else { continue };
                // `01` in a column whose type was not declared may be the text `01` or the number 1. A new `1` must
                // then be refused, because either choice could split one value over two folders.
                let number = own.parse::<i64>().map(|n| n.to_string()).ok().filter(|n| *n != own);
                let (made, spelled) = match number {
                    Some(number) if *t == DataType::Utf8 && !declared => (number, SpelledValue::Alike(own)),
                    _ => (made.clone(), SpelledValue::As(own)),
                };
                let known = spelling.values.entry((name.clone(), made)).or_insert_with(|| spelled.clone());
                if *known != spelled {
                    *known = SpelledValue::Several;
                }
            }
            made.push(column);
        }
        // The same for whole folders: map the folder that Biscuit would choose to the existing one.
        for (at, own) in rows.keys().enumerate() {
            let canonical =
                made.iter().zip(partition).map(|(column, (name, ..))| hive::folder_name(name, column[at].as_deref()));
            // Nothing is written for a value that cannot be in a path.
            if let Ok(canonical) = canonical.collect::<Result<Vec<_>>>().map(|parts| parts.join("/"))
                && canonical != *own
            {
                spelling.folders.insert(canonical, own.clone());
            }
        }
        spelling.own.extend(rows.into_keys());
        Ok(spelling)
    }

    /// Returns the folder of these values, in the order of the columns.
    ///
    /// # Errors
    /// `PartitionValue` for a text that cannot be in a path; `PartitionSpelling` for a text that is the same number
    /// as another text of the table.
    pub(crate) fn spell_folder(&self, columns: &[String], values: &[Option<&str>]) -> Result<String> {
        let parts = columns
            .iter()
            .zip(values)
            .map(|(name, value)| hive::folder_name(name, *value))
            .collect::<Result<Vec<_>>>()?;
        let plain = parts.join("/");
        if self.own.contains(&plain) {
            return Ok(plain);
        }
        if let Some(own) = self.folders.get(&plain) {
            return Ok(own.clone());
        }
        let part = |((name, value), plain): ((&String, &Option<&str>), String)| {
            let Some(value) = value else { return Ok(plain) };
            match self.values.get(&(name.clone(), (*value).to_owned())) {
                Some(SpelledValue::As(own)) => hive::folder_name(name, Some(own)),
                Some(SpelledValue::Alike(own)) => {
                    let message = format!(
                        "the table has the folder `{name}={own}`, and `{name}={value}` would be a second folder for the same number; use the spelling of the table"
                    );
                    Err(Error::new(codes::PARTITION_SPELLING, message).with_column(name))
                }
                Some(SpelledValue::Several) | None => Ok(plain),
            }
        };
        let parts = columns.iter().zip(values).zip(parts).map(part).collect::<Result<Vec<_>>>()?;
        Ok(parts.join("/"))
    }
}

/// Returns the texts of a partition column as Biscuit writes them in folders, before they are escaped.
///
/// # Errors
/// `PartitionType` for a type that cannot be in a path.
pub(crate) fn folder_texts(array: &ArrayRef, name: &str) -> Result<StringArray> {
    let t = plain_type(array.data_type());
    let folder = t.is_integer()
        || matches!(
            t,
            DataType::Utf8 | DataType::Boolean | DataType::Date32 | DataType::Timestamp(..) | DataType::Decimal128(..)
        );
    if !folder {
        let message = format!(
            "partition column `{name}` has type {t}; use text, integers, decimals, booleans, dates or timestamps"
        );
        return Err(Error::new(codes::PARTITION_TYPE, message));
    }
    let plain = cast_exactly(array, &t, name, "the rows to write")?;
    let texts = cast_exactly(&plain, &DataType::Utf8, name, "the rows to write")?;
    Ok(texts.as_any().downcast_ref::<StringArray>().expect("a cast to Utf8 gives a StringArray").clone())
}

#[cfg(test)]
mod tests {
    use biscuit_core::ObjectRef;

    use super::*;

    fn spelling(folders: &[&str], partition: &[(&str, DataType, bool)]) -> FolderSpelling {
        let file = |folder: &&str| {
            let path = format!("{folder}/f.parquet");
            let partition = hive::partition_values(&path).unwrap();
            DataFile { object: path.as_str().into(), listed: ObjectRef::new(path, 1, None), partition }
        };
        let files: Vec<DataFile> = folders.iter().map(file).collect();
        let partition: Vec<_> = partition.iter().map(|(n, t, d)| ((*n).to_owned(), t.clone(), *d)).collect();
        FolderSpelling::from_files(&files, &partition).unwrap()
    }

    fn folder(spelling: &FolderSpelling, values: &[(&str, &str)]) -> Result<String> {
        let (columns, values): (Vec<String>, Vec<Option<&str>>) =
            values.iter().map(|(n, v)| ((*n).to_owned(), Some(*v))).unzip();
        spelling.spell_folder(&columns, &values)
    }

    #[test]
    fn values_are_written_in_the_spelling_of_the_table() {
        let s = spelling(
            &["y=2024/m=01", "y=2024/m=2", "y=2024/m=12"],
            &[("y", DataType::Int64, true), ("m", DataType::Int32, true)],
        );
        for (m, want) in [("1", "01"), ("2", "2"), ("12", "12"), ("3", "3")] {
            assert_eq!(folder(&s, &[("y", "2024"), ("m", m)]).unwrap(), format!("y=2024/m={want}"));
            assert_eq!(folder(&s, &[("y", "2025"), ("m", m)]).unwrap(), format!("y=2025/m={want}"));
        }
    }

    #[test]
    fn each_folder_keeps_its_own_spelling() {
        let s = spelling(&["y=2024/m=01", "y=2025/m=1"], &[("y", DataType::Int64, true), ("m", DataType::Int32, true)]);
        let m = |y: &str| folder(&s, &[("y", y), ("m", "1")]).unwrap();
        assert_eq!((m("2024"), m("2025"), m("2026")), ("y=2024/m=01".into(), "y=2025/m=1".into(), "y=2026/m=1".into()));
    }

    #[test]
    fn second_spelling_of_a_number_is_refused_unless_the_column_is_declared_as_text() {
        let seen = spelling(&["m=01", "m=10"], &[("m", DataType::Utf8, false)]);
        assert_eq!(folder(&seen, &[("m", "1")]).unwrap_err().code(), "PartitionSpelling");
        assert_eq!(folder(&seen, &[("m", "01")]).unwrap(), "m=01");
        assert_eq!(folder(&seen, &[("m", "3")]).unwrap(), "m=3");
        let declared = spelling(&["m=01", "m=10"], &[("m", DataType::Utf8, true)]);
        assert_eq!(folder(&declared, &[("m", "1")]).unwrap(), "m=1");
    }

    #[test]
    fn other_spellings_of_escapes_and_timestamps_are_kept() {
        let s = spelling(
            &["d=2024-02-29 00%3a00%3A00"],
            &[("d", DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Microsecond, None), true)],
        );
        assert_eq!(folder(&s, &[("d", "2024-02-29T00:00:00")]).unwrap(), "d=2024-02-29 00%3a00%3A00");
    }
}
