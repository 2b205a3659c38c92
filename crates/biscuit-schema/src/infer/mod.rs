//! Schemas learned from rows.

pub(crate) mod inference;
pub(crate) mod json_names;
pub(crate) mod naming_rules;
