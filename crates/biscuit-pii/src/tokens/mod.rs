//! Tokens: values that stand for other values, their stores, and the audited way back.

pub(crate) mod audit;
pub(crate) mod conformance;
pub(crate) mod digits;
pub(crate) mod embedded;
pub(crate) mod memory;
pub(crate) mod normalize;
pub(crate) mod siv;
pub(crate) mod store;
pub(crate) mod tokenizer;
pub(crate) mod vault;

pub use audit::{AccessAudit, AccessRequest, AuditEntry, AuditFile};
pub use conformance::store_conformance;
pub use digits::TokenAlphabet;
pub use embedded::FileStore;
pub use memory::MemoryStore;
pub use normalize::ValueNormalization;
pub use store::{TokenRecord, TokenStore};
pub use tokenizer::{DetokenizedColumn, Tokenizer};
