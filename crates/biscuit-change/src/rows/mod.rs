//! Plain rows as change records: the operation is in a column, or every row is an upsert.

pub(crate) mod json_rows;
pub(crate) mod reader;
