//! Conversion of the values in change files to the values of columns.

pub(crate) mod cells;
pub(crate) mod codec;
pub(crate) mod decimals;
pub(crate) mod declared;
pub(crate) mod learned_types;
pub(crate) mod text;
pub(crate) mod text_value;
pub(crate) mod times;
