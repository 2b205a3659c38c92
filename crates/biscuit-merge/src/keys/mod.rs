//! Keys of rows: their encoding, their order, and sets of keys.

pub(crate) mod encoding;
pub(crate) mod key_table;
pub(crate) mod record_order;
pub(crate) mod union_find;
