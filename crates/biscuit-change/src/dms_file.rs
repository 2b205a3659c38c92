/// What kind of file of DMS a name says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `LOAD00000001`: the number is hexadecimal.
    Load,
    /// `20141029-1134010000`: the time it was written.
    Changes,
    /// `CDC_TXN-20141029113401000`: the changes of all tables in the order of transactions.
    Transactions,
    Unknown,
}

/// What the path of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DmsFile {
    pub(crate) kind: Kind,
    /// For changes and transactions the time as eighteen digits, `YYYYMMDDHHMMSSffff`; for a load its number, which is
    /// less than any time.
    pub(crate) number: i64,
    pub(crate) schema: Option<String>,
    pub(crate) table: Option<String>,
}

impl DmsFile {
    /// Of a path: `<schema>/<table>/[YYYY/MM/DD/]<name>`; transaction files lie in a folder of their own.
    pub(crate) fn of(path: &str) -> Self {
        let mut parts = path.rsplit(['/', '\\']);
        let name = parts.next().unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        let (kind, number) = if let Some(digits) = stem.strip_prefix("LOAD") {
            i64::from_str_radix(digits, 16).map_or((Kind::Unknown, 0), |n| (Kind::Load, n))
        } else if let Some(digits) = stem.strip_prefix("CDC_TXN-") {
            time(digits).map_or((Kind::Unknown, 0), |n| (Kind::Transactions, n))
        } else {
            let split = stem.split_once('-').filter(|(day, _)| day.len() == 8);
            let number = split.and_then(|(day, rest)| time(&format!("{day}{rest}")));
            number.map_or((Kind::Unknown, 0), |n| (Kind::Changes, n))
        };
        let number_of = |p: &&str, digits: usize| p.len() == digits && p.bytes().all(|b| b.is_ascii_digit());
        let mut folders: Vec<&str> = parts.filter(|p| !p.is_empty()).collect();
        // Folders of a date, the day first since the path was split from its end.
        for digits in [2, 2, 4] {
            if folders.first().is_some_and(|p| number_of(p, digits)) {
                folders.remove(0);
            }
        }
        let of_table = kind != Kind::Transactions && folders.len() > 1;
        let folder = |i: usize| folders.get(i).filter(|_| of_table).map(|f| (*f).to_owned());
        Self { kind, number, schema: folder(1), table: folder(0) }
    }
}

/// Fourteen digits of date and time, and the fraction of a second with as many digits as there are.
fn time(digits: &str) -> Option<i64> {
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
    fn a_path_says_kind_time_and_table() {
        let file = |path| DmsFile::of(path);
        let load = file("s3://b/dms/public/orders/LOAD0000001A.csv.gz");
        assert_eq!((load.kind, load.number, load.table.as_deref()), (Kind::Load, 26, Some("orders")));
        let changes = file("dms/public/orders/2026/11/20/20261120-175407040.parquet");
        assert_eq!((changes.kind, changes.number), (Kind::Changes, 202_611_201_754_070_400));
        assert_eq!((changes.schema.as_deref(), changes.table.as_deref()), (Some("public"), Some("orders")));
        assert_eq!(file("a/b/20141029-1134010000.csv").number, 201_410_291_134_010_000);
        let transactions = file("dms/cdc_path/CDC_TXN-20261120175407614.csv");
        assert_eq!((transactions.kind, transactions.table), (Kind::Transactions, None));
        assert_eq!(file("public/orders/part-0.parquet").kind, Kind::Unknown);
        assert_eq!(file("LOAD00000001.csv").table, None);
    }

    #[test]
    fn a_later_file_has_a_greater_number_whatever_its_digits() {
        assert!(DmsFile::of("20261120-175407040.csv").number < DmsFile::of("20261120-1754070410.csv").number);
        assert!(DmsFile::of("LOADFFFFFFFF.csv").number < DmsFile::of("19700101-000000000.csv").number);
    }
}
