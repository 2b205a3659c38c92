use std::sync::Arc;

use crate::detect::entity::EntityType;
use crate::hash_key::HashKey;
use crate::tokens::tokenizer::Tokenizer;

/// Replacement of a hit.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum HitAction {
    /// The entity type: `<EMAIL_ADDRESS>`.
    #[default]
    Type,
    /// The hit with `*` for each letter and digit; other characters remain.
    Mask,
    /// Like `Mask`, but shows some letters and digits at the ends. A hit of which this would show more than half is
    /// masked completely.
    Partial {
        /// Number of letters and digits to show at the beginning.
        first: usize,
        /// Number of letters and digits to show at the end.
        last: usize,
    },
    /// The entity type and a keyed hash, `<EMAIL_ADDRESS:…>`; equal hits have equal hashes.
    Hash(Arc<HashKey>),
    /// The token of the hit.
    Tokenize(Arc<Tokenizer>),
    /// The hit itself: it is not replaced.
    Keep,
}

impl HitAction {
    /// Masks all letters and digits except the `first` at the beginning and the `last` at the end.
    pub fn partial(first: usize, last: usize) -> Self {
        Self::Partial { first, last }
    }

    /// Replaces hits by keyed hashes.
    pub fn hash(key: HashKey) -> Self {
        Self::Hash(Arc::new(key))
    }

    /// Replaces hits by tokens.
    pub fn tokenize(tokenizer: Tokenizer) -> Self {
        Self::Tokenize(Arc::new(tokenizer))
    }

    /// Returns the replacement of a hit with this text. `token` is its token if the action is `Tokenize`.
    pub(crate) fn replace_hit(&self, entity: &EntityType, text: &str, token: Option<&String>) -> String {
        match self {
            Self::Type => format!("<{entity}>"),
            Self::Tokenize(_) => token.cloned().unwrap_or_else(|| format!("<{entity}>")),
            Self::Mask => mask_text(text, 0, 0),
            Self::Partial { first, last } => mask_text(text, *first, *last),
            Self::Hash(key) => format!("<{entity}:{}>", key.hash(text)),
            Self::Keep => text.to_owned(),
        }
    }
}

/// Replaces each letter and digit by `*`, except `first` at the beginning and `last` at the end.
pub(crate) fn mask_text(text: &str, first: usize, last: usize) -> String {
    let all = text.chars().filter(|c| c.is_alphanumeric()).count();
    // Saturating: both numbers come from a policy, and an overflow would show the whole text.
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
        let phone = |first, last| mask_text("+49 (30) 901-820", first, last);
        assert_eq!(phone(2, 2), "+49 (**) ***-*20");
        assert_eq!(phone(0, 0), "+** (**) ***-***");
        assert_eq!(phone(3, 4), "+** (**) ***-***", "seven of ten would be shown");
        let maximum = usize::MAX;
        for (first, last) in [(maximum, 1), (1, maximum), (maximum / 2, 1), (maximum / 2 + 1, 0), (maximum, maximum)] {
            assert_eq!(phone(first, last), "+** (**) ***-***", "{first} and {last}");
        }
        assert_eq!(mask_text("Éva", 1, 1), "***");
        assert_eq!(mask_text("Éva", 1, 0), "É**");
        assert_eq!(HitAction::Keep.replace_hit(&EntityType::URL, "x", None), "x");
    }
}
