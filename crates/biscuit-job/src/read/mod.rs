//! Reads the objects of a source into rows.

pub(crate) mod changes;
pub(crate) mod choose;
pub(crate) mod decode;
pub(crate) mod infer;
pub(crate) mod input;
pub(crate) mod json;
pub(crate) mod json_names;
pub(crate) mod learn;
pub(crate) mod path_columns;
pub(crate) mod source;
