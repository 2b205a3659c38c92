//! Inference of schemas from rows, and naming rules for column types.

pub(crate) mod inference;
pub(crate) mod json_names;
pub(crate) mod naming_rules;
