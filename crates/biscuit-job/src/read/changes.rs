//! Formats of change records, from the settings of a source and an output.

use biscuit_apply::IgnoreNull;
use biscuit_change::{BadRows, ChangeFormat, FormatSettings};
use biscuit_core::Result;
use biscuit_schema::{Contract, OnError};
use datafusion::arrow::datatypes::SchemaRef;

use crate::spec::{OutputSpec, SourceFormat, SourceSpec, invalid_spec};

/// Returns how the change records of a source are read. `expected` are the current types of the table.
pub(crate) fn format_of(
    source: &SourceSpec,
    output: &OutputSpec,
    contract: Option<Contract>,
    expected: Option<SchemaRef>,
) -> Result<ChangeFormat> {
    let mut settings = FormatSettings::default();
    settings.bad_rows = bad_rows(contract.as_ref());
    (settings.contract, settings.expected) = (contract, expected);
    settings.table.clone_from(&source.table);
    settings.key.clone_from(&output.key);
    settings.order.clone_from(&output.order);
    settings.op.clone_from(&source.op);
    settings.op_map = source.op_map()?;
    settings.placeholder.clone_from(&source.placeholder);
    settings.timestamp_column.clone_from(&source.timestamp_column);
    settings.csv_null.clone_from(&source.csv_null);
    settings.before_image.clone_from(&source.before_image);
    settings.ignore_null = IgnoreNull::named(&output.ignore_null);
    (settings.csv, settings.encoding) = (source.csv.dialect, source.encoding);
    (settings.max_decompressed, settings.max_record) = (source.max_decompressed, source.max_record);
    match source.format {
        SourceFormat::Debezium => Ok(settings.debezium()),
        SourceFormat::Dms => Ok(settings.dms()),
        SourceFormat::Rows => Ok(settings.rows()),
        _ => Err(invalid_spec("the format of the source does not contain change records")),
    }
}

/// Returns the handling of invalid change records: they are quarantined if the contract continues after errors.
pub(crate) fn bad_rows(contract: Option<&Contract>) -> BadRows {
    match contract.map(|contract| contract.on_error) {
        Some(OnError::Quarantine | OnError::Null) => BadRows::Quarantine,
        _ => BadRows::Fail,
    }
}
