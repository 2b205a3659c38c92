use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_core::Result;
use serde::Serialize;

use crate::detect::detector::{ColumnTexts, Detector};
use crate::detect::entity::EntityType;
use crate::detect::hit::Likelihood;
use crate::protect::redact::Redactor;
use crate::protect::texts::{as_text, distinct_texts, text_parts};

/// Kind of personal data in the texts of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ColumnClass {
    /// Path of the column, such as `address.street`.
    pub column: String,
    /// Kind of personal data.
    pub entity: EntityType,
    /// Number of texts that were searched; null and empty texts are not counted.
    pub texts: u64,
    /// Number of texts that consist of one hit, apart from white space around it.
    pub whole: u64,
    /// Number of texts that contain at least one hit.
    pub inside: u64,
}

/// Classifies the columns of a sample by the personal data in them. Only hits that are at least `min_likelihood`
/// count.
///
/// The classes of a column are in descending order of the number of texts that contain them. Numbers and dates are
/// searched in their text form. Columns without hits are left out. Batches may have different columns.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, RecordBatch, StringArray};
/// use biscuit_pii::{Detector, EntityType, Likelihood, classify};
/// use biscuit_pii::detectors::EmailDetector;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let contact: ArrayRef = Arc::new(StringArray::from(vec!["ann@example.com", "or bob@example.com", "none"]));
/// let sample = [RecordBatch::try_from_iter([("contact", contact)])?];
/// let detectors: Vec<Arc<dyn Detector>> = vec![Arc::new(EmailDetector)];
/// let classes = classify(&sample, &detectors, Likelihood::Likely).await?;
/// assert_eq!((classes[0].column.as_str(), &classes[0].entity), ("contact", &EntityType::EMAIL_ADDRESS));
/// assert_eq!((classes[0].texts, classes[0].inside, classes[0].whole), (3, 2, 1));
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`Redactor::find_hits`].
pub async fn classify(
    sample: &[RecordBatch],
    detectors: &[Arc<dyn Detector>],
    min_likelihood: Likelihood,
) -> Result<Vec<ColumnClass>> {
    let redactor = Redactor::new(detectors.to_vec()).with_min_likelihood(min_likelihood);
    let mut classes = Vec::new();
    for (column, counts) in texts_by_column(sample) {
        let texts: Vec<&str> = counts.keys().map(String::as_str).collect();
        let all: u64 = counts.values().sum();
        let mut found: BTreeMap<EntityType, (u64, u64)> = BTreeMap::new();
        for ((text, count), hits) in
            counts.iter().zip(redactor.find_hits(&ColumnTexts { name: &column, texts: &texts }).await?)
        {
            let plain = text.trim();
            // A text counts once for each entity type; the flag is true if one of its hits is the whole text.
            let own: BTreeMap<EntityType, bool> = hits.into_iter().fold(BTreeMap::new(), |mut own, hit| {
                *own.entry(hit.entity).or_default() |= &text[hit.range] == plain;
                own
            });
            for (entity, whole) in own {
                let (wholes, insides) = found.entry(entity).or_default();
                *insides += count;
                *wholes += if whole { *count } else { 0 };
            }
        }
        let class =
            |(entity, (whole, inside))| ColumnClass { column: column.clone(), entity, texts: all, whole, inside };
        let mut of_column: Vec<ColumnClass> = found.into_iter().map(class).collect();
        of_column.sort_by_key(|class| std::cmp::Reverse((class.inside, class.whole)));
        classes.extend(of_column);
    }
    Ok(classes)
}

/// Returns the texts of each column with their numbers of rows. Columns are in the order of their first occurrence.
fn texts_by_column(sample: &[RecordBatch]) -> Vec<(String, BTreeMap<String, u64>)> {
    let mut all: Vec<(String, BTreeMap<String, u64>)> = vec![];
    for batch in sample {
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        for (path, array) in columns.flat_map(|(field, array)| text_parts(field, array)) {
            // Columns without a text form, such as binary ones, cannot be searched.
            let Ok(texts) = as_text(&path, &array) else { continue };
            let at = all.iter().position(|(known, _)| *known == path).unwrap_or_else(|| {
                all.push((path, BTreeMap::new()));
                all.len() - 1
            });
            for (text, count) in distinct_texts(&texts) {
                *all[at].1.entry(text).or_default() += count;
            }
        }
    }
    all
}
