//! Amazon Comprehend as a detector: texts are sent in parts within the size limit of the service, and its character
//! offsets are converted to byte ranges.

use async_trait::async_trait;
use aws_sdk_comprehend::Client;
use aws_sdk_comprehend::types::{LanguageCode, PiiEntity};
use biscuit_core::{Error, Result};
use biscuit_pii::{ColumnTexts, Detector, EntityType, Likelihood, PiiHit};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::codes;
use crate::error::failed;

/// Maximum size of a text of `DetectPiiEntities` (API reference of Comprehend): 100 KB of UTF-8.
const MOST: usize = 100_000;
/// Maximum number of concurrent requests.
const AT_ONCE: usize = 8;

/// Detects personal data with Amazon Comprehend, including names and addresses, which have no fixed format. Each
/// distinct text is at least one request, which costs money. Comprehend is a model, so the same text may have other
/// hits later.
#[derive(Debug, Clone)]
pub struct ComprehendDetector {
    client: Client,
    language: LanguageCode,
    likely: f32,
}

impl ComprehendDetector {
    /// Creates a detector for texts in English (`en`) or Spanish (`es`).
    ///
    /// # Errors
    /// `UnknownLanguage` for another language.
    pub fn new(client: Client, language: &str) -> Result<Self> {
        let language = match language {
            "en" => LanguageCode::En,
            "es" => LanguageCode::Es,
            other => {
                let message =
                    format!("Comprehend does not detect personal data in language `{other}`; use `en` or `es`");
                return Err(Error::new(codes::UNKNOWN_LANGUAGE, message));
            }
        };
        Ok(Self { client, language, likely: 0.8 })
    }

    /// Sets the minimum score of a `Likely` hit; hits with a lower score are `Possible`. The default is 0.8.
    #[must_use]
    pub fn with_likely(mut self, score: f32) -> Self {
        self.likely = score;
        self
    }

    async fn detect_text(&self, column: &str, text: &str) -> Result<Vec<PiiHit>> {
        let mut hits = vec![];
        for (begin, part) in split_text(text) {
            let ask = self.client.detect_pii_entities().text(part).language_code(self.language.clone());
            let answer = ask.send().await.map_err(|e| {
                let doing = format!("detect personal data of column `{column}` with Comprehend");
                failed!(aws_sdk_comprehend, &doing, e).with_column(column)
            })?;
            hits.extend(self.hits_of(begin, part, &answer.entities.unwrap_or_default()));
        }
        Ok(hits)
    }

    /// Converts the entities of an answer to hits. Their offsets are in characters (code points), the ranges of hits
    /// in bytes.
    fn hits_of(&self, begin: usize, part: &str, found: &[PiiEntity]) -> Vec<PiiHit> {
        let mut at: Vec<usize> = part.char_indices().map(|(byte, _)| byte).collect();
        at.push(part.len());
        let byte = |offset: Option<i32>| offset.and_then(|n| usize::try_from(n).ok()).and_then(|n| at.get(n)).copied();
        // Entities whose offsets are outside of the text are ignored.
        let hit = |entity: &PiiEntity| {
            let range = byte(entity.begin_offset)?..byte(entity.end_offset)?;
            let likely = entity.score.is_some_and(|score| score >= self.likely);
            let likelihood = if likely { Likelihood::Likely } else { Likelihood::Possible };
            let range = begin + range.start..begin + range.end;
            let kind = entity.r#type.as_ref().filter(|_| !range.is_empty())?;
            Some(PiiHit::new(entity_of(kind.as_str()), range, likelihood))
        };
        found.iter().filter_map(hit).collect()
    }
}

/// Splits a text into parts of at most 100 KB, with the offset of each. Parts end after white space if possible, so
/// that no word is split.
fn split_text(text: &str) -> Vec<(usize, &str)> {
    let (mut all, mut begin) = (vec![], 0);
    while text.len() - begin > MOST {
        let latest_end = text.floor_char_boundary(begin + MOST);
        let space = text[begin..latest_end].rfind(char::is_whitespace).filter(|at| *at > 0);
        let end = space.map_or(latest_end, |at| text.ceil_char_boundary(begin + at + 1));
        all.push((begin, &text[begin..end]));
        begin = end;
    }
    all.push((begin, &text[begin..]));
    all
}

/// Returns the entity type that biscuit-pii uses for a type of Comprehend.
fn entity_of(kind: &str) -> EntityType {
    match kind {
        "AWS_ACCESS_KEY" => EntityType::AWS_ACCESS_KEY,
        "AWS_SECRET_KEY" => EntityType::AWS_SECRET_KEY,
        "CREDIT_DEBIT_NUMBER" => EntityType::CREDIT_CARD,
        "EMAIL" => EntityType::EMAIL_ADDRESS,
        "INTERNATIONAL_BANK_ACCOUNT_NUMBER" => EntityType::IBAN_CODE,
        "IP_ADDRESS" => EntityType::IP_ADDRESS,
        "MAC_ADDRESS" => EntityType::MAC_ADDRESS,
        "NAME" => EntityType::PERSON_NAME,
        "PHONE" => EntityType::PHONE_NUMBER,
        "SSN" => EntityType::US_SSN,
        "US_INDIVIDUAL_TAX_IDENTIFICATION_NUMBER" => EntityType::US_ITIN,
        "URL" => EntityType::URL,
        "DATE_TIME" => EntityType::DATE,
        other => EntityType::new(other),
    }
}

#[async_trait]
impl Detector for ComprehendDetector {
    async fn detect(&self, column: &ColumnTexts<'_>) -> Result<Vec<Vec<PiiHit>>> {
        let asked = column.texts.iter().map(|text| async {
            if text.trim().is_empty() { Ok(vec![]) } else { self.detect_text(column.name, text).await }
        });
        let asked: Vec<_> = asked.collect();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }
}
