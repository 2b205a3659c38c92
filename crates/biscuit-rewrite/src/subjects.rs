use std::collections::HashSet;

use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::DataType;

/// The subjects of an erasure: all rows in which one column, as text, has one of the given values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureSubjects {
    column: String,
    values: HashSet<String>,
}

impl ErasureSubjects {
    /// Selects the rows in which `column` has one of `values`.
    pub fn new<V: Into<String>>(column: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        Self { column: column.into(), values: values.into_iter().map(Into::into).collect() }
    }

    /// Returns the name of the column.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Returns the values that identify the subjects.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// Returns whether `value`, as text, identifies a subject.
    pub fn contains(&self, value: &str) -> bool {
        self.values.contains(value)
    }

    /// Returns the indices of the rows of `array` that belong to a subject, in ascending order. Nulls never match.
    ///
    /// # Errors
    /// `NotText` for a type whose values cannot be converted to text, such as a nested type.
    pub fn find_rows(&self, array: &ArrayRef) -> Result<Vec<usize>> {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let kind = array.data_type();
        let text = Some(array).filter(|_| !kind.is_nested());
        let text = text.and_then(|text| cast_with_options(text, &DataType::LargeUtf8, &strict).ok());
        let text = text.ok_or_else(|| {
            let message = format!(
                "column `{}` has type {kind}, whose values cannot be converted to text; name another column",
                self.column
            );
            Error::new(biscuit_core::codes::NOT_TEXT, message).with_column(&self.column)
        })?;
        let text = text.as_string::<i64>();
        Ok((0..text.len()).filter(|row| text.is_valid(*row) && self.values.contains(text.value(*row))).collect())
    }
}
