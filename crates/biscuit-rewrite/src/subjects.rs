use std::collections::HashSet;

use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::DataType;

/// Whose rows are meant: those in which a column, as text, has one of these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureSubjects {
    column: String,
    values: HashSet<String>,
}

impl ErasureSubjects {
    /// The rows in which `column` has one of these values.
    pub fn new<V: Into<String>>(column: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        Self { column: column.into(), values: values.into_iter().map(Into::into).collect() }
    }

    /// The column.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// Whether a value, as text, is one of them.
    pub fn has(&self, value: &str) -> bool {
        self.values.contains(value)
    }

    /// The places in an array of the column that have one of the values, ascending.
    ///
    /// # Errors
    /// `NotText` for a type whose values have no text.
    pub fn places(&self, array: &ArrayRef) -> Result<Vec<usize>> {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let kind = array.data_type();
        let text = Some(array).filter(|_| !kind.is_nested());
        let text = text.and_then(|text| cast_with_options(text, &DataType::LargeUtf8, &strict).ok());
        let text = text.ok_or_else(|| {
            let message = format!("column `{}` is a {kind}, which has no text", self.column);
            Error::usage("NotText", message).with_column(&self.column)
        })?;
        let text = text.as_string::<i64>();
        Ok((0..text.len()).filter(|row| text.is_valid(*row) && self.values.contains(text.value(*row))).collect())
    }
}
