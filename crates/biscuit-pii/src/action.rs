use std::sync::Arc;

use crate::entity::Entity;
use crate::hash_key::HashKey;

/// What becomes of a hit.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Action {
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
    /// It stays as it is.
    Keep,
}

impl Action {
    /// Masks all but so many letters and digits at the beginning and the end.
    pub fn partial(first: usize, last: usize) -> Self {
        Self::Partial { first, last }
    }

    /// Replaces by a keyed hash.
    pub fn hash(key: HashKey) -> Self {
        Self::Hash(Arc::new(key))
    }

    /// What stands in the place of a text.
    pub(crate) fn replace(&self, entity: &Entity, text: &str) -> String {
        match self {
            Self::Type => format!("<{entity}>"),
            Self::Mask => masked(text, 0, 0),
            Self::Partial { first, last } => masked(text, *first, *last),
            Self::Hash(key) => format!("<{entity}:{}>", key.hash(text)),
            Self::Keep => text.to_owned(),
        }
    }
}

fn masked(text: &str, first: usize, last: usize) -> String {
    let all = text.chars().filter(|c| c.is_alphanumeric()).count();
    let (first, last) = if (first + last) * 2 > all { (0, 0) } else { (first, last) };
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
        let phone = |first, last| Action::partial(first, last).replace(&Entity::PHONE_NUMBER, "+49 (30) 901-820");
        assert_eq!(phone(2, 2), "+49 (**) ***-*20");
        assert_eq!(phone(0, 0), "+** (**) ***-***");
        assert_eq!(phone(3, 4), "+** (**) ***-***", "seven of ten would be shown");
        assert_eq!(Action::partial(1, 1).replace(&Entity::PERSON_NAME, "Éva"), "***");
        assert_eq!(Action::partial(1, 0).replace(&Entity::PERSON_NAME, "Éva"), "É**");
        assert_eq!(Action::Keep.replace(&Entity::URL, "x"), "x");
    }
}
