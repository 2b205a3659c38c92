use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::ArrayRef;
use biscuit_core::{Error, Result};

use crate::action::HitAction;
use crate::detector::{ColumnTexts, Detector, default_detectors};
use crate::entity::EntityType;
use crate::hit::{Likelihood, PiiHit};
use crate::overlap::without_overlaps;
use crate::texts::{distinct_texts, with_texts};

/// Finds personal data in columns and replaces it.
#[derive(Debug, Clone)]
pub struct Redactor {
    detectors: Vec<Arc<dyn Detector>>,
    actions: BTreeMap<EntityType, HitAction>,
    otherwise: HitAction,
    min_likelihood: Likelihood,
}

/// A column without its personal data.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedactedColumn {
    /// The column, of the same type and length.
    pub column: ArrayRef,
    /// How many hits were replaced, by entity.
    pub counts: BTreeMap<EntityType, u64>,
}

impl Redactor {
    /// Replaces what these detectors find by its type, if it is likely.
    pub fn new(detectors: Vec<Arc<dyn Detector>>) -> Self {
        Self { detectors, actions: BTreeMap::new(), otherwise: HitAction::Type, min_likelihood: Likelihood::Likely }
    }

    /// Replaces what the [usual detectors](usual_detectors) find.
    pub fn defaults() -> Self {
        Self::new(default_detectors())
    }

    /// The same, with another action for an entity.
    pub fn with_action(mut self, entity: EntityType, action: HitAction) -> Self {
        self.actions.insert(entity, action);
        self
    }

    /// The same, with another action for entities that have none of their own.
    pub fn with_otherwise(mut self, action: HitAction) -> Self {
        self.otherwise = action;
        self
    }

    /// The same, for hits that are at least so likely.
    pub fn with_min_likelihood(mut self, min_likelihood: Likelihood) -> Self {
        self.min_likelihood = min_likelihood;
        self
    }

    fn action(&self, entity: &EntityType) -> &HitAction {
        self.actions.get(entity).unwrap_or(&self.otherwise)
    }

    /// What is to be replaced in each text: hits that are likely enough, none of them overlapping.
    ///
    /// # Errors
    /// `InvalidHit` for a detector whose hits are not inside of their text, or begin or end inside of a character; those of detectors.
    pub async fn hits(&self, column: &ColumnTexts<'_>) -> Result<Vec<Vec<PiiHit>>> {
        let mut all: Vec<Vec<PiiHit>> = vec![vec![]; column.texts.len()];
        for detector in &self.detectors {
            let found = detector.detect(column).await?;
            if found.len() != all.len() {
                let message = format!("{detector:?} has answered for {} of {} texts", found.len(), all.len());
                return Err(Error::data("InvalidHit", message).with_column(column.name));
            }
            for ((all, hits), text) in all.iter_mut().zip(found).zip(column.texts) {
                let wrong = |hit: &&PiiHit| hit.range.is_empty() || text.get(hit.range.clone()).is_none();
                if let Some(hit) = hits.iter().find(wrong) {
                    let message =
                        format!("{detector:?} has found {} in no part of the text: {:?}", hit.entity, hit.range);
                    return Err(Error::data("InvalidHit", message).with_column(column.name));
                }
                // What is to stay does not hide what overlaps it.
                let counts = |hit: &PiiHit| {
                    hit.likelihood >= self.min_likelihood && !matches!(self.action(&hit.entity), HitAction::Keep)
                };
                all.extend(hits.into_iter().filter(counts));
            }
        }
        Ok(all.into_iter().map(without_overlaps).collect())
    }

    /// Replaces personal data in the texts of a column, also inside of structs, lists, maps and dictionaries; other columns stay as they are. The
    /// name of the column says something about its texts, too: nine digits in `ssn` are likely one.
    ///
    /// # Errors
    /// Those of [`hits`](Self::hits) and of tokenizers.
    pub async fn redact(&self, name: &str, column: &ArrayRef) -> Result<RedactedColumn> {
        let distinct = distinct_texts(column);
        let texts: Vec<&str> = distinct.iter().map(|(text, _)| text.as_str()).collect();
        let hits = self.hits(&ColumnTexts { name, texts: &texts }).await?;
        let tokens = self.tokens(&texts, &hits).await?;
        let (mut new, mut replaced) = (HashMap::new(), BTreeMap::new());
        for ((text, count), hits) in distinct.iter().zip(&hits).filter(|(_, hits)| !hits.is_empty()) {
            // Values of a dictionary that no row has are replaced, and do not count.
            if *count > 0 {
                hits.iter().for_each(|hit| *replaced.entry(hit.entity.clone()).or_default() += count);
            }
            new.insert(text.as_str(), self.without(text, hits, &tokens));
        }
        let column = if new.is_empty() { column.clone() } else { with_texts(column, &new)? };
        Ok(RedactedColumn { column, counts: replaced })
    }

    /// The tokens of the hits that become some, by entity and text.
    async fn tokens<'a>(&self, texts: &[&'a str], hits: &[Vec<PiiHit>]) -> Result<HitTokens<'a>> {
        let mut wanted: BTreeMap<&EntityType, BTreeSet<&'a str>> = BTreeMap::new();
        for (text, hit) in texts.iter().zip(hits).flat_map(|(text, hits)| hits.iter().map(move |hit| (text, hit))) {
            if matches!(self.action(&hit.entity), HitAction::Tokenize(_)) {
                wanted.entry(&hit.entity).or_default().insert(&text[hit.range.clone()]);
            }
        }
        let mut all = HitTokens::new();
        for (entity, texts) in wanted {
            let HitAction::Tokenize(tokenizer) = self.action(entity) else { continue };
            let texts: Vec<&str> = texts.into_iter().collect();
            let tokens = tokenizer.tokens(&texts).await?;
            all.insert(entity.clone(), texts.into_iter().zip(tokens).collect());
        }
        Ok(all)
    }

    /// A text with these hits replaced.
    fn without(&self, text: &str, hits: &[PiiHit], tokens: &HitTokens<'_>) -> String {
        let (mut out, mut at) = (String::with_capacity(text.len()), 0);
        for hit in hits {
            let found = &text[hit.range.clone()];
            let token = tokens.get(&hit.entity).and_then(|tokens| tokens.get(found));
            out.push_str(&text[at..hit.range.start]);
            out.push_str(&self.action(&hit.entity).replace(&hit.entity, found, token));
            at = hit.range.end;
        }
        out.push_str(&text[at..]);
        out
    }
}

type HitTokens<'a> = BTreeMap<EntityType, HashMap<&'a str, String>>;
