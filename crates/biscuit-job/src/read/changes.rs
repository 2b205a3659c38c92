use biscuit_change::{BadRows, DebeziumOptions, DmsOptions, RowsOptions};
use biscuit_core::Result;
use biscuit_merge::{ChangeFormat, IgnoreNull};
use biscuit_schema::{Contract, OnError};
use datafusion::arrow::datatypes::SchemaRef;

use crate::spec::{OutputSpec, SourceFormat, SourceSpec, invalid};

/// Returns how the change records of a source are read. `expected` are the current types of the table.
pub(crate) fn format_of(
    source: &SourceSpec,
    output: &OutputSpec,
    contract: Option<Contract>,
    expected: Option<SchemaRef>,
) -> Result<ChangeFormat> {
    // A null that means "unchanged" must not be replaced by the default of the column.
    let ignore = IgnoreNull::named(&output.ignore_null);
    let contract = contract.map(|contract| contract.without_defaults(|name| ignore.covers(name)));
    let bad_rows = match contract.as_ref().map(|c| c.on_error) {
        Some(OnError::Quarantine | OnError::Null) => BadRows::Quarantine,
        _ => BadRows::Fail,
    };
    let table = source.table.clone().or_else(|| contract.as_ref().and_then(|c| c.table.clone()));
    let format = match source.format {
        SourceFormat::Debezium => {
            let mut options = DebeziumOptions::default().with_key(output.key.clone()).with_order(output.order.clone());
            (options.table, options.contract) = (table, contract);
            options.placeholder.clone_from(&source.placeholder);
            ChangeFormat::Debezium(options)
        }
        SourceFormat::Dms => {
            let mut options = DmsOptions::default().with_key(output.key.clone()).with_order(output.order.clone());
            (options.table, options.contract, options.expected) = (table, contract, expected);
            (options.csv, options.encoding) = (source.csv.dialect, source.encoding);
            options.timestamp_column.clone_from(&source.timestamp_column);
            options.op_map = source.op_map()?;
            let settings = [
                (&source.op, &mut options.op),
                (&source.csv_null, &mut options.null),
                (&source.before_image, &mut options.before_image),
            ];
            for (setting, option) in settings {
                if let Some(setting) = setting {
                    option.clone_from(setting);
                }
            }
            ChangeFormat::Dms(options)
        }
        SourceFormat::Rows => {
            let mut options = RowsOptions::default();
            (options.contract, options.expected) = (contract, expected);
            (options.csv, options.encoding) = (source.csv.dialect, source.encoding);
            options.op.clone_from(&source.op);
            options.op_map = source.op_map()?;
            options.placeholder.clone_from(&source.placeholder);
            ChangeFormat::Rows(options)
        }
        _ => return Err(invalid("the format of the source does not contain change records")),
    };
    Ok(format.with_bad_rows(bad_rows).with_max_decompressed(source.max_decompressed))
}
