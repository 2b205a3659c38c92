//! Conversion of values to the type of a column, exact or refused: the coercion of contracts, and the alignment of
//! rows.

pub(crate) mod builders;
#[cfg(feature = "parquet")]
pub(crate) mod calendar;
pub(crate) mod coercion;
pub(crate) mod conform;
pub(crate) mod convert;
pub(crate) mod converted;
pub(crate) mod fault;
pub(crate) mod iso;
pub(crate) mod nested;
pub(crate) mod reading_rules;
pub(crate) mod scalar;
