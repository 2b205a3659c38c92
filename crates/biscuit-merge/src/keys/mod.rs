//! Keys and orders of records: their encoding, the key table of a run, and the keys and orders of rows.

pub(crate) mod encoding;
pub(crate) mod key_table;
pub(crate) mod record_order;
pub(crate) mod row_keys;
