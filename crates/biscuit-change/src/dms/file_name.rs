//! Names of DMS files: kind of file, time or number, schema and table.

/// Kind of a DMS file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DmsFileKind {
    /// Full load, `LOAD00000001` with a hexadecimal number.
    Load,
    /// Changes of one table, `20141029-1134010000` with the time at which the file was written.
    Changes,
    /// Changes of all tables in the order of transactions, `CDC_TXN-20141029113401000`.
    Transactions,
    Unknown,
}

/// Parts of the path of a DMS file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DmsFile {
    pub(crate) kind: DmsFileKind,
    /// Time of changes and transactions as eighteen digits, `YYYYMMDDHHMMSSffff`; number of a full load, which is
    /// less than any time.
    pub(crate) number: i64,
    pub(crate) schema: Option<String>,
    pub(crate) table: Option<String>,
}

impl DmsFile {
    /// Parses a path `<schema>/<table>/[YYYY/MM/DD/]<name>`. Transaction files are in a folder of their own.
    pub(crate) fn parse(path: &str) -> Self {
        let mut parts = path.rsplit(['/', '\\']);
        let name = parts.next().unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        let (kind, number) = if let Some(digits) = stem.strip_prefix("LOAD") {
            i64::from_str_radix(digits, 16).map_or((DmsFileKind::Unknown, 0), |n| (DmsFileKind::Load, n))
        } else if let Some(digits) = stem.strip_prefix("CDC_TXN-") {
            parse_time(digits).map_or((DmsFileKind::Unknown, 0), |n| (DmsFileKind::Transactions, n))
        } else {
            let split = stem.split_once('-').filter(|(day, _)| day.len() == 8);
            let number = split.and_then(|(day, rest)| parse_time(&format!("{day}{rest}")));
            number.map_or((DmsFileKind::Unknown, 0), |n| (DmsFileKind::Changes, n))
        };
        let mut folders: Vec<&str> = parts.filter(|p| !p.is_empty()).collect();
        // Only change files are in date folders, and at least the schema and the table are above these folders. The
        // longest run of folders that is a date is removed.
        if kind == DmsFileKind::Changes {
            let of_date = (1..=4).rev().find(|n| folders.len() >= n + 2 && is_date(&folders[..*n]));
            folders.drain(..of_date.unwrap_or(0));
        }
        let of_table = kind != DmsFileKind::Transactions && folders.len() > 1;
        let folder = |i: usize| folders.get(i).filter(|_| of_table).map(|f| (*f).to_owned());
        Self { kind, number, schema: folder(1), table: folder(0) }
    }
}

/// Returns whether folders, the last one first, are a date: the parts of `DatePartitionSequence` in several folders,
/// or in one folder with dashes, underscores or nothing between them.
///
/// Source: `DatePartitionSequence` and `DatePartitionDelimiter` in the settings of DMS for S3 targets.
fn is_date(folders: &[&str]) -> bool {
    let parts: Vec<&str> = match folders {
        [one] => match one.split(['-', '_']).collect::<Vec<_>>() {
            parts if parts.len() > 1 => parts,
            _ => return is_date_of(one),
        },
        several => several.iter().rev().copied().collect(),
    };
    let lengths: Vec<usize> = parts.iter().map(|p| p.len()).collect();
    matches!(lengths.as_slice(), [4, 2] | [4, 2, 2] | [4, 2, 2, 2] | [2, 4, 2] | [2, 2, 4])
        && is_date_of(&parts.concat())
}

/// Returns whether digits are a date: `YYYYMM`, `YYYYMMDD`, `YYYYMMDDHH`, `MMYYYYDD` or `DDMMYYYY`.
fn is_date_of(digits: &str) -> bool {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let is = |from: usize, to: usize, range: std::ops::RangeInclusive<u32>| {
        digits.get(from..to).and_then(|n| n.parse().ok()).is_some_and(|n| range.contains(&n))
    };
    let (years, months, days) = (1990..=2199, 1..=12, 1..=31);
    match digits.len() {
        6 => is(0, 4, years) && is(4, 6, months),
        8 => {
            let year_first = is(0, 4, years.clone()) && is(4, 6, months.clone()) && is(6, 8, days.clone());
            let month_first = is(0, 2, months.clone()) && is(2, 6, years.clone()) && is(6, 8, days.clone());
            let day_first = is(0, 2, days) && is(2, 4, months) && is(4, 8, years);
            year_first || month_first || day_first
        }
        10 => is(0, 4, years) && is(4, 6, months) && is(6, 8, days) && is(8, 10, 0..=23),
        _ => false,
    }
}

/// Parses fourteen digits of date and time and up to four digits of the fraction of a second. The fraction is padded
/// with zeros on the right: `040` is 0.0400 s, not 0.0040 s, so that times with different numbers of digits compare.
fn parse_time(digits: &str) -> Option<i64> {
    let (second, fraction) = digits.split_at_checked(14)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) || fraction.len() > 4 {
        return None;
    }
    format!("{second}{fraction:0<4}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_determines_kind_time_and_table() {
        let file = |path| DmsFile::parse(path);
        let load = file("s3://b/dms/public/orders/LOAD0000001A.csv.gz");
        assert_eq!((load.kind, load.number, load.table.as_deref()), (DmsFileKind::Load, 26, Some("orders")));
        let changes = file("dms/public/orders/2026/11/20/20261120-175407040.parquet");
        assert_eq!((changes.kind, changes.number), (DmsFileKind::Changes, 202_611_201_754_070_400));
        assert_eq!((changes.schema.as_deref(), changes.table.as_deref()), (Some("public"), Some("orders")));
        assert_eq!(file("a/b/20141029-1134010000.csv").number, 201_410_291_134_010_000);
        let transactions = file("dms/cdc_path/CDC_TXN-20261120175407614.csv");
        assert_eq!((transactions.kind, transactions.table), (DmsFileKind::Transactions, None));
        assert_eq!(file("public/orders/part-0.parquet").kind, DmsFileKind::Unknown);
        assert_eq!(file("LOAD00000001.csv").table, None);
    }

    #[test]
    fn date_folders_in_any_sequence_and_delimiter_are_not_tables() {
        for folder in [
            "2024/05/06",
            "2024/05/06/13",
            "2024/05",
            "05/2024/06",
            "06/05/2024",
            "2024-05-06",
            "2024-05-06-13",
            "2024-05",
            "05-2024-06",
            "06-05-2024",
            "2024_05_06",
            "06_05_2024",
            "20240506",
            "2024050613",
            "202405",
            "05202406",
            "06052024",
        ] {
            let of = |table: &str| DmsFile::parse(&format!("dms/public/{table}/{folder}/20240506-130501123.csv"));
            for table in ["orders", "2024", "orders_2024"] {
                let file = of(table);
                assert_eq!((file.schema.as_deref(), file.table.as_deref()), (Some("public"), Some(table)), "{folder}");
            }
        }
        let of = |path: &str| DmsFile::parse(path).table;
        assert_eq!(of("public/202405/LOAD00000001.csv").as_deref(), Some("202405"), "full loads have no date folders");
        assert_eq!(of("public/2024/20240506-130501123.csv").as_deref(), Some("2024"));
        assert_eq!(of("public/20241399/20240506-130501123.csv").as_deref(), Some("20241399"), "no such month");
        assert_eq!(
            of("public/202405/20240506-130501123.csv").as_deref(),
            Some("202405"),
            "a schema and a table are required above date folders"
        );
    }

    #[test]
    fn later_file_has_a_greater_number_with_any_number_of_digits() {
        assert!(DmsFile::parse("20261120-175407040.csv").number < DmsFile::parse("20261120-1754070410.csv").number);
        assert!(DmsFile::parse("LOADFFFFFFFF.csv").number < DmsFile::parse("19700101-000000000.csv").number);
    }
}
