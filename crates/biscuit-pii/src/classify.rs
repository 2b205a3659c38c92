use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_core::Result;
use serde::Serialize;

use crate::detector::{ColumnTexts, Detector};
use crate::entity::EntityType;
use crate::hit::Likelihood;
use crate::redact::Redactor;
use crate::texts::{as_text, distinct_texts, text_parts};

/// What texts of a column hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ColumnClass {
    /// The path of the column: `address.street`.
    pub column: String,
    /// What is in it.
    pub entity: EntityType,
    /// How many texts were looked at: those that are not null and not empty.
    pub texts: u64,
    /// How many are that and nothing else but spaces around it.
    pub whole: u64,
    /// How many have it somewhere in them.
    pub inside: u64,
}

/// Says what the columns of a sample hold that is at least so likely: by column, what is in most of its texts first; numbers and dates are what they are
/// written as. Columns in which nothing is found are left out. Batches may have different columns.
///
/// # Errors
/// Those of [`Redactor::hits`].
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
            counts.iter().zip(redactor.hits(&ColumnTexts { name: &column, texts: &texts }).await?)
        {
            let plain = text.trim();
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

/// The texts of each column, with their numbers of rows, in the order in which columns come first.
fn texts_by_column(sample: &[RecordBatch]) -> Vec<(String, BTreeMap<String, u64>)> {
    let mut all: Vec<(String, BTreeMap<String, u64>)> = vec![];
    for batch in sample {
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        for (path, array) in columns.flat_map(|(field, array)| text_parts(field, array)) {
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
