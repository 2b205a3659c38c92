//! Redaction: the hits of all detectors are filtered by likelihood, merged where they overlap, and replaced.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::ArrayRef;
use biscuit_core::{Error, Result};

use crate::codes;
use crate::detect::default_detectors::default_detectors;
use crate::detect::detector::{ColumnTexts, Detector};
use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::detect::overlap::without_overlaps;
use crate::protect::action::HitAction;
use crate::protect::texts::{distinct_texts, with_texts};

/// Finds personal data in columns and replaces it.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, AsArray, StringArray};
/// use biscuit_pii::{EntityType, HitAction, Redactor};
/// use biscuit_pii::detectors::EmailDetector;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let notes: ArrayRef = Arc::new(StringArray::from(vec!["write to ann@example.com", "call later"]));
/// let redactor = Redactor::new(vec![Arc::new(EmailDetector)]).with_otherwise(HitAction::Mask);
/// let redacted = redactor.redact("notes", &notes).await?;
/// assert_eq!(redacted.column.as_string::<i32>().value(0), "write to ***@*******.***");
/// assert_eq!(redacted.counts[&EntityType::EMAIL_ADDRESS], 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Redactor {
    detectors: Vec<Arc<dyn Detector>>,
    actions: BTreeMap<EntityType, HitAction>,
    otherwise: HitAction,
    min_likelihood: Likelihood,
}

/// Column after redaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedactedColumn {
    /// Redacted column, of the same type and length as the input.
    pub column: ArrayRef,
    /// Number of hits that were replaced, by entity type.
    pub counts: BTreeMap<EntityType, u64>,
}

impl Redactor {
    /// Creates a redactor that replaces the hits of these detectors by their entity type if they are at least
    /// `Likely`.
    pub fn new(detectors: Vec<Arc<dyn Detector>>) -> Self {
        Self { detectors, actions: BTreeMap::new(), otherwise: HitAction::Type, min_likelihood: Likelihood::Likely }
    }

    /// Creates a redactor with the [default detectors](default_detectors).
    pub fn defaults() -> Self {
        Self::new(default_detectors())
    }

    /// Sets the action for hits of an entity type.
    pub fn with_action(mut self, entity: EntityType, action: HitAction) -> Self {
        self.actions.insert(entity, action);
        self
    }

    /// Sets the action for entity types that have no action of their own. Without it, hits are replaced by their
    /// type.
    pub fn with_otherwise(mut self, action: HitAction) -> Self {
        self.otherwise = action;
        self
    }

    /// Sets the minimum likelihood of a hit that is replaced. The default is `Likely`; less likely hits remain in the
    /// text.
    pub fn with_min_likelihood(mut self, min_likelihood: Likelihood) -> Self {
        self.min_likelihood = min_likelihood;
        self
    }

    fn action_for(&self, entity: &EntityType) -> &HitAction {
        self.actions.get(entity).unwrap_or(&self.otherwise)
    }

    /// Returns the hits to replace in each text: those that are likely enough, without overlaps.
    ///
    /// # Errors
    /// `InvalidHit` if a detector returns a range that is empty, outside of its text or inside of a character, or
    /// results for another number of texts; the errors of detectors.
    pub async fn find_hits(&self, column: &ColumnTexts<'_>) -> Result<Vec<Vec<PiiHit>>> {
        let mut all: Vec<Vec<PiiHit>> = vec![vec![]; column.texts.len()];
        for detector in &self.detectors {
            let found = detector.detect(column).await?;
            if found.len() != all.len() {
                let message =
                    format!("detector {detector:?} returned results for {} of {} texts", found.len(), all.len());
                return Err(Error::new(codes::INVALID_HIT, message).with_column(column.name));
            }
            for ((all, hits), text) in all.iter_mut().zip(found).zip(column.texts) {
                let wrong = |hit: &&PiiHit| hit.range.is_empty() || text.get(hit.range.clone()).is_none();
                if let Some(hit) = hits.iter().find(wrong) {
                    let message =
                        format!("detector {detector:?} returned {} with an invalid range: {:?}", hit.entity, hit.range);
                    return Err(Error::new(codes::INVALID_HIT, message).with_column(column.name));
                }
                // Hits with the action `Keep` are dropped before overlaps are merged, so that they do not hide hits
                // that they overlap: an e-mail address inside of a URL that is kept is still replaced.
                let counts = |hit: &PiiHit| {
                    hit.likelihood >= self.min_likelihood && !matches!(self.action_for(&hit.entity), HitAction::Keep)
                };
                all.extend(hits.into_iter().filter(counts));
            }
        }
        Ok(all.into_iter().map(without_overlaps).collect())
    }

    /// Replaces personal data in the texts of a column, including texts inside of structs, lists, maps and
    /// dictionaries. Other columns do not change. The name of the column is context for its texts: nine digits in a
    /// column `ssn` are likely a social security number.
    ///
    /// # Errors
    /// Those of [`find_hits`](Self::find_hits) and of [`Tokenizer::tokens`](crate::tokens::Tokenizer::tokens).
    pub async fn redact(&self, name: &str, column: &ArrayRef) -> Result<RedactedColumn> {
        let distinct = distinct_texts(column);
        let texts: Vec<&str> = distinct.iter().map(|(text, _)| text.as_str()).collect();
        let hits = self.find_hits(&ColumnTexts { name, texts: &texts }).await?;
        let tokens = self.hit_tokens(&texts, &hits).await?;
        let (mut new, mut replaced) = (HashMap::new(), BTreeMap::new());
        for ((text, count), hits) in distinct.iter().zip(&hits).filter(|(_, hits)| !hits.is_empty()) {
            // Dictionary values that no row refers to are replaced, but not counted.
            if *count > 0 {
                hits.iter().for_each(|hit| *replaced.entry(hit.entity.clone()).or_default() += count);
            }
            new.insert(text.as_str(), self.replace_hits(text, hits, &tokens));
        }
        let column = if new.is_empty() { column.clone() } else { with_texts(column, &new)? };
        Ok(RedactedColumn { column, counts: replaced })
    }

    /// Returns the tokens of all hits with the action `Tokenize`, by entity type and text. One request for each
    /// entity type.
    async fn hit_tokens<'a>(&self, texts: &[&'a str], hits: &[Vec<PiiHit>]) -> Result<HitTokens<'a>> {
        let mut wanted: BTreeMap<&EntityType, BTreeSet<&'a str>> = BTreeMap::new();
        for (text, hit) in texts.iter().zip(hits).flat_map(|(text, hits)| hits.iter().map(move |hit| (text, hit))) {
            if matches!(self.action_for(&hit.entity), HitAction::Tokenize(_)) {
                wanted.entry(&hit.entity).or_default().insert(&text[hit.range.clone()]);
            }
        }
        let mut all = HitTokens::new();
        for (entity, texts) in wanted {
            let HitAction::Tokenize(tokenizer) = self.action_for(entity) else { continue };
            let texts: Vec<&str> = texts.into_iter().collect();
            let tokens = tokenizer.tokens(&texts).await?;
            all.insert(entity.clone(), texts.into_iter().zip(tokens).collect());
        }
        Ok(all)
    }

    /// Replaces the hits of a text. The hits are in order and do not overlap.
    fn replace_hits(&self, text: &str, hits: &[PiiHit], tokens: &HitTokens<'_>) -> String {
        let (mut out, mut at) = (String::with_capacity(text.len()), 0);
        for hit in hits {
            let found = &text[hit.range.clone()];
            let token = tokens.get(&hit.entity).and_then(|tokens| tokens.get(found));
            out.push_str(&text[at..hit.range.start]);
            out.push_str(&self.action_for(&hit.entity).replace_hit(&hit.entity, found, token));
            at = hit.range.end;
        }
        out.push_str(&text[at..]);
        out
    }
}

type HitTokens<'a> = BTreeMap<EntityType, HashMap<&'a str, String>>;
