use std::sync::Arc;

use crate::entity::EntityType;
use crate::hash_key::HashKey;
use crate::tokens::tokenizer::Tokenizer;

/// What becomes of a hit.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum HitAction {
    /// `<EMAIL_ADDRESS>`.
    #[default]
    Type,
    /// A `*` for each of its letters and digits; what is between them stays.
    Mask,
    /// As `Mask`, but for so many letters and digits at its beginning and end. Where that would show more than half of them, none is shown.
    Partial {
        /// Shown at the beginning.
        first: usize,
        /// Shown at the end.
        last: usize,
    },
    /// `<EMAIL_ADDRESS:` and its keyed hash: the same text, the same hash.
    Hash(Arc<HashKey>),
    /// Its token.
    Tokenize(Arc<Tokenizer>),
    /// It stays as it is.
    Keep,
}

impl HitAction {
    /// Masks all but so many letters and digits at the beginning and the end.
    pub fn partial(first: usize, last: usize) -> Self {
        Self::Partial { first, last }
    }

    /// Replaces by a keyed hash.
    pub fn hash(key: HashKey) -> Self {
        Self::Hash(Arc::new(key))
    }

    /// Replaces by tokens.
    pub fn tokenize(tokenizer: Tokenizer) -> Self {
        Self::Tokenize(Arc::new(tokenizer))
    }

    /// What stands in the place of a text; `token` is its token, where that is asked for.
    pub(crate) fn replace(&self, entity: &EntityType, text: &str, token: Option<&String>) -> String {
        match self {
            Self::Type => format!("<{entity}>"),
            Self::Tokenize(_) => token.cloned().unwrap_or_else(|| format!("<{entity}>")),
            Self::Mask => masked(text, 0, 0),
            Self::Partial { first, last } => masked(text, *first, *last),
            Self::Hash(key) => format!("<{entity}:{}>", key.hash(text)),
            Self::Keep => text.to_owned(),
        }
    }
}

/// The text with a `*` for each letter and digit but so many at its ends.
pub(crate) fn masked(text: &str, first: usize, last: usize) -> String {
    let all = text.chars().filter(|c| c.is_alphanumeric()).count();
    let too_many = first.saturating_add(last).saturating_mul(2) > all;
    let (first, last) = if too_many { (0, 0) } else { (first, last) };
    let mut at = 0;
    let mask = |c: char| {
        if !c.is_alphanumeric() {
            return c;
        }
        at += 1;
        if at <= first || at > all - last { c } else { '*' }
    };
    text.chars().map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_the_form_and_never_show_most_of_a_text() {
        let phone = |first, last| masked("+49 (30) 901-820", first, last);
        assert_eq!(phone(2, 2), "+49 (**) ***-*20");
        assert_eq!(phone(0, 0), "+** (**) ***-***");
        assert_eq!(phone(3, 4), "+** (**) ***-***", "seven of ten would be shown");
        let maximum = usize::MAX;
        for (first, last) in [(maximum, 1), (1, maximum), (maximum / 2, 1), (maximum / 2 + 1, 0), (maximum, maximum)] {
            assert_eq!(phone(first, last), "+** (**) ***-***", "{first} and {last}");
        }
        assert_eq!(masked("Éva", 1, 1), "***");
        assert_eq!(masked("Éva", 1, 0), "É**");
        assert_eq!(HitAction::Keep.replace(&EntityType::URL, "x", None), "x");
    }
}
