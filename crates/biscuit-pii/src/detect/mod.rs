//! What all detectors share: the trait, hits, entity types, and the class of a column.

pub(crate) mod classify;
pub(crate) mod default_detectors;
pub(crate) mod detector;
pub(crate) mod entity;
pub(crate) mod hit;
pub(crate) mod overlap;
pub(crate) mod steps;
