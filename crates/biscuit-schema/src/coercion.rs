//! Results of the conversion of rows by a [`Coercion`](crate::Coercion): converted rows, refused rows, and counts of
//! losses.

pub use crate::values::coercion::{CoercedColumn, CoercedRows, CoercionReport, ColumnLosses, RefusedRow};
