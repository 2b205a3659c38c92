use arrow::datatypes::DataType;

use crate::json::object;
use crate::values::cells::CellDecoder;
use crate::values::codec::ValueCodec;
use crate::values::text::InvalidValue;
use crate::values::text_value::TextValue;

/// Field of `source` that is stored as an order column.
#[derive(Debug, Clone)]
pub(crate) struct SourceField {
    /// Name of the field in `source`.
    pub(crate) field: String,
    /// Name of the order column.
    pub(crate) name: String,
}

impl SourceField {
    /// Returns the type of the order column. A log sequence number of SQL Server has 10 bytes, which are up to 25
    /// digits; all other fields are bigint.
    fn data_type(&self) -> DataType {
        if self.is_hex() { DataType::Decimal128(25, 0) } else { DataType::Int64 }
    }

    /// Returns a decoder of positions, for values of [`decode`](Self::decode). A position before all others is 0.
    pub(crate) fn decoder(&self) -> CellDecoder {
        match self.is_hex() {
            true => CellDecoder::each(self.data_type()),
            false => CellDecoder::new(&ValueCodec::Plain(self.data_type())),
        }
    }

    /// Returns whether the field is a log sequence number in hexadecimal digits.
    fn is_hex(&self) -> bool {
        matches!(self.field.as_str(), "commit_lsn" | "change_lsn" | "begin_lsn")
    }

    /// Decodes a number, also if it is written as text; the number of a binlog file (3 for `mysql-bin.000003`); or a
    /// log sequence number of SQL Server (`00000027:00000758:0005`).
    pub(crate) fn decode(&self, raw: &str) -> Result<TextValue, InvalidValue> {
        let Some(text) = object::parse_string(raw) else { return ValueCodec::Plain(self.data_type()).decode(raw) };
        if self.is_hex() {
            let digits = text.replace(':', "");
            // SQL Server writes ten bytes; Db2 writes fewer.
            let value = (1..=20).contains(&digits.len()).then(|| i128::from_str_radix(&digits, 16).ok()).flatten();
            return value
                .map(TextValue::Decimal)
                .ok_or_else(|| "the value is not a log sequence number of SQL Server or Db2".into());
        }
        let number = match (self.field.as_str(), text.rsplit_once('.')) {
            ("file", Some((_, number))) => number,
            _ => &text,
        };
        number.parse().map(TextValue::Int).map_err(|_| "the value is not a number".into())
    }
}

/// Returns the fields that order the changes of a connector.
pub(crate) fn default_order(connector: Option<&str>) -> &'static [&'static str] {
    match connector {
        Some("mysql" | "mariadb") => &["source.file", "source.pos", "source.row"],
        Some("sqlserver") => &["source.commit_lsn", "source.change_lsn", "source.event_serial_no"],
        Some("db2") => &["source.commit_lsn", "source.change_lsn"],
        Some("oracle") => &["source.scn"],
        Some("mongodb") => &["source.ts_ms", "source.ord"],
        _ => &["source.lsn"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(field: &str, raw: &str) -> Result<TextValue, InvalidValue> {
        SourceField { field: field.into(), name: field.into() }.decode(raw)
    }

    #[test]
    fn binlog_files_are_ordered_by_number() {
        assert_eq!(decode("file", "\"mysql-bin.000003\""), Ok(TextValue::Int(3)));
        assert_eq!(decode("file", "\"bin.log.1000000\""), Ok(TextValue::Int(1_000_000)));
        assert!(decode("file", "\"mysql-bin\"").is_err());
    }

    #[test]
    fn log_sequence_number_of_sql_server_becomes_one_number() {
        assert_eq!(decode("commit_lsn", "\"00000000:00000001:0002\""), Ok(TextValue::Decimal(0x1_0002)));
        let greatest = decode("change_lsn", "\"ffffffff:ffffffff:ffff\"");
        assert_eq!(greatest, Ok(TextValue::Decimal(1_208_925_819_614_629_174_706_175)));
        assert_eq!(decode("commit_lsn", "\"00000000:000004c8\""), Ok(TextValue::Decimal(0x4c8)));
        for bad in ["\"NULL\"", "\"\"", "\"ffffffff:ffffffff:ffff:f\""] {
            assert!(decode("commit_lsn", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_may_be_written_as_text() {
        assert_eq!((decode("scn", "\"17\""), decode("lsn", "17")), (Ok(TextValue::Int(17)), Ok(TextValue::Int(17))));
    }
}
