use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::detect::entity::EntityType;

/// How likely it is that a hit is personal data of its entity type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Likelihood {
    /// The format matches, but other data often has the same format.
    Possible,
    /// The format is rare, or words around the hit support it.
    Likely,
    /// A check digit, a numbering plan or a similar check confirms it.
    Certain,
}

/// Part of a text that is personal data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PiiHit {
    /// Kind of personal data.
    pub entity: EntityType,
    /// Range in bytes, at boundaries of characters.
    pub range: Range<usize>,
    /// How likely it is that the text in the range is of this entity type.
    pub likelihood: Likelihood,
}

impl PiiHit {
    /// Creates a hit for a range of bytes of a text.
    pub fn new(entity: EntityType, range: Range<usize>, likelihood: Likelihood) -> Self {
        Self { entity, range, likelihood }
    }
}
