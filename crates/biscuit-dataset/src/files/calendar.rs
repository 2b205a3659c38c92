//! Check of files for dates and times in the calendar of Spark 2.

use biscuit_core::Result;
use biscuit_schema::internal::{differs_by_calendar, has_legacy_calendar, legacy_calendar};
use datafusion::arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

/// Refuses a file with dates or times that differ in the calendar of Spark 2, by its statistics. Such values would be
/// read days off, and a file that is combined from several ones has one calendar. INT96 columns have no statistics;
/// `biscuit_schema::internal::check_int96` checks them where their pages are read. `path` names the file in the error.
///
/// # Errors
/// `LegacyCalendar`.
pub(crate) fn check_calendar(metadata: &ArrowReaderMetadata, path: &str) -> Result<()> {
    if !has_legacy_calendar(metadata.metadata().file_metadata().key_value_metadata()) {
        return Ok(());
    }
    let groups = metadata.metadata().row_groups();
    let is_time = |t: &DataType| matches!(t, DataType::Date32 | DataType::Timestamp(..));
    for field in metadata.schema().fields().iter().filter(|f| is_time(f.data_type())) {
        let converter = StatisticsConverter::try_new(field.name(), metadata.schema(), metadata.parquet_schema());
        let minima = converter.and_then(|converter| converter.row_group_mins(groups));
        if minima.is_ok_and(|minima| differs_by_calendar(&minima)) {
            return Err(legacy_calendar(field.name()).in_file(path));
        }
    }
    Ok(())
}
