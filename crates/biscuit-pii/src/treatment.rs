//! Treatments of columns, with their options. A [`Policy`](crate::Policy) gives each column one of them.

pub use crate::policy::{
    ColumnTreatment, HashOptions, HitReplacement, KeyUse, RedactionOptions, TokenKind, TokenOptions, ValueEncryption,
};
