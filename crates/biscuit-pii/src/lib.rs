#![doc = include_str!("../README.md")]

mod action;
mod classify;
mod detector;
mod encrypt;
mod entity;
mod find;
mod hash_key;
mod hit;
mod keys;
mod mac;
mod means;
mod overlap;
mod part;
mod policy;
mod protect;
mod ready;
mod redact;
mod remove;
mod texts;
mod tokens;

pub use crate::action::Action;
pub use crate::classify::{ColumnClass, classify};
pub use crate::detector::{Column, Detector, usual_detectors};
pub use crate::encrypt::cells::{Cells, Decrypted, Encrypted};
pub use crate::encrypt::form::Form;
pub use crate::encrypt::messages::Messages;
pub use crate::encrypt::subjects::Subjects;
pub use crate::entity::Entity;
pub use crate::find::{
    Aws, CreditCard, Dates, Email, Iban, Ip, Mac, Names, Phone, UkDrivingLicence, Url, UsDriverLicense, UsItin,
    UsPassport, UsSsn,
};
pub use crate::hash_key::HashKey;
pub use crate::hit::{Hit, Likelihood};
pub use crate::keys::cache::{KeyCache, Limits};
pub use crate::keys::key_file::{KeyFile, Wrapping};
pub use crate::keys::parquet_keys::{ParquetKey, ParquetKeys, ParquetPart};
pub use crate::keys::provider::{DataKey, KeyContext, KeyProvider, SealedKey};
pub use crate::keys::roots::Roots;
pub use crate::keys::secret::Secret;
pub use crate::keys::wrapping::WrappingKeys;
pub use crate::means::Means;
pub use crate::overlap::without_overlaps;
pub use crate::policy::{Encryption, Hashing, KeyUse, Policy, Redaction, Replacement, TokenKind, Tokens, Treatment};
pub use crate::protect::{Protected, Protector, Treated, hash_texts, mask_texts};
pub use crate::redact::{Redacted, Redactor};
pub use crate::remove::remove;
pub use crate::tokens::audit::{Access, Audit, AuditEntry, AuditFile};
pub use crate::tokens::conformance::store_conformance;
pub use crate::tokens::digits::Alphabet;
pub use crate::tokens::embedded::FileStore;
pub use crate::tokens::memory::MemoryStore;
pub use crate::tokens::normalize::Normalization;
pub use crate::tokens::store::{Record, Store};
pub use crate::tokens::tokenizer::{Detokenized, Tokenizer};
