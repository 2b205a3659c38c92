use biscuit_core::Result;
use biscuit_schema::{differs_by_calendar, has_legacy_calendar, legacy_calendar};
use datafusion::arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

use crate::files::data_file::OpenFile;

/// Refuses a file with dates or times that are others in the calendar of Spark 2, by its statistics: read as they are they would be days off, and files
/// that are combined have one calendar. INT96 has no statistics, and is looked at
/// where its pages are (`biscuit_schema::check_int96`).
///
/// # Errors
/// `LegacyCalendar`.
pub(crate) fn check_calendar(file: &OpenFile) -> Result<()> {
    let metadata = file.metadata();
    if !has_legacy_calendar(metadata.metadata().file_metadata().key_value_metadata()) {
        return Ok(());
    }
    let groups = metadata.metadata().row_groups();
    let is_time = |t: &DataType| matches!(t, DataType::Date32 | DataType::Timestamp(..));
    for field in metadata.schema().fields().iter().filter(|f| is_time(f.data_type())) {
        let converter = StatisticsConverter::try_new(field.name(), metadata.schema(), metadata.parquet_schema());
        let minimum = converter.and_then(|converter| converter.row_group_mins(groups));
        if minimum.is_ok_and(|minimum| differs_by_calendar(&minimum)) {
            return Err(legacy_calendar(field.name()).in_file(&file.file.path));
        }
    }
    Ok(())
}
