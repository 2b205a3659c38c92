#![doc = include_str!("../README.md")]

mod action;
mod classify;
pub mod codes;
mod default_detectors;
mod detector;
mod encrypt;
mod entity;
mod find;
mod hash_key;
mod hit;
pub mod internal;
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

pub use crate::action::HitAction;
pub use crate::classify::{ColumnClass, classify};
pub use crate::default_detectors::default_detectors;
pub use crate::detector::{ColumnTexts, Detector};
pub use crate::encrypt::cells::{DecryptedColumn, EncryptedColumn, ValueEncryptor};
pub use crate::encrypt::form::EncryptedForm;
pub use crate::encrypt::messages::EnvelopeEncryptor;
pub use crate::encrypt::subjects::SubjectKeys;
pub use crate::entity::EntityType;
pub use crate::find::{
    AwsKeyDetector, CreditCardDetector, DateDetector, EmailDetector, IbanDetector, IpDetector, MacDetector,
    NameDetector, PhoneDetector, UkDrivingLicenceDetector, UrlDetector, UsDriverLicenseDetector, UsItinDetector,
    UsPassportDetector, UsSsnDetector,
};
pub use crate::hash_key::HashKey;
pub use crate::hit::{Likelihood, PiiHit};
pub use crate::keys::cache::{KeyCache, KeyLimits};
pub use crate::keys::key_file::{KeyFile, KeyWrapping};
pub use crate::keys::parquet_keys::{ParquetKey, ParquetKeys, ParquetPart};
pub use crate::keys::provider::{DataKey, KeyContext, KeyProvider, SealedKey};
pub use crate::keys::roots::RootKeys;
pub use crate::keys::secret::KeyBytes;
pub use crate::keys::wrapping::WrappingKeys;
pub use crate::means::PiiContext;
pub use crate::policy::{
    ColumnTreatment, HashOptions, HitReplacement, KeyUse, Policy, RedactionOptions, TokenKind, TokenOptions,
    ValueEncryption,
};
pub use crate::protect::{ProtectedRows, Protector, TreatmentStats};
pub use crate::redact::{RedactedColumn, Redactor};
pub use crate::remove::remove;
pub use crate::tokens::audit::{AccessAudit, AccessRequest, AuditEntry, AuditFile};
pub use crate::tokens::conformance::store_conformance;
pub use crate::tokens::digits::TokenAlphabet;
pub use crate::tokens::embedded::FileStore;
pub use crate::tokens::memory::MemoryStore;
pub use crate::tokens::normalize::ValueNormalization;
pub use crate::tokens::store::{TokenRecord, TokenStore};
pub use crate::tokens::tokenizer::{DetokenizedColumn, Tokenizer};
