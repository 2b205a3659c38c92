#![doc = include_str!("../README.md")]

pub mod codes;
mod detect;
pub mod detectors;
pub mod encrypt;
mod find;
mod hash_key;
pub mod internal;
pub mod keys;
mod mac;
mod policy;
mod protect;
pub mod tokens;
pub mod treatment;

pub use crate::detect::classify::{ColumnClass, classify};
pub use crate::detect::detector::{ColumnTexts, Detector};
pub use crate::detect::entity::EntityType;
pub use crate::detect::hit::{Likelihood, PiiHit};
pub use crate::hash_key::HashKey;
pub use crate::policy::Policy;
pub use crate::protect::action::HitAction;
pub use crate::protect::means::PiiContext;
pub use crate::protect::protector::{ProtectedRows, Protector, TreatmentStats};
pub use crate::protect::redact::{RedactedColumn, Redactor};
pub use crate::protect::remove::remove_columns;
