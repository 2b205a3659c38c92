use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::entity::EntityType;

/// How much says that a hit is what its form looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Likelihood {
    /// The form fits, and fits much else.
    Possible,
    /// The form is rare, or words around it say so too.
    Likely,
    /// A check digit, a numbering plan or the like holds.
    Certain,
}

/// A part of a text that is personal data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PiiHit {
    /// What it is.
    pub entity: EntityType,
    /// Where it is, in bytes, at boundaries of characters.
    pub range: Range<usize>,
    /// How likely it is that.
    pub likelihood: Likelihood,
}

impl PiiHit {
    /// A hit in these bytes of a text.
    pub fn new(entity: EntityType, range: Range<usize>, likelihood: Likelihood) -> Self {
        Self { entity, range, likelihood }
    }
}
