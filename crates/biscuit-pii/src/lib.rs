#![doc = include_str!("../README.md")]

pub mod codes;
mod detect;
mod encrypt;
mod find;
mod hash_key;
pub mod internal;
mod keys;
mod mac;
mod policy;
mod protect;
mod tokens;

pub use crate::detect::classify::{ColumnClass, classify};
pub use crate::detect::default_detectors::default_detectors;
pub use crate::detect::detector::{ColumnTexts, Detector};
pub use crate::detect::entity::EntityType;
pub use crate::detect::hit::{Likelihood, PiiHit};
pub use crate::encrypt::cells::{DecryptedColumn, EncryptedColumn, ValueEncryptor};
pub use crate::encrypt::form::EncryptedForm;
pub use crate::encrypt::messages::EnvelopeEncryptor;
pub use crate::encrypt::subjects::SubjectKeys;
pub use crate::find::{
    AwsKeyDetector, CreditCardDetector, DateDetector, EmailDetector, IbanDetector, IpDetector, MacDetector,
    NameDetector, PhoneDetector, UkDrivingLicenceDetector, UrlDetector, UsDriverLicenseDetector, UsItinDetector,
    UsPassportDetector, UsSsnDetector,
};
pub use crate::hash_key::HashKey;
pub use crate::keys::cache::{KeyCache, KeyLimits};
pub use crate::keys::key_file::{KeyFile, KeyWrapping};
pub use crate::keys::parquet_keys::{ParquetKey, ParquetKeys, ParquetPart};
pub use crate::keys::provider::{DataKey, KeyContext, KeyProvider, SealedKey};
pub use crate::keys::roots::RootKeys;
pub use crate::keys::secret::KeyBytes;
pub use crate::keys::wrapping::WrappingKeys;
pub use crate::policy::{
    ColumnTreatment, HashOptions, HitReplacement, KeyUse, Policy, RedactionOptions, TokenKind, TokenOptions,
    ValueEncryption,
};
pub use crate::protect::action::HitAction;
pub use crate::protect::means::PiiContext;
pub use crate::protect::protector::{ProtectedRows, Protector, TreatmentStats};
pub use crate::protect::redact::{RedactedColumn, Redactor};
pub use crate::protect::remove::remove;
pub use crate::tokens::audit::{AccessAudit, AccessRequest, AuditEntry, AuditFile};
pub use crate::tokens::conformance::store_conformance;
pub use crate::tokens::digits::TokenAlphabet;
pub use crate::tokens::embedded::FileStore;
pub use crate::tokens::memory::MemoryStore;
pub use crate::tokens::normalize::ValueNormalization;
pub use crate::tokens::store::{TokenRecord, TokenStore};
pub use crate::tokens::tokenizer::{DetokenizedColumn, Tokenizer};
