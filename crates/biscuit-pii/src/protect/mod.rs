//! Carries out a policy on rows: redaction, hashes, tokens, encryption, removal.

pub(crate) mod action;
pub(crate) mod means;
pub(crate) mod part;
pub(crate) mod protector;
pub(crate) mod ready;
pub(crate) mod redact;
pub(crate) mod remove;
pub(crate) mod texts;
