//! Reading change events of Debezium.

pub(crate) mod connect_schema;
pub(crate) mod contract_columns;
pub(crate) mod documents;
pub(crate) mod envelope;
pub(crate) mod options;
pub(crate) mod placeholder;
pub(crate) mod reader;
pub(crate) mod source_field;
