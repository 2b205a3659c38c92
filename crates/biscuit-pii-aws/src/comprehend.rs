use async_trait::async_trait;
use aws_sdk_comprehend::Client;
use aws_sdk_comprehend::types::{LanguageCode, PiiEntity};
use biscuit_core::{Error, Result};
use biscuit_pii::{ColumnTexts, Detector, EntityType, Likelihood, PiiHit};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::error::failed;

/// What `DetectPiiEntities` takes at once (API reference of Comprehend): 100 KB of UTF-8.
const MOST: usize = 100_000;
/// Requests under way at once.
const AT_ONCE: usize = 8;

/// Amazon Comprehend: names, addresses and other personal data that have no form. Each distinct text is a request, which costs money. It is a
/// model: the same texts may have other hits tomorrow.
#[derive(Debug, Clone)]
pub struct ComprehendDetector {
    client: Client,
    language: LanguageCode,
    likely: f32,
}

impl ComprehendDetector {
    /// Texts in English (`en`) or Spanish (`es`).
    ///
    /// # Errors
    /// `UnknownLanguage` for another language.
    pub fn new(client: Client, language: &str) -> Result<Self> {
        let language = match language {
            "en" => LanguageCode::En,
            "es" => LanguageCode::Es,
            other => {
                let message = format!("Comprehend finds personal data in `en` and `es`, not in `{other}`");
                return Err(Error::usage("UnknownLanguage", message));
            }
        };
        Ok(Self { client, language, likely: 0.8 })
    }

    /// The same, taking what has this score as likely; what has less is possible. Without it, 0.8.
    pub fn with_likely(mut self, score: f32) -> Self {
        self.likely = score;
        self
    }

    async fn hits(&self, column: &str, text: &str) -> Result<Vec<PiiHit>> {
        let mut hits = vec![];
        for (begin, part) in parts(text) {
            let ask = self.client.detect_pii_entities().text(part).language_code(self.language.clone());
            let answer = ask.send().await.map_err(|e| {
                let doing = format!("ask Comprehend about column `{column}`");
                failed!(aws_sdk_comprehend, &doing, e).with_column(column)
            })?;
            hits.extend(self.hits_of(begin, part, &answer.entities.unwrap_or_default()));
        }
        Ok(hits)
    }

    /// Its offsets are in characters.
    fn hits_of(&self, begin: usize, part: &str, found: &[PiiEntity]) -> Vec<PiiHit> {
        let mut at: Vec<usize> = part.char_indices().map(|(byte, _)| byte).collect();
        at.push(part.len());
        let byte = |offset: Option<i32>| offset.and_then(|n| usize::try_from(n).ok()).and_then(|n| at.get(n)).copied();
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

/// Parts of at most 100 KB, which end behind white space where they can.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let (mut all, mut begin) = (vec![], 0);
    while text.len() - begin > MOST {
        let maximum = text.floor_char_boundary(begin + MOST);
        let space = text[begin..maximum].rfind(char::is_whitespace).filter(|at| *at > 0);
        let end = space.map_or(maximum, |at| text.ceil_char_boundary(begin + at + 1));
        all.push((begin, &text[begin..end]));
        begin = end;
    }
    all.push((begin, &text[begin..]));
    all
}

/// The entity by the name that it has here.
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
        let asked = column
            .texts
            .iter()
            .map(|text| async { if text.trim().is_empty() { Ok(vec![]) } else { self.hits(column.name, text).await } });
        let asked: Vec<_> = asked.collect();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }
}
