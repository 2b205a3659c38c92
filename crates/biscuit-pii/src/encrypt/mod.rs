//! Encryption of single values: compact cells with keys of columns or subjects, and messages of the AWS Encryption
//! SDK.

pub(crate) mod cell;
pub(crate) mod cells;
pub(crate) mod digests;
pub(crate) mod form;
pub(crate) mod message;
pub(crate) mod messages;
pub(crate) mod subjects;

pub use cells::{DecryptedColumn, EncryptedColumn, ValueEncryptor};
pub use form::EncryptedForm;
pub use messages::EnvelopeEncryptor;
pub use subjects::SubjectKeys;
