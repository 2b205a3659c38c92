//! Prepares rows for an output: columns, checks, queries, personal data.

pub(crate) mod columns;
pub(crate) mod encrypted;
pub(crate) mod finisher;
pub(crate) mod origin;
pub(crate) mod query;
pub(crate) mod rows;
pub(crate) mod source_table;
pub(crate) mod treatment;
