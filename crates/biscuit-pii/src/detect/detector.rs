//! The interface of detectors of personal data.

use std::fmt;

use async_trait::async_trait;
use biscuit_core::Result;

use crate::detect::hit::PiiHit;

/// Texts of a column, as a detector receives them.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "callers of detectors write it as a literal")]
pub struct ColumnTexts<'a> {
    /// Name of the column, which is context for all texts; empty if there is none.
    pub name: &'a str,
    /// Texts to search.
    pub texts: &'a [&'a str],
}

/// Finds personal data in texts.
///
/// The range of a hit begins and ends at boundaries of characters. Hits may overlap. Equal texts have equal hits,
/// unless the documentation of the detector states otherwise.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, AsArray, StringArray};
/// use biscuit_core::{Result, async_trait};
/// use biscuit_pii::{ColumnTexts, Detector, EntityType, Likelihood, PiiHit, Redactor};
///
/// /// Finds the first staff number of a text, such as `E-1234`.
/// #[derive(Debug)]
/// struct StaffNumberDetector;
///
/// #[async_trait]
/// impl Detector for StaffNumberDetector {
///     async fn detect(&self, column: &ColumnTexts<'_>) -> Result<Vec<Vec<PiiHit>>> {
///         let hit = |at: usize| PiiHit::new(EntityType::new("STAFF_NUMBER"), at..at + 6, Likelihood::Likely);
///         Ok(column.texts.iter().map(|text| text.find("E-").map(hit).into_iter().collect()).collect())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let notes: ArrayRef = Arc::new(StringArray::from(vec!["ask E-1234 first"]));
/// let redacted = Redactor::new(vec![Arc::new(StaffNumberDetector)]).redact("notes", &notes).await?;
/// assert_eq!(redacted.column.as_string::<i32>().value(0), "ask <STAFF_NUMBER> first");
/// # Ok(()) }
/// ```
#[async_trait]
pub trait Detector: fmt::Debug + Send + Sync {
    /// Returns the hits of each text, in the order of the texts.
    async fn detect(&self, column: &ColumnTexts<'_>) -> Result<Vec<Vec<PiiHit>>>;
}

const _: fn(&dyn Detector) = |_| {};
